# SPDX-License-Identifier: Apache-2.0
"""Odd but legitimate definitions and views: no errors, only findings that are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.check import examine
from harness.package import read_definition
from tests.package.material import definition, field, view, write, zip_of

STANDARD = (
    ("Size", "String"), ("Disk", "String"), ("Net", "String"), ("Pattern", "String"), ("Zone", "String"),
    ("Admin", "Credential"),
)  # fmt: skip
FIELDS = (
    field("Size", "VMSize", DefaultValue="Small"),
    field("Disk", "OSVirtualHardDisk", ImageTags=["Windows Server 2012 R2"], DefaultValue=None),
    field("Net", "Network", Validation=None),
    field("Pattern", "ComputerNamePattern", DefaultValue="WEB###"),
    field("Zone", "OSTimeZone", DefaultValue="Pacific Standard Time"),
    field("Admin", "Credential", DefaultValue="Administrator:"),
)


def standard(*parameters: tuple[str, str], values: Any = None, **intrinsic: Any) -> dict[str, Any]:
    """As the published definitions are: everything comes from a parameter."""
    document = definition(parameters=(*STANDARD, *parameters))
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = values
    document["IntrinsicSettings"] = {
        "HardwareProfile": {"VMSize": "[Param.Size]"},
        "ScaleOutSettings": dict.fromkeys(
            ("InitialInstanceCount", "MinimumInstanceCount", "MaximumInstanceCount", "UpgradeDomainCount"), "1"
        ),
        "StorageProfile": {"OSVirtualHardDiskImage": "[Param.Disk]", "DataVirtualHardDisks": []},
        "NetworkProfile": {"NetworkAdapters": [{"Name": "NIC1", "NetworkRef": "[Param.Net]", "IPAddresses": []}]},
        "OperatingSystemProfile": {
            "ComputerNamePattern": "[Param.Pattern]",
            "TimeZone": "[Param.Zone]",
            "AdminCredential": "[Param.Admin]",
            "WindowsOperatingSystemProfile": {"WorkgroupName": None, "DomainJoin": None},
            "LinuxOperatingSystemProfile": None,
        },
        **intrinsic,
    }
    return document


BALANCED = {
    "Name": "NIC11",
    "NetworkRef": "",
    "IPAddresses": [
        {
            "AllocationMethod": "Static",
            "Type": "IPV6",
            "LoadBalancerConfigurations": [
                {
                    "ConfigurationName": "lb",
                    "PortConfig": {"Name": "http", "Protocol": "TCP", "FrontEndPort": "80", "BackEndPort": 80},
                    "Probe": {"Protocol": "http", "Path": "/"},
                }
            ],
        }
    ],
}
DISKS = [
    {"DataVirtualHardDiskImage": "[Param.Disk]", "Lun": "0"},
    {"DataVirtualHardDiskImage": "Data:1.0.0.0", "Lun": 1},
    {"DataVirtualHardDiskImage": "Data:1.0.0.0", "Lun": "[Param.Net]"},
]
OPTIONS = [{"SQL Server": "SQL"}, {"Windows": "WIN"}]
RULES = {"Required": "true", "MinRange": "1", "MaxRange": "9", "RegEx": "^\\d$"}
TEXT = {"Required": True, "MinLength": 1, "MaxLength": 0, "RegExp": "", "Messages": {}}
GUIDE = (
    *({("Default" if key == "DefaultValue" else key): value for key, value in item.items()} for item in FIELDS),
    field("Count", "Number", Default="5", Validation=RULES),
    field("Flag", "Boolean", Default=False),
    field("Kind", "Option", Options=OPTIONS, Default="SQL"),
)  # fmt: skip
PATTERNS = [
    ("a.b.c", "^(?=.{1,255}$)([a-zA-Z0-9-]+\\.)+[a-z]+$"),
    ("\\\\server\\share", "^\\\\\\\\[^\\\\]+\\\\.+$"),
    ("bob@example.org", "^[^@]+@[^@]+$"),
    ("http://x", "^https?://"),
    ("bob", "^(?i)(?!admin).*$"),
    ("Zoë", "^\\p{Lu}\\p{Ll}+$"),
]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None, list[str]]] = {
    "as published": (
        standard(("A", "String"), values='{"A": "[Param.A]"}'),
        view(*FIELDS, field("A", Validation=TEXT)),
        [],
    ),
    "the guide's members": (
        standard(("Count", "Number"), ("Flag", "Bool"), ("Kind", "string"),
                 values='{"A": "[Param.Count]", "B": "[Param.Flag]", "C": "[Param.Kind]"}')
        | {"Type": "MicrosoftCompute/VMRole"},
        view(*GUIDE),
        [],
    ),
    "two adapters, data disks": (
        standard(
            NetworkProfile={"NetworkAdapters": [{"Name": "NIC1"}, BALANCED]},
            StorageProfile={"OSVirtualHardDiskImage": "[Param.Disk]", "DataVirtualHardDisks": DISKS},
        ),
        view(*FIELDS),
        ["definition-not-here"],  # a machine of the emulator has one adapter
    ),
    "an image that is used as it is": (
        standard(values="", OperatingSystemProfile=None) | {"ResourceParameters": [
            {"Name": name, "Type": kind, "Description": None} for name, kind in STANDARD[:3]]},
        view(*FIELDS[:3]),
        [],
    ),
    "no view": (standard(values="{}"), None, ["view-missing"]),
    "all kinds of values": (
        standard(values=json.dumps({
            "C": "[Param.Admin]", "D": "[Param.Net]\\[Param.Size]", "E": "", "N": 5, "B": True, "Z": None,
            "J": '{"x": "[Param.Net]"}', "L": "[[Param.Net]"})),
        view(*FIELDS),
        [],
    ),
    "types of the view": (
        standard(values="{ }") | {"ResourceParameters": [
            {"Name": item["Name"], "Type": item["Type"]} for item in FIELDS]},
        view(*FIELDS),
        ["parameter-type"] * 5,
    ),
    "nothing to install, an empty page": (
        standard() | {"ResourceExtensionReferences": []},
        view(*FIELDS) | {"Sections": [*view(*FIELDS)["Sections"], {"Title": "Empty", "Categories": None}]},
        ["reference-missing"],
    ),
    "fields that nobody changes": (standard(), view(*({**item, "Configurable": False} for item in FIELDS)), []),
    "patterns": (
        standard(*((f"R{n}", "String") for n in range(len(PATTERNS))),
                 values=json.dumps({f"R{n}": f"[Param.R{n}]" for n in range(len(PATTERNS))})),
        view(*FIELDS, *(field(f"R{n}", DefaultValue=default, Validation={"RegExp": pattern, "MaxLength": "128"})
                        for n, (default, pattern) in enumerate(PATTERNS))),
        [],
    ),
    "texts that are nowhere": (
        standard(), view(*FIELDS) | {"Label": "{{A}}", "Description": "{{B}}"}, ["resource-key-missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_odd_definitions(tmp_path: Path, name: str, encoding: str) -> None:
    document, form, codes = CASES[name]

    def text(value: Any) -> bytes:
        return json.dumps(value, indent=4).replace("/", "\\/").replace("\n", "\r\n").encode(encoding)

    files = {"Def 1.resdef": text(document), "LargeLogo.png": b"x", "[Content_Types].xml": b""}
    if form is not None:
        files["Other.viewdef"] = text(form)
    findings = examine(zip_of(tmp_path / "a.resdefpkg", files))[0]
    odd = ["json-utf16"] * (1 + (form is not None)) if encoding == "utf-16" else []
    assert sorted(finding.code for finding in findings) == sorted(codes + odd), [str(item) for item in findings]


def test_several_languages(tmp_path: Path) -> None:
    form = view(*FIELDS) | {"Label": "{{Title}}", "Description": "{{Only}}"}
    files = {"a.resdef": json.dumps(standard()).encode(), "a.viewdef": json.dumps(form).encode()}
    for folder, table in {"en-us": {"Title": "Role", "Only": "x"}, "de-DE": {"Title": "Rolle"}}.items():
        files[f"{folder}/1.resources"] = "\ufeff".encode() + json.dumps(table).encode()
    path = zip_of(tmp_path / "a.resdefpkg", files | {"[Content_Types].xml": b""})
    assert list(examine(path)[0]) == []
    read = read_definition(path)
    assert read.localised("{{Title}}, {{Only}}", "de-de") == "Rolle, x" and read.localised("{{Title}}") == "Role"


def test_instances_and_configurations(tmp_path: Path) -> None:
    role = {
        "Name": "r",
        "Label": "r",
        "ResourceDefinition": standard(values="{}"),
        "ResourceConfiguration": {"Version": "1.0.0.0", "ParameterValues": '{"A": 5, "B": false, "C": null}'},
        "InstanceView": {"InstanceCount": 1, "ResolvedResourceDefinition": None, "VIPs": []},
        "Substate": {"VMRoleMessages": [{"VmId": None, "MessageQualifier": "Error", "Message": "x"}]},
        "ProvisioningState": "Failed",
        "odata.metadata": "http://example.org/",
    }
    created = role | {"InstanceView": None, "Substate": None, "ProvisioningState": None}
    for document in (role, created, role["ResourceConfiguration"]):
        assert isinstance(document, dict)
        assert list(examine(write(tmp_path, document, "a.json"))[0]) == []
