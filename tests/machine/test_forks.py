# SPDX-License-Identifier: Apache-2.0
"""Forks of a real template: each one its own machine, whatever happens to the template."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.guest.channel import ChannelGuest
from harness.guest.command import ENVIRONMENT
from harness.image import seal
from harness.machine.protocol import Machine
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.machine.templates import FILES, Template, TemplateStore
from harness.run import freeze
from harness.run.deploy import Deployed, deploy
from harness.run.events import EventBus
from harness.run.freeze import AgentFreezePoint
from harness.run.host import find_image, hypervisor
from harness.run.linux import system
from harness.run.request import MachineRequest
from tests.conftest import HANGS, VMROLE, inventory, settled, vmrole
from tests.image.test_cache import overwrite

pytestmark = [pytest.mark.vm, pytest.mark.alone]

Deploying = contextlib.AbstractContextManager[Deployed]

_ASK = (
    "cat /etc/machine-id; hostname; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; head -c 16 /dev/urandom | "
    "od -An -tx1 | tr -d ' '; cat /proc/sys/kernel/random/uuid; date +%s.%N"
)


@pytest.fixture(scope="module")
def forks(image: str) -> Iterator[Callable[..., Deploying]]:
    request, bus, deadline = MachineRequest(image), EventBus(), Deadline(900)
    built = find_image(request, bus, deadline=deadline)
    with hypervisor(request, bus) as (driver, scratch):

        def fork(**changes: object) -> Deploying:
            changed = dataclasses.replace(request, **changes)  # type: ignore[arg-type]
            return deploy(driver, built, changed, bus, deadline=deadline, scratch=scratch)

        assert isinstance(driver, LibvirtHypervisor)
        yield fork


def _ask(machine: Deployed) -> list[str]:
    before = time.time()
    done = machine.guest.run(["sh", "-c", _ASK], deadline=Deadline(HANGS))
    *same, clock = done.stdout.decode().split()
    assert before - 2 < float(clock) < time.time() + 2
    return same


def test_eight_forks_differ_in_all_that_makes_a_machine(forks: Callable[..., Deploying]) -> None:
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(4) as threads:
            machines = list(threads.map(lambda _n: stack.enter_context(forks()), range(8)))
        told = [_ask(machine) for machine in machines]
        assert all(machine.machine.origin.forked for machine in machines)
        assert len({machine.machine.endpoint(22) for machine in machines}) == 8
    for values in zip(*told, strict=True):
        assert len(set(values)) == 8, values


def _template(machine: Deployed) -> Template:
    key = machine.machine.origin.reason.split()[2]
    template = TemplateStore.of_user().find(key)
    assert template is not None
    return template


@pytest.mark.parametrize("damage", ["truncated ram", "no state", "other ram", "broken state"])
def test_a_damaged_template_is_made_anew(forks: Callable[..., Deploying], damage: str) -> None:
    with forks() as machine:
        template = _template(machine)
    match damage:
        case "truncated ram":
            os.truncate(template.ram, 1 << 20)
        case "no state":
            template.state.unlink()
        case "other ram":
            overwrite(template.ram, template.ram.stat().st_size // 2, b"not what the guest had here")
        case "broken state":
            _break_state(template)
    with forks() as machine:
        assert machine.machine.origin.forked, machine.machine.origin.reason
        assert machine.machine.origin.reason.endswith("made for it")
        _ask(machine)


def _break_state(template: Template) -> None:
    """Devices that QEMU cannot load, sealed as if they had always been so."""
    data = bytearray(template.state.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    template.state.chmod(0o600)
    template.state.write_bytes(data)
    seal.seal(template.folder, FILES)


class _Silent(AgentFreezePoint):
    """A freeze point whose guest will never answer: its agent is stopped just before the guest is frozen."""

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        super().reach(machine, deadline=deadline)
        with ChannelGuest(machine.channel(), environment=ENVIRONMENT) as guest:
            guest.state(deadline=deadline)
            stop = (
                "(sleep 0.2; pkill -STOP -fx /usr/lib/vmrole/agent; echo vmrole: stopped >/dev/ttyS0) >/dev/null 2>&1 &"
            )
            guest.run(["sh", "-c", stop], deadline=deadline)
        found = machine.console.wait_for(lambda line: line if "stopped" in line else None, deadline=deadline)
        assert found


def test_a_fork_that_never_answers(
    forks: Callable[..., Deploying], image: str, monkeypatch: pytest.MonkeyPatch, state_folder: Path
) -> None:
    """Its template is thrown away, another one is made; when that is no better it boots, and says why."""
    _discard(384)
    monkeypatch.setattr(freeze, "_GREET_SECONDS", 2.0)
    monkeypatch.setattr(system, "AgentFreezePoint", _Silent)
    with forks(memory_mb=384) as machine:
        assert not machine.machine.origin.forked
        assert "the fork did not work" in machine.machine.origin.reason
        _ask(machine)
    monkeypatch.undo()
    with forks(memory_mb=384) as machine:
        assert machine.machine.origin.forked, machine.machine.origin.reason


def _discard(memory_mb: int) -> None:
    """The cache may be one that had tests before."""
    store = TemplateStore.of_user()
    for template in store.all():
        if template.memory_mb == memory_mb:
            store.discard(template.key)


def test_two_processes_make_one_template(image: str, state_folder: Path) -> None:
    before = inventory(state_folder)
    _discard(320)
    argv: list[str | Path] = [VMROLE, "exec", "--image", image, "--memory", "320", "--json", "--", "true"]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(process.communicate(timeout=HANGS)[0])["fork_reason"] for process in both]
    assert sorted(reason.split(" was ")[1] for reason in told) == ["made for it", "there already"], told
    assert inventory(state_folder) == before


def killed_while_a_template_is_made(image: str, state_folder: Path, moment: float) -> None:
    """SIGKILL at any moment: there is a whole template or none, and sweep finds the rest."""
    store = TemplateStore.of_user()
    _discard(256)
    before = inventory(state_folder)
    process = subprocess.Popen(
        [VMROLE, "exec", "--image", image, "--memory", "256", "--", "sleep", "100"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with contextlib.suppress(subprocess.TimeoutExpired):  # the moment is the point
        process.wait(moment)
    process.kill()
    process.wait()
    vmrole("sweep")
    settled(state_folder, before)
    assert not [path for path in (store.folder.parent / "building").glob("template-*")]
    assert vmrole("exec", "--image", image, "--memory", "256", "--", "true").code == 0


# While it is booted, and while it is written; tests/soak has moments at random.
@pytest.mark.parametrize("moment", [2.0, 5.0])
def test_killed_while_a_template_is_made(image: str, state_folder: Path, moment: float) -> None:
    killed_while_a_template_is_made(image, state_folder, moment)


def test_a_clock_that_was_changed(forks: Callable[..., Deploying], monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock was set a year ahead, and then back before its template was made: a fork follows it."""
    real = time.time
    for offset in (400 * 86400, -400 * 86400):
        monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
        with forks() as machine:
            assert machine.machine.origin.forked, machine.machine.origin.reason
            _ask(machine)


def test_cold_boots_say_so(forks: Callable[..., Deploying]) -> None:
    with forks(cold=True) as machine:
        assert not machine.machine.origin.forked
        assert machine.machine.origin.reason == "a cold boot was asked for"
        _ask(machine)


def test_templates_leave_nothing_else_behind(forks: Callable[..., Deploying]) -> None:
    with forks() as machine:
        template = _template(machine)
    names = sorted(path.name for path in template.folder.iterdir())
    assert names == ["disk.qcow2", "ram", "seal.json", "state", "template.json"]
    building = template.folder.parent.parent / "building"
    assert not [path for path in Path(building).iterdir() if path.name.startswith("template-")]
