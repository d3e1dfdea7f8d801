# SPDX-License-Identifier: Apache-2.0
"""`vmrole plan` with events, instances, pattern defaults and definitions; `run` refuses what it would have to guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.run import require_payload
from harness.cli.subject import Subject, plan_events, read_subject
from harness.errors import PackageError
from tests.conftest import vmrole
from tests.package.material import definition, field, view, with_profile, write
from tests.plan.test_plan import script

APPLICATION = {"DeploymentName": "Site", "ErrorPolicy": "FailOnMatch", "ScriptBlock": "ver"}


def ids(subject: Subject, *events: Any, os: Any = "windows", instance: int = 1, strict: bool = False) -> list[str]:
    plan = plan_events(subject, os=os, instance=instance, events=events, pattern_defaults="recorded", strict=strict)
    return [step.id for step in plan.steps]


def test_a_list_of_events_is_one_plan(tmp_path: Path) -> None:
    types = ("OnProvisionFirst", "OnProvisionRest", "PreInstall", "OnDeleteLast", "PreService")
    windows = {
        "ProvisioningScripts": [script(ScriptType=kind) for kind in types],
        "ScriptApplications": [APPLICATION],
    }
    subject = read_subject(write(tmp_path, with_profile("/bin/true", windows=windows)))
    assert ids(subject, "deploy", "update", "update", "delete") == [
        "on-provision-first-1", "preinstall-1", "script-app-Site-install", "run-once-1",
        "update-preservice-1", "update-script-app-Site-install",
        "update-2-preservice-1", "update-2-script-app-Site-install",
        "delete-on-delete-last-1",
    ]  # fmt: skip
    assert ids(subject, "scale-out", instance=2)[:2] == ["on-provision-rest-1", "preinstall-1"]
    assert ids(subject, "update", "deploy", os="linux", strict=True)[-1] == "deploy-run-once-1"
    with pytest.raises(PackageError, match="nothing to run on linux at update, delete"):
        ids(subject, "update", "delete", os="linux", strict=True)
    done = vmrole("plan", tmp_path / "small.resext", "--event", "deploy, update", "--os", "windows", "--json")
    assert done.code == 0 and done.json["steps"][-1]["id"] == "update-script-app-Site-install"


def test_external_payload_is_needed_only_by_who_uses_it(tmp_path: Path) -> None:
    windows = {"ProvisioningScripts": [script(ApplicationPayloadId="7d2a2c57-1f0f-4c6e-9a75-1c2f6b8d9e01")]}
    document = with_profile("/bin/true", windows=windows)
    profile = document["ExtensionSettings"]["ApplicationProfile"]
    profile["ApplicationPayload"] = [{"ID": "{7D2A2C57-1F0F-4C6E-9A75-1C2F6B8D9E01}", "RelativePath": "Setup\\"}]
    item = {"RelativePath": "setup/Big.iso", "Hash": "ab" * 32}
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src", "ExternalPayload": [item]}

    def needed(os: Any) -> None:
        subject = read_subject(write(tmp_path, document))
        plan = plan_events(subject, os=os, instance=1, events=("deploy",), pattern_defaults="recorded", strict=True)
        require_payload(subject.package, plan)

    needed("linux")
    with pytest.raises(PackageError, match=r"'setup/Big.iso' is not in .*, and the step preinstall-1 needs it"):
        needed("windows")
    item["RelativePath"] = "other/Big.iso"
    needed("windows")
    profile["LinuxApplicationProfile"]["RunOnceCommands"] = ["/bin/sh -c 'mount $VMROLE_PAYLOAD/other/big.iso /mnt'"]
    with pytest.raises(PackageError, match=r"the step run-once-1 needs it"):
        needed("linux")
    (tmp_path / "src/other").mkdir(parents=True)
    (tmp_path / "src/other/Big.iso").write_bytes(b"another")
    with pytest.raises(PackageError, match=r"'other/Big.iso' is another file: its SHA-256 is"):
        needed("windows")


def test_pattern_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, with_profile(windows={"ProvisioningScripts": [script()]}))
    shown = {}
    for defaults in ("recorded", "console"):
        shown[defaults] = vmrole("plan", path, "--json", "--pattern-defaults", defaults).json["steps"][0]["patterns"]
    assert shown["recorded"] == {"exit_code": "[1-9][0-9]*", "stdout": None, "stderr": None}
    assert shown["console"] == {"exit_code": "[1-9][0-9]*", "stdout": None, "stderr": ".+"}


def test_what_a_definition_lacks_is_asked_by_its_own_names(tmp_path: Path) -> None:
    parameters = (("Text", "String"), ("Other", "String"))
    inner = write(tmp_path, with_profile("/bin/echo [Param.Text]", "[Param.Other]", parameters=parameters))
    outer = definition(parameters=(("A", "String"), ("B", "Int")), values={"Text": "[Param.A]:[Param.B]"})
    path = write(tmp_path, outer, "role.resdef")
    write(tmp_path, view(field("A", Validation={"Required": True}), field("B", "Number")), "role.viewdef")
    done = vmrole("plan", path, "--extension", inner)
    assert done.code == 1 and "-p A=... -p B=..." in done.stdout
    assert "add Other to the definition's ResourceExtensionParameterValues" in done.stdout
    assert "error: the extension's parameter 'Other' gets no value" in done.stderr
    refused = vmrole("run", path, "--extension", inner, "-p", "A=x")
    assert refused.code == 2 and "the parameters Text, Other have no value" in refused.stderr
    assert "give it with -p B=...; add Other to" in refused.stderr


def test_a_plan_with_errors_says_so(tmp_path: Path) -> None:
    document = with_profile("/bin/true")
    document["DataPackage"] = 7
    done = vmrole("plan", write(tmp_path, document), "--json")
    assert done.code == 1 and len(done.json["steps"]) == 1
    assert "small.resext:1:" in done.stderr and "DataPackage: this is a number and has to be an object" in done.stderr
    outer = write(tmp_path, definition(), "role.resdef")
    other = with_profile("/bin/true") | {"Version": "2.0.0.0"}
    wrong = vmrole("plan", outer, "--extension", write(tmp_path, other, "other.resext"), "--json")
    assert wrong.code == 1 and "the version of the extension is '2.0.0.0'" in wrong.stderr
    assert json.loads(wrong.stdout)["steps"]
