# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import PackageError
from harness.package import Findings, Parameters, read_package
from harness.package.findings import CODES, MOST_PER_CODE
from harness.plan import make_plan
from tests.package.material import SAMPLES, extension, published_folders, seed_document, with_profile, write


def codes(folder: Path, document: dict[str, Any]) -> set[str]:
    return {finding.code for finding in read_package(write(folder, document)).findings}


def test_scalars_may_be_strings_and_parameters(tmp_path: Path) -> None:
    script = {
        "AlwaysReboot": "False",
        "DeploymentOrder": "3",
        "ErrorPolicy": "FailOnMatch",
        "MaxOutputSize": "[Param.Size]",
        "RestartOnRetry": True,
        "ScriptType": "PreInstall",
        "TimeoutInSeconds": 1200.0,
        "RestartOnExitCodeReboot": "[Param.Again]",
        "ExitCodeRegex": 5,
        "StandardErrorRegex": None,
    }
    windows = {"ProvisioningScripts": [script], "WindowsServerRolesAndFeatures": None}
    package = read_package(
        write(tmp_path, with_profile(windows=windows, parameters=(("Size", "Int"), ("Again", "Bool"))))
    )
    (read,) = package.extension.windows.provisioning_scripts
    assert (read.always_reboot, read.deployment_order, read.max_output_size) == (False, 3, "[Param.Size]")
    assert (read.restart_on_retry, read.timeout_in_seconds, read.exit_code_regex) == (True, 1200, "5")
    assert read.written("standard_error_regex") and not read.written("standard_output_regex")
    assert package.extension.windows.windows_server_roles_and_features == ()
    assert not package.findings


def test_wrong_values_are_found_all_at_once_and_count_as_missing(tmp_path: Path) -> None:
    script = {
        "AlwaysReboot": "perhaps",
        "TimeoutInSeconds": [],
        "ErrorPolicy": "FailOnMatch",
        "ScriptType": "PreInstall",
    }
    document = with_profile("/bin/true", windows={"ProvisioningScripts": [script, 7], "SQLProfile": []})
    document["DataPackage"] = "src"
    document["ResourceExtensionParameters"] = {}
    package = read_package(write(tmp_path, document))
    bad = {finding.pointer for finding in package.findings if finding.code == "bad-value"}
    base = "/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile"
    assert bad == {
        "/DataPackage",
        "/ResourceExtensionParameters",
        f"{base}/ProvisioningScripts/0/AlwaysReboot",
        f"{base}/ProvisioningScripts/0/TimeoutInSeconds",
        f"{base}/ProvisioningScripts/1",
        f"{base}/SQLProfile",
    }
    assert package.extension.windows.provisioning_scripts[0].script_type == "PreInstall"
    assert package.extension.linux.run_once_commands == ("/bin/true",)
    assert all(finding.line == 1 and finding.column for finding in package.findings)


def test_unknown_missing_and_miswritten_members(tmp_path: Path) -> None:
    document = extension(version="1.0.0.0", Nmae="x", Colour="red")
    del document["Version"], document["SchemaVersion"]
    package = read_package(write(tmp_path, document))
    assert package.extension.version == "1.0.0.0"
    found = {(finding.code, finding.pointer): finding for finding in package.findings}
    assert set(found) == {
        ("field-case", "/version"),
        ("unknown-field", "/Nmae"),
        ("unknown-field", "/Colour"),
        ("missing-field", ""),
    }
    assert "Name" in found[("unknown-field", "/Nmae")].hint
    assert "SchemaVersion" in found[("missing-field", "")].sentence


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"Version": "1.0"}, "version-format"),
        ({"Type": "Microsoft.Compute/ EnterpiseApplicationExtension/1.0"}, "type-name"),
        ({"Type": None}, "missing-field"),
        ({"Type": None, "ExtensionType": "Microsoft.Compute/EnterpiseApplicationExtension/1.0"}, None),
        ({"Type": None, "ExtensionHostingContract": "MicrosoftCompute/VMRole/1.0.0.0"}, None),
        ({"DataPackage": None, "ResourceRequirements": None}, None),
        ({"DataPackage": {"Version": "1.0.0.0", "Location": "gone"}}, "payload-missing"),
        ({"ResourceExtensionParameters": [{"Name": "A", "Type": "Widget"}]}, "parameter-type"),
        ({"ResourceExtensionParameters": [{"Name": "A", "Type": "String"}]}, "parameter-unused"),
    ],
)
def test_findings_about_an_extension(tmp_path: Path, members: dict[str, Any], code: str | None) -> None:
    assert code is None or code in codes(tmp_path, extension(**members))
    assert code is not None or not codes(tmp_path, extension(**members))


@pytest.mark.parametrize(
    ("kind", "codes"), [("Install", ["script-type"]), ("PreInstall", []), ("Setup", ["script-type"])]
)
def test_a_provisioning_script_of_a_type_that_no_event_runs(tmp_path: Path, kind: str, codes: list[str]) -> None:
    script = {"ErrorPolicy": "FailOnMatch", "ScriptType": kind, "ScriptBlock": "ver"}
    document = with_profile(windows={"ProvisioningScripts": [script]})
    assert [finding.code for finding in read_package(write(tmp_path, document)).findings] == codes


def test_payload_references(tmp_path: Path) -> None:
    guid = "6c0b1d0e-8a4f-4f0e-9a52-3f8a3f0f5c11"
    script = {"ErrorPolicy": "FailOnMatch", "ScriptType": "Preinstal", "ApplicationPayloadId": guid.upper()}
    stranger = script | {"ApplicationPayloadId": guid.replace("6", "7"), "ScriptCredential": "bob:secret-1"}
    document = with_profile(windows={"ProvisioningScripts": [script, stranger]})
    profile = document["ExtensionSettings"]["ApplicationProfile"]
    profile["ApplicationPayload"] = [
        {"ID": guid, "RelativePath": "scripts"},
        {"ID": "{" + guid + "}", "RelativePath": "../x"},
        {"ID": "b7d9c0aa-0c5b-4f3d-8d3f-2a7b 51c1e922", "RelativePath": "gone"},
    ]
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    (tmp_path / "src" / "scripts").mkdir(parents=True)
    (tmp_path / "src" / "scripts" / "a").write_text("")
    found = {finding.code for finding in read_package(write(tmp_path, document)).findings}
    assert found == {
        "payload-duplicate-id",
        "payload-unknown-id",
        "payload-path",
        "payload-missing",
        "identifier-blank",
        "script-type",
        "secret-in-plain-text",
    }


def test_parameter_findings(tmp_path: Path) -> None:
    document = with_profile("/bin/echo [Param.here] [Param.There]", parameters=(("Here", "String"), ("Spare", "Int")))
    assert codes(tmp_path, document) == {"parameter-case", "parameter-undeclared", "parameter-unused"}


def test_the_seeds_own_sample(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    package = read_package(path)
    assert not [finding for finding in package.findings if finding.severity == "error"]
    found = {finding.code for finding in package.findings}
    assert {"version-format", "type-name", "json-duplicate-key", "json-lone-backslash", "json-trailing-comma"} <= found
    assert {"identifier-blank", "parameter-undeclared", "secret-in-plain-text"} <= found
    assert not found & {"unknown-field", "field-case", "bad-value", "missing-field"}
    undeclared = [finding.sentence for finding in package.findings if finding.code == "parameter-undeclared"]
    assert len(undeclared) == 2
    extension = package.extension
    assert extension.linux.run_once_commands == ("ifconfig",)
    (dac,) = extension.windows.sql_dac_applications
    credential = dac.script_commands[0].script_credential
    assert not isinstance(credential, str | None) and credential.password == "mypassword4"
    (web,) = extension.windows.web_deploy_applications
    assert web.deployment_name == "Deployment1"  # the last of two


def test_everything_has_every_member_of_the_seed(tmp_path: Path) -> None:
    package = read_package(SAMPLES / "everything.resext")
    assert not [finding for finding in package.findings if finding.severity == "error"]
    found = {finding.code for finding in package.findings}
    wanted = (
        "json-trailing-comma json-comment json-lone-backslash json-path-escape json-single-quotes json-duplicate-key"
    )
    assert set(wanted.split()) <= found
    assert {"version-format", "type-name", "identifier-blank", "parameter-undeclared", "parameter-case"} <= found
    assert not found & {"unknown-field", "missing-field"}
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    assert _members(read_package(path)) <= _members(package)


def _members(package: Any) -> set[str]:
    return {str(node.key) for node in package.document.root.walk() if isinstance(node.key, str)}


def test_published_documents_have_no_errors() -> None:
    documents = [path for folder in published_folders() for path in folder.glob("*.resext")]
    assert documents
    for path in documents:
        package = read_package(path)
        # only the documents are published, the payload is not
        assert {finding.code for finding in package.findings} <= {"payload-missing", "parameter-unused"}, path.name


def test_the_reader_reads_every_published_document() -> None:
    from harness.package.jsontext import read_json

    for folder in published_folders():
        for path in folder.rglob("*"):
            if path.suffix in (".resext", ".resdef", ".viewdef", ".resources"):
                assert not read_json(path.read_bytes(), path.name).findings.codes() - {"json-path-escape"}, path


def test_findings_are_bounded_and_documented() -> None:
    findings = Findings()
    for _ in range(MOST_PER_CODE + 50):
        findings.add("json-comment", "x", file="a", line=1, column=1)
    assert len(findings) == MOST_PER_CODE + 1
    assert findings.warnings == MOST_PER_CODE and findings.errors == 0
    assert findings.as_json()["warnings"] == MOST_PER_CODE
    assert all(severity in ("error", "warning", "info") and text for severity, text in CODES.values())


def test_every_code_is_used() -> None:
    sources = Path(read_package.__code__.co_filename).parents[1].rglob("*.py")
    text = "".join(path.read_text("utf-8") for path in sources if path.name != "findings.py")
    assert [code for code in CODES if f'"{code}"' not in text and code != "findings-left-out"] == []


def test_importing_the_package_is_cheap() -> None:
    script = "import sys, harness.package, harness.plan, harness.masking; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_names_and_passwords_of_hostile_documents(tmp_path: Path) -> None:
    """A name that moves the cursor is one line; passwords are bounded, since each is looked for everywhere."""
    read = read_package(write(tmp_path, extension(Name="a\n\x1b[2J b" + "c" * 200)))
    assert read.name.startswith("a \ufffd[2J b") and len(read.name) <= 100
    scripts = [{"ErrorPolicy": "FailOnMatch", "ScriptType": "PreInstall", "ScriptBlock": "ver", "ScriptCredential":
                f"user:{number}-password"} for number in range(501)]  # fmt: skip
    with pytest.raises(PackageError, match="501 different passwords"):
        read_package(write(tmp_path, with_profile(windows={"ProvisioningScripts": scripts})))
    scripts[0]["ScriptCredential"] = "user:" + "x" * 1_000_000
    read = read_package(write(tmp_path, with_profile(windows={"ProvisioningScripts": scripts[:500]})))
    assert "secret-in-plain-text" in {finding.code for finding in read.findings}
    odd = with_profile("/bin/echo [Param.a\x1bb] [Param.c]")
    plan = make_plan(read_package(write(tmp_path, odd)), Parameters(), os="linux", strict=False)
    assert plan.steps[0].unresolved == ("c",)
