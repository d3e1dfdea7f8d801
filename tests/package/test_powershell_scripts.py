# SPDX-License-Identifier: Apache-2.0
"""Scripts of PowerShell: what `check` says by their text alone and by the real parser, which loads and runs nothing."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.check import examine
from harness.cli.new import scaffold
from harness.package import Finding
from harness.package.powershell import engine
from harness.package.powershell.engine import Answer, Asked, Parser
from harness.package.powershell.source import Script, Text
from tests.conftest import HANGS, SAMPLES, vmrole
from tests.package.material import with_profile, zip_of
from tests.plan.test_plan import script
from tests.pwsh import unpacked

WINDOWS = "powershell.exe"
#: What everyday scripts of 5.1 have: none of it is worth a word.
RIGHT = r"""#Requires -Version 5.1
<# .SYNOPSIS  a && b, "$x:", $y ? 1 : 2 in a comment #>
[CmdletBinding()] param([Parameter(Mandatory)] [string] $Server, [int] $Port = 1433)
Set-StrictMode -Version 2; $ErrorActionPreference = 'Stop'
. "$PSScriptRoot\common.ps1"
Get-ChildItem $PSScriptRoot\*.ps1 | ? { $_.Length -gt 1KB } | % { "$($_.Name): ${Server}:$Port" }
$text = @"
he said "$($Server.ToUpper() + "x")" && left, `$Server:$($Port)
"@
$literal = @'
it's $a ?? $b
'@
cmd /c "echo a && echo b || exit 1"
cmd --% /c echo a && echo b
$n = 5 * 1GB; $d = [datetime]::Now.AddDays(-1); $h = @{ a = 1; 'b c' = @(1, 2) }
if ($Server -match '^\w+\?$' -and -not $env:CI) { Write-Output "it's #1" } else { Write-Warning 'no "quotes"' }
try { & "$env:SystemRoot\System32\msiexec.exe" /i a.msi /qn } catch { throw } finally { $script:done = $true }
Get-Content dir\a??.txt -Encoding UTF8 | Set-Content b.txt
function Test-Json { param($Text) $Text }
Test-Json -Text '{}'
class Point { [int] $X; [string] ToString() { return "($($this.X))" } }
foreach ($one in 1..3) { switch ($one) { 1 { 'a' } default { "b`n" } } }
sc.exe config Spooler start= auto
exit $LASTEXITCODE
"""


def found(folder: Path, files: dict[str, bytes], program: str = WINDOWS, run: str = "-File a.ps1") -> list[Finding]:
    """Findings about the scripts of a package."""
    command = {"ExecutableAndParams": {"Executable": program, "Parameters": run}}
    document = with_profile(windows={"ProvisioningScripts": [script(**command)]})
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    whole = {"small.resext": json.dumps(document).encode()} | {f"src/{name}": data for name, data in files.items()}
    findings = examine(zip_of(folder / "a.resextpkg", whole))[0]
    return [finding for finding in findings if finding.code != "content-types-missing"]


def said(folder: Path, text: str | bytes, program: str = WINDOWS) -> list[tuple[str, str, int | None, int | None]]:
    """Severity, code, line and column of each finding about one script."""
    data = text.encode("ascii") if isinstance(text, str) else text
    return [(f.severity, f.code, f.line, f.column) for f in found(folder, {"a.ps1": data}, program)]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parser."""
    monkeypatch.delenv("VMROLE_PWSH", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.fixture(scope="module")
def program() -> Iterator[str]:
    with unpacked() as path:
        yield path


@pytest.fixture
def parser(program: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The real one."""
    monkeypatch.setenv("VMROLE_PWSH", program)
    return program


def parse(*texts: str) -> Answer:
    with Parser() as one:
        return one.parse([Asked(text) for text in texts])


DIFFERENT = [
    ("Stop-Service a && Start-Service b", "newer", 1, 16),
    ("$a = 1\n$b = $a ?? 2", "newer", 2, 9),
    ("$a = ${b}?.c", "newer", 1, 10),
    ("$a = $b ? 1 : 2", "newer", 1, 9),
    ('Write-Output "a`u{1F600}"', "newer", 1, 14),
    ("1..3 | ForEach-Object -Parallel { $_ }", "newer", 1, 24),
    ("irm https://example.org `\r\n  -SkipCertificateCheck", "newer", 2, 4),
    ("if ($IsWindows) { 1 }", "newer", 1, 6),
    ("$x = Test-Json $y", "newer", 1, 6),
    ("Set-Content a b -Encoding utf8NoBOM", "newer", 1, 27),
    ("#Requires -Version 7.2\n1", "newer", 1, 1),
    ("sc config Spooler start= auto", "newer", 1, 1),
]
OLDER = [
    ("1\n$x | sc a.txt", 2, 6),
    ("Get-Content a.bin -Encoding Byte", 1, 29),
    ("[Net.ServicePointManager]::ServerCertificateValidationCallback = { $true }", 1, 28),
    ("$x = Get-WmiObject Win32_Bios", 1, 6),
    ("Write-EventLog -LogName Application", 1, 1),
]


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(("text", "side", "line", "column"), DIFFERENT)
def test_what_windows_powershell_lacks(tmp_path: Path, text: str, side: str, line: int, column: int) -> None:
    ((severity, code, *place),) = said(tmp_path, text)
    assert (severity, code, place[0]) == ("warning", f"script-{side}", line)
    assert said(tmp_path, text, "pwsh.exe") == []


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(("text", "line", "column"), OLDER)
def test_what_powershell_7_lacks_or_takes_for_something_else(tmp_path: Path, text: str, line: int, column: int) -> None:
    assert said(tmp_path, text) == [("info", "script-older", line, column)]
    assert said(tmp_path, text, "pwsh.exe") == [("warning", "script-older", line, column)]
    assert said(tmp_path, f"if ($PSVersionTable.PSVersion.Major -lt 6) {{\n{text}\n}}") == []


@pytest.mark.usefixtures("without")
def test_everyday_scripts_without_a_parser(tmp_path: Path) -> None:
    assert said(tmp_path, RIGHT) == []
    assert said(tmp_path, 'param($Server, $Port)\r\n"to $Server:$Port"\r\n') == [("error", "script-syntax", 2, 5)]
    assert said(tmp_path, "'to $Server:$Port' # $a:$b") == []


DASH = 'Write-Output "App \u2013 installed"\r\nexit 0\r\n'


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DASH.encode(), [("warning", "script-encoding", 1, 19)]),
        (DASH.encode("cp1252"), [("warning", "script-encoding", 1, 19)]),
        ("# caf\u00e9\r\n1\r\n".encode(), [("info", "script-encoding", 1, 6)]),
        ("1\r\n".encode("utf-16-le"), [("warning", "script-encoding", 1, 1)]),
        (b"\xef\xbb\xbf" + DASH.encode(), []),
        (DASH.encode("utf-16"), []),
        (b"\xfe\xff" + DASH.encode("utf-16-be"), []),
        (DASH.encode("utf-32"), []),
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"1\0\0\n", []),
    ],
)
def test_encodings(tmp_path: Path, data: bytes, expected: list[Any]) -> None:
    assert said(tmp_path, data) == expected


@pytest.mark.usefixtures("without")
def test_without_a_parser_one_line_says_what_was_not_looked_at(tmp_path: Path) -> None:
    package = tmp_path / "a.resextpkg"
    found(tmp_path, {"a.ps1": b"1", "b.psm1": b"2"})
    done = vmrole("check", package, VMROLE_PWSH="", PATH="/usr/bin:/bin")
    assert done.code == 0 and "no errors, no warnings" in done.stdout
    assert done.stderr == (
        "vmrole: 2 texts of PowerShell were looked at and not parsed: there is no PowerShell 7 on this computer "
        "(install PowerShell 7 (pwsh), or name its program with VMROLE_PWSH)\n"
    )


@given(st.text(alphabet="ab \n\r'\"`$(){}#<>@;|&?\u201c\u2019", max_size=60))
def test_any_text_is_in_regions_without_gaps(text: str) -> None:
    one = Text(text)
    assert "".join(text[region.start : region.end] for region in one.regions) == text
    assert all(one.offset(*one.place(at)) == at for at in range(len(text)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    assert Script(data).text is not None


def test_long_scripts_are_read_in_linear_time() -> None:
    for piece in ("(", '"$(', "'a''", "<#", "${", "@'\n", "`", "#\n", "a ? b : c\n"):
        Text(piece * 100_000)


# with the real parser, whose process is started as seldom as can be


BRACKETS = [
    "$a = datetime]::Now",
    "f (string]$b)",
    "$c = x.y]::new(1)",
    "void][Reflection.Assembly]::LoadWithPartialName('a')",
    "function f { CmdletBinding(SupportsShouldProcess = $true)] param([ValidateSet('a', 'b')][string]$Kind = 'a') }",
]
"""A type without its first bracket, which is a command to the parser."""
LINES = {
    "encoded": "-EncodedCommand " + base64.b64encode("if ($x) { 1".encode("utf-16-le")).decode(),
    "open": '-Command "if ($x) { 1"',
    "value": "-Command \"if ('[Param.X]') { 1\"",
    "right": "-Command \"if ('[Param.X]') { 1 }\"",
}


@pytest.fixture(scope="module")
def checked(program: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `vmrole check --json` says of a package with scripts and lines of all kinds."""
    scaffold("Fresh", "windows-script", made := tmp_path_factory.mktemp("new"))
    fresh = (made / "payload/Scripts/Install.ps1").read_bytes()
    assert fresh.startswith(b"\xef\xbb\xbf")
    files = {"a.ps1": RIGHT.encode(), "anew.ps1": fresh, "dash.ps1": DASH.encode()}
    files["drive.ps1"] = b'param($Server, $Port = 1433)\r\nWrite-Output "connecting to $Server:$Port"\r\n'
    files |= {f"d{number}.ps1": text.encode() for number, (text, *_) in enumerate(DIFFERENT)}
    files |= {f"b{number}.ps1": text.encode() for number, text in enumerate(BRACKETS)}
    scripts = [
        script(ExecutableAndParams={"Executable": WINDOWS, "Parameters": line}, DeploymentOrder=number)
        for number, line in enumerate(LINES.values())
    ]
    document = with_profile(windows={"ProvisioningScripts": scripts}, parameters=(("X", "String"),))
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    whole = {"small.resext": json.dumps(document).encode()} | {f"src/{name}": data for name, data in files.items()}
    path = zip_of(tmp_path_factory.mktemp("checked") / "a.resextpkg", whole)
    done = vmrole("check", path, "--json", VMROLE_PWSH=program)
    assert done.code == 1
    return [one for one in done.json["findings"] if one["code"] != "content-types-missing"]


def test_everyday_scripts_and_what_is_different(checked: list[dict[str, Any]]) -> None:
    told = [(f["file"], f["code"], f["line"], f["column"]) for f in checked if f["file"][:5] in ("src/a", "src/d")]
    wanted = [(f"src/d{number}.ps1", f"script-{side}", *place) for number, (_, side, *place) in enumerate(DIFFERENT)]
    wanted += [("src/dash.ps1", "script-encoding", 1, 19), ("src/drive.ps1", "script-syntax", 2, 29)]
    assert sorted(told) == sorted(wanted)


def test_errors_have_the_id_that_the_parser_gives_them(checked: list[dict[str, Any]]) -> None:
    (drive,) = [one for one in checked if one["file"] == "src/drive.ps1"]
    assert (drive["id"], drive["severity"]) == ("InvalidVariableReferenceWithDrive", "error")
    # As code page 1252 makes another text of it.
    (dash,) = [one for one in checked if one["file"] == "src/dash.ps1"]
    assert "TerminatorExpectedAtEndOfString" in dash["sentence"]


def test_the_text_of_a_command_is_parsed(checked: list[dict[str, Any]]) -> None:
    told = [one for one in checked if one["file"] == "small.resext"]
    assert [(one["code"], one["id"]) for one in told] == [("script-syntax", "MissingEndCurlyBrace")] * 3
    assert [one["pointer"].split("/")[5] for one in told] == ["0", "1", "2"] and all(one["line"] for one in told)


def test_a_type_without_its_first_bracket(checked: list[dict[str, Any]]) -> None:
    told = [(one["file"], one["code"], one["severity"]) for one in checked if one["file"].startswith("src/b")]
    assert told == [(f"src/b{number}.ps1", "script-syntax", "warning") for number in range(len(BRACKETS))]


def mutations() -> list[str]:
    """Right scripts, each without one of its brackets, or its last quote."""
    broken = []
    for path in sorted((SAMPLES / "powershell").rglob("*.ps1")):
        text = path.read_text("utf-8-sig")
        for line in re.finditer(r"[^\r\n]+", Text(text).only("code", "expandable")):
            if '"' not in line[0]:  # in a string what is left may be another string
                at = [line.start() + one.start() for one in re.finditer(r"[(){}]", line[0])]
                broken += [text[:one] + text[one + 1 :] for one in at]
        last = text.rindex("'")
        broken.append(text[:last] + text[last + 1 :])
    return broken


def test_what_is_too_much_and_what_is_missing(parser: str) -> None:
    """A text that ends the parser or is too long is told of, and the others are parsed: of those each that lacks a
    bracket or a quote is found."""
    long = "1\n" * (engine.MAX_TEXT // 2 + 1)
    broken = mutations()
    answer = parse("(" * 100_000 + ")" * 100_000, "{" * 100_000, "1\0\0\n2", long, *broken)
    nested, open_ones, nul, too_long, *rest = answer.parsed
    assert nested and nested.faults[0].id == "ScriptTooComplicated" and open_ones and open_ones.faults
    assert nul is not None and too_long is None and "2 MiB" in answer.why and answer.version
    assert len(broken) > 20
    assert [text for text, one in zip(broken, rest, strict=True) if not (one and one.faults)] == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a process without rights can use, too."""
    folder = Path(tempfile.mkdtemp(prefix="vmrole-open-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_nothing_of_a_package_is_loaded_or_executed(parser: str, open_folder: Path) -> None:
    ran = open_folder / "ran"
    module = open_folder / "Mine.psm1"
    module.write_text(f"[IO.File]::WriteAllText('{ran}', 'x')\nclass A {{ static [int] $X = 1 }}")
    held = open_folder / "Held.psm1"
    os.mkfifo(held)  # whoever reads it hangs
    os.mkfifo(open_folder / "held.dll")
    texts = [
        f"using module {module}\n[A]::X",
        f"using module {held}",
        f"using assembly {open_folder}/held.dll\n1",
        "# first\nusing namespace System.IO; USING  assembly './gone.dll'\nparam([int] $X) $X",
        f"using module @{{\n  ModuleName = '{held}'\n  ModuleVersion = '1.0' }}\n[CmdletBinding()] param() 1",
        f"Configuration Web {{ Import-DscResource -ModuleName '{held}'; Node a {{ File b {{ Ensure = 'x' }} }} }}",
        f"[IO.File]::WriteAllText('{ran}', 'x')",
        f"#Requires -Modules {held}, Nope\n$using:x",
        "class B : Nope { }\nworkflow c { 1 }",
    ]
    answer = parse(*texts, "if (1) { using module X }", "using module @{ ModuleName = 'x'")
    *harmless, misplaced, missing = answer.parsed
    assert not answer.why and [one and one.faults for one in harmless] == [[]] * len(texts)
    assert misplaced and misplaced.faults[0].id == "UsingMustBeAtStartOfScript"
    assert missing and missing.faults
    assert not ran.exists()


def test_the_parser_alone_would_load_an_assembly(parser: str) -> None:
    code = (
        "$t = $e = $null; $null = [Management.Automation.Language.Parser]::ParseInput('using assembly ./gone.dll; 1', "
    )
    code += "[ref]$t, [ref]$e); [string]$e[0].ErrorId"
    environment = {"HOME": "/nonexistent", "PATH": os.defpath}
    argv = [parser, "-NoProfile", "-Command", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HANGS, check=True, env=environment)
    assert done.stdout.strip() == "ErrorLoadingAssembly"


PROGRAMS = {
    "says rubbish": (
        "echo rubbish; echo vmrole-parser",
        "is no PowerShell 7: it ended with exit code 0; it said 'rubbish'",
    ),
    "is of version 2": ("printf 'vmrole-parser\\t2.0\\n'", "is PowerShell 2.0, not 7"),
    "fails": ("exit 3", "is no PowerShell 7: it ended with exit code 3"),
    "ends early": ("printf 'vmrole-parser\\t7.5.0\\n'; exit 3", "read no further: it ended with exit code 3"),
    "never stops to write": ("exec yes", "is no PowerShell 7: "),
    "hangs": ("exec sleep 600", "is no PowerShell 7: it did not end in time"),
    "hangs behind its name": ("printf 'vmrole-parser\\t7.5.0\\n'; exec sleep 600", "it did not end in time"),
    "lies": ("printf 'vmrole-parser\\t7.5.0\\n9\\tend\\n0\\terror\\tx\\n-1\\tend\\n'", "read no further"),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_that_is_no_parser_is_one_line(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    text, why = PROGRAMS[what]
    fake = open_folder / "pwsh"
    fake.write_text(f"#!/bin/sh\n{text}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("VMROLE_PWSH", str(fake))
    monkeypatch.setattr(engine, "_SECONDS", 1.0 if "hangs" in what else HANGS)
    assert [finding.code for finding in found(tmp_path, {"a.ps1": b"sc config x start= auto"})] == ["script-newer"]
    line, end = capsys.readouterr().err.split("\n")
    assert (
        line.startswith("vmrole: a text of PowerShell was looked at and not parsed: pwsh ") and why in line and not end
    )


def test_a_program_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMROLE_PWSH", "/nowhere/pwsh")
    assert parse("1").parsed == [None] and "No such file or directory" in parse("1").why


def test_the_process_has_no_rights_and_no_network(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = open_folder / "pwsh"
    rights = "grep -c : /proc/net/dev; awk '/NoNewPrivs|CapEff/ {print $2}' /proc/self/status; echo ${HOME}"
    fake.write_text(f"#!/bin/sh\nprintf 'vmrole-parser\\t7.5.0\\n'; echo $({rights}; id -u)\n")
    fake.chmod(0o755)
    monkeypatch.setenv("VMROLE_PWSH", str(fake))
    assert "it said '1 0000000000000000 1 /nonexistent 65534'" in parse("1").why
