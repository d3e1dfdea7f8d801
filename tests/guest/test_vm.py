# SPDX-License-Identifier: Apache-2.0
"""What only a whole machine can show: a specialization read back, and a reboot that is proven."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestLostError, GuestNotReadyError
from harness.run.answer import Answer, LocalResource
from harness.run.deploy import Deployed
from harness.run.events import Event, EventBus, SpecializationRead
from harness.run.readback import Observation, read_back
from harness.run.request import MachineRequest
from tests import machines
from tests.conftest import HANGS, linux
from tests.run.test_certificates import load_certificate, make, write

pytestmark = pytest.mark.vm

SECONDS = 300


def _payload(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "Ünï file").write_bytes(b"payload")
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def machine(image: str, events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("certificates")
    request = MachineRequest(
        image,
        computer_name="APP-##",
        instance=7,
        certificates=(
            load_certificate(write(folder, make().pfx(), "my")),
            load_certificate(write(folder, make("root").pem(), "root"), "Root"),
        ),
        local_resources=(LocalResource("Work", 20), LocalResource("With  blanks ü", 5)),
    )
    bus = EventBus()
    bus.subscribe(events.append)
    with machines.machine(request, bus, payload=_payload) as deployed:
        yield deployed


def test_everything_is_as_wanted(machine: Deployed, events: list[Event]) -> None:
    [read] = [event for event in events if isinstance(event, SpecializationRead)]
    assert [seen for seen in read.observations if not seen.ok] == []
    assert {seen.name: seen.observed for seen in read.observations}["computer-name"] == "APP-07"
    assert len(read.observations) == 10 + 2 + 3 + 1  # settings, certificates, resources with the diagnostics, payload


def look(machine: Deployed, answer: Answer) -> list[Observation]:
    identity = linux(machine)
    host_key = identity.host_key.public
    return read_back(machine.guest, answer, host_key=host_key, components=identity.components, deadline=Deadline(HANGS))


def test_what_is_not_as_wanted_is_seen(machine: Deployed) -> None:
    other = dataclasses.replace(
        linux(machine).answer,
        computer_name="OTHER",
        time_zone="Europe/Berlin",
        locale="de_DE.UTF-8",
        administrator_password_hash="$2b$06$other",
        local_resources=(LocalResource("Work", 30), LocalResource("Absent", 1)),
    )
    seen = look(machine, other)
    wrong = {one.name for one in seen if not one.ok}
    assert wrong == {
        *("computer-name", "time-zone", "locale", "administrator-password"),
        *("local-resource Work", "local-resource Absent"),
    }


def test_automatic_updates_that_still_run_are_seen(machine: Deployed) -> None:
    """Forbidden after they had begun: systemd goes on with a timer whose unit is masked only then."""
    unit = "/etc/systemd/system/apt-daily.timer"
    script = (
        f"rm {unit} && printf '[Timer]\\nOnActiveSec=1h\\nUnit=ssh.service\\n' >{unit} && "
        f"systemctl daemon-reload && systemctl start apt-daily.timer && ln -sf /dev/null {unit}"
    )
    done = machine.guest.run(["sh", "-c", script], deadline=Deadline(HANGS))
    assert (done.exit_code, done.stderr) == (0, b"")
    try:
        seen = look(machine, linux(machine).answer)
        assert {one.name: one.observed for one in seen if not one.ok} == {"automatic-updates": "on: apt-daily.timer"}
    finally:
        machine.guest.run(["systemctl", "stop", "apt-daily.timer"], deadline=Deadline(HANGS))


def test_payload(machine: Deployed) -> None:
    guest, folder = machine.guest, linux(machine).answer.payload
    assert folder
    assert guest.get(f"{folder}/deep/er/Ünï file", deadline=Deadline(HANGS)) == b"payload"
    assert guest.run(["./run.sh"], cwd=folder, deadline=Deadline(HANGS)).stdout == b"ran\n"


def test_commands_and_files(machine: Deployed) -> None:
    guest = machine.guest
    done = guest.run(["sh", "-c", "exit 7"], timeout=20, deadline=Deadline(HANGS))
    assert (done.exit_code, done.stderr) == (7, b"")
    killed = guest.run(["sleep", "60"], timeout=2, deadline=Deadline(HANGS))
    assert (killed.timed_out, killed.exit_code) == (True, None)
    data = os.urandom(1_000_000)
    guest.put(data, "/root/data", deadline=Deadline(HANGS))
    assert guest.get("/root/data", deadline=Deadline(HANGS)) == data


def test_a_full_disk(machine: Deployed) -> None:
    with pytest.raises(Exception, match="cannot be written in the guest"):
        machine.guest.put(bytes(25_000_000), "/resources/Work/large", deadline=Deadline(HANGS))
    assert machine.guest.run(["ls", "-A", "/resources/Work"], deadline=Deadline(HANGS)).stdout == b""


def test_reboot_is_proven(machine: Deployed) -> None:
    guest = machine.guest
    before = guest.boot_id(deadline=Deadline(HANGS))
    after = guest.reboot(deadline=Deadline(SECONDS))
    assert after != before
    assert guest.boot_id(deadline=Deadline(HANGS)) == after
    seen = look(machine, linux(machine).answer)
    assert [one for one in seen if not one.ok] == []


def test_a_reboot_that_does_not_happen(machine: Deployed) -> None:
    guest = machine.guest
    guest.run(["systemctl", "mask", "--runtime", "reboot.target"], deadline=Deadline(HANGS))
    try:
        with pytest.raises(Exception, match=r"refuses to reboot|did not come back"):
            guest.reboot(deadline=Deadline(15))
    finally:
        guest.reconnect(deadline=Deadline(HANGS))
        guest.run(["systemctl", "unmask", "--runtime", "reboot.target"], deadline=Deadline(HANGS))


def test_a_guest_that_reboots_by_itself_is_lost_and_found(machine: Deployed) -> None:
    guest = machine.guest
    before = guest.boot_id(deadline=Deadline(HANGS))
    with pytest.raises(GuestLostError):
        guest.run(["sh", "-c", "systemctl reboot; sleep 9000"], deadline=Deadline(HANGS))
    guest.reconnect(deadline=Deadline(SECONDS))
    assert guest.boot_id(deadline=Deadline(HANGS)) != before


def test_a_guest_that_is_crashed_under_us(machine: Deployed) -> None:
    """Last: nothing is left of the machine."""
    timer = threading.Timer(2, machine.machine.crash)
    timer.start()
    with pytest.raises(GuestLostError, match="run sleep 100"):
        machine.guest.run(["sleep", "100"], deadline=Deadline(HANGS))
    timer.join()
    with pytest.raises((GuestLostError, GuestNotReadyError)):
        machine.guest.reconnect(deadline=Deadline(2))
