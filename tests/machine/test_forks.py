# SPDX-License-Identifier: Apache-2.0
"""Forks of a real template: each one its own machine, whatever happens to the template."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.machine.templates import Template, TemplateStore
from harness.run.deploy import Deployed, deploy
from harness.run.events import EventBus
from harness.run.host import find_image, hypervisor
from harness.run.request import MachineRequest

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
    done = machine.guest.run(["sh", "-c", _ASK], deadline=Deadline(120))
    *same, clock = done.stdout.decode().split()
    assert abs(float(clock) - time.time()) < 2
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


@pytest.mark.parametrize("damage", ["truncated ram", "no state", "other disk", "broken state"])
def test_a_damaged_template_is_made_anew(forks: Callable[..., Deploying], damage: str) -> None:
    with forks() as machine:
        template = _template(machine)
    match damage:
        case "truncated ram":
            os.truncate(template.ram, 1 << 20)
        case "no state":
            template.state.unlink()
        case "other disk":
            template.disk.chmod(0o600)
            template.disk.write_bytes(template.disk.read_bytes())
        case "broken state":
            _break_state(template)
    with forks() as machine:
        assert machine.machine.origin.forked, machine.machine.origin.reason
        assert machine.machine.origin.reason.endswith("made for it")
        _ask(machine)


def _break_state(template: Template) -> None:
    """Devices that QEMU cannot load, with a record that says nothing of the change."""
    data = bytearray(template.state.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    template.state.chmod(0o600)
    template.state.write_bytes(data)
    record = template.folder / "template.json"
    facts = json.loads(record.read_text())
    status = template.state.stat()
    facts["files"]["state"] = [status.st_size, status.st_mtime_ns]
    record.chmod(0o600)
    record.write_text(json.dumps(facts))


def test_cold_boots_say_so(forks: Callable[..., Deploying]) -> None:
    with forks(cold=True) as machine:
        assert not machine.machine.origin.forked
        assert machine.machine.origin.reason == "a cold boot was asked for"
        _ask(machine)


def test_templates_leave_nothing_else_behind(forks: Callable[..., Deploying]) -> None:
    with forks() as machine:
        template = _template(machine)
    names = sorted(path.name for path in template.folder.iterdir())
    assert names == ["disk.qcow2", "ram", "state", "template.json"]
    building = template.folder.parent.parent / "building"
    assert not [path for path in Path(building).iterdir() if path.name.startswith("template-")]
