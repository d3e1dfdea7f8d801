# SPDX-License-Identifier: Apache-2.0
"""A step whose answer is lost while its machine lives on is run again from its checkpoint."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import GuestLostError
from harness.guest.channel import ChannelGuest
from harness.guest.protocol import Guest
from harness.masking import Masker
from harness.run import runner
from harness.run.events import Event, EventBus, PhaseFinished, StepStarted
from harness.run.recorder import Recorder
from harness.run.runner import Role
from tests.run.test_runner import request_of
from tests.run.test_windows_execute import extension, script, scripts

pytestmark = pytest.mark.vm

_LINUX = [
    "/bin/sh -c 'echo before >/root/trace'",
    "/bin/sh -c 'cat /root/trace; echo once >>/root/trace; until [ -e /root/go ]; do sleep 0.1; done'",
    "/bin/cat /root/trace",
]
_WINDOWS = [
    "cmd.exe /c echo before>C:\\trace.txt",
    "cmd.exe /c type C:\\trace.txt& echo once>>C:\\trace.txt& for /l %i in (0,0,1) do @if exist C:\\go.txt exit",
    "cmd.exe /c type C:\\trace.txt",
]
_DRIVE = "/var/lib/standin/prefix/drive_c"


class Losing:
    """A subscriber that has the answer of the second step lost, and lets it end the next time."""

    def __init__(self, lose: str, go: str) -> None:
        self.role: Role | None = None
        self._lose, self._go = lose, go

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted) and event.id.endswith("-2"):
            threading.Thread(target=self._run, args=(self._lose,), daemon=True).start()
        if isinstance(event, PhaseFinished) and event.name == "resume":
            threading.Thread(target=self._run, args=(self._go,), daemon=True).start()

    def _run(self, line: str) -> None:
        assert self.role
        role = self.role
        deployed = Deadline(60).poll(lambda: role.deployed)
        assert deployed
        guest: Guest = deployed.guest
        if not isinstance(guest, ChannelGuest):  # the Linux side of the stand-in
            guest = ChannelGuest(deployed.machine.channel())
        # Its own answer is lost, too.
        with contextlib.suppress(GuestLostError):
            guest.run(["sh", "-c", line], deadline=Deadline(120))


def _linux() -> tuple[dict[str, Any], Losing]:
    document = extension({})
    document["ExtensionSettings"]["ApplicationProfile"] = {
        "Name": "X", "LinuxApplicationProfile": {"RunOnceCommands": _LINUX},
    }  # fmt: skip
    lose = "until grep -q once /root/trace; do sleep 0.1; done; systemctl restart vmrole-agent"
    return document, Losing(lose, "touch /root/go")


def _windows() -> tuple[dict[str, Any], Losing]:
    document = extension(scripts(*(script(number, line) for number, line in enumerate(_WINDOWS, 1))))
    lose = f"until grep -q once {_DRIVE}/trace.txt; do sleep 0.1; done; pkill -KILL -f '[v]mrole-run'"
    return document, Losing(lose, f"touch {_DRIVE}/go.txt")


@pytest.mark.parametrize(("image", "case"), [("debian-12", _linux), ("windows-stand-in", _windows)])
def test_it_is_run_again_from_its_checkpoint(
    image: str, case: Callable[[], tuple[dict[str, Any], Losing]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, losing = case()
    (tmp_path / "x.resext").write_text(json.dumps(document))
    request = request_of(tmp_path / "x.resext", image)
    request.output.mkdir()
    bus, recorder, masker = EventBus(), Recorder(), Masker()
    notes: list[str] = []

    def role_of(*facts: Any) -> Role:
        losing.role = Role(*facts)
        return losing.role

    monkeypatch.setattr(runner, "Role", role_of)
    for subscriber in (recorder, losing, lambda event: notes.append(getattr(event, "text", ""))):
        bus.subscribe(subscriber)
    with runner.perform(request, bus, recorder, masker) as role:
        _, second, third = role.steps
    assert [str(step.outcome) for step in role.steps] == ["succeeded"] * 3, (role.steps, notes)
    assert "it was run again from the checkpoint before it" in (second.finding or "")
    assert third.stdout.split() == ["before", "once"], "what the first try left is gone"
    assert any("the answer of step" in note for note in notes)
    assert role.conclusion.exit_code == 0
    assert (request.output / "console-before.log").stat().st_size
