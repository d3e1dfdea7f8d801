# SPDX-License-Identifier: Apache-2.0
"""Data disks of a definition, in a real machine and in the settings that ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.wishes import Wishes
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.machine.protocol import DataDisk
from harness.package.machine_settings import Adapter, MachineSettings
from harness.package.machine_settings import DataDisk as Wanted
from harness.run.request import MachineRequest
from tests import machines
from tests.conftest import HANGS, inventory


@pytest.mark.vm
def test_they_are_attached_at_their_numbers(image: str, state_folder: Path) -> None:
    before = inventory(state_folder)
    with machines.machine(MachineRequest(image, data_disks=(DataDisk(3), DataDisk(11, 2048)))) as machine:
        assert not machine.machine.origin.forked and "data disks" in machine.machine.origin.reason
        script = 'for d in /sys/class/scsi_disk/*:1:*; do echo "${d##*:} $(cat "$d"/device/block/*/size)"; done'
        # The driver of disks is a module, and the kernel looks for disks when it has the time.
        done = machine.guest.run(["sh", "-c", f"modprobe sd_mod; udevadm settle; {script}"], deadline=Deadline(HANGS))
        assert sorted(done.stdout.decode().split("\n")) == ["", f"11 {2048 << 11}", f"3 {10240 << 11}"]
    assert inventory(state_folder) == before


def wished(*disks: Wanted) -> Wishes:
    wishes = Wishes(512)
    wishes.add_definition(MachineSettings(data_disks=disks), 1)
    return wishes


def test_numbers_are_given_and_checked() -> None:
    wishes = wished(Wanted("Data:1.0.0.0", 2), Wanted(None, None))
    assert list(wishes.data_disks.values()) == [DataDisk(2), DataDisk(0)]
    assert wishes.warnings == ["the data disk 2 is empty: the image Data:1.0.0.0 is not here"]
    with pytest.raises(UsageError, match="two data disks at the logical unit number 2"):
        wished(Wanted(None, 2), Wanted(None, 2))
    with pytest.raises(UsageError, match="a data disk at the logical unit number 64"):
        wished(Wanted(None, 64))


def test_what_there_is_none_of_here() -> None:
    with pytest.raises(UsageError, match="joins the machine to the domain"):
        Wishes(512).add_definition(MachineSettings(domain="corp.example"), 1)
    two = (Adapter("NIC1", "a"), Adapter("NIC2", "b"))
    with pytest.raises(UsageError, match="2 network adapters"):
        Wishes(512).add_definition(MachineSettings(adapters=two), 1)
