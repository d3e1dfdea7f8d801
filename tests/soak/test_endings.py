# SPDX-License-Identifier: Apache-2.0
"""What steps come to on a processor that others take away."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.guest.winrm import WinRmGuest
from harness.guest.wintext import HELPER
from harness.masking import Masker
from harness.package import read_package
from harness.package.parameters import read_parameters
from harness.plan import make_plan
from harness.run.deploy import Deployed
from harness.run.events import EventBus, StepFinished
from harness.run.execute import execute
from harness.run.request import MachineRequest
from harness.run.result import StepResult
from harness.run.windows.execute import WindowsExecutor
from harness.run.windows.job import read_ending
from tests.conftest import REPOSITORY, compile_windows
from tests.machines import machine
from tests.package.material import write
from tests.run.test_windows_execute import extension, script, scripts
from tests.soak.conftest import Soak
from tests.standin import native

_FASTER = 12
"""The time limits are so much shorter than they are: as on a computer that is so much slower."""
_SHARE = 0.08
"""Of a processor."""


@contextlib.contextmanager
def rationed(prefix: Path, turns: random.Random) -> Iterator[None]:
    """Let all processes of the Wine prefix run for ``_SHARE`` of the time, in turns of random length."""
    over = threading.Event()
    mark = f"WINEPREFIX={prefix}".encode()

    def signal_all(number: signal.Signals) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), number)

    def ration() -> None:
        while not over.is_set():
            turn = turns.uniform(0.05, 0.5)
            signal_all(signal.SIGSTOP)
            over.wait(turn * (1 - _SHARE))
            signal_all(signal.SIGCONT)
            over.wait(turn * _SHARE)

    thread = threading.Thread(target=ration, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal_all(signal.SIGCONT)


def _faster(source: Path, target: Path) -> None:
    """A copy of our programs whose time limits are shorter."""
    for folder in ("windows-stand-in/tools", "windows-components/run"):
        shutil.copytree(source / folder, target / folder)
    for path, names in (
        ("windows-stand-in/tools/runner.c", ("SILENCE_MS = 250", "PATIENCE_MS = 1000")),
        ("windows-components/run/vmrole-run.c", ("DRAIN_MS 1000", "STILL_MS 250")),
    ):
        text = (target / path).read_text()
        for name in names:
            what, _, limit = name.rpartition(" ")
            assert name in text
            text = text.replace(name, f"{what} {int(limit) // _FASTER}")
        (target / path).write_text(text)


def test_the_names_of_what_is_missing_on_a_rationed_processor(
    tmp_path: Path, soak: Soak, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, prefix = tmp_path / "images", tmp_path / "prefix"
    _faster(REPOSITORY / "images", sources)
    monkeypatch.setattr(native, "TOOLS", sources / "windows-stand-in/tools")
    with native.wine_prefix(prefix) as environment, native.listening(tmp_path, environment) as listener:
        drive = prefix / "drive_c"
        for folder in ("Program Files/VMRole", "ProgramData/VMRole", "tools"):
            (drive / folder).mkdir(parents=True, exist_ok=True)
        helper = drive / "Program Files/VMRole/vmrole-run.exe"
        compile_windows(sources / "windows-components/run/vmrole-run.c", helper, "-municode")
        shutil.copyfile(native.compile_tool("unavailable", tmp_path), drive / "tools/icacls.exe")
        wrong = 0
        with (
            WinRmGuest.connect(
                "127.0.0.1", listener.https, password=native.PASSWORD,
                certificate=listener.certificate.read_bytes(), deadline=Deadline(60),
            ) as guest,
            rationed(prefix, soak.random),
        ):  # fmt: skip
            count = soak.count(2000)
            for _ in range(count):
                job = b"nonce=n-1\nline=C:\\tools\\icacls.exe x\n\n"
                done = guest.run_line(f'"{HELPER}" run', stdin=job, deadline=Deadline(600))
                own, ending = read_ending("n-1", done.stderr)
                whole = ending.is_whole(len(done.stdout), len(own)) and own.rstrip().endswith(b"the stand-in guest")
                wrong += not (whole and ending.unavailable == ("icacls",) and ending.exit_code == 9150)
    soak.tell(f"{wrong} wrong")
    assert wrong == 0


@contextlib.contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def beside_others(image: str) -> Iterator[Deployed]:
    """A stand-in guest beside a guest and two loops that take what they get of the processors."""
    with (
        machine(MachineRequest("windows-stand-in")) as deployed,
        machine(MachineRequest(image)) as other,
        _busy(2),
    ):
        loop = ["systemd-run", "--no-block", "sh", "-c", "while :; do :; done"]
        other.guest.run(loop, deadline=Deadline(300))
        yield deployed


def _steps(deployed: Deployed, tmp_path: Path, lines: list[str], **more: object) -> list[StepResult]:
    items = [script(number, line, TimeoutInSeconds=600, **more) for number, line in enumerate(lines, 1)]
    package = read_package(write(tmp_path, extension(scripts(*items))))
    plan = make_plan(package, read_parameters(package, (), None), os="windows")
    found: list[StepResult] = []
    bus = EventBus()
    bus.subscribe(lambda event: found.append(event.step) if isinstance(event, StepFinished) else None)
    executor = WindowsExecutor.of(deployed.image.recipe)
    execute(plan, executor, deployed.guest, bus, deadline=Deadline(None), masker=Masker())
    return found


@pytest.mark.vm
def test_cheap_steps_beside_busy_others(beside_others: Deployed, tmp_path: Path, soak: Soak) -> None:
    kinds = {"icacls.exe x": "not_executable", "cmd.exe /c exit 0": "succeeded"}
    lines = [soak.random.choice(list(kinds)) for _ in range(soak.count(1000))]
    steps = _steps(beside_others, tmp_path, lines)
    wrong = [step for step, line in zip(steps, lines, strict=True) if step.outcome != kinds[line]]
    soak.tell(f"{len(wrong)} wrong")
    assert not wrong, wrong[0]


@pytest.mark.vm
def test_restarts_beside_busy_others(beside_others: Deployed, tmp_path: Path, soak: Soak) -> None:
    count = soak.count(30)
    steps = _steps(beside_others, tmp_path, ["cmd.exe /c exit 0"] * count, AlwaysReboot=True)
    assert [str(step.outcome) for step in steps] == ["succeeded"] * count
