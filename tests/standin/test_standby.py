# SPDX-License-Identifier: Apache-2.0
"""Engines of PowerShell that stand by: a step is what it would be by an engine of its own, and they take what fits."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.deadline import Deadline
from standin import engines
from standin.proof import standing_by
from standin.runner import Process
from tests.conftest import HANGS
from tests.standin.engine import Engine
from tests.standin.native import in_wine, wine_environment

_SHELL = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass"
_LOOKING = f'{_SHELL} -File C:\\looks.ps1 -Name "b c" -On -More \'q\' x "" C:\\d\\ "e\\\\" f\\"g ü'
_INTERNATIONAL = "HKCU\\Control Panel\\International"
# All that a script finds of what its process was given, or says in one of its ways. No objects that become a table by
# themselves: for those what follows is held back for a moment, and the order of the streams depends on it.
_LOOKS = r"""param([string] $Name, [switch] $On, $More)
"$Name|$On|$More|$($args -join ',')"; $PSScriptRoot; $PSCommandPath; $MyInvocation.Line; (Get-Location).Path
[Environment]::CurrentDirectory; [Environment]::CommandLine; [Environment]::GetCommandLineArgs(); (Resolve-Path .).Path
(Get-Process -Id $PID).ProcessName; (Get-Process -Id $PID).Path; $PROFILE; $PSHOME
Get-ChildItem env: | Sort-Object Name | ForEach-Object { "$($_.Name)=$($_.Value)" }
$changing = 'PID', 'input', 'args', '?', 'Host', 'Error', 'MyInvocation', 'PSBoundParameters', 'StackTrace'
Get-Variable | Where-Object Name -NotIn $changing | Sort-Object Name | ForEach-Object { "$($_.Name) $($_.Value)" }
Get-Command -ListImported | Sort-Object Name | ForEach-Object { "$($_.CommandType) $($_.Name)" }
Get-PSDrive | ForEach-Object Name; Get-Module | ForEach-Object Name; Get-ChildItem alias: | ForEach-Object Name
"$($Host.Name) $($Host.Version) $([runspace]::DefaultRunspace.Id) $($ExecutionContext.SessionState.LanguageMode)"
(Get-Culture).Name; (Get-UICulture).Name; [TimeZoneInfo]::Local.Id; 1234.5.ToString('N')
Get-Date -Date 2012-03-04 -Format F; [Console]::OutputEncoding.CodePage; [Console]::InputEncoding.CodePage
[Console]::IsInputRedirected; [Console]::IsOutputRedirected; [Console]::IsErrorRedirected
Get-ExecutionPolicy -List | ForEach-Object { "$($_.Scope) $($_.ExecutionPolicy)" }
'read ' + [Console]::In.ReadLine(); 'rest ' + [Console]::In.ReadToEnd()
Write-Host 'host ä'; Write-Warning 'warning'; Write-Verbose 'verbose' -Verbose; Write-Debug 'debug' -Debug
Write-Information 'information' -InformationAction Continue; Write-Error 'error ö'; Get-Item C:\none; 1 / 0
[Console]::Error.WriteLine('raw'); $Error.Count; Get-History; [pscustomobject]@{a = 1; b = 'x'} | Format-Table
"""
_DOES = r"""$ErrorActionPreference = 'Stop'
cmd /c 'echo native & echo err>&2 & exit 5'; "code $LASTEXITCODE"; powershell -NoProfile -Command "'nested'; exit 6"
"code $LASTEXITCODE"; pwsh -NoProfile { 'block'; $args } -args a, 'b c'
Add-Type 'public static class Twice { public static int Of(int n) { return 2 * n; } }'; [Twice]::Of(21)
$job = Start-Job { 'job' }; Receive-Job $job -Wait; $job.Id; 1..3 | ForEach-Object -Parallel { $_ } | Sort-Object
(Start-Process cmd.exe -ArgumentList '/c echo inherited& exit 42' -Wait -PassThru -NoNewWindow).ExitCode
class Thing { [int] $N; Thing([int] $n) { $this.N = $n } [string] ToString() { return "thing $($this.N)" } }
"$([Thing]::new(3))"; [Environment]::SetEnvironmentVariable('OfMachine', 'x', 'Machine')
[Environment]::GetEnvironmentVariable('OfMachine', 'Machine'); $env:OfProcess = 'y'; cmd /c 'echo %OfProcess%'
Start-Transcript C:\transcript.txt | Out-Null; 'said'; Stop-Transcript | Out-Null
(Get-Content C:\transcript.txt | Select-String '^(said|Host Application)').Line
try { throw 'x' } catch { $_.Exception.GetType().FullName; "$($_.InvocationInfo.ScriptLineNumber)" }
function Deep($n) { if ($n -gt 0) { Deep ($n - 1) } else { 'deep' } }; Deep 50; 1..300 -join ','
exit 3010
"""


@pytest.fixture(scope="module")
def standing(engine: Engine) -> Engine:
    """With what makes an engine stand by, which is compiled, and proven as when an image is built."""
    assert standing_by(engine.runner) is None
    for name, text in {"looks": _LOOKS, "does": _DOES, "fails": "'a'\nthrow 'no'", "broken": "'a'\nif (", "stop":
                       "$ErrorActionPreference = 'Stop'\nGet-Item C:\\none\n'after'"}.items():  # fmt: skip
        (engine.drive / f"{name}.ps1").write_text(text, "utf-8")
    (engine.drive / "a folder").mkdir()
    return engine


@contextlib.contextmanager
def an_engine(engine: Engine, count: int = 1) -> Iterator[list[Process]]:
    """So many that stand by, which are ended afterwards where nobody took them."""
    made: list[Process] = []
    try:
        made += [engines.stand_by(engine.runner) for _ in range(count)]
        yield made
    finally:
        for process in made:
            process.close()


def was_taken(engine: Engine) -> bool:
    return engine.standby.read_text() != ""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-le")).decode()


@pytest.mark.parametrize(
    ("line", "code", "page"),
    [
        (_LOOKING, 0, 65001),
        (_LOOKING, 0, 437),
        (f"{_SHELL} -Command \"[Console]::Write('ä€'); [Environment]::Exit(-1)\"", 0xFFFFFFFF, 1252),
        (f"{_SHELL} -File C:\\does.ps1", 3010, 65001),
        ("powershell -NoProfile -Command exit 3", 3, 65001),
        ("powershell -NoProfile Write-Output 'a b'; exit 4", 4, 65001),
        (f"pwsh -NoProfile -EncodedCommand {encoded('$input; exit 5')}", 5, 65001),
        ("pwsh -NoProfile -Command -", 6, 65001),
        (f"{_SHELL} -File C:\\fails.ps1", 1, 65001),
        (f"{_SHELL} -File C:\\broken.ps1", 1, 65001),
        (f"{_SHELL} -File C:\\stop.ps1", 1, 65001),
        (f"{_SHELL} -File C:\\nowhere.ps1", 64, 65001),
        (f"{_SHELL} -Command \"cmd /c exit 7; Get-Nonsense; exit $LASTEXITCODE\"", 7, 65001),
        ("cmd /c powershell -NoProfile -Command \"'x'; exit 9\" & if errorlevel 9 echo seen", 9, 65001),
    ],
)  # fmt: skip
def test_a_step_is_byte_for_byte_what_it_is_without(standing: Engine, line: str, code: int, page: int) -> None:
    def run() -> tuple[int | None, str, str]:
        return standing.run(line, stdin=b"'in'\r\nexit 6\r\n", page=page, folder="C:\\a folder", Own="äö", TEMP="C:\\")

    cold = run()
    assert not was_taken(standing)
    with an_engine(standing):
        warm = run()
        assert was_taken(standing)
    assert warm == cold and cold[0] == code


def test_formats_that_changed_since_start_an_engine_of_its_own(standing: Engine) -> None:
    environment = wine_environment(standing.drive.parent)

    def decimal(point: str) -> None:
        argv = in_wine("reg", "add", _INTERNATIONAL, "/v", "sDecimal", "/d", point, "/f")
        subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=HANGS)

    with an_engine(standing):
        decimal("!")
        try:
            code, out, _ = standing.run(f"{_SHELL} -Command \"'{{0:N1}}' -f 1234.5; exit 3\"")
        finally:
            decimal(".")
        assert (code, out.split()) == (3, ["1,234!5"])
        assert not was_taken(standing)
        # It has ended, and takes nothing later.
        assert standing.run("powershell -NoProfile -Command exit 4")[0] == 4 and not was_taken(standing)


def test_a_setting_of_the_runtime_starts_an_engine_of_its_own(standing: Engine) -> None:
    with an_engine(standing):
        line = f"{_SHELL} -Command \"[AppContext]::TryGetSwitch('x', [ref] $null) | Out-Null; exit 3\""
        assert standing.run(line, DOTNET_TieredCompilation="0")[0] == 3 and not was_taken(standing)
        assert standing.run(line)[0] == 3 and was_taken(standing)


def test_more_steps_at_once_than_engines_stand_by(standing: Engine) -> None:
    standing.standby.write_bytes(b"")
    with an_engine(standing, 2), ThreadPoolExecutor(3) as pool:

        def run(number: int) -> tuple[bytes, int | None]:
            line = f"{_SHELL} -Command \"'said {number}'; exit {number}\""
            return standing.runner.run(line, "C:\\").finish(HANGS, 4096)

        assert list(pool.map(run, (1, 2, 3))) == [(f"said {number}\r\n".encode(), number) for number in (1, 2, 3)]
    assert len(standing.standby.read_text().split()) == 2


def test_the_end_of_a_step_is_the_end_of_all_that_it_started(standing: Engine) -> None:
    """Also of what an engine started that is no child of the step's own process."""
    ticks = standing.drive / "ticks.txt"
    (standing.drive / "tick.cmd").write_text(":again\necho x>>C:\\ticks.txt\ngoto again\n")
    with an_engine(standing):
        process = standing.runner.run(f'{_SHELL} -Command "C:\\tick.cmd"', "C:\\")
        assert Deadline(HANGS).poll(lambda: ticks.exists() or None)
        process.terminate()
        assert process.finish(HANGS, 4096)[1] == 1067

        def is_still() -> bool:
            """Nobody has it open who could write."""
            with contextlib.suppress(PermissionError):
                ticks.unlink(missing_ok=True)
            return not Deadline(3).poll(lambda: ticks.exists() or None)

        assert Deadline(HANGS).poll(is_still)


def test_engines_are_ended_where_none_is_wanted(standing: Engine) -> None:
    with an_engine(standing, 2) as both:
        assert standing.run(f'"{engines.PROGRAM}" end')[0] == 0
        assert [process.finish(HANGS, 16)[1] for process in both] == [0, 0]
    assert standing.run("powershell -NoProfile -Command exit 3")[0] == 3 and not was_taken(standing)


def test_an_engine_that_cannot_stand_by_says_why(standing: Engine) -> None:
    """As with another PowerShell, which lacks what has to be forgotten: steps have engines of their own then."""
    script = standing.drive / "Program Files/PowerShell/StandBy/StandBy.dll"
    kept = script.read_bytes()
    script.write_bytes(b"no library")
    try:
        with pytest.raises(engines.EngineError, match="ends with 0xe0434352 instead of standing by"):
            engines.stand_by(standing.runner)
        assert standing.run("powershell -NoProfile -Command exit 3")[0] == 3 and not was_taken(standing)
    finally:
        script.write_bytes(kept)
