# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.errors import PackageError, UsageError
from harness.package import (
    Definition,
    Package,
    read_any,
    read_configuration,
    read_definition,
    read_instance,
    read_package,
)
from harness.package.resolve import Resolved, resolve_definition
from tests.package.material import definition, field, published_folders, view, with_profile, write, zip_of


def folder(tmp_path: Path, document: dict[str, Any], form: dict[str, Any] | None = None, **texts: str) -> Path:
    """An unpacked definition; ``texts`` are those of en-US."""
    where = tmp_path / "role"
    shutil.rmtree(where, ignore_errors=True)
    (where / "en-US").mkdir(parents=True)
    write(where, document, "role.resdef")
    if form is not None:
        write(where, form, "role.viewdef")
    write(where / "en-US", texts, "1.resources")
    return where


def codes(read: Definition | Resolved) -> set[str]:
    return {finding.code for finding in read.findings}


def test_published_definitions_have_no_findings() -> None:
    folders = [path for path in published_folders() if path.name.endswith(".resdefpkg.parts")]
    assert folders
    for path in folders:
        read = read_definition(path)
        assert isinstance(read_any(path), Definition)
        domain = {"definition-not-here"} if "DomainToJoin" in read.text else set()
        assert codes(read) <= {"parameter-unused"} | domain, (path.name, read.findings)
        assert read.view is not None and read.view.label is not None
        assert "{{" not in read.localised(read.view.label)


def test_published_definitions_fit_their_extensions() -> None:
    extensions = {}
    for path in published_folders():
        if path.name.endswith(".resextpkg.parts"):
            package = read_package(path)
            extensions[package.name] = package
    for path in published_folders():
        if not path.name.endswith(".resdefpkg.parts"):
            continue
        read = read_definition(path)
        (reference,) = read.definition.resource_extension_references
        package = extensions[str(reference.name)]
        given: dict[str, str] = {"VMRoleVMSize": "Medium", "VMRoleAdminCredential": "Administrator:Adm1n-Pass"}
        assert read.view is not None
        for item in read.view.parameters:
            if item.required and not item.initial and item.name not in given:
                given[str(item.name)] = "corp\\bob:b0b-pass" if item.type == "Credential" else "some text"
        resolved = resolve_definition(read, package, given)
        assert codes(resolved) <= {"timezone-kept-utc"}, (path.name, resolved.findings)
        assert not resolved.parameters.missing
        assert (resolved.machine.cpus, resolved.machine.memory_mb) == (2, 3584)
        assert (resolved.machine.admin_user, resolved.machine.os) == ("Administrator", "windows")
        assert "Adm1n-Pass" in resolved.secrets and "Adm1n-Pass" not in repr(resolved)


def test_archives_folders_and_bare_documents_read_alike(tmp_path: Path) -> None:
    document = definition(parameters=(("Greeting", "String"),), values={"Greeting": "[Param.Greeting]"})
    where = folder(tmp_path, document, view(field("Greeting", Label="{{GreetingLabel}}")), GreetingLabel="Salute")
    files = {path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*") if path.is_file()}
    packed = zip_of(tmp_path / "role.resdefpkg", {**files, "[Content_Types].xml": b"<Types/>"})
    for path in (where, packed, where / "role.resdef"):
        read = read_any(path)
        assert isinstance(read, Definition)
        assert read.view is not None and read.view.parameters[0].label == "{{GreetingLabel}}"
        assert read.localised("{{GreetingLabel}} x {{Other}}") == "Salute x {{Other}}"
        assert not read.findings
        assert read.name == "Role" and read.definition.version == "1.0.0.0"
    shutil.copy(packed, tmp_path / "role.zip")
    assert isinstance(read_any(tmp_path / "role.zip"), Definition)
    assert isinstance(read_any(write(tmp_path, document, "role.json")), Definition)
    assert isinstance(read_any(write(tmp_path, with_profile("/bin/true"))), Package)


def test_what_is_no_definition(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        read_definition(tmp_path / "none.resdef")
    with pytest.raises(PackageError, match="it is a resource extension"):
        read_definition(write(tmp_path, with_profile("/bin/true"), "a.resdef"))
    with pytest.raises(PackageError, match="2 resource definitions"):
        read_definition(zip_of(tmp_path / "b.resdefpkg", {"a.resdef": b"{}", "b.resdef": b"{}"}))
    with pytest.raises(PackageError, match="has no resource definition"):
        read_definition(zip_of(tmp_path / "c.resdefpkg", {"a.txt": b""}))


@pytest.mark.parametrize(
    ("values", "code", "written"),
    [
        ('{"A": "x"', "nested-json", '{\\"A'),
        ('{"A": nonsense}', "nested-json", "nonsense"),
        ('{"\U0001f600\\\\é": nonsense}', "nested-json", "nonsense"),
        ("[1]", "nested-json", '"[1]'),
        ('{"A": [Param.Greeting]}', "nested-json-bare", '"{'),
        ('{"A": "x",}', "json-trailing-comma", ",}"),
        ('{"A": "x",\n"A": "y"}', "json-duplicate-key", '\\"A\\": \\"y'),
        ({"A": "x"}, "nested-json-object", '{"A'),
        (5, "bad-value", "5"),
    ],
)
def test_nested_json(tmp_path: Path, values: Any, code: str, written: str) -> None:
    document = definition(parameters=(("Greeting", "String"),), Publisher="[Param.Greeting]")
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = values
    read = read_definition(folder(tmp_path, document, view(field("Greeting"))))
    (finding,) = [finding for finding in read.findings if finding.code == code]
    assert finding.pointer == "/ResourceExtensionReferences/0/ResourceExtensionParameterValues"
    assert finding.line == 1 and finding.column is not None
    assert read.text[finding.column - 1 :].startswith(written)


def test_values_flow_through_to_the_extension(tmp_path: Path) -> None:
    declared = (
        ("User", "Credential"),
        ("Port", "Int"),
        ("Motto", "String"),
        ("Pin", "SecureString"),
        ("Zone", "String"),
    )
    values = {
        "Account": "[Param.User]",
        "Port": "[Param.Port]",
        "Motto": 'say "[Param.Motto]" [[twice]',
        "Leak": "pin=[Param.Pin]",
    }
    read = read_definition(folder(tmp_path, definition(parameters=declared, values=values), None))
    wanted = (("Account", "Credential"), ("Port", "Int"), ("Motto", "String"), ("Leak", "String"))
    commands = [f"/bin/echo [Param.{name}]" for name, _ in wanted]
    package = read_package(write(tmp_path, with_profile(*commands, parameters=wanted)))
    given = {"User": 'corp\\bob:pa"ss:word', "Port": 8080, "Motto": 'a\\b"c', "Pin": "98765"}
    resolved = resolve_definition(read, package, given)
    assert resolved.parameters.values == {
        "Account": 'corp\\bob:pa"ss:word',
        "Port": "8080",
        "Motto": 'say "a\\b"c" [twice]',
        "Leak": "pin=98765",
    }
    assert resolved.parameters.masked == {"Account": "corp\\bob:__**__", "Leak": "pin=__**__"}
    assert {'pa"ss:word', "98765"} <= set(resolved.secrets)
    assert resolved.parameters.fill("[Param.Leak]").masked == "pin=__**__"
    assert not codes(resolved)
    assert "98765" not in repr(resolved.machine)


def test_references_that_do_not_fit(tmp_path: Path) -> None:
    values = {"here": "x", "Stranger": "y", "Count": "many"}
    document = definition(values=values)
    document["ResourceExtensionReferences"][0]["Version"] = "2.0.0.0"
    read = read_definition(folder(tmp_path, document, view()))
    wanted = (("Here", "String"), ("Count", "Int"), ("Missing", "String"), ("Unused", "String"))
    package = read_package(
        write(tmp_path, with_profile("[Param.Here] [Param.Count] [Param.Missing]", parameters=wanted))
    )
    resolved = resolve_definition(read, package, {})
    found = {finding.code: finding for finding in resolved.findings}
    assert set(found) == {
        "reference-mismatch",
        "reference-value-case",
        "reference-value-unknown",
        "reference-value-type",
        "reference-value-missing",
    }
    assert "Missing" in found["reference-value-missing"].sentence
    assert "2.0.0.0" in found["reference-mismatch"].sentence
    assert resolved.parameters.values == {"Here": "x"}
    assert resolved.parameters.missing == ("Count", "Missing", "Unused")


def test_defaults_and_rules_of_the_view(tmp_path: Path) -> None:
    declared = (("Name", "String"), ("Port", "Int"), ("Mode", "String"), ("Free", "String"), ("Must", "String"))
    form = view(
        field("Name", DefaultValue="web", Validation={"MaxLength": 5, "MinLength": 2, "RegExp": "^[a-z]+$",
              "Messages": {"Length": "{{TooLong}}"}}),
        field("Port", "Number", DefaultValue=1433, Validation={"MinRange": 1, "MaxRange": "65535"}),
        field("Mode", "Option", DefaultValue="SQL", OptionValues=[{"Windows": "Win"}, {"SQL": "SQL"}]),
        field("Free"),
        field("Must", Validation={"Required": True}, Configurable=False),
    )  # fmt: skip
    values = {name: f"[Param.{name}]" for name, _ in declared}
    read = read_definition(folder(tmp_path, definition(parameters=declared, values=values), form, TooLong="Too long!"))
    assert not read.findings
    package = read_package(
        write(tmp_path, with_profile(*(f"[Param.{name}]" for name, _ in declared), parameters=declared))
    )
    resolved = resolve_definition(read, package, {})
    assert resolved.parameters.values == {"Name": "web", "Port": "1433", "Mode": "SQL", "Free": ""}
    assert codes(resolved) == {"value-missing"}
    resolved = resolve_definition(read, package, {"Name": "toolong", "Port": 0, "Mode": "Windows", "Must": "x"})
    found = {finding.sentence: finding for finding in resolved.findings}
    assert {finding.code for finding in found.values()} == {"value-rule", "value-fixed"}
    assert found["the value of 'Name' is longer than 5 characters"].hint == "Too long!"
    assert "the value of 'Port' is less than 1" in found
    assert "the value of 'Mode' is none of its options" in found
    assert codes(resolve_definition(read, package, {"Name": "ab1", "Must": "x"})) == {"value-rule", "value-fixed"}
    with pytest.raises(UsageError, match="not a whole number"):
        resolve_definition(read, package, {"Port": "many"})
    with pytest.raises(UsageError, match="has no parameter 'Prot'"):
        resolve_definition(read, package, {"Prot": "1"})


def test_findings_about_a_definition(tmp_path: Path) -> None:
    document = definition(
        parameters=(("Spare", "String"), ("Odd", "Network")), values={"X": "[Param.odd] [Param.Nowhere]"}
    )
    document["Type"] = "VMRole"
    document["Version"] = "1"
    document["ResourceExtensionReferences"] *= 2
    settings = document["IntrinsicSettings"]
    settings["HardwareProfile"]["VMSize"] = "Gigantic"
    settings["ScaleOutSettings"] = {"InitialInstanceCount": "1", "MinimumInstanceCount": "2"}
    settings["StorageProfile"]["DataVirtualHardDisks"] = [
        {"DataVirtualHardDiskImage": "A:1.0.0.0", "Lun": "0"},
        {"DataVirtualHardDiskImage": "B:1.0.0.0", "Lun": 0},
    ]
    settings["OperatingSystemProfile"] = {
        "ComputerNamePattern": "MuchTooLongName###",
        "TimeZone": "Pacific Standard Time",
        "AdminCredential": "Administrator:Secret-77",
        "WindowsOperatingSystemProfile": {"WorkgroupName": "A", "DomainJoin": {}},
        "LinuxOperatingSystemProfile": {},
    }
    ports = {"FrontEndPort": 80, "BackEndPort": "8080"}
    address = {"LoadBalancerConfigurations": [{"PortConfig": ports}]}
    settings["NetworkProfile"] = {"NetworkAdapters": [{"Name": "NIC1", "IPAddresses": [address]}]}
    form = view(field("Odd"), field("Odd", "Wizard"), field("Stranger", Label="{{Gone}}"))
    form["Sections"][0]["Categories"][0]["Parameters"] += [
        field("Spare", DefaultValue="a", Validation={"MinLength": 9, "MaxLength": 3, "RegExp": "*"})
    ]
    read = read_definition(folder(tmp_path, document, form))
    wanted = (
        "definition-type version-format reference-many definition-size definition-scale definition-lun computer-name"
    )
    wanted += (
        " timezone-kept-utc secret-in-plain-text definition-profiles missing-field definition-ports parameter-type"
    )
    wanted += " parameter-unused parameter-case parameter-undeclared view-parameter-duplicate view-type view-default"
    wanted += " view-parameter-unknown view-rule resource-key-missing"
    assert set(wanted.split()) == codes(read)
    assert not any("Secret-77" in str(finding) for finding in read.findings)


def test_a_secret_inside_nested_json_is_found_and_not_shown(tmp_path: Path) -> None:
    read = read_definition(folder(tmp_path, definition(values={"SAPassword": "Tops\\ecret1"}), view()))
    (finding,) = read.findings
    assert finding.code == "secret-in-plain-text" and finding.pointer.endswith("ParameterValues")
    package = read_package(write(tmp_path, with_profile("[Param.SAPassword]", parameters=(("SAPassword", "String"),))))
    assert "Tops\\ecret1" in resolve_definition(read, package, {}).secrets


def test_linux_settings(tmp_path: Path) -> None:
    document = definition(parameters=(("Key", "String"),))
    document["IntrinsicSettings"]["OperatingSystemProfile"] = {
        "ComputerNamePattern": "web-##",
        "TimeZone": "UTC",
        "AdminCredential": {"UserName": "root", "Password": "abc-123"},
        "LinuxOperatingSystemProfile": {"DNSDomainName": "example.org", "SSHPublicKey": "[Param.Key]"},
        "WindowsOperatingSystemProfile": None,
    }
    machine = resolve_definition(
        read_definition(folder(tmp_path, document, view(field("Key")))), None, {"Key": "ssh-ed25519 AAAA"}
    ).machine
    assert (machine.os, machine.computer_name_pattern, machine.time_zone) == ("linux", "web-##", "UTC")
    assert (machine.admin_user, machine.admin_password) == ("root", "abc-123")
    assert (machine.dns_domain_name, machine.ssh_public_key) == ("example.org", "ssh-ed25519 AAAA")
    assert machine.instances.initial == 1 and machine.data_disks == ()


def test_configurations_and_instances(tmp_path: Path) -> None:
    configuration = {"Version": "1.0.0.1", "ParameterValues": '{"A": 5, "B": "corp\\\\bob"}'}
    read = read_configuration(write(tmp_path, configuration, "c.json"))
    assert read.values == {"A": 5, "B": "corp\\bob"} and not read.findings
    assert read.configuration.version == "1.0.0.1"
    instance = {
        "Name": "role",
        "ResourceDefinition": definition(),
        "ResourceConfiguration": configuration,
        "InstanceView": None,
        "Substate": {"VMRoleMessages": [{"VmId": None, "MessageQualifier": "Info", "Message": "done"}]},
        "ProvisioningState": "Provisioned",
    }
    role = read_instance(write(tmp_path, instance, "i.json"))
    assert not role.findings and role.role.substate is not None
    assert role.role.substate.vm_role_messages[0].message == "done"
    crooked = {"Version": "1.0.0.1", "ParameterValues": '{"A": "corp\\bob:S3cret-word", "B": "S3cret\\-pin"}'}
    odd = read_configuration(write(tmp_path, crooked, "e.json"))
    assert [finding.code for finding in odd.findings] == ["json-lone-backslash"]
    assert "S3cret" not in str(odd.findings) and "S3cret" not in repr(odd)
    with pytest.raises(PackageError, match="is not a resource configuration"):
        read_configuration(write(tmp_path, {"A": 1}, "d.json"))


def test_texts_that_cannot_be_read_spoil_nothing_else(tmp_path: Path) -> None:
    where = folder(tmp_path, definition(), view(field("A", Label="{{Gone}}")))
    write(where / "en-US", {"Here": "x", "Number": 5}, "1.resources")
    (where / "de-DE").mkdir()
    (where / "de-DE" / "1.resources").write_text("<root/>")
    read = read_definition(where)
    assert read.resources == {"en-US": {"Here": "x"}}
    texts = [finding.file for finding in read.findings if finding.code == "resource-text"]
    assert texts == ["de-DE/1.resources", "en-US/1.resources"]
    assert codes(read) == {"resource-text", "resource-key-missing", "view-parameter-unknown"}


@pytest.mark.parametrize(
    "options", [[{"A": "a"}, {"B": None}], {"A": "a", "B": ""}, ["a", ""], [{"A": "a", "B": None}]]
)
def test_options_however_they_are_written(tmp_path: Path, options: Any) -> None:
    form = view(field("A", "Option", OptionValues=options))
    document = definition(parameters=(("A", "String"),), values={"A": "[Param.A]"})
    read = read_definition(folder(tmp_path, document, form))
    assert not read.findings and read.view is not None
    assert list(read.view.parameters[0].choices.values()) == ["a", ""]
