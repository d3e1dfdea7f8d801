# SPDX-License-Identifier: Apache-2.0
"""Steps of PowerShell in a machine of the stand-in that has one: never blamed, never green for what was not done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, inventory, vmrole
from tests.powershell import IMAGE, main, powershell_zip
from tests.run.test_windows_execute import PAYLOAD, extension, script, scripts

pytestmark = pytest.mark.vm
SHELL = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass"
INSTALL = """\
# Set-Acl is only spoken of here.
param([string] $Secret)
$made = Install-WindowsFeature -Name RDS-Gateway -IncludeManagementTools
"made $($made.Success) $Secret"
if ($Secret -eq 'never') { Set-Acl C:\\x.txt (Get-Acl C:\\windows) }
"""


@pytest.fixture(scope="module")
def image() -> str:
    """The name of the image, which is built first if the cache lacks it."""
    powershell_zip()
    assert main() == 0
    return IMAGE


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "payload").mkdir()
    (folder / "payload/install.ps1").write_text(INSTALL)
    warn = {"ErrorPolicy": "WarnAndContinueOnMatch", "ExitCodeRegex": "[1-9][0-9]*"}
    document = extension(
        scripts(
            script(1, f"{SHELL} -File .\\install.ps1 -Secret planted-word", ApplicationPayloadId=PAYLOAD, **warn),
            script(2, f'{SHELL} -Command "try {{ Get-Tpm -ErrorAction Ignore }} catch {{}}; exit 0"', **warn),
            script(3, f'{SHELL} -Command "Get-Nonsense; exit 0"', **warn),
            script(4, f"{SHELL} -Command exit 3", **warn),
        )
    )
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "payload"}
    (folder / "x.resext").write_text(json.dumps(document))
    return folder / "x.resext"


def test_what_a_step_proves(image: str, package: Path, tmp_path: Path, state_folder: Path) -> None:
    before = inventory(state_folder)
    ran = vmrole("run", package, "--image", image, "--pretend", "install-windowsfeature", "--output", tmp_path / "out",
                 "--json", timeout=900)  # fmt: skip
    told: list[dict[str, Any]] = ran.json["instances"][0]["steps"]
    pretended, missing, unknown, exited = told
    assert ran.code == 4 and ran.json["verdict"] == "incomplete", ran.stderr
    assert ran.json["summary"] == (
        "nothing failed, but 2 steps could not be executed here and 1 step called what is only pretended"
    )
    assert (pretended["outcome"], pretended["exit_code"]) == ("succeeded", 0), pretended
    assert pretended["pretended"] == [
        {"command": "Install-WindowsFeature", "parameters": {"Name": ["RDS-Gateway"], "IncludeManagementTools": True}}
    ]
    assert "pretended: Install-WindowsFeature RDS-Gateway" in pretended["finding"]
    assert "on Wine, silently: access rights are lost" in pretended["finding"]
    assert missing["outcome"] == "not_executable" and "it used Get-Tpm" in missing["finding"]
    assert unknown["outcome"] == "not_executable" and "it used Get-Nonsense" in unknown["finding"]
    assert (exited["outcome"], exited["exit_code"]) == ("warned", 3)
    assert ran.json["instances"][0]["engine"]["powershell"].startswith("7.")
    assert "pretended: Install-WindowsFeature RDS-Gateway" in (tmp_path / "out/report.html").read_text("utf-8")
    assert inventory(state_folder) == before


def test_another_image_pretends_nothing(package: Path) -> None:
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend", "common")
    assert done.code == 2 and "only a stand-in for Windows with a PowerShell pretends commands" in done.stderr
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend", "Install-Everything")
    assert done.code == 2 and "'Install-Everything' is no command that can be pretended" in done.stderr
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend-modules", REPOSITORY / "docs")
    assert done.code == 2 and "has no PowerShell module with a function" in done.stderr


def test_the_image_that_can_is_named(package: Path) -> None:
    done = vmrole("check", package, "--image", "windows-stand-in")
    assert "the image windows-stand-in has no PowerShell" in done.stdout
    assert "'vmrole images build windows-stand-in --powershell ZIP'" in done.stdout
