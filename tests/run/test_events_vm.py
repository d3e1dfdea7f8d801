# SPDX-License-Identifier: Apache-2.0
"""What happens to a role after its deployment, on the same real machine: servicing and removal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import vmrole
from tests.run.test_windows_execute import PAYLOAD, extension, script

pytestmark = pytest.mark.vm

VALUES = ("-p", "Word=word", "-p", "Code=0")
LOG = "C:\\Resources\\Work\\log.txt"


def note(script_type: str, line: str | None = None, **more: Any) -> dict[str, Any]:
    """A script that leaves its type in a log, or does what ``line`` says."""
    done = line or f"echo {script_type}>>{LOG}"
    return script(1, f"cmd.exe /c {done}", ScriptType=script_type, **more)


def document() -> dict[str, Any]:
    # A servicing that restarts the machine, once; the ends of lines are in the files, as echo of cmd makes them.
    pre_service = (
        f"if exist C:\\restarted (echo PreService>>{LOG}& exit [Param.Code]) "
        f"else (echo x>C:\\restarted& echo restart>>{LOG}& exit 3010)"
    )
    types = ("OnProvisionFirst", "OnProvisionRest", "PreInstall", "PostInstall", "PostService", "PreUninstall")
    profile = {
        "ProvisioningScripts": [
            *(note(kind) for kind in (*types, "PostUninstall", "OnDeleteRest")),
            note("PreService", pre_service, RestartOnExitCodeReboot=True, ApplicationPayloadId=PAYLOAD),
            note("OnDeleteLast", f"cd& type {LOG}", ApplicationPayloadId=PAYLOAD),
        ],
        "ScriptApplications": [
            {
                "DeploymentName": "Site",
                "ErrorPolicy": "FailOnMatch",
                "ApplicationPayloadId": PAYLOAD,
                "ExecutableAndParams": {"Executable": "cmd.exe", "Parameters": f"/c call install.cmd >>{LOG}"},
                "EnvironmentVariables": [{"Name": "WORD", "Value": "[Param.Word]"}],
                "ScriptCommands": [
                    note(f"{when}{what}", f"echo Site %WORD% {when}{what}>>{LOG}")
                    for what in ("Install", "Service", "Uninstall") for when in ("Pre", "Post")
                ],
            }
        ],
    }  # fmt: skip
    made = extension(profile)
    made["DataPackage"] = {"Version": "1.0.0.0", "Location": "payload"}
    made["ResourceExtensionParameters"] = [{"Name": name, "Type": "String"} for name in ("Word", "Code")]
    made["ExtensionSettings"]["ApplicationProfile"]["LinuxApplicationProfile"] = {
        "RunOnceCommands": ["/bin/sh -c 'echo created >>/var/log/role; cat /var/log/role'"]
    }
    return made


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "role"
    (folder / "payload").mkdir(parents=True)
    (folder / "payload/install.cmd").write_bytes(b"@echo Site %WORD% install\r\n")
    (folder / "role.resext").write_text(json.dumps(document()))
    return folder


def steps_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in result["instances"][0]["steps"] if step["outcome"] != "not_applicable"}


def test_on_linux_only_the_creation_has_commands(image: str, package: Path, tmp_path: Path) -> None:
    done = vmrole(
        "run",
        package,
        "--image",
        image,
        "--event",
        "deploy,update,delete",
        "--output",
        tmp_path / "out",
        "--json",
        *VALUES,
    )
    assert done.code == 0, done.stderr
    steps = steps_of(done.json)
    assert {id: (step["outcome"], step["stdout"]) for id, step in steps.items()} == {
        "run-once-1": ("succeeded", "created\n")
    }


def test_a_life_on_the_stand_in(package: Path, tmp_path: Path) -> None:
    """Provisioning scripts once, script applications at each servicing, removal; a restart in the middle of a servicing
    empties no local resource."""
    done = vmrole(
        "run", package, "--image", "windows-stand-in", "--event", "deploy,update,update,delete", *VALUES,
        "--local-resource", "Work=5", "--output", tmp_path / "out", "--json", timeout=600,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    steps = steps_of(done.json)
    assert list(steps) == [
        "on-provision-first-1", "preinstall-1", "script-app-Site-preinstall-1", "script-app-Site-install",
        "script-app-Site-postinstall-1", "postinstall-1",
        *(
            f"{event}-{step}" for event in ("update", "update-2") for step in (
                "preservice-1", "script-app-Site-preservice-1", "script-app-Site-install",
                "script-app-Site-postservice-1", "postservice-1",
            )
        ),
        "delete-preuninstall-1", "delete-script-app-Site-preuninstall-1", "delete-script-app-Site-postuninstall-1",
        "delete-postuninstall-1", "delete-on-delete-last-1",
    ]  # fmt: skip
    assert {step["outcome"] for step in steps.values()} == {"succeeded"}
    servicing = ["PreService", "Site word PreService", "Site word install", "Site word PostService", "PostService"]
    folder, *log = steps["delete-on-delete-last-1"]["stdout"].split("\r\n")[:-1]
    assert log == [
        "OnProvisionFirst", "PreInstall", "Site word PreInstall", "Site word install", "Site word PostInstall",
        "PostInstall", "restart", *servicing, *servicing,
        "PreUninstall", "Site word PreUninstall", "Site word PostUninstall", "PostUninstall",
    ]  # fmt: skip
    assert "Payload" not in folder, "deleting has no payload"
    assert "reboot" in [phase["name"] for phase in done.json["instances"][0]["phases"]]


def test_a_servicing_that_fails_ends_it(package: Path, tmp_path: Path) -> None:
    """On a machine that was not deployed to: what the events say is all that runs."""
    done = vmrole(
        "run", package, "--image", "windows-stand-in", "--event", "update,delete", "-p", "Word=word", "-p", "Code=7",
        "--local-resource", "Work=5", "--output", tmp_path / "out", "--json", timeout=600,
    )  # fmt: skip
    assert done.code == 1, done.stderr
    steps = steps_of(done.json)
    assert steps["preservice-1"]["outcome"] == "failed" and steps["preservice-1"]["exit_code"] == 7
    assert {step["outcome"] for step in list(steps.values())[1:]} == {"skipped"}
    assert "delete-on-delete-last-1" in steps and done.json["summary"].startswith("step preservice-1 failed")
