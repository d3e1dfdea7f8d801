# SPDX-License-Identifier: Apache-2.0
"""Command lines that start PowerShell: what `check` says of quotes, arguments, exit codes and secrets by text alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.check import examine
from harness.package import Finding
from harness.package.powershell.invocation import invocations, split_arguments
from harness.winarguments import join_arguments
from tests.package.material import with_profile, zip_of
from tests.plan.test_plan import script
from tests.plan.test_windows import ID

POWERSHELL = "%WINDIR%\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe"
SCRIPT = b"param([string] $Pin, [bool] $Fast, [switch] $Dry, [string[]] $Names, [string] $Flag, $Any)\r\nexit 3010\r\n"
PARAMETERS = (("Pin", "String"), ("Word", "SecureString"), ("Size", "Int"), ("On", "Boolean"))


def found(folder: Path, line: str, program: str = POWERSHELL, **members: Any) -> list[Finding]:
    """Findings about a package of one command line and the script install.ps1."""
    command = {"ExecutableAndParams": {"Executable": program, "Parameters": line}, "ApplicationPayloadId": ID}
    windows = {"ProvisioningScripts": [script(**command | members)]}
    document = with_profile(windows=windows, parameters=PARAMETERS)
    document["ExtensionSettings"]["ApplicationProfile"]["ApplicationPayload"] = [{"ID": ID, "RelativePath": "Scripts"}]
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    files = {"small.resext": json.dumps(document).encode(), "src/Scripts/install.ps1": SCRIPT}
    findings = examine(zip_of(folder / "a.resextpkg", files))[0]
    left_out = ("content-types-missing", "parameter-unused", "reboot-pattern-braces")
    return [finding for finding in findings if finding.code not in left_out]


def codes(folder: Path, line: str, program: str = POWERSHELL, **members: Any) -> set[str]:
    return {finding.code for finding in found(folder, line, program, **members)}


def encoded(text: str) -> str:
    return "-NoProfile -EncodedCommand " + base64.b64encode(text.encode("utf-16-le")).decode()


@pytest.fixture(autouse=True)
def without_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMROLE_PWSH", "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("-NoProfile -File .\\install.ps1 -Pin '[Param.Pin]'", "command-file-quotes"),
        ("-File .\\install.ps1 -Pin 'a b'", "command-file-quotes"),
        ('-Command .\\install.ps1 -Pin "[Param.Pin]"', "command-value"),
        ('.\\install.ps1 -Pin "[Param.Word]"', "command-value"),
        ('-Command ".\\install.ps1 -Pin \\"[Param.Pin]\\""', "command-value"),
        ("-File .\\install.ps1 -Pin x > c:\\log.txt", "command-argument"),
        ("-File .\\install.ps1 2>&1", "command-argument"),
        ("-File .\\install.ps1 ; exit 5", "command-argument"),
        ("-File .\\install.ps1 -ExecutionPolicy Bypass", "command-argument"),
        ("-File .\\install.ps1 -Names a,b", "command-argument"),
        ("-File", "command-argument"),
        ("-File .\\install.ps1 -Fast $true", "command-boolean"),
        ("-File .\\install.ps1 -Fast [Param.On]", "command-boolean"),
        ("-File .\\install.ps1 -Any $false", "command-boolean"),
        ("-Command install.ps1 -Pin 'x'", "command-no-path"),
        ("-Command \"& 'INSTALL.ps1'\"", "command-no-path"),
        ('-Command "Stop-Service x; install.ps1"', "command-no-path"),
        ("-EncodedCommand abc", "command-encoded"),
        ("-Command \"ConvertTo-SecureString 'Sw0rd' -AsPlainText -Force\"", "secret-in-plain-text"),
        ("-File .\\install.ps1 -AdminPass Sw0rd", "secret-in-plain-text"),
        ("-File .\\install.ps1 -StorageKey Sw0rd", "secret-in-plain-text"),
        (encoded("Connect -Password Sw0rd"), "secret-in-plain-text"),
        ('-Command "Write-Output \\"$Server:$Port\\""', "script-syntax"),
        (encoded('Write-Output "$Server:$Port"'), "script-syntax"),
        ('-Command "Stop-Service x && Start-Service y"', "script-newer"),
        ('-Command "sc config x start= auto"', "script-newer"),
        ('-Command "gwmi Win32_Bios"', "script-older"),
    ],
)
def test_what_is_odd(tmp_path: Path, line: str, code: str) -> None:
    (one,) = found(tmp_path, line)
    assert one.code == code and one.line and one.column and one.pointer.endswith("/Parameters")
    assert "Sw0rd" not in one.sentence + one.hint


@pytest.mark.parametrize(
    "line",
    [
        '-NoProfile -ExecutionPolicy Bypass -File .\\install.ps1 -Pin "[Param.Pin]"',
        "-File .\\install.ps1 -Pin \"'kept'\"",
        "-File .\\install.ps1 -Pin it's",
        "-File install.ps1 -Fast:$true -Dry:$false -Dry",
        "-File .\\install.ps1 -Dry:$[Param.On] -Flag $true -Flag [Param.On]",
        "-File .\\install.ps1 -Any [Param.On] -Pin a,b",
        '-File .\\install.ps1 -Names "a,b" -Pin ">" -Flag "|"',
        "-Command .\\install.ps1 -Pin '[Param.Pin]' -Any [Param.Size] -Fast $[Param.On]",
        "-Command \"& '.\\install.ps1' -Pin '[Param.Pin]'\"",
        '-Command "Get-Content install.ps1 | Out-Null"',
        "-Command \"& { Set-Location x; 'install.ps1' }\"",
        '-Command "msiexec.exe /i a.msi"',
        "-Command .\\install.ps1 -Pin [Param.Pin]",
        encoded(".\\install.ps1 -Pin 'x'"),
        "-EncodedCommand [Param.Pin]",
        "-NoProfile -NoLogo",
        "",
        '-Command "if ($a -and $b) { exit 3 } # a && b"',
    ],
)
def test_what_is_right(tmp_path: Path, line: str) -> None:
    assert codes(tmp_path, line) == set()


COUNTS: dict[str, Any] = {"RebootExitCodeRegex": "1641|3010"}


@pytest.mark.parametrize(
    ("line", "members", "lost"),
    [
        ("-Command .\\install.ps1", COUNTS, True),
        ("-Command .\\install.ps1", {"RebootExitCodeRegex": "{3010}"}, True),
        ("-Command .\\install.ps1", {"RebootExitCodeRegex": "^30[0-9]{2}$"}, True),
        ("-Command .\\install.ps1", {"ExitCodeRegex": "^(?!0$|3010$)"}, True),
        ("-Command .\\install.ps1", {"ExitCodeRegex": "1603"}, True),
        ("-Command \"& { .\\install.ps1 -Pin 'x' }\"", COUNTS, True),
        ('-Command "msiexec /i a.msi /qn"', COUNTS, True),
        ('-Command "exit 3; .\\install.ps1"', COUNTS, True),
        (encoded("& .\\setup.exe /q"), COUNTS, True),
        ("-Command .\\install.ps1", {}, False),
        ("-Command .\\install.ps1", {"ExitCodeRegex": "[1-9][0-9]*"}, False),
        ("-Command .\\install.ps1", {"RebootExitCodeRegex": "1"}, False),
        ("-Command .\\install.ps1", {"RebootExitCodeRegex": "[Param.Pin]"}, False),
        ('-Command ".\\install.ps1; exit $LASTEXITCODE"', COUNTS, False),
        ('-Command "exit (Start-Process a.exe -Wait -PassThru).ExitCode"', COUNTS, False),
        ("-File .\\install.ps1", COUNTS, False),
        ('-Command "Restart-Service x"', COUNTS, False),
    ],
)
def test_exit_codes_that_are_lost(tmp_path: Path, line: str, members: dict[str, Any], lost: bool) -> None:
    assert codes(tmp_path, line, **members) == ({"command-exit-code"} if lost else set())


@pytest.mark.parametrize(
    ("program", "line", "code"),
    [
        (
            "cmd.exe",
            "/c powershell -NoProfile -File .\\install.ps1 -Pin '[Param.Pin]' > c:\\x.log",
            "command-file-quotes",
        ),
        ("cmd.exe", "/c powershell -NoProfile -File .\\install.ps1 > c:\\x.log 2>&1 & echo done", None),
        ("cmd.exe", '/c start /wait powershell.exe -Command "install.ps1"', "command-no-path"),
        ("pwsh.exe", ".\\install.ps1 -Pin '[Param.Pin]'", "command-file-quotes"),
        ("pwsh.exe", '-Command "Stop-Service x && Start-Service y"', None),
        ("powershell.exe", "\u2013NoProfile \u2014File .\\install.ps1 'x'", "command-file-quotes"),
        ("notepad.exe", "-File 'x'", None),
    ],
)
def test_other_programs(tmp_path: Path, program: str, line: str, code: str | None) -> None:
    assert codes(tmp_path, line, program) == ({code} if code else set())


def test_a_batch_text(tmp_path: Path) -> None:
    block = "rem powershell -File x 'a'\r\npowershell -NoProfile -File .\\install.ps1 'a'\r\n"
    (one,) = found(tmp_path, "", ExecutableAndParams=None, ScriptBlock=block)
    assert one.code == "command-file-quotes" and one.pointer.endswith("/ScriptBlock")


@given(st.lists(st.text(alphabet="a\\\" \t'$", max_size=8), max_size=5))
def test_a_line_is_taken_apart_as_it_was_joined(words: list[str]) -> None:
    assert [one.text for _, one in split_arguments(join_arguments(words))] == words


@given(st.text(max_size=200))
def test_any_text_is_taken_apart(line: str) -> None:
    for start in invocations("powershell.exe", line):
        assert start.raw in line
