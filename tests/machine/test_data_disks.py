# SPDX-License-Identifier: Apache-2.0
"""Data disks of a definition, in a real machine and in the settings that ask for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli.wishes import Wishes
from harness.errors import UsageError
from harness.machine.protocol import DataDisk
from harness.package.machine_settings import Adapter, MachineSettings
from harness.package.machine_settings import DataDisk as Wanted
from tests.conftest import inventory, vmrole
from tests.package.material import extension as extension_document

_DISK = "modprobe sd_mod; udevadm settle; disk() { echo /dev/$(ls /sys/class/scsi_disk/*:1:$1/device/block); }"
_COMMANDS = [
    f"/bin/sh -c '{_DISK}; for n in 3 11; do blockdev --getsize64 $(disk $n); echo first-$n | dd of=$(disk $n); done'",
    f"/bin/sh -c '{_DISK}; for n in 3 11; do head -n 1 $(disk $n); echo second-$n | dd of=$(disk $n); done'",
    f"/bin/sh -c '{_DISK}; for n in 3 11; do head -n 1 $(disk $n); done; exit 3'",
]


@pytest.mark.vm
def test_a_definition_with_two_of_them_is_replayed(image: str, state_folder: Path, tmp_path: Path) -> None:
    """In a fork; the disks of a replay hold what was on them before its step."""
    before = inventory(state_folder)
    samples = Path("scenarios/samples").resolve()
    role = shutil.copytree(samples / "hello-role", tmp_path / "role")
    (definition,) = role.glob("*.resdef")
    document = json.loads(definition.read_text())
    document["IntrinsicSettings"]["StorageProfile"]["DataVirtualHardDisks"] = [
        {"DataVirtualHardDiskImage": "Data:1.0.0.0", "Lun": lun} for lun in (3, 11)
    ]
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = "{}"
    definition.write_text(json.dumps(document))
    extension = extension_document(Name="HelloLinux", Publisher="vmrole-harness samples")
    extension["ExtensionSettings"]["ApplicationProfile"] = {
        "Name": "X", "LinuxApplicationProfile": {"RunOnceCommands": _COMMANDS},
    }  # fmt: skip
    (tmp_path / "disks.resext").write_text(json.dumps(extension))
    done = vmrole(
        "run", role, "--extension", tmp_path / "disks.resext", "--parameters",
        samples / "hello-role.configuration.json", "--output", tmp_path / "run", "--json",
    )  # fmt: skip
    try:
        assert done.json["forked"], done.json["fork_reason"]
        size = str(10_240 << 20)
        told = [step["stdout"].split() for step in done.json["instances"][0]["steps"]]
        assert told == [[size, size], ["first-3", "first-11"], ["second-3", "second-11"]], done.stderr
        again = vmrole("replay", tmp_path / "run", "--from", "run-once-2", "--output", tmp_path / "again", "--json")
        told = [step["stdout"].split() for step in again.json["instances"][0]["steps"]]
        assert told == [[], ["first-3", "first-11"], ["second-3", "second-11"]], again.stderr
    finally:
        vmrole("sweep", "--kept")
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
