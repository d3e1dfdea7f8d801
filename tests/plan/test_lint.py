# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli.check import _shown, examine
from harness.errors import VmRoleError
from harness.package import Finding, read_package
from harness.package.jsontext import read_json
from harness.package.lint import lint, tags
from tests.conftest import processor_seconds
from tests.package.material import SAMPLES, definition, extension, published_folders, seed_document, with_profile, write
from tests.plan.test_plan import NAMES, _plain, script
from tests.plan.test_windows import ID


def lint_of(folder: Path, **windows: Any) -> list[Finding]:
    package = read_package(write(folder, with_profile(windows=windows)))
    return lint(package.document, package.payload.files)


def codes(folder: Path, **members: Any) -> set[str]:
    return {finding.code for finding in lint_of(folder, ProvisioningScripts=[script(**members)])}


def program(executable: str, parameters: str) -> dict[str, Any]:
    return {"ExecutableAndParams": {"Executable": executable, "Parameters": parameters}}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"StandardOutputRegex": "c:\\VMRole\\encryptdbpwd_out.log"}, "pattern-path"),
        ({"StandardOutputRegex": "\\VX"}, "pattern-invalid"),
        ({"StandardErrorRegex": "(?<a-b>x)"}, "pattern-invalid"),
        ({"StandardErrorRegex": "((x{1000}){1000}){1000}"}, "pattern-invalid"),
        ({"ExitCodeRegex": "error"}, "pattern-never"),
        ({"ExitCodeRegex": "^0+1$"}, "pattern-never"),
        ({"ExitCodeRegex": "[0-9]+"}, "pattern-always"),
        ({"StandardOutputRegex": ".*"}, "pattern-always"),
        ({"RebootExitCodeRegex": "{1641}|{3010}|{3011}"}, "reboot-pattern-braces"),
        ({"RebootExitCodeRegex": "{1641}|30[0-9]+"}, "reboot-pattern"),
        ({"RebootExitCodeRegex": "1641, 3010"}, "reboot-pattern"),
        ({"RebootExitCodeRegex": "never"}, "reboot-pattern"),
        ({"RebootExitCodeRegex": "[0-9]+"}, "reboot-pattern"),
        ({"StandardOutputPath": ".+"}, "path-pattern"),
        ({"RebootExitCodeRegex": "0|3010"}, "reboot-pattern"),
        ({"RebootExitCodeRegex": "{0}|{3010}"}, "reboot-pattern"),
        ({"ErrorPolicy": "Ignore"}, "error-policy"),
        ({"ErrorPolicy": 5}, "error-policy"),
        ({"ExecutableAndParams": None}, "script-empty"),
        ({"ScriptBlock": "rem x"}, "script-double"),
        ({"run": "'sleep 3&&exit 0'"}, "command-single-quotes"),
        ({"run": "echo " + "z" * 8200}, "command-too-long"),
        (program("%COMSPEC%", "/c echo " + "z" * 8200), "command-too-long"),
        (program("x.exe", "z" * 32_766), "command-too-long"),
        ({"ExecutableAndParams": None, "ScriptBlock": "rem\nset x=" + "z" * 8200}, "command-too-long"),
        ({"run": "setup /SAPWD:hunter22"}, "secret-in-plain-text"),
        ({"run": "x -SAPassword 'hunter22'"}, "secret-in-plain-text"),
    ],
)
def test_what_scripts_say(tmp_path: Path, members: dict[str, Any], code: str) -> None:
    assert codes(tmp_path, **members) == {code}


@pytest.mark.parametrize(
    "members",
    [
        {"ExitCodeRegex": "[[1-9][[0-9]*", "StandardErrorRegex": ".+", "StandardOutputRegex": None},
        {"ExitCodeRegex": "*", "StandardErrorRegex": "", "RebootExitCodeRegex": "3010"},
        {"ExitCodeRegex": "^(?!0$|3010$)", "StandardOutputPath": "c:\\VMRole (x86)\\$out.txt"},
        {"ExitCodeRegex": "12345678"},
        {"RebootExitCodeRegex": "30(10|11)"},
        {"RebootExitCodeRegex": "^(?:3010|1641)$"},
        {"RebootExitCodeRegex": "^30[0-9][0-9]$"},
        {"ExitCodeRegex": "[Param.Pattern]", "RebootExitCodeRegex": "[Param.Codes]"},
        {"run": "echo " + "z" * 8100},
        {"run": "x -SAPassword '[Param.Word]' -Password $word -Pwd %WORD% -PasswordFile /x"},
    ],
)
def test_what_is_right(tmp_path: Path, members: dict[str, Any]) -> None:
    assert codes(tmp_path, **members) == set()


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"TimeoutInSeconds": -1}, {("error", "limit-negative")}),
        ({"TimeoutInSeconds": " -30 "}, {("error", "limit-negative")}),
        ({"TimeoutInSeconds": 10**400}, {("error", "bad-value")}),
        ({"TimeoutInSeconds": "3" * 30}, {("error", "bad-value")}),
        ({"TimeoutInSeconds": 1.5}, {("error", "bad-value")}),
        ({"TimeoutInSeconds": 1e300}, {("error", "bad-value")}),
        ({"TimeoutInSeconds": float("inf")}, {("error", "bad-value"), ("warning", "json-literal")}),
        ({"MaxOutputSize": 2**31}, {("error", "bad-value")}),
        ({"DeploymentOrder": -(2**40)}, {("error", "bad-value"), ("warning", "order-negative")}),
        ({"MaxOutputSize": "-4096"}, {("error", "limit-negative")}),
        ({"DeploymentOrder": "-1"}, {("warning", "order-negative")}),
        ({"TimeoutInSeconds": "0", "MaxOutputSize": -0, "DeploymentOrder": "-0"}, set()),
        ({"TimeoutInSeconds": None, "MaxOutputSize": "", "DeploymentOrder": 0}, set()),
    ],
)
def test_negative_numbers(tmp_path: Path, members: dict[str, Any], found: set[tuple[str, str]]) -> None:
    windows = {"ProvisioningScripts": [script(**members)]}
    findings, _, _ = examine(write(tmp_path, with_profile(windows=windows)))
    assert {(finding.severity, finding.code) for finding in findings} == found
    names = {finding.pointer.rpartition("/")[2] for finding in findings}
    assert names <= set(members) and all(finding.line and finding.column for finding in findings)


@pytest.mark.parametrize(("name", "empty"), [("", True), ("  ", True), ("Web-Server", False), ("[Param.X]", False)])
def test_a_feature_without_a_name(tmp_path: Path, name: str, empty: bool) -> None:
    document = with_profile(windows={"WindowsServerRolesAndFeatures": ["DNS", name]}, parameters=(("X", "String"),))
    findings, _, _ = examine(write(tmp_path, document))
    wrong = [(finding.severity, finding.pointer.rpartition("/")[2]) for finding in findings
             if finding.code == "feature-empty"]  # fmt: skip
    assert wrong == ([("error", "1")] if empty else [])


@pytest.mark.parametrize(
    ("version", "known"),
    [("1.0", True), ("1.0.0.0", True), (1.0, True), (None, True), ("2.0", False), (1, False), ("", False)],
)
def test_schema_versions(tmp_path: Path, version: Any, known: bool) -> None:
    inner = with_profile("true")["ExtensionSettings"]
    for name, document in (
        ("a.resext", extension(SchemaVersion=version, ExtensionSettings=inner)),
        ("b.resext", extension(ExtensionSettings={"SchemaVersion": version, **inner})),
        ("c.resdef", definition(SchemaVersion=version)),
    ):
        findings, _, _ = examine(write(tmp_path, document, name))
        told = [finding for finding in findings if finding.code == "schema-version"]
        assert [(f.severity, f.line is not None) for f in told] == ([] if known else [("warning", True)]), name


def test_hostile_patterns_are_bounded(tmp_path: Path) -> None:
    scripts = [script(StandardOutputRegex="(?:" * 20 + f"a{{{number}}}" + ")+" * 20 + "$") for number in range(900)]
    scripts += [script(ExitCodeRegex=f"^(?:(?:[0-9]|[0-9][0-9])+)+x{number}$") for number in range(900)]
    with processor_seconds(30):
        assert lint_of(tmp_path, ProvisioningScripts=scripts)


def test_orders_that_collide(tmp_path: Path) -> None:
    scripts = [script(DeploymentOrder="1"), script(ScriptType="PostInstall", DeploymentOrder=1), script()]
    assert lint_of(tmp_path, ProvisioningScripts=scripts) == []
    (finding,) = lint_of(tmp_path, ProvisioningScripts=[*scripts, script(ScriptType="preinstall", DeploymentOrder=1)])
    assert finding.code == "order-collision" and finding.pointer.endswith("/3/DeploymentOrder")
    application: dict[str, Any] = {"DeploymentName": "A", "ErrorPolicy": "FailOnMatch"}
    application["ExecutableAndParams"] = {"Executable": "a.exe"}
    application["ScriptCommands"] = [script(DeploymentOrder=1), script(DeploymentOrder=1)]
    assert [finding.code for finding in lint_of(tmp_path, ScriptApplications=[application])] == ["order-collision"]


def test_features(tmp_path: Path) -> None:
    (finding,) = lint_of(tmp_path, WindowsServerRolesAndFeatures=["web-server", "NLB", "Web-Servre", "[Param.X]"])
    assert finding.code == "feature-unknown" and finding.hint == "did you mean Web-Server?"


def test_files_that_a_command_names(tmp_path: Path) -> None:
    (tmp_path / "src/Scripts/sub").mkdir(parents=True)
    (tmp_path / "src/Scripts/Deploy One.ps1").write_text("x")
    (tmp_path / "src/Scripts/sub/two.cmd").write_text("x")

    def found(run: str, **members: Any) -> list[str]:
        document = with_profile(windows={"ProvisioningScripts": [script(run=run, ApplicationPayloadId=ID, **members)]})
        profile = document["ExtensionSettings"]["ApplicationProfile"]
        profile["ApplicationPayload"] = [{"ID": ID.upper(), "RelativePath": "Scripts"}]
        document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
        write(tmp_path, document)
        package = read_package(tmp_path)
        return [finding.sentence for finding in lint(package.document, package.payload.files)]

    assert found("-Command .\\deploy one.ps1 -X 1 ; .\\sub\\TWO.cmd") == []
    assert "no two.cmd" in "".join(found(".\\two.cmd")).replace("'", "")
    assert found(".\\tool -File two.cmd") == []
    assert found("/c copy .\\sub\\two.cmd .\\three.cmd & .\\three.cmd") == []
    assert found("/c copy .\\gone.cmd .\\three.cmd") == [
        "the payload 'Scripts' has no 'gone.cmd', which the command names"
    ]
    assert found('-Command "Invoke-WebRequest http://example.org/x -OutFile .\\got.exe; .\\got.exe /s"') == []
    assert found('-Command "curl.exe http://example.org/got.exe -O; .\\got.exe /s"') == []
    assert found('-Command "Expand-Archive a.zip -Dest .; .\\setup.exe"') == []
    assert found("/c echo rem > .\\new.cmd & call .\\new.cmd") == []
    assert found("/c if exist .\\old.exe del .\\old.exe") == []
    assert found("/c mklink .\\link.cmd .\\sub\\two.cmd & .\\link.cmd") == []
    assert found("/c cd sub & .\\three.cmd") == []
    assert len(found("/c .\\none.exe & .\\none.exe")) == 1
    assert found(".\\two.cmd", WorkingDirectory="c:\\x") == []


SHOWN = [
    '.\\a.ps1 -ConnectionString "Server=x;User Id=sa;Password=Sw0rd;"',
    "-Command \"ConvertTo-SecureString 'Sw0rd!' -AsPlainText -Force\"",
    "-Command ConvertTo-SecureString -String Sw0rd -AsPlainText -Force",
    "/c net user svc Sw0rd! /add",
    "/c schtasks /create /tn x /ru corp\\svc /rp Sw0rd /sc onstart",
    "/c sc config svc obj= .\\svc password= Sw0rd",
    ".\\a.ps1 -Token abcdef01",
    "/i x.msi DB_PASSWORD=Sw0rd",
    "/c cmdkey /add:host /user:me /pass:Sw0rd",
    "/c curl -u me:Sw0rd https://example.org/x",
    "-Command \"'Sw0rd!' | ConvertTo-SecureString -AsPlainText -Force\"",
    "-Command \"$pw = 'Sw0rd!'; ConvertTo-SecureString $pw -AsPlainText -Force\"",
    "-Command \"New-Object System.Net.NetworkCredential('me', 'Sw0rd')\"",
    "-Command \"[Environment]::SetEnvironmentVariable('DB_PASSWORD', 'Sw0rd', 'Machine')\"",
    "/c setx /m DB_PASSWORD Sw0rd",
    "/c net use z: \\\\server\\share /user:me Sw0rd",
    "/c osql -U sa -P Sw0rd -Q x",
    "/c certutil -f -p Sw0rd -importpfx x.pfx",
    "/c appcmd set apppool x /processModel.password:Sw0rd",
    "/c plink -pw Sw0rd me@host",
]
HIDDEN = [
    '.\\a.ps1 -ConnectionString "Server=x;Password=[Param.Word];"',
    '.\\a.ps1 -ConnectionString "Server=x;Integrated Security=SSPI;Password=;"',
    "-Command ConvertTo-SecureString $env:WORD -AsPlainText -Force",
    "/c net user svc /add & net user svc * & net user administrator /active:yes",
    "/c schtasks /create /tn x /ru SYSTEM /rp %WORD%",
    '/c sc config svc obj= LocalSystem password= ""',
    ".\\a.ps1 -Token $token -TokenLifetime 5 -PasswordNeverExpires $true",
    '-Command "$token = Get-Token; Connect $token"',
    "-Command [Reflection.Assembly]::Load('x, PublicKeyToken=b77a5c561934e089')",
    '/c for /f "tokens=2 delims==" %i in (x) do y',
    "/c net use z: \\\\server\\share /persistent:no & net use * /delete",
    "/c certutil -addstore root x.cer & mkdir -p x",
    "/c sqlcmd -E -p 1 -Q x",
    '-Command "$pw = Read-Host; $pw | ConvertTo-SecureString -AsPlainText -Force"',
]
LINUX = [
    "useradd -m -p Sw0rd bob",
    "mysqladmin -u root password Sw0rd",
    "smbclient -U bob%Sw0rd //host/share",
    "htpasswd -bc /etc/users bob Sw0rd",
    "ldapadd -D cn=x -w Sw0rd -f x",
    "docker login -u bob -p Sw0rd",
    "redis-cli -a Sw0rd ping",
    "curl -H 'Authorization: Bearer Sw0rdSw0rd' http://host/",
]


@pytest.mark.parametrize("run", SHOWN)
def test_passwords_in_commands(tmp_path: Path, run: str) -> None:
    assert codes(tmp_path, run=run) == {"secret-in-plain-text"}


@pytest.mark.parametrize("run", HIDDEN)
def test_what_is_no_password(tmp_path: Path, run: str) -> None:
    assert codes(tmp_path, run=run) == set()


@pytest.mark.parametrize("command", LINUX)
def test_passwords_in_linux_commands(tmp_path: Path, command: str) -> None:
    found, _documents, _masker = examine(
        write(tmp_path, with_profile(command, "docker run -p 80:80 x", "ldapadd -W -f x"))
    )
    assert [(f.code, f.pointer[-1]) for f in found] == [("secret-in-plain-text", "0")]


def test_passwords_in_linux_commands_and_batch_texts(tmp_path: Path) -> None:
    block = {"ExecutableAndParams": None, "ScriptBlock": "net user svc Sw0rd /add"}
    assert codes(tmp_path, **block) == {"secret-in-plain-text"}
    commands = ("/bin/sh -c 'echo root:Sw0rd | chpasswd'", "/bin/sh -c 'echo \"root:[Param.Word]\" | chpasswd'")
    path = write(tmp_path, with_profile(*commands, parameters=(("Word", "SecureString"),)))
    found, documents, masker = examine(path)
    assert [(f.code, f.pointer[-1]) for f in found] == [("secret-in-plain-text", "0")]
    assert "Sw0rd" not in "\n".join(line for f in found for line in _shown(f, documents[f.file], masker))


def test_a_text_ends_at_no_nul_character_unseen(tmp_path: Path) -> None:
    found = read_package(write(tmp_path, with_profile("/bin/echo a\0b", "/bin/true"))).findings
    assert [(f.severity, f.code, f.pointer[-1]) for f in found] == [("error", "nul-character", "0")]


def test_tags(tmp_path: Path) -> None:
    document = with_profile("/bin/true")
    document["ResourceRequirements"] = {"OSVirtualHardDiskRequirements": ["linux", "SysprepSQL"]}
    package = read_package(write(tmp_path, document))
    (finding,) = tags(package.document, ["Linux"], "debian-12")
    assert finding.code == "requirement-tag" and "SysprepSQL" in finding.sentence and finding.line == 1


def test_the_seeds_oddities(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    package = read_package(path)
    found = [*package.findings, *lint(package.document, package.payload.files)]
    assert {
        *("version-format", "type-name", "json-trailing-comma", "json-lone-backslash", "json-duplicate-key"),
        *("identifier-blank", "payload-unknown-id", "parameter-undeclared", "secret-in-plain-text"),
        *("reboot-pattern-braces", "payload-missing"),
    } == {finding.code for finding in found}
    assert sum(finding.code == "parameter-undeclared" for finding in found) == 2
    assert all(finding.line and finding.column for finding in found)
    assert not [finding for finding in found if finding.severity == "error"]


def test_published_packages_have_no_false_findings() -> None:
    found: dict[str, set[str]] = {}
    for folder in published_folders():
        for path in folder.glob("*.resext"):
            package = read_package(path)
            found[path.stem] = {finding.code for finding in lint(package.document, package.payload.files)}
    assert found.pop("RDSSH") == {"command-single-quotes"}
    assert found and not any(found.values())


def test_the_sample_has_what_it_was_made_for() -> None:
    package = read_package(SAMPLES / "everything.resext")
    assert {finding.code for finding in lint(package.document)} == {"pattern-path", "reboot-pattern-braces"}


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_with_anything_anywhere_are_examined(tmp_path: Path, data: st.DataObject) -> None:
    """Values of the sample replaced by arbitrary ones: findings or our own errors, never another exception."""
    document = read_json((SAMPLES / "everything.resext").read_bytes(), "x").root
    odd = st.sampled_from(["(", "*", "{1}|x", "c:\\x", "[Param.Port]", "[", "a++", ".*", "-1", ".\\x.ps1", "'"])
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | odd,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        max_leaves=6,
    )
    nodes = [node for node in document.walk() if node.parent is not None]
    for node in data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=6)):
        node.value = data.draw(anything)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(_plain(document)), encoding="utf-8")
    try:
        findings, documents, masker = examine(path)
    except VmRoleError as error:
        assert error.exit_code == 2
    else:
        json.dumps(findings.as_json())
        for finding in findings.sorted():
            assert _shown(finding, documents.get(finding.file), masker)
