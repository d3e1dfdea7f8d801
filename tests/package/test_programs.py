# SPDX-License-Identifier: Apache-2.0
"""Programs of the payload that an image cannot execute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import winprogram
from harness.image.catalog import load
from harness.package import read_package
from harness.package.programs import without_programs_32
from tests.conftest import vmrole
from tests.package.material import with_profile, write
from tests.standin.programs32 import program_32

PROGRAM_64 = b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86" + bytes(300)


def package(folder: Path, files: dict[str, bytes], **command: Any) -> Path:
    """An extension with one step, and these files beside it."""
    document = with_profile(
        windows={"ProvisioningScripts": [{"Type": "PreInstall", "DeploymentOrder": "1", **command}]}
    )
    document["DataPackage"] = {"Location": "Payload"}
    for name, data in files.items():
        path = folder / "Payload" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return write(folder, document)


def program(executable: str, parameters: str = "") -> dict[str, Any]:
    return {"ExecutableAndParams": {"Executable": executable, "Parameters": parameters}}


@pytest.mark.parametrize(
    ("name", "command", "shown"),
    [
        ("setup.exe", program("[PayloadFolder]\\SETUP.EXE", "/s"), "Executable"),
        ("bin/old tool.exe", program("cmd.exe", '/c ".\\bin\\old tool.exe" /s'), "Parameters"),
        ("setup.exe", {"ScriptBlock": "cd files\r\nsetup /s\r\n"}, "ScriptBlock"),
    ],
)
def test_a_32_bit_program_that_a_command_names(tmp_path: Path, name: str, command: dict[str, Any], shown: str) -> None:
    read = read_package(package(tmp_path, {name: program_32(0)}, **command))
    [finding] = without_programs_32(read, load("windows-stand-in").recipe)
    assert finding.sentence == f"{name!r} is a 32-bit program, which the image windows-stand-in cannot execute"
    assert finding.hint == "'vmrole images build windows-stand-in --programs-32' makes an image that can"
    assert finding.pointer.endswith(shown) and finding.line


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("setup.exe", PROGRAM_64),
        ("setup.exe", program_32(0, dotnet=True)),
        ("setup.exe", b""),
        ("setup.exe", b"MZ"),
        ("setup.exe", program_32(0)[:60] + b"\xff\xff\xff\xff"),
        ("other.exe", program_32(0)),
        ("setup.dll", program_32(0)),
    ],
)
def test_other_files_are_no_finding(tmp_path: Path, name: str, data: bytes) -> None:
    read = read_package(package(tmp_path, {name: data}, **program("setup.exe")))
    assert not list(without_programs_32(read, load("windows-stand-in").recipe))


def test_check_tells_it_for_an_image_without_them_alone(tmp_path: Path) -> None:
    path = package(tmp_path, {"setup.exe": program_32(0)}, **program("setup.exe"))
    for image, told in (("windows-stand-in", True), ("windows-stand-in-32", False), ("debian-12", False)):
        done = vmrole("check", path, "--image", image)
        assert done.code == 0 and ("[image-32-bit]" in done.stdout) == told, done
    assert "[image-32-bit]" not in vmrole("check", path).stdout


def test_the_processor_is_read_from_the_head() -> None:
    assert winprogram.machine(PROGRAM_64) == winprogram.AMD64
    assert winprogram.is_32_bit(program_32(0)) and not winprogram.is_32_bit(PROGRAM_64)
    assert not winprogram.is_32_bit(program_32(0, dotnet=True))
