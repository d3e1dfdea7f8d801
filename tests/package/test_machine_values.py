# SPDX-License-Identifier: Apache-2.0
"""What a definition asks of a machine: told by `check` and `plan` before a run would refuse it, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cli.check import examine
from harness.cli.run import require_use
from harness.cli.subject import read_subject
from harness.errors import UsageError
from harness.package import read_definition
from tests.conftest import vmrole
from tests.package.material import definition, with_profile, write


def system(**members: Any) -> dict[str, Any]:
    whole = {"ComputerNamePattern": "WEB##", "TimeZone": "UTC", "AdminCredential": "[Param.Admin]", **members}
    return {"OperatingSystemProfile": whole}


def disks(*luns: Any) -> dict[str, Any]:
    items = [{"DataVirtualHardDiskImage": "Data:1.0.0.0", "Lun": lun} for lun in luns]
    return {"StorageProfile": {"OSVirtualHardDiskImage": "A:1.0.0.0", "DataVirtualHardDisks": items}}


def adapter(**members: Any) -> dict[str, Any]:
    address = {"AllocationMethod": "Dynamic", "Type": "IPV4", **members}
    return {"NetworkProfile": {"NetworkAdapters": [{"Name": "NIC1", "IPAddresses": [address]}]}}


def balanced(front: Any, back: Any, protocol: str = "TCP") -> dict[str, Any]:
    ports = {"Protocol": protocol, "FrontEndPort": front, "BackEndPort": back}
    return adapter(LoadBalancerConfigurations=[{"PortConfig": ports}])


def joining(credentials: Any, domain: str = "corp.example") -> dict[str, Any]:
    join = {"DomainToJoin": domain, "DomainJoinCredentials": credentials}
    return system(WindowsOperatingSystemProfile={"DomainJoin": join})


SEVERAL = {"ScaleOutSettings": {"MinimumInstanceCount": 1, "InitialInstanceCount": "1", "MaximumInstanceCount": 12}}


def document(intrinsic: dict[str, Any]) -> dict[str, Any]:
    made = definition(parameters=(("Admin", "Credential"), ("Text", "String")), values={"Text": "[Param.Text]"})
    made["IntrinsicSettings"] |= intrinsic
    return made


@pytest.mark.parametrize(
    ("intrinsic", "found"),
    [
        (system(AdminCredential="root:"), {("definition-value", "AdminCredential")}),
        (system(AdminCredential="root"), {("definition-value", "AdminCredential")}),
        (system(AdminCredential={"UserName": "a", "Password": ""}), {("definition-value", "AdminCredential")}),
        (system(AdminCredential=":[Param.Text]"), {("definition-value", "AdminCredential")}),
        (system(ComputerNamePattern="WEB") | SEVERAL, {("computer-name", "ComputerNamePattern")}),
        (system(ComputerNamePattern="WEB#") | SEVERAL, {("computer-name", "ComputerNamePattern")}),
        (system(ComputerNamePattern="WEB##") | SEVERAL, set()),
        (system(ComputerNamePattern="WEB-*") | SEVERAL, set()),
        (system(ComputerNamePattern="WEB_##"), {("definition-value", "ComputerNamePattern")}),
        (system(ComputerNamePattern="m\u00fcller"), {("definition-value", "ComputerNamePattern")}),
        (system(ComputerNamePattern="-##"), {("definition-value", "ComputerNamePattern")}),
        (system(ComputerNamePattern="#-#"), {("definition-value", "ComputerNamePattern")}),
        (system(ComputerNamePattern="1234"), {("definition-value", "ComputerNamePattern")}),
        (system(ComputerNamePattern="WEB-AND-DATABASE"), {("computer-name", "ComputerNamePattern")}),
        (
            system(WindowsOperatingSystemProfile={"WorkgroupName": "a/b"}),
            {("definition-value", "WorkgroupName")},
        ),
        (
            joining("joiner@corp.example:[Param.Text]"),
            {("definition-value", "DomainJoinCredentials"), ("definition-not-here", "DomainToJoin")},
        ),
        (joining("corp\\joiner:[Param.Text]"), {("definition-not-here", "DomainToJoin")}),
        (joining("[Param.Admin]", "[Param.Text]"), {("definition-not-here", "DomainToJoin")}),
        ({"ScaleOutSettings": {"MinimumInstanceCount": -1}}, {("definition-scale", "MinimumInstanceCount")}),
        ({"ScaleOutSettings": {"InitialInstanceCount": "0"}}, {("definition-scale", "InitialInstanceCount")}),
        ({"ScaleOutSettings": {"MaximumInstanceCount": 0}}, {("definition-scale", "MaximumInstanceCount")}),
        ({"ScaleOutSettings": {"UpgradeDomainCount": -2}}, {("definition-scale", "UpgradeDomainCount")}),
        (disks(0, 0), {("definition-lun", "Lun")}),
        (disks("64"), {("definition-lun", "Lun")}),
        (disks(-1), {("definition-lun", "Lun")}),
        (balanced(0, 0), {("definition-ports", "FrontEndPort"), ("definition-ports", "BackEndPort")}),
        (balanced(70000, 70000), {("definition-ports", "FrontEndPort"), ("definition-ports", "BackEndPort")}),
        (balanced(80, 80, "HTTP"), {("definition-choice", "Protocol")}),
        (adapter(AllocationMethod="Dhcp"), {("definition-choice", "AllocationMethod")}),
        (adapter(Type="IPv5"), {("definition-choice", "Type")}),
        (
            {"NetworkProfile": {"NetworkAdapters": [{"Name": "a"}, {"Name": "b"}]}},
            {("definition-not-here", "1")},
        ),
    ],
)
def test_values_that_no_machine_can_have(
    tmp_path: Path, intrinsic: dict[str, Any], found: set[tuple[str, str]]
) -> None:
    findings = read_definition(write(tmp_path, document(intrinsic), "role.resdef")).findings
    mine = [f for f in findings if f.code.startswith("definition-") or f.code == "computer-name"]
    assert {(f.code, f.pointer.rpartition("/")[2]) for f in mine} == found
    assert all(f.line and f.column for f in mine)


@pytest.mark.parametrize(
    "intrinsic",
    [
        system(WindowsOperatingSystemProfile={"WorkgroupName": "WORKGROUP", "DomainJoin": None}),
        system(ComputerNamePattern="APP-*"),
        system(ComputerNamePattern="[Param.Text]###"),
        system(AdminCredential="root:[Param.Text]"),
        joining("[Param.Admin]", ""),
        disks(0, "1", 63, "[Param.Text]"),
        balanced("443", 443, "tcp"),
        adapter(AllocationMethod="static", Type="IPv6"),
        {"ScaleOutSettings": {"MinimumInstanceCount": 0, "InitialInstanceCount": 1, "MaximumInstanceCount": "5"}},
    ],
)
def test_values_that_a_machine_can_have(tmp_path: Path, intrinsic: dict[str, Any]) -> None:
    findings = read_definition(write(tmp_path, document(intrinsic), "role.resdef")).findings
    assert [f for f in findings if f.code.startswith("definition-") or f.code == "computer-name"] == []


def test_all_that_a_run_refuses_is_told_at_once_with_its_places(tmp_path: Path) -> None:
    made = document(joining("corp\\a:[Param.Text]") | disks(3, 3))
    made["IntrinsicSettings"]["NetworkProfile"] = {"NetworkAdapters": [{"Name": "a"}, {"Name": "b"}]}
    path = write(tmp_path, made, "role.resdef")
    inner = write(tmp_path, with_profile("/bin/true", parameters=(("Text", "String"),)))
    values = ("-p", "Admin=root:Correct-Horse-9", "-p", "Text=x")
    assert {"definition-not-here", "definition-lun"} <= examine(path)[0].codes()
    with pytest.raises(UsageError) as refused:
        require_use(read_subject(path, extension=inner, parameters=[values[1], values[3]]))
    planned = vmrole("plan", path, "--extension", inner, *values)
    assert planned.code == 1  # of the logical unit numbers, which no platform has twice
    for said in ("joins the machine to the domain 'corp.example'", "2 network adapters", "number 3"):
        assert said in refused.value.message and said in planned.stderr
    assert refused.value.message.count("role.resdef:1:") == planned.stderr.count("role.resdef:1:") == 3


def test_values_of_parameters_are_looked_at_as_well(tmp_path: Path) -> None:
    made = document(system(ComputerNamePattern="[Param.Text]"))
    path = write(tmp_path, made, "role.resdef")
    inner = write(tmp_path, with_profile("/bin/true", parameters=(("Text", "String"),)))
    subject = read_subject(path, extension=inner, parameters=["Text=a_b", "Admin=root:"])
    found = {f.code: f for f in subject.findings}
    assert "'a_b' makes no computer name" in found["definition-value"].sentence
    assert "'Admin' has no password" in found["value-missing"].sentence


def test_a_plan_names_a_misspelt_member(tmp_path: Path) -> None:
    made = with_profile("/bin/true")
    linux = made["ExtensionSettings"]["ApplicationProfile"]["LinuxApplicationProfile"]
    linux["RunOnceComands"] = linux.pop("RunOnceCommands")
    done = vmrole("plan", write(tmp_path, made))
    assert "has no member 'RunOnceComands' (did you mean RunOnceCommands?)" in done.stderr
    assert "small.resext:1:" in done.stderr
