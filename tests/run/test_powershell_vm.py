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
            script(5, f"{SHELL} -File C:\\nowhere.ps1", **warn),
            script(6, f"{SHELL} -Command \"'begun'; while (1) {{ }}\"", TimeoutInSeconds=1, **warn),
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
    pretended, missing, unknown, exited, nowhere, endless = told
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
    assert (nowhere["outcome"], nowhere["exit_code"]) == ("warned", 64)
    assert endless["outcome"] == "warned" and "time-out" in endless["finding"]
    engine = ran.json["instances"][0]["engine"]
    assert engine["powershell"].startswith("7.") and engine["warm"]
    # Two stood by.
    assert ["by an engine that stood by" in step["finding"] for step in (pretended, exited)] == [True, False]
    assert "pretended: Install-WindowsFeature RDS-Gateway" in (tmp_path / "out/report.html").read_text("utf-8")
    assert inventory(state_folder) == before


def test_engines_that_stood_by_have_random_numbers_of_their_own_in_each_fork(image: str) -> None:
    text = (
        "[guid]::NewGuid(), [Random]::new().Next(), [Random]::Shared.Next(), [IO.Path]::GetRandomFileName() -join ' '"
    )
    argv = (*SHELL.split(), "-Command", text)
    ran = vmrole("exec", "--image", image, "--count", "2", "--json", "--", *argv, timeout=900)
    first, second = (instance["stdout"].split() for instance in ran.json["instances"])
    assert [instance["engine"]["warm"] for instance in ran.json["instances"]] == [True, True]
    assert len(first) == len(second) == 4 and not set(first) & set(second)


def test_each_starts_an_engine_of_its_own_where_that_is_asked_for(image: str) -> None:
    argv = (*SHELL.split(), "-Command", "(Get-Process pwsh).Count; exit 3")
    ran = vmrole("exec", "--image", image, "--cold-engines", "--json", "--", *argv, timeout=900)
    (instance,) = ran.json["instances"]
    assert (instance["exit_code"], instance["stdout"], instance["engine"]["warm"]) == (3, "1\r\n", False)


def test_another_image_pretends_nothing(package: Path) -> None:
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend", "common")
    assert done.code == 2 and "only a stand-in for Windows with a PowerShell pretends commands" in done.stderr
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend", "Install-Everything")
    assert done.code == 2 and "'Install-Everything' is no command that can be pretended" in done.stderr
    done = vmrole("run", package, "--image", "windows-stand-in", "--pretend-modules", REPOSITORY / "docs")
    assert done.code == 2 and "has no PowerShell module with a function" in done.stderr
    done = vmrole("run", package, "--image", "windows-stand-in", "--cold-engines")
    assert done.code == 2 and "with a PowerShell has engines that stand by" in done.stderr


def test_the_image_that_can_is_named(package: Path) -> None:
    done = vmrole("check", package, "--image", "windows-stand-in")
    assert "the image windows-stand-in has no PowerShell" in done.stdout
    assert "'vmrole images build windows-stand-in --powershell ZIP'" in done.stdout
