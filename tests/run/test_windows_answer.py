# SPDX-License-Identifier: Apache-2.0
"""What a Windows machine is given: answer file, answer document, certificates, medium."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12
from lxml import etree

from harness.deadline import Deadline
from harness.errors import UsageError
from harness.guest.protocol import GuestResult
from harness.image import catalog
from harness.machine.protocol import Network, Nic
from harness.run.answer import LocalResource
from harness.run.medium import write_iso
from harness.run.readback import READ_BEFORE, Components, Observation
from harness.run.windows.answer import WindowsAnswer, WinRmCertificate, instance_files
from harness.run.windows.caveats import NOT_ON_STAND_IN, caveat
from harness.run.windows.identity import WindowsIdentity
from harness.run.windows.readback import read_back
from harness.run.windows.resume import WindowsResumption
from harness.run.windows.unattend import (
    NAMESPACE,
    answer_file,
    check_user_file,
    encode_password,
    render,
    schema_problem,
    secrets_of,
)
from tests.conftest import REPOSITORY, vmrole
from tests.run.test_certificates import load_certificate, make, write
from tests.run.test_medium import extract

PASSWORD = "P@ssw0rd"
REAL = answer_file("WEB-01", PASSWORD, stand_in=False, install=True)
NAMES = {"u": NAMESPACE}
ANSWER = WindowsAnswer(
    instance="r1a2b3",
    computer_name="WEB-01",
    machine_id="0123456789abcdef" * 2,
    entropy="f0" * 64,
    time=1_700_000_000.25,
    nics=(Nic(Network(), "52:54:00:12:34:56", "10.0.2.15/24", "10.0.2.2", "10.0.2.3"),),
    certificates=(),
    pfx_password="pfx secret",
    winrm_certificate="AB" * 20,
    local_resources=(LocalResource("Work", 10),),
    payload="C:\\ProgramData\\VMRole\\Payload",
)


def test_passwords_are_encoded_as_windows_does() -> None:
    assert encode_password(PASSWORD, "AdministratorPassword") == (
        "UABAAHMAcwB3ADAAcgBkAEEAZABtAGkAbgBpAHMAdAByAGEAdABvAHIAUABhAHMAcwB3AG8AcgBkAA=="
    )
    assert encode_password(PASSWORD, "Password") == "UABAAHMAcwB3ADAAcgBkAFAAYQBzAHMAdwBvAHIAZAA="


def test_answer_file_says_what_the_platform_says() -> None:
    data = render(REAL)
    assert data == render(REAL), "the same answer gives the same bytes"
    root = etree.fromstring(data)
    assert schema_problem(root) == ""
    assert PASSWORD.encode() not in data and PASSWORD not in repr(REAL)

    def of(settings: str, component: str, path: str) -> list[str]:
        found = root.xpath(f'u:settings[@pass="{settings}"]/u:component[@name="{component}"]/{path}', namespaces=NAMES)
        return [element.text for element in found]

    shell, international = "Microsoft-Windows-Shell-Setup", "Microsoft-Windows-International-Core"
    assert of("specialize", shell, "u:ComputerName") == ["WEB-01"]
    assert of("specialize", shell, "u:TimeZone") == of("oobeSystem", shell, "u:TimeZone") == ["UTC"]
    for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
        assert of("oobeSystem", international, f"u:{name}") == ["en-US"]
    [value] = of("oobeSystem", shell, "u:UserAccounts/u:AdministratorPassword/u:Value")
    assert value == encode_password(PASSWORD, "AdministratorPassword")
    assert of("oobeSystem", shell, "u:UserAccounts/u:AdministratorPassword/u:PlainText") == ["false"]
    assert of("oobeSystem", shell, "u:AutoLogon/u:LogonCount") == ["1"]
    commands = of("specialize", "Microsoft-Windows-Deployment", "u:RunSynchronous/u:RunSynchronousCommand/u:Path")
    assert any("NoAutoUpdate /t REG_DWORD /d 1" in line for line in commands)
    assert any(r"WinRM /v Start /t REG_DWORD /d 4" in line for line in commands), "nobody before the end"
    last = of("oobeSystem", shell, "u:FirstLogonCommands/u:SynchronousCommand/u:CommandLine")
    assert last[-1] == '"C:\\Program Files\\VMRole\\vmrole-guest.exe" specialize', "the ready marker comes last"
    assert of("oobeSystem", shell, "u:OOBE/u:ProtectYourPC") == ["3"]


def test_the_user_s_own_answer_file_is_merged() -> None:
    own = f"""<unattend xmlns="{NAMESPACE}" xmlns:wcm="http://schemas.microsoft.com/WMIConfig/2002/State">
      <settings pass="oobeSystem">
        <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64"
                   publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
          <RegisteredOwner>Somebody</RegisteredOwner>
          <UserAccounts><AdministratorPassword><Value>Mine-1234</Value><PlainText>true</PlainText>
          </AdministratorPassword></UserAccounts>
          <FirstLogonCommands><SynchronousCommand wcm:action="add"><Order>5</Order>
            <CommandLine>cmd /c echo mine</CommandLine></SynchronousCommand></FirstLogonCommands>
        </component>
      </settings></unattend>""".encode()
    root = etree.fromstring(render(REAL, own))
    assert root.findtext(".//u:RegisteredOwner", namespaces=NAMES) == "Somebody"
    lines = [e.text for e in root.iterfind(".//u:FirstLogonCommands//u:CommandLine", NAMES)]
    orders = [int(e.text) for e in root.iterfind(".//u:FirstLogonCommands//u:Order", NAMES)]
    assert lines[0] == "cmd /c echo mine" and orders == [5, 6, 7], "ours come last"
    assert b"Mine-1234" not in render(REAL, own), "the harness' password takes its place"
    assert "Mine-1234" in secrets_of(own)


def test_secrets_of_a_user_s_own_answer_file() -> None:
    own = f"""<unattend xmlns="{NAMESPACE}">
      <settings pass="specialize">
        <component name="Microsoft-Windows-UnattendedJoin" processorArchitecture="amd64"
                   publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
          <Identification><Credentials><Domain>example</Domain><Password>Join-1234</Password><Username>x</Username>
          </Credentials><MachinePassword> Blank 1</MachinePassword></Identification>
        </component>
        <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64"
                   publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
          <ProductKey>AAAAA-BBBBB-CCCCC-DDDDD-EEEEE</ProductKey>
          <AutoLogon><Password>
            <Value>{encode_password("Auto-1234", "Password")}</Value><PlainText>false</PlainText>
          </Password></AutoLogon>
        </component>
      </settings></unattend>""".encode()
    assert secrets_of(own) == [
        "Join-1234", " Blank 1", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", encode_password("Auto-1234", "Password"), "Auto-1234",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), [
    (b"hello", "is not XML, line 1"),
    (b"<x/>", "its root is x"),
    (b'<!DOCTYPE a [<!ENTITY b "c">]><unattend xmlns="%s"/>' % NAMESPACE.encode(), "a document type"),
    (render(REAL).replace(b">UTC<", b">W. Europe Standard Time<", 1), "You must not change this setting value"),
    (render(REAL).replace(b"<Order>1<", b"<Order>one<", 1), "doesn't allow value 'one'"),
    (render(REAL).replace(b'pass="specialize"', b'pass="sometime"'), "is not valid"),
    (b"<a>" + b"x" * (1 << 20) + b"</a>", "larger than"),
])  # fmt: skip
def test_what_cannot_be_merged(text: bytes, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_user_file(text)
    assert what in caught.value.message and "\n" not in caught.value.message


def test_the_command_line_refuses_it_too(tmp_path: Path) -> None:
    path = tmp_path / "unattend.xml"
    path.write_bytes(render(REAL).replace(b">UTC<", b">Tokyo Standard Time<", 1))
    done = vmrole("exec", "--image", "windows-stand-in", "--answer-file", path, "--", "cmd")
    assert done.code == 125 and f"{path}: the answer file sets the time zone 'Tokyo Standard Time'" in done.stderr
    done = vmrole("exec", "--image", "debian-12", "--answer-file", path, "--", "true")
    assert done.code == 125 and "is an answer file of Windows, and the guest is linux" in done.stderr


def test_medium_and_documents(tmp_path: Path) -> None:
    winrm = WinRmCertificate.new("WEB-01")
    with_key = load_certificate(write(tmp_path, make("a").pfx(), "a.pfx"))
    public = load_certificate(write(tmp_path, make("b").pem(), "b.pem"), "Root")
    import dataclasses

    answer = dataclasses.replace(
        ANSWER, certificates=(with_key, public, dataclasses.replace(with_key, store="Custom Store")),
        winrm_certificate=winrm.thumbprint,
    )  # fmt: skip
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "a long name with blanks.txt").write_text("x")
    files = list(instance_files(answer, render(REAL), winrm, payload))
    names = [name for name, _mode, _content in files]
    assert names[0] == "unattend.xml" and names[-1] == "answer.conf", "the document is last"
    assert f"certificates/{with_key.thumbprint}.pfx" in names and "payload/a long name with blanks.txt" in names
    pfx = next(content for name, _, content in files if name == f"certificates/{winrm.thumbprint}.pfx")
    assert isinstance(pfx, bytes)
    assert pkcs12.load_key_and_certificates(pfx, b"pfx secret")[1] == winrm.certificate
    told = subprocess.run(
        ["openssl", "pkcs12", "-legacy", "-info", "-noout", "-passin", "pass:pfx secret"], input=pfx,
        capture_output=True, check=True,
    ).stderr  # fmt: skip
    assert b"MAC: sha1" in told and b"pbeWithSHA1And3-KeyTripleDES-CBC" in told, "what Windows up to 2016 reads"
    text = answer.render().decode()
    assert f"certificate={with_key.thumbprint} Custom Store\n" in text and "await-ssh=no\n" in text
    assert "pfx secret" not in repr(answer)
    iso = tmp_path / "x.iso"
    write_iso(iso, files, now=answer.time)
    assert iso.stat().st_mode & 0o777 == 0o600
    for tree in ("joliet", "rockridge"):
        options = ("-read_fs", "norock") if tree == "joliet" else ()
        found = extract(iso, tmp_path / tree, *options)
        assert found["unattend.xml"] == render(REAL) and found["payload/a long name with blanks.txt"] == b"x"


TOLD = """\
marker=r1a2b3 1.0+x boot
stand-in=no
computer-name=WEB-01
computer-name-registry=WEB-01
time-zone=UTC 0
clock={clock}
locale=en-US en-US 0409
updates=1 4
version=1.0+x
service=running 2
msi={{GUID}} 1.0 1.0+x
resource=10485760 104857600 O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA) Work
payload=O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA) C:\\ProgramData\\VMRole\\Payload
"""


class Telling:
    """A guest that answers the one question."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, argv: list[str], **_more: object) -> GuestResult:
        import time

        assert argv[1] == "read-back"
        return GuestResult(0, self.text.format(clock=time.time()).replace("\n", "\r\n").encode(), b"", 0.1)


def _wrong(text: str, *, stand_in: bool = False) -> dict[str, str]:
    seen = reading(text, stand_in=stand_in)
    return {one.name: one.observed for one in seen if not one.ok}


def reading(text: str, *, stand_in: bool) -> list[Observation]:
    components = Components("1.0+x", "1.0+x")
    guest: Any = Telling(text)
    return read_back(guest, ANSWER, components=components, stand_in=stand_in, deadline=Deadline(5))


def test_reading_back() -> None:
    assert _wrong(TOLD) == {}
    for old, new, name, shown in (
        ("WEB-01\ntime", "OTHER\ntime", "computer-name", "OTHER"),
        ("UTC 0", "Tokyo Standard Time -540", "time-zone", "Tokyo Standard Time (bias -540)"),
        ("en-US en-US 0409", "de-DE en-US 0409", "locale", "de-DE, user's en-US, language 0409"),
        ("updates=1 4", "updates=- 2", "automatic-updates", "NoAutoUpdate -, start of wuauserv 2"),
        ("1.0 1.0+x", "1.0 0.9", "integration-components", "0.9"),
        ("running 2", "stopped 2", "guest-service", "stopped, automatic"),
        ("stand-in=no", "password-left=C:\\unattend.xml", "answer-files", "C:\\unattend.xml holds one"),
        ("resource=10485760", "resource=9485760", "local-resource Work", "has 9 MB"),
        ("(A;OICI;FA;;;BA) Work", "(A;OICI;FA;;;WD) Work", "local-resource Work", ""),
        ("clock={clock}", "clock=1.0", "clock", ""),
    ):
        wrong = _wrong(TOLD.replace(old, new))
        assert list(wrong) == [name] and shown in wrong[name], (old, wrong)
    assert len(_wrong("")) >= 8, "a guest that tells nothing is not as wanted"


def test_what_the_stand_in_proves() -> None:
    seen = reading(TOLD, stand_in=True)
    unproven = {one.name for one in seen if not one.provable}
    assert {"time-zone", "locale", "automatic-updates", "administrator-password", "payload"} <= unproven
    assert {"computer-name", "clock", "integration-components", "guest-service"}.isdisjoint(unproven)


def test_what_is_not_proven_is_on_the_page() -> None:
    page = (REPOSITORY / "docs/verified-on-windows.md").read_text("utf-8")
    for what in NOT_ON_STAND_IN:
        assert f"\n| {what} |" in page
    recipe = catalog.load("windows-stand-in").recipe
    assert all(what in caveat(recipe) for what in NOT_ON_STAND_IN)
    assert "not verified" in caveat(catalog.load("windows-server").recipe)


def test_what_a_replay_remembers() -> None:
    """The machine is reached with the same password and certificate, and all that was secret stays so."""
    winrm = WinRmCertificate.new("WEB-01")
    secrets = [PASSWORD, "pfx secret", winrm.key_pem]
    resumption = WindowsResumption()
    made = WindowsIdentity(ANSWER, PASSWORD, b"<unattend/>", winrm, READ_BEFORE, True, secrets)
    facts = json.loads(json.dumps(resumption.remember(made)))
    again = resumption.recall(facts)
    assert (again.password, again.winrm.pem, again.winrm.key_pem) == (PASSWORD, winrm.pem, winrm.key_pem)
    assert again.secrets == secrets and again.answer.instance == ANSWER.instance
    assert again.answer.entropy != ANSWER.entropy
    for damaged in (facts | {"key": "none"}, {k: v for k, v in facts.items() if k != "certificate"}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            resumption.recall(damaged)
