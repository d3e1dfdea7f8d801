# SPDX-License-Identifier: Apache-2.0
"""What options, definitions and service documents make of a machine, before one is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.cli.options import machine_request
from harness.errors import UsageError
from harness.package.machine_settings import DataDisk, Instances, MachineSettings
from harness.package.parameters import read_values
from harness.run.request import MachineRequest
from tests.package.test_service import CSCFG, CSDEF, THUMBPRINT
from tests.package.test_service import write as write_service
from tests.run.test_certificates import make, write

PLAIN: dict[str, Any] = {
    "image": "debian-12", "certificates": (), "certificate_password_file": None, "local_resources": (),
    "computer_name": None, "admin_password_file": None, "memory": None, "cpus": None, "network": "none",
    "connect": None,
}  # fmt: skip
HOST_MB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def request(**options: Any) -> MachineRequest:
    return machine_request(**(PLAIN | options))


def test_a_size_is_what_the_host_has_of_it() -> None:
    small = request(definition=MachineSettings(vm_size="ExtraSmall", cpus=1, memory_mb=768))
    assert (small.cpus, small.memory_mb, small.notes) == (1, 768, ())
    large = request(definition=MachineSettings(vm_size="Huge", cpus=1000, memory_mb=HOST_MB * 2))
    assert large.cpus == len(os.sched_getaffinity(0)) and large.memory_mb is not None
    assert HOST_MB // 2 - 128 <= large.memory_mb <= HOST_MB // 2
    assert "the size Huge has 1000 processors" in large.notes[0] and "half of what this host has" in large.notes[1]
    tiny = request(definition=MachineSettings(vm_size="Tiny", cpus=1, memory_mb=64))
    assert tiny.memory_mb == 512 and "the least that the image needs" in tiny.notes[0]
    mine = request(memory=640, cpus=2, definition=MachineSettings(vm_size="Huge", cpus=1000, memory_mb=768))
    assert (mine.cpus, mine.memory_mb, mine.notes) == (2, 640, ())
    assert request().cpus is None and request().memory_mb is None


def test_what_a_definition_says_and_the_emulator_has_not(tmp_path: Path) -> None:
    settings = MachineSettings(
        computer_name_pattern="WEB-##", admin_password="Correct-Horse-9", dns_domain_name="example.org",
        ssh_public_key="ssh-ed25519 AAAA", data_disks=(DataDisk("Data:1.0.0.0", 0),), instances=Instances(1, 1, 2),
    )  # fmt: skip
    made = request(definition=settings, instance=3)
    assert made.computer_name == "WEB-##" and made.administrator_password == "Correct-Horse-9"
    told = "\n".join(made.warnings)
    assert [disk.lun for disk in made.data_disks] == [0]
    for part in ("'example.org'", "SSH public key", "data disk 0 is empty", "at most 2 instances"):
        assert part in told
    (tmp_path / "word").write_text("Another-Word-8\n")
    mine = request(definition=settings, computer_name="mine", admin_password_file=tmp_path / "word")
    assert (mine.computer_name, mine.administrator_password) == ("mine", "Another-Word-8")
    with pytest.raises(UsageError, match="computer name"):
        request(definition=MachineSettings(computer_name_pattern="a b"))


def test_services_with_several_roles(tmp_path: Path) -> None:
    role = CSDEF[CSDEF.index("  <VirtualMachineRole") : CSDEF.index("</ServiceDefinition>")]
    other = role.replace('name="Web" vmsize="Small"', 'name="Other" vmsize="ExtraSmall"')
    two = write_service(tmp_path, CSDEF.replace("</ServiceDefinition>", other + "</ServiceDefinition>"))
    with pytest.raises(UsageError, match="has 2 roles; there is Web, Other") as caught:
        request(service_definition=two)
    assert "--service-role" in str(caught.value)
    with pytest.raises(UsageError, match="has no role 'Mail'"):
        request(service_definition=two, service_role="Mail")
    with pytest.raises(UsageError, match="names a role that nothing defines"):
        request(service_role="Web")
    made = request(service_definition=two, service_role="other")
    assert (made.cpus, made.memory_mb) == (1, 768)
    assert [(item.name, item.size_mb) for item in made.local_resources] == [("Cache", 100), ("Logs", 20)]
    assert [item.clean for item in made.local_resources] == [True, False]
    mine = request(service_definition=two, service_role="other", local_resources=("logs=7", "Own:keep"))
    found = {item.name: (item.size_mb, item.clean) for item in mine.all_local_resources}
    assert found == {"logs": (7, True), "Own": (100, False), "Cache": (100, True), "DiagnosticStore": (100, False)}
    assert "the certificate 'Ssl' has no value" in "\n".join(made.warnings)


def test_a_configured_certificate_needs_its_file(tmp_path: Path) -> None:
    documents = {
        "service_definition": write_service(tmp_path, CSDEF),
        "service_configuration": write_service(tmp_path, CSCFG, "a.cscfg"),
    }
    with pytest.raises(UsageError, match=f"Ssl \\({THUMBPRINT.upper()}\\)"):
        request(**documents)
    with pytest.raises(UsageError, match="has 2 instances, and instance 3 is asked for"):
        request(**documents, instance=3)


def test_stores_that_are_nearly_predefined(tmp_path: Path) -> None:
    pem = write(tmp_path, make("x").pem(), "x.pem")
    assert "did you mean Root?" in request(certificates=(f"{pem}:Rot",)).warnings[0]
    assert "did you mean TrustedPeople?" in request(certificates=(f"{pem}:TrustedPeopel",)).warnings[0]
    for store in ("Root", "root", "Corporate", "Web Hosting"):
        assert request(certificates=(f"{pem}:{store}",)).warnings == ()


@pytest.mark.parametrize(
    "content",
    [
        "W\u00f6rd-of-9\r\n".encode("utf-16"),  # > and Out-File of PowerShell 5
        b"\xfe\xff" + "W\u00f6rd-of-9\r\nmore".encode("utf-16-be"),
        "W\u00f6rd-of-9".encode("utf-16-le"),
        b"\xef\xbb\xbf" + "W\u00f6rd-of-9\r\n".encode(),  # its -Encoding UTF8
        "W\u00f6rd-of-9\n".encode(),
    ],
)
def test_a_password_file_as_powershell_writes_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "word").write_bytes(content)
    assert request(admin_password_file=tmp_path / "word").administrator_password == "W\u00f6rd-of-9"
    protected = write(tmp_path, make("protected").pfx("W\u00f6rd-of-9".encode()), "protected.pfx")
    made = request(certificates=(str(protected),), certificate_password_file=tmp_path / "word")
    assert len(made.certificates) == 1
    assert read_values((f"Key=@{tmp_path / 'word'}",), None).values["Key"].splitlines()[0] == "W\u00f6rd-of-9"


@pytest.mark.parametrize("content", ["W\u00f6rd".encode("latin-1"), "Word".encode("utf-32"), b"Wo\0rd"])
def test_a_password_file_in_no_unicode(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "word").write_bytes(content)
    for ask in (
        lambda: request(admin_password_file=tmp_path / "word"),
        lambda: read_values((f"Key=@{tmp_path / 'word'}",), None),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert "word" in caught.value.message and caught.value.hint == "save it as UTF-8"
