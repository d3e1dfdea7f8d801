# SPDX-License-Identifier: Apache-2.0
"""The stand-in with 32-bit programs, built and used: minutes, and 100 MB from the mirror, for one option of a build."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import VMROLE, vmrole
from tests.run.test_windows_execute import PAYLOAD, extension, script, scripts
from tests.soak.conftest import Soak
from tests.standin.programs32 import INSTALLER

_COMPILER = "i686-w64-mingw32-gcc"
_SOURCE = r"""
#include <windows.h>
static UINT note(const char *key)
{
    HKEY made;
    LONG failed = RegCreateKeyA(HKEY_LOCAL_MACHINE, key, &made);
    const char *bits = sizeof(void *) == 4 ? "32" : "64";
    return failed || RegSetValueExA(made, "bits", 0, REG_SZ, (const BYTE *)bits, 3) ? 1 : 0;
}
__declspec(dllexport) UINT __stdcall Act(unsigned long install)
{
    (void)install;
    return note("Software\\Action");
}
int main(void)
{
    return (int)note("Software\\Program");
}
"""
_WOW = "%SystemRoot%\\SysWOW64"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "program.c").write_text(_SOURCE)
    (payload / "old.wxs").write_text(INSTALLER)
    for target, *flags in (("program.exe",), ("action.dll", "-shared", "-Wl,--kill-at")):
        subprocess.run([_COMPILER, "-s", *flags, "-o", target, "program.c"], cwd=payload, check=True)
    subprocess.run(["wixl", "-a", "x86", "-o", "old.msi", "old.wxs"], cwd=payload, check=True)
    lines = [
        ".\\program.exe",
        f"{_WOW}\\cmd.exe /c reg query HKLM\\Software\\Program /v bits | find \"32\"",
        "reg.exe query HKLM\\Software\\Wow6432Node\\Program /v bits",
        "msiexec.exe /i old.msi /qn",
        "reg.exe query HKLM\\Software\\Wow6432Node\\Action /v bits",
        'cmd.exe /c if not exist "%ProgramFiles(x86)%\\Old\\old.wxs" exit 1',
        f"{_WOW}\\cmd.exe /c icacls C:\\ & exit 0",
    ]  # fmt: skip
    more: dict[str, Any] = {"ApplicationPayloadId": PAYLOAD, "ErrorPolicy": "WarnAndContinueOnMatch"}
    document = extension(scripts(*(script(number, line, **more) for number, line in enumerate(lines, 1))))
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "payload"}
    (tmp_path / "x.resext").write_text(json.dumps(document))
    return tmp_path / "x.resext"


def _outcomes(package: Path, image: str, output: Path) -> list[tuple[str, str]]:
    done = vmrole("run", package, "--image", image, "--output", output, "--json", timeout=1800)
    assert done.code == 4, (done.stdout, done.stderr)
    return [(step["outcome"], step["finding"] or "") for step in done.json["instances"][0]["steps"]]


@pytest.mark.vm
def test_32_bit_programs_run_in_the_image_that_has_them(package: Path, tmp_path: Path, soak: Soak) -> None:
    if not shutil.which(_COMPILER):
        pytest.skip(f"there is no {_COMPILER} (package gcc-mingw-w64-i686-win32)")
    subprocess.run([VMROLE, "images", "build", "windows-stand-in", "--programs-32"], check=True)
    for number in range(soak.count(1)):
        *ran, last = _outcomes(package, "windows-stand-in-32", tmp_path / f"with-{number}")
        assert [outcome for outcome, _ in ran] == ["succeeded"] * 6, ran
        assert last[0] == "not_executable" and "it used icacls, which" in last[1]
        told = _outcomes(package, "windows-stand-in", tmp_path / f"without-{number}")
        lacking = [told[at] for at in (0, 1, 3, 6)]
        assert {outcome for outcome, _ in lacking} == {"not_executable"}, told
        assert all("--programs-32' makes an image that can" in finding for _, finding in lacking), told
