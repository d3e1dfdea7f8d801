# SPDX-License-Identifier: Apache-2.0
"""A real PowerShell 7 in the image's Wine, started as steps are: what works, what is refused, and what is pretended."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.windows import compile_program
from standin.proof import SCRIPT, WANTED, trouble
from tests.conftest import HANGS
from tests.standin.engine import Engine

_DETACHED = r"""
#include <windows.h>
int main(void)
{
    char line[] = "powershell.exe -NoProfile -Command exit 3";
    STARTUPINFOA how = {.cb = sizeof how};
    PROCESS_INFORMATION made;
    DWORD code;
    if (!CreateProcessA(NULL, line, NULL, NULL, FALSE, DETACHED_PROCESS, NULL, NULL, &how, &made))
        return 1;
    WaitForSingleObject(made.hProcess, INFINITE);
    GetExitCodeProcess(made.hProcess, &code);
    ExitProcess(code);
}
"""
_CONTOSO = """\
function Install-Contoso { [CmdletBinding()] param([Parameter(ValueFromPipeline)] $At) process { "at $At" } }
function Test-Contoso { throw 'not today' }
"""


def test_the_proof_of_the_build(engine: Engine) -> None:
    code, said, _ = engine.run(f'powershell.exe -NoProfile -NonInteractive -Command "{SCRIPT}"')
    assert code == WANTED and trouble(code, said) is None


@pytest.mark.parametrize("code", [None, 0, 1, 6, 7, 9150, 0xE0434352, 0xC0000602])
def test_an_engine_that_does_not_work_is_refused_with_the_reason(code: int | None) -> None:
    assert trouble(code, "what it said")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('powershell.exe -NoProfile -Command "exit 3"', 3, ""),
        ("pwsh -NoProfile -Command \"'hällo'; exit 3010\"", 3010, "hällo\r\n"),
        ('powershell -NoProfile -Command "throw 1"', 1, ""),
        ('powershell -NoProfile -Command "cmd /c exit 7; exit $LASTEXITCODE"', 7, ""),
        ("powershell -NoProfile Write-Output 'a b'", 0, "a b\r\n"),
        (f"powershell -NoProfile -EncodedCommand {base64.b64encode('exit 5'.encode('utf-16-le')).decode()}", 5, ""),
        ("powershell -NoProfile -File C:\\nowhere.ps1", 64, None),
        ("cmd /c powershell -NoProfile -Command exit 9 & if errorlevel 9 echo seen", 9, "seen\r\n"),
        ('pwsh -NoProfile -Command "1..1000 | % { $_ }"', 0, "".join(f"{n}\r\n" for n in range(1, 1001))),
        ("pwsh -NoProfile -Command \"$env:NO_COLOR; Write-Error 'plain'\"", 1, "1\r\n"),
    ],
)  # fmt: skip
def test_command_lines(engine: Engine, line: str, code: int, said: str | None) -> None:
    ended, out, err = engine.run(line)
    assert ended == code, (out, err)
    assert said is None or out == said
    assert not engine.unavailable.read_text()


def test_what_scripts_do(engine: Engine) -> None:
    """Arguments, the registry, services, processes, JSON, C# and a certificate store."""
    code, out, err = engine.script(
        """param([string] $Name = 'none')
$ErrorActionPreference = 'Stop'
New-Item HKLM:\\SOFTWARE\\Contoso -Force | Out-Null
Set-ItemProperty HKLM:\\SOFTWARE\\Contoso -Name Size -Value 7
"registry $((Get-ItemProperty HKLM:\\SOFTWARE\\Contoso).Size)"
New-Service ContosoService -BinaryPathName 'C:\\windows\\system32\\msiexec.exe /V' -StartupType Manual | Out-Null
"service $((Get-Service ContosoService).Status)"
"process $((Start-Process cmd.exe -ArgumentList '/c exit 42' -Wait -PassThru).ExitCode)"
"json $(('{"a": [1, 2]}' | ConvertFrom-Json).a[1])"
Add-Type 'public static class Twice { public static int Of(int n) { return 2 * n; } }'
"type $([Twice]::Of(21))"
$store = [Security.Cryptography.X509Certificates.X509Store]::new('My', 'LocalMachine')
$store.Open('ReadWrite')
"certificates $($store.Certificates.Count)"
"system $((Get-CimInstance Win32_OperatingSystem).Version) $((gwmi Win32_ComputerSystem).PartOfDomain)"
exit 11
"""
    )
    assert out.replace("\r\n", "\n").splitlines() == [
        "registry 7", "service Stopped", "process 42", "json 2", "type 42", "certificates 0", "system 6.1.7601 False",
    ], err  # fmt: skip
    assert code == 11


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("'before'\ntry { Install-WindowsFeature Web-Server -ErrorAction SilentlyContinue } catch { 'caught' }",
         "Install-WindowsFeature (x.ps1, line 2)"),
        ("Import-Module WebAdministration\n\nNew-Website -Name x", "New-Website (x.ps1, line 3)"),
        ("$x = gwmi Win32_Product", "Get-WmiObject Win32_Product (x.ps1, line 1)"),
        ("Get-CimInstance -Query 'select * from Win32_LogicalDisk where Size > 1'",
         "Get-CimInstance Win32_LogicalDisk where Size > 1 (x.ps1, line 1)"),
    ],
)  # fmt: skip
def test_what_is_missing_ends_the_step(engine: Engine, text: str, place: str) -> None:
    code, out, err = engine.script(text + "\n'after'\nexit 0\n")
    assert code == 9150 and "after" not in out and "caught" not in out
    assert engine.unavailable.read_text() == f"{place}\n"
    assert f"{place} is not available" in err


def test_without_a_console_it_is_refused(engine: Engine, tmp_path: Path) -> None:
    """The engine alone would say nothing and end with 0."""
    detached = tmp_path / "detached.c"
    detached.write_text(_DETACHED)
    compile_program([detached], engine.drive / "detached.exe", [], (), deadline=Deadline(HANGS))
    assert engine.run("C:\\detached.exe")[0] == 9150
    assert engine.unavailable.read_text() == "powershell without a console\n"


def test_all_that_can_be_pretended(engine: Engine) -> None:
    """Each command takes its parameters, gives what authors read, and tells of its call."""
    engine.pretend("common")
    code, out, err = engine.script(
        """$ErrorActionPreference = 'Stop'
$made = Install-WindowsFeature -Name Web-Server, Web-Mgmt-Console -IncludeManagementTools
"$($made.Success) $($made.RestartNeeded) $($made.FeatureResult.Count)"
(New-NetFirewallRule -DisplayName 'Web (80)' -Direction Inbound -Protocol TCP -LocalPort 80 -Action Allow).Direction
$action = New-ScheduledTaskAction -Execute notepad.exe
(Register-ScheduledTask Nightly -Action $action -User SYSTEM -Password geheim).State
$made = Get-Disk | Initialize-Disk -PassThru | New-Partition -AssignDriveLetter | Format-Volume -Confirm:$false
$made.DriveLetter
New-LocalUser clerk -Password (ConvertTo-SecureString geheim -AsPlainText -Force) | Out-Null
foreach ($name in [IO.File]::ReadAllLines('C:\\windows\\vmrole-pretend.txt')) {
    if (-not (Get-Command $name).Parameters.ContainsKey('WhatIf')) { "$name cannot be pretended" }
}
exit 3010
"""
    )
    assert code == 3010, err
    assert out.split() == ["True", "No", "2", "Inbound", "Ready", "F"]
    calls = [json.loads(line) for line in engine.pretended.read_text().splitlines()]
    assert [call["command"] for call in calls] == [
        "Install-WindowsFeature", "New-NetFirewallRule", "New-ScheduledTaskAction", "Register-ScheduledTask",
        "Get-Disk", "Initialize-Disk", "New-Partition", "Format-Volume", "New-LocalUser",
    ]  # fmt: skip
    assert calls[0]["parameters"] == {"Name": ["Web-Server", "Web-Mgmt-Console"], "IncludeManagementTools": True}
    assert calls[1]["parameters"]["LocalPort"] == ["80"]
    assert "geheim" not in engine.pretended.read_text()


def test_modules_of_the_user(engine: Engine, tmp_path: Path) -> None:
    """They go before what is missing and what is ours, and one that cannot be imported is like one that is missing."""
    for name, text in {
        "NetSecurity": 'function New-NetFirewallRule { [CmdletBinding()] param($DisplayName) "own $DisplayName" }',
        "Contoso": _CONTOSO,
        "Broken": "function Get-Tpm { 1 }\nthrow 'no'",
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.psm1").write_text(text)
    engine.pretend("Install-WindowsFeature", folder=tmp_path)
    code, out, err = engine.script(
        "New-NetFirewallRule -DisplayName x\n'a', 'b' | Install-Contoso\ntry { Test-Contoso } catch { \"$_\" }\n"
        "(Install-WindowsFeature Web-Server).Success\nGet-Tpm\n'after'\n"
    )
    assert code == 9150 and out.splitlines() == ["own x", "at a", "at b", "not today", "True"], err
    assert [json.loads(line)["command"] for line in engine.pretended.read_text().splitlines()] == [
        "New-NetFirewallRule", "Install-Contoso", "Test-Contoso", "Install-WindowsFeature",
    ]  # fmt: skip
    assert engine.unavailable.read_text() == "Get-Tpm of a pretended module that cannot be imported (x.ps1, line 5)\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("# " + "x" * (10 << 20) + "\n'ran'\nexit 3\n", 3, "ran\r\n"),
        ("'said'\n" * 5000 + "exit 4\n", 4, "said\r\n" * 5000),
        (f"$text = '{'y' * (1 << 20)}'; $text.Length; exit 5", 5, f"{1 << 20}\r\n"),
        ("foreach ($n in 1..100000) { [Console]::WriteLine($n) }; exit 6", 6,
         "".join(f"{n}\r\n" for n in range(1, 100001))),
        ("Add-Type -Name Own -Namespace '' '[DllImport(\"kernel32\")] public static extern bool FreeConsole();'\n"
         "[void] [Own]::FreeConsole(); 'after'; exit 7", 7, "after\r\n"),
        ("$parent = (Get-Process -Id $PID).Parent; Stop-Process -Id $parent.Id -Force; $parent.ProcessName; exit 8",
         0xFFFFFFFF, None),
    ],
    ids=["10 MB", "5,000 statements", "a line of 1 MB", "100,000 lines", "closes its console", "kills its parent"],
)  # fmt: skip
def test_unusual_scripts_have_their_own_outcome(engine: Engine, text: str, code: int, said: str | None) -> None:
    ended, out, err = engine.script(text)
    assert ended == code, (out[-300:], err[-300:])
    assert said is None or out == said
    assert not engine.unavailable.read_text()
    assert engine.run("powershell -NoProfile -Command exit 3")[0] == 3


def test_a_script_that_never_ends_is_ended(engine: Engine) -> None:
    process = engine.runner.run("powershell -NoProfile -Command \"'begun'; while ($true) { }\"", "C:\\")
    said = b""
    while b"begun" not in said:
        pieces, code = process.take(HANGS, 4096)
        assert pieces and code is None
        said += b"".join(data for _, data in pieces)
    process.terminate()
    assert process.finish(HANGS, 4096)[1] == 1067
