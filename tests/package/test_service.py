# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import PackageError, UsageError, VmRoleError
from harness.package.service import Endpoint, WantedCertificate, WantedResource, read_service, read_service_definition
from harness.package.xmltext import read_xml
from tests.conftest import processor_seconds

CSDEF = """<?xml version="1.0" encoding="utf-8"?>
<!-- a service -->
<ServiceDefinition name="Shop" xmlns="http://schemas.microsoft.com/ServiceHosting/2008/10/ServiceDefinition">
  <VirtualMachineRole name="Web" vmsize="Small">
    <Certificates>
      <Certificate name="Ssl" storeLocation="LocalMachine" storeName="My" />
      <Certificate name="Root"
                   storeName="Corporate" />
    </Certificates>
    <LocalResources>
      <LocalStorage name="Cache" />
      <LocalStorage name="Logs" cleanOnRoleRecycle="false" sizeInMb="20" />
    </LocalResources>
    <Endpoints>
      <InputEndpoint name="Https" protocol="https" port="443" localPort="*" certificate="Ssl" />
      <InternalEndpoint name="Peers" protocol="tcp"><FixedPort port="8000"/></InternalEndpoint>
    </Endpoints>
    <ConfigurationSettings>
      <Setting name="Colour" />
      <Setting name="StorageKey" />
    </ConfigurationSettings>
    <Imports><Import moduleName="RemoteAccess" /></Imports>
  </VirtualMachineRole>
</ServiceDefinition>
"""
THUMBPRINT = "0123456789abcdef0123456789ABCDEF01234567"
CSCFG = """<ServiceConfiguration serviceName="Shop"
    xmlns="http://schemas.microsoft.com/ServiceHosting/2008/10/ServiceConfiguration">
  <Role name="Web">
    <OsImage href="base.vhd" />
    <Instances count="2" />
    <ConfigurationSettings>
      <Setting name="Colour" value="blue &amp; green" />
      <Setting name="StorageKey" value="c2VjcmV0" />
    </ConfigurationSettings>
    <Certificates>
      <Certificate name="Ssl" thumbprint="\u200e01 23456789abcdef0123456789ABCDEF01234567" thumbprintAlgorithm="sha1" />
    </Certificates>
  </Role>
</ServiceConfiguration>
"""


def write(folder: Path, text: str, name: str = "service.csdef", encoding: str = "utf-8-sig") -> Path:
    path = folder / name
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    return path


def test_a_service(tmp_path: Path) -> None:
    service = read_service(write(tmp_path, CSDEF), write(tmp_path, CSCFG, "service.cscfg"))
    assert service.role.name == "Web" and service.role.vm_size == "Small"
    assert service.certificates == (
        WantedCertificate("Ssl", "My", THUMBPRINT.upper()),
        WantedCertificate("Root", "Corporate", None),
    )
    assert service.local_resources == (WantedResource("Cache", 100, True), WantedResource("Logs", 20, False))
    assert service.role.endpoints == (
        Endpoint("Https", "input", "https", 443, 443, "Ssl"),
        Endpoint("Peers", "internal", "tcp"),
    )
    assert service.role.imports == ("RemoteAccess",)
    assert service.settings == {"Colour": "blue & green", "StorageKey": "c2VjcmV0"}
    assert service.secrets == ("c2VjcmV0",) and "c2VjcmV0" not in repr(service)
    assert service.instances == 2
    assert [(finding.code, finding.severity) for finding in service.findings] == [("service-unconfigured", "warning")]


def test_places_are_those_of_start_tags(tmp_path: Path) -> None:
    root = read_xml(CSDEF.encode(), "a")
    (_, second) = root.all("VirtualMachineRole", "Certificates", "Certificate")
    assert (second.name, second.line, second.column) == ("Certificate", 7, 7)
    assert read_xml(CSDEF.replace("utf-8", "utf-16").encode("utf-16"), "a") == root
    umlaut = '<?xml version="1.0" encoding="Windows-1252"?><Größe name="ä"/>'
    assert read_xml(umlaut.encode("cp1252"), "a").attributes == {"name": "ä"}
    with pytest.raises(PackageError, match="not UTF-8 text"):
        read_xml(umlaut.replace("Windows-1252", "utf-8").encode("cp1252"), "a")
    with pytest.raises(PackageError):
        read_xml(umlaut.replace("Windows-1252", "iso-8859-12").encode("cp1252"), "a")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            '"LocalMachine"',
            '"CurrentUser"',
            r"service.csdef, line 6, column 7: .* it is not possible to install .* to the",
        ),
        ('name="Cache"', 'name="../x"', "line 11, column 7: the local resource '../x'"),
        ('name="Cache"', "", "line 11, column 7: LocalStorage needs the attribute name"),
        ('name="Cache"', 'name="logs"', "line 12, column 7: there are two of the name 'Logs', the first in line 11"),
        ('sizeInMb="20"', 'sizeInMB="0"', "sizeInMB of LocalStorage is not a whole number"),
        ('sizeInMb="20"', 'sizeInMB="99999999999999999999"', "sizeInMB of LocalStorage is not a whole number"),
        ('certificate="Ssl"', "", "an https endpoint needs the attribute certificate"),
        ('certificate="Ssl"', 'certificate="No"', "'No' is none of the role's"),
        ('vmsize="Small"', 'vmsize="Huge"', "'Huge' is none of"),
        ("</Imports>", "", r"service.csdef, line 23, column \d+: Opening and ending tag mismatch"),
        ("<!-- a service -->", "<!DOCTYPE x>", "service.csdef, line 2, column 1: a DOCTYPE is not read"),
        ("<ServiceDefinition", "\n&amp;<ServiceDefinition", r"service.csdef, line 4, column \d+:"),
        ("blue", "&bomb;", ""),
    ],
)
def test_what_is_refused_is_said_with_its_place(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    text = CSDEF.replace(old, new)
    if old == "blue":
        text = CSDEF.replace("Colour", new)
        sentence = "Entity 'bomb' not defined"
    with pytest.raises(PackageError, match=sentence):
        read_service(write(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("\u200e01 ", "0", "is not SHA-1, 40 hexadecimal digits"),
        ("sha1", "sha256", "is not SHA-1"),
        ('count="2"', 'count="0"', "count of Instances is not a whole number from 1 to 1000"),
    ],
)
def test_wrong_configurations(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(PackageError, match=sentence):
        read_service(write(tmp_path, CSDEF), write(tmp_path, CSCFG.replace(old, new), "service.cscfg"))


def test_roles(tmp_path: Path) -> None:
    start, end = CSDEF.index("  <Virtual"), CSDEF.index("</ServiceDefinition>")
    role = CSDEF[start:end]
    two = write(tmp_path, CSDEF[:end] + role.replace('"Web"', '"Db"') + CSDEF[end:])
    with pytest.raises(UsageError, match="has 2 roles; there is Web, Db"):
        read_service(two)
    with pytest.raises(UsageError, match="has no role 'X'"):
        read_service(two, role="X")
    service = read_service(two, write(tmp_path, CSCFG, "service.cscfg"), role="db")
    assert service.role.name == "Db" and service.instances == 1
    with pytest.raises(PackageError, match="there is no VirtualMachineRole, only WorkerRole"):
        read_service(write(tmp_path, CSDEF.replace("VirtualMachineRole", "WorkerRole")))
    with pytest.raises(UsageError, match="there is no"):
        read_service(tmp_path / "none.csdef")
    startup = CSDEF.replace("<Imports>", "<Startup><Task/></Startup><Imports>")
    _, findings = read_service_definition(write(tmp_path, startup))
    assert [finding.code for finding in findings] == ["service-element"]


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><a>&c;</a>',
        '<?xml version="1.0"?>\n<!-- x --> <!doctype a SYSTEM "file:///etc/passwd"><a/>',
        "<a>" * 100_000,
        "<a>" * 300 + "</a>" * 300,
        "<a " + " ".join(f'a{n}=""' for n in range(60_000)) + ">",
        "<!--" * 100_000,
        "<a>" + "<b/>" * 100_000 + "</a>",
        "<" * 500_000,
        "<a b='" + "<" * 500_000,
        "",
        "\0",
    ],
)
def test_hostile_xml(text: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        with processor_seconds(10), pytest.raises(PackageError):
            read_xml(text.encode(encoding), "hostile")


PIECES = [
    "<a>",
    "</a>",
    "<b_c='d'/>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "&amp;",
    "&x;",
    "<?p",
    "?>",
    "<",
    ">",
    '"',
    "'",
    "é",
    "<ServiceDefinition>",
    "<!DOCTYPE",
]
MARKUP = st.lists(st.sampled_from([*PIECES, " ", "\n", "\ud800", "<b c='d'/>", "<!DOCTYPE a>"]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(st.one_of(MARKUP.map("".join), st.text(max_size=200)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        element = read_xml(text.encode("utf-8", "surrogatepass"), "any")
    except PackageError as error:
        assert error.message
    else:
        assert element.line >= 1 and element.column >= 1


VALUES = st.one_of(st.text(max_size=10), st.sampled_from(["0", "-1", "1e9", "LocalMachine", "My", "true", " "]))


NAMES = st.sampled_from(["Certificate", "LocalStorage", "Setting", "InputEndpoint"])
ATTRIBUTES = st.dictionaries(st.sampled_from(["name", "storeName", "storeLocation", "sizeInMB", "port"]), VALUES)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, ATTRIBUTES), max_size=8))
def test_any_attributes(tmp_path: Path, items: list[tuple[str, dict[str, str]]]) -> None:
    from lxml import etree

    groups = {"Certificate": "Certificates", "LocalStorage": "LocalResources", "Setting": "ConfigurationSettings",
              "InputEndpoint": "Endpoints"}  # fmt: skip
    root = etree.Element("ServiceDefinition")
    role = etree.SubElement(root, "VirtualMachineRole", name="R")
    for name, attributes in items:
        element = etree.SubElement(etree.SubElement(role, groups[name]), name)
        for key, value in attributes.items():
            try:
                element.set(key, value)
            except ValueError:  # characters that XML does not have
                return
    path = tmp_path / "a.csdef"
    path.write_bytes(etree.tostring(root))
    try:
        service = read_service(path)
    except VmRoleError as error:
        assert error.exit_code == 2
    else:
        assert all("/" not in resource.name and resource.size_mb >= 1 for resource in service.local_resources)
