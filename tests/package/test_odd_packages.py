# SPDX-License-Identifier: Apache-2.0
"""Odd but legitimate packages: everything that the sources say real ones do, in shapes that no sample here has.

None has an error, each has exactly the findings that are true of it, and its plan has the order of the evidence.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cli.check import examine
from harness.package import read_package, read_parameters
from harness.plan import make_plan

PAYLOAD = "e3e1c6a0-9d6f-4d5e-8b7e-2f5a0a6b7c81"
SQL = "c0000000-0000-0000-0000-00000000000"
SHELL = "%WINDIR%\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe"
CONTENT_TYPES = (
    '\ufeff<?xml version="1.0" encoding="utf-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
    'content-types"><Default Extension="ps1" ContentType="application/octet-stream" /></Types>'
)


def script(kind: Any = "PreInstall", order: Any = "1", parameters: Any = "-Command .\\a.ps1", **more: Any) -> Any:
    """As the authoring tool writes one: scalars are strings. A value ``...`` leaves the member out."""
    program = {"Executable": SHELL, "Parameters": parameters}
    members = {
        "AlwaysReboot": "false",
        "ApplicationPayloadId": PAYLOAD,
        "DeploymentOrder": order,
        "ErrorPolicy": "FailOnMatch",
        "ExecutableAndParams": program,
        "RestartOnRetry": "false",
        "ScriptType": kind,
        "StandardErrorPath": "c:\\VMRole\\Log\\err.txt",
        "StandardOutputPath": "c:\\VMRole\\Log\\out.txt",
        "TimeoutInSeconds": "1200",
        **more,
    }
    return {name: value for name, value in members.items() if value is not ...}


def windows(*scripts: Any, **more: Any) -> dict[str, Any]:
    return {
        "WindowsServerRolesAndFeatures": [],
        "SQLProfile": None,
        "ProvisioningScripts": list(scripts),
        "WebDeployApplications": [],
        "SQLDacApplications": [],
        "ScriptApplications": [],
        **more,
    }


def document(profile: Any, *parameters: tuple[str, str], linux: Any = None, **more: Any) -> dict[str, Any]:
    payloads = more.pop("payloads", [{"ID": PAYLOAD, "RelativePath": "Scripts"}])
    members = {
        "SchemaVersion": "1.0",
        "Name": "X",
        "Version": "1.0.0.0",
        "Publisher": "Contoso",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "DataPackage": {"Version": "1.0.0.0", "Location": "src", "ExternalPayload": []},
        "ResourceExtensionParameters": [{"Name": name, "Type": kind} for name, kind in parameters],
        "ResourceRequirements": None,
        "ExtensionSettings": {
            "ApplicationProfile": {
                "Name": "Y",
                "ApplicationPayload": payloads,
                "LinuxApplicationProfile": linux,
                "WindowsApplicationProfile": profile,
            }
        },
        **more,
    }
    return {name: value for name, value in members.items() if value is not ...}


@dataclass(frozen=True)
class Case:
    """A package and what is true of it: codes of findings and, unless None, the ids of a deployment's steps."""

    document: dict[str, Any] | str
    codes: tuple[str, ...] = ()
    steps: tuple[str, ...] | None = ("preinstall-1",)
    files: dict[str, bytes] = field(default_factory=lambda: {"src/Scripts/a.ps1": b"exit 0"})
    encoding: str = "utf-8-sig"
    name: str = "X.resext"
    content_types: bool = True
    newline: str = "\r\n"


def external(*items: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "1.0.0.0", "Location": "src", "ExternalPayload": list(items)}


WEB = {
    "ApplicationPayloadId": "b0000000-0000-0000-0000-000000000001",
    "DeploymentName": "Site",
    "PackagePassword": "[Param.Word]",
    "ScriptCommands": [
        script("PostInstall", "2"),
        script("PreInstall"),
        script("PreService"),
        script("PreUninstall"),
        script("PostService"),
    ],
    "WebDeployParameters": [
        {"ParameterName": "IIS Web Application Name", "Value": "Default Web Site/App"},
        {"ParameterName": "Connection", "Value": "Server=[Param.Server];Database=x;"},
    ],
}
DAC = {
    "ScriptCommands": [script("PostInstall"), script("PreInstall")],
    "SQLScriptCommands": [
        {
            "CommandParameters": "-v A=1",
            "DatabaseName": "Db",
            "DeploymentOrder": "2",
            "EncryptConnection": "true",
            "ExecutionTimeoutSeconds": "60",
            "LoginTimeoutSeconds": "15",
            "OutputFilePath": "c:\\log\\x.txt",
            "SQLAuthenticationType": "WindowsAuthentication",
            "SQLScriptApplicationPayloadId": SQL + "1",
            "ScriptCredential": "[Param.Who]",
            "ScriptType": "PostInstall",
        }
    ],
    "ApplicationPayloadId": SQL + "2",
    "BlockOnChanges": "true",
    "DacInstance": "Db",
    "DeploymentName": "Db",
    "IgnoreDataLoss": "false",
    "RollbackOnFailure": "true",
    "SQLAuthenticationType": "SQLServerAuthentication",
    "SQLDeploymentCredential": {"UserName": "sa", "Password": "[Param.Word]"},
    "SQLInstance": ".",
    "SkipPolicyValidation": "true",
    "UninstallMode": "MakeUnmanaged",
}
SERVER = {
    "DeploymentName": "S",
    "InstanceName": "MSSQLSERVER",
    "InstanceID": "MSSQLSERVER",
    "EnableNamedPipes": "true",
    "EnableTCP": "[Param.Tcp]",
    "MediaSource": "C:\\SQL",
    "ProductKey": None,
    "SQLAuthenticationType": "SQLServerAuthentication",
    "SQLSysAdminMemberList": "BUILTIN\\Administrators",
    "DeploymentTimeOutInSeconds": "3600",
    "SQLConfigurationPayloadId": SQL + "3",
    "SAPassword": "[Param.Word]",
    "SQLDeploymentCredential": "[Param.Who]",
    "SQLAgentServiceCredential": "NT AUTHORITY\\NetworkService:",
    "SQLServiceCredential": "[Param.Who]",
    "SQLReportingServiceCredential": None,
}
APPLICATION = {
    **script(kind=..., order=..., RestartOnRetry=...),
    "DeploymentName": "App 1",
    "ScriptCommands": [
        script(kind)
        for kind in ("PostInstall", "PreInstall", "SaveState", "RestoreState", "PreService", "PostUninstall")
    ],
    "EnvironmentVariables": [{"Name": "A", "Value": "[Param.Count]"}, {"Name": "B", "Value": ""}],
}
NULLS = ("ExitCodeRegex", "StandardOutputRegex", "StandardErrorRegex", "RebootExitCodeRegex", "MaxOutputSize",
         "ScriptCredential", "ScriptBlock", "StandardInput", "WorkingDirectory", "RestartOnExitCodeReboot")  # fmt: skip
ONE = ("Word", "SecureString")

CASES = {
    "utf-16": Case(document(windows(script())), ("json-utf16",), encoding="utf-16"),
    "no byte order mark, line feeds": Case(document(windows(script())), encoding="utf-8", newline="\n"),
    "the guide's spelling": Case(
        document(
            windows(
                script(
                    parameters=".\\a.ps1 [param.P]", ExitCodeRegex="[[1-9][[0-9]*", StandardErrorRegex="[[^[\\s]+ERROR"
                )
            ),
            ("P", "string"),
            Type=...,
            ExtensionHostingContract="MicrosoftCompute/VMRole/1.0.0.0",
            SchemaVersion="1.0.0.0",
        )
    ),
    "single quotes and lone backslashes": Case(
        json.dumps(document(windows(script())), indent=1)
        .replace('"c:\\\\VMRole\\\\Log\\\\err.txt"', "'c:\\err.txt'")
        .replace('"FailOnMatch"', "'FailOnMatch'"),
        ("json-single-quotes", "json-single-quotes", "json-lone-backslash"),
    ),
    "letters of other languages": Case(
        document(windows(script(parameters="-Command .\\Größe.ps1 -x '日本'")), Name="Größe"),
        files={"src/Scripts/Größe.ps1": b"x", "src/Scripts/日本 語.txt": b"y"},
        name="Größe 1.resext",
    ),
    "entries for folders": Case(
        document(windows(script())),
        files={name: b"" for name in ("src/", "src/Scripts/", "src/Scripts/a.ps1", "src/Scripts/en-US/", "empty/")},
    ),
    "a packer that starts at the root": Case(
        document(windows(script())), files={name: b"" for name in ("./", "./src/", "./src/Scripts/a.ps1")}
    ),
    "utf-16 without a mark": Case(document(windows(script())), ("json-utf16",), encoding="utf-16-le"),
    "an umlaut in ANSI": Case(
        document(windows(script()), ResourceRequirements={"OSVirtualHardDiskRequirements": ["Größe"]}),
        ("json-encoding",),
        encoding="cp1252",
    ),
    "nulls everywhere": Case(
        document(
            {
                **dict.fromkeys(windows(), None),
                "ProvisioningScripts": [script("PreInstall", **dict.fromkeys(NULLS))],
            },
            DataPackage={"Version": "1.0.0.0", "Location": "src", "ExternalPayload": None},
            ResourceExtensionParameters=None,
        )
    ),
    "nothing to do": Case(document(windows(), DataPackage=None, payloads=[]), steps=(), files={}),
    "payloads that are nowhere": Case(document(windows(script()), DataPackage=None), ("payload-missing",), files={}),
    "payloads at the root": Case(
        document(windows(script()), DataPackage={"Version": "1.0.0.0", "Location": ".\\"}),
        files={"Scripts/a.ps1": b""},
    ),
    "a credential in two parts": Case(
        document(
            windows(script(ScriptCredential={"UserName": "[Param.User]", "Password": "[Param.Word]"})),
            ("User", "String"),
            ONE,
        )
    ),
    "built-in accounts": Case(
        document(
            windows(
                script(ScriptCredential="NT AUTHORITY\\System:"),
                script(order="2", ScriptCredential="NT AUTHORITY\\NetworkService:"),
            )
        ),
        steps=("preinstall-1", "preinstall-2"),
    ),
    "sparse orders, none in order": Case(
        document(
            windows(
                *(script(order=order) for order in ("6", "5", "1", "30")),
                script("OnProvisionFirst", "1"),
                script("OnProvisionRest", "2"),
            )
        ),
        steps=("on-provision-first-1", "preinstall-1", "preinstall-5", "preinstall-6", "preinstall-30"),
    ),
    "features that repeat": Case(
        document(windows(script(), WindowsServerRolesAndFeatures=["NLB", "web-server", "RSAT-NLB", "Web-Server"])),
        steps=("feature-NLB", "feature-web-server", "feature-RSAT-NLB", "preinstall-1"),
    ),
    "web deploy, identifiers in all spellings": Case(
        document(
            windows(WebDeployApplications=[WEB]),
            ONE,
            ("Server", "String"),
            payloads=[
                {"ID": "B0000000-0000-0000-0000-000000000001", "RelativePath": "web/site.zip"},
                {"ID": "{" + PAYLOAD.upper() + "}", "RelativePath": ".\\Scripts\\"},
            ],
        ),
        steps=("webdeploy-Site-preinstall-1", "webdeploy-Site", "webdeploy-Site-postinstall-2"),
        files={"src/web/site.zip": b"PK", "src/Scripts/a.ps1": b""},
    ),
    "sql": Case(
        document(
            windows(SQLDacApplications=[DAC], SQLProfile={"SQLDeployments": [SERVER]}),
            ("Who", "Credential"),
            ONE,
            ("Tcp", "Boolean"),
            ResourceRequirements={"OSVirtualHardDiskRequirements": ["SysprepSQL", "WindowsServer2012"]},
            payloads=[
                {"ID": PAYLOAD, "RelativePath": "Scripts"},
                {"ID": SQL + "1", "RelativePath": "Sql/a.sql"},
                {"ID": SQL + "2", "RelativePath": "Sql/db.dacpac"},
                {"ID": SQL + "3", "RelativePath": "Sql/ConfigurationFile.ini"},
            ],
        ),
        steps=(
            "sql-S", "sqldac-Db-preinstall-1", "sqldac-Db", "sqldac-Db-postinstall-1", "sqldac-Db-sql-postinstall-2",
        ),
        files={f"src/{name}": b"" for name in
               ("Sql/a.sql", "Sql/db.dacpac", "Sql/ConfigurationFile.ini", "Scripts/a.ps1")},
    ),
    "script applications": Case(
        document(
            windows(ScriptApplications=[APPLICATION, APPLICATION | {"DeploymentName": "App 2"}]), ("Count", "Int")
        ),
        steps=tuple(
            f"script-app-App-{number}-{what}"
            for number in (1, 2)
            for what in ("preinstall-1", "install", "postinstall-1")
        ),
    ),
    "script types of the pages": Case(
        document(
            windows(
                script("OnProvisionLast"),
                script("OnProvisionFirst"),
                script("OnDeleteLast", ApplicationPayloadId=None),
                script("OnDeleteRest", ApplicationPayloadId=...),
                script("PostInstall"),
                script("PREINSTALL"),
            )
        ),
        steps=("on-provision-first-1", "preinstall-1", "postinstall-1"),
    ),
    "files from elsewhere": Case(
        document(
            windows(script()),
            DataPackage=external(
                {"RelativePath": "Setup\\big.iso", "Hash": None, "URLHint": "http://example.org/y"},
                {"RelativePath": "other.msi", "Hash": "ab" * 32, "URLHint": None},
                {"RelativePath": "base64.msi", "Hash": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
                {"RelativePath": "empty.msi", "Hash": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
                {"RelativePath": "odd.msi", "Hash": "d41d8cd98f00b204e9800998ecf8427e"},
            ),
        ),
        ("external-hash-format",),
        files={"src/Scripts/a.ps1": b"", "src/empty.msi": b""},
    ),
    "native types": Case(
        document(
            windows(
                script(
                    AlwaysReboot=True, order=1, TimeoutInSeconds=60, MaxOutputSize=1048576, RestartOnRetry=False,
                    RestartOnExitCodeReboot=True, RebootExitCodeRegex="{1641}|{3010}|{3011}", StandardOutputRegex="*",
                )
            )
        ),
        ("command-exit-code", "reboot-pattern-braces"),
    ),
    "a folder of .cr in a folder": Case(
        document(windows(script()), DataPackage={"Version": "1.0.0.0", "Location": "Payload\\src.cr\\"}),
        files={"Payload/src.cr/Scripts/a.ps1": b""},
    ),
    "a batch text without payload": Case(
        document(
            windows(
                script(
                    ExecutableAndParams=None,
                    ScriptBlock='rem some script...\r\necho "x"\r\nexit /b 0',
                    ApplicationPayloadId=...,
                    ScriptCredential="[Param.Who]",
                )
            ),
            ("Who", "Credential"),
        )
    ),
    "an installer, no content types": Case(
        document(
            windows(
                script(
                    ExecutableAndParams={
                        "Executable": "msiexec.exe",
                        "Parameters": '/i "My App.msi" /qn /l*v c:\\log.txt ADMIN="[Param.A]"',
                    },
                    RebootExitCodeRegex="3010",
                )
            ),
            ("A", "Boolean"),
        ),
        ("content-types-missing",),
        files={"src/Scripts/My App.msi": b"x"},
        content_types=False,
    ),
    "words that are no passwords": Case(
        document(
            windows(
                script(
                    parameters=".\\a.ps1 -Password '*' -SAPassword $null -Pwd [Param.Word] -PasswordFile x -pwd $env:P"
                )
            ),
            ONE,
        )
    ),
    "members of one's own": Case(
        document(windows(script()), Comment="made by hand", **{"$schema": "resource-extension.json"}),
        ("unknown-field",),
    ),
    "linux": Case(
        document(
            None,
            ("P", "String"),
            ("U", "string"),
            linux={
                "RunOnceCommands": [
                    '/bin/bash -c "yum -y install httpd && service httpd start"',
                    "/bin/sh -c 'echo [Param.P] > /etc/motd'",
                    "useradd [Param.U]",
                ]
            },
            DataPackage=None,
            payloads=[],
        ),
        steps=("run-once-1", "run-once-2", "run-once-3"),
        files={},
    ),
    "patterns of .NET": Case(
        document(
            windows(
                script(
                    ExitCodeRegex="^(?!0$).*", StandardErrorRegex=".+",
                    StandardOutputRegex="(?i)\\bfailed\\b|error:\\s+\\d{3,}",
                ),
                script(order="2", ExitCodeRegex="[^0]"),
                script(order="3", ExitCodeRegex="1|2|3"),
                script(order="4", ExitCodeRegex="-?[1-9][0-9]*", RebootExitCodeRegex="{1}"),
                script(order="5", ExitCodeRegex="^[1-9]\\d*$"),
            )
        ),
        ("command-exit-code", "reboot-pattern-braces"),
        steps=tuple(f"preinstall-{order}" for order in range(1, 6)),
    ),
    "programs of all kinds": Case(
        document(
            windows(
                script(
                    ExecutableAndParams={
                        "Executable": "%COMSPEC%", "Parameters": '/c ""%SystemDrive%\\x y\\a.cmd" [Param.A]"',
                    }
                ),
                script(
                    order="2",
                    ExecutableAndParams={
                        "Executable": "cmd.exe", "Parameters": "/c .\\install.cmd -p:[Param.Word] > c:\\log.txt 2>&1",
                    },
                ),
                script(order="3", ExecutableAndParams={"Executable": "cscript", "Parameters": ".\\sub\\x.vbs"}),
                script(order="4", ExecutableAndParams={"Executable": ".\\setup.exe", "Parameters": None}),
                script(
                    order="5",
                    parameters="-Command \"& .\\a.ps1 -Mail 'a@b.c' -H @{a=[int]1} -S ('[Param.A]' -split ',')[0]\"",
                ),
            ),
            ("A", "String"),
            ONE,
        ),
        steps=tuple(f"preinstall-{order}" for order in range(1, 6)),
        files={f"src/Scripts/{name}": b"" for name in ("install.cmd", "sub/x.vbs", "setup.exe", "a.ps1")},
    ),
    "backslashes in the archive": Case(
        document(windows(script())), ("archive-backslash",), files={"src\\Scripts\\a.ps1": b""}
    ),
    "other letters in the archive": Case(
        document(windows(script()), DataPackage={"Version": "1.0.0.0", "Location": "SRC"}),
        files={"src/scripts/A.PS1": b""},
    ),
    "an extension for both systems": Case(
        document(windows(script()), linux={"RunOnceCommands": ["hostname"]}), steps=("preinstall-1", "run-once-1")
    ),
}  # fmt: skip
VALUES = {
    "P": "x y", "U": "bob", "User": "corp\\bob", "Word": "Sw0rdfish!", "Server": "db", "Who": "corp\\bob:Sw0rdfish!",
    "Tcp": "true", "Count": "3", "A": "false",
}  # fmt: skip


def packed(folder: Path, case: Case) -> Path:
    text = case.document if isinstance(case.document, str) else json.dumps(case.document, indent=4, ensure_ascii=False)
    if not isinstance(case.document, str):
        text = text.replace("/", "\\/")
    path = folder / "ein Päckchen (1).resextpkg"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(case.name, text.replace("\n", case.newline).encode(case.encoding))
        for name, data in case.files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name
            archive.writestr(info, data)
        if case.content_types:
            archive.writestr("[Content_Types].xml", CONTENT_TYPES)
    return path


@pytest.mark.parametrize("name", CASES)
def test_odd_packages(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = packed(tmp_path, case)
    findings, _documents, _masker = examine(path)
    assert sorted(finding.code for finding in findings) == sorted(case.codes), [str(finding) for finding in findings]
    assert findings.errors == 0
    package = read_package(path)
    known = {parameter.name for parameter in package.extension.resource_extension_parameters}
    values = read_parameters(package, [f"{key}={value}" for key, value in VALUES.items() if key in known])
    plan = make_plan(package, values, os="windows", strict=False)
    if case.steps is not None:
        assert tuple(step.id for step in plan.steps) == case.steps
    assert not any(step.unresolved for step in plan.steps)
    assert "Sw0rdfish" not in json.dumps(plan.as_json())
    for step in plan.applicable:
        if step.payload_id and step.kind == "script":
            assert step.working_directory and step.working_directory.lower().endswith("\\scripts")


def test_what_the_odd_ones_mean(tmp_path: Path) -> None:
    """The values behind the spellings."""

    def first(name: str, **more: Any) -> Any:
        package = read_package(packed(tmp_path, CASES[name]))
        known = {parameter.name for parameter in package.extension.resource_extension_parameters}
        values = read_parameters(package, [f"{key}={value}" for key, value in VALUES.items() if key in known])
        return make_plan(package, values, os="windows", strict=False, **more)

    guide = first("the guide's spelling").steps[0]
    assert guide.policy.exit_code.pattern == "[1-9][0-9]*" and guide.policy.stderr.pattern == "[^[\\s]+ERROR"
    assert guide.parameters == ".\\a.ps1 x y"
    assert first("single quotes and lone backslashes").steps[0].stderr_path == "c:\\err.txt"
    two = first("a credential in two parts").steps[0].credential
    assert (two.user, two.password) == ("corp\\bob", "Sw0rdfish!")
    system = first("built-in accounts").steps[0].credential
    assert (system.user, system.password) == ("NT AUTHORITY\\System", "")
    native = first("native types").steps[0]
    assert native.reboot == "always" and native.timeout == 60.0 and native.max_output_size == 1048576
    assert native.policy.restart_on_exit_code_reboot and native.policy.stdout.state == "off"
    nulls = first("nulls everywhere").steps[0]
    assert [check.state for check in nulls.policy.checks] == ["off", "off", "off"] and nulls.reboot == "never"
    default = first("utf-16").steps[0]
    assert default.policy.exit_code.pattern == "[1-9][0-9]*" and default.policy.exit_code.default
    application = first("script applications").steps[1]
    assert application.environment == (("A", "3"), ("B", ""))
    deleted = first("script types of the pages", event="delete").steps
    assert [step.id for step in deleted] == ["on-delete-last-1"] and deleted[0].payload_id is None
    rest = first("script types of the pages", instance=2).steps
    assert [step.id for step in rest] == ["on-provision-rest-1", "preinstall-1", "postinstall-1"]
    update = first("web deploy, identifiers in all spellings", event="update").steps
    assert [step.id for step in update] == ["webdeploy-Site-preservice-1", "webdeploy-Site-postservice-1"]
    updated = first("script applications", event="update").steps
    assert [step.id for step in updated][:2] == ["script-app-App-1-preservice-1", "script-app-App-1-install"]
