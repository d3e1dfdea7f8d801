# SPDX-License-Identifier: Apache-2.0
"""Whether the PowerShell that was supplied works: asked once, when the image is built, in the way that steps are run.

On a Wine or with a PowerShell that it does not fit, an engine ends well without having done anything, or crashes in
longer scripts only. The script does what such an engine cannot. Then one step is run by an engine of its own and by one
that stood by: a PowerShell with which the two differ, or with which none stands by, always gets engines of its own.
"""

from __future__ import annotations

import shutil
import sys

from standin import engines, places
from standin.places import ENVIRONMENT, PROGRAMS, WINE
from standin.runner import Runner

SCRIPT = (
    "cmd /c exit 5; if ($LASTEXITCODE -ne 5) {exit 6}; "
    "foreach ($i in 1..60) {[void]([scriptblock]::Create('$i + 1').Invoke())}; "
    "[GC]::Collect(); [GC]::WaitForPendingFinalizers(); [GC]::Collect(); "
    "if (Get-Command Install-WindowsFeature) {exit 3010}; exit 7"
)
WANTED = 3010
_STEP = (
    "Get-ChildItem env: | Sort-Object Name | ForEach-Object { $_.Name + '=' + $_.Value }; "
    "Get-Variable | Sort-Object Name | ForEach-Object Name; [Environment]::CommandLine; $args; (Get-Location).Path; "
    "[Console]::OutputEncoding.CodePage; Get-Culture; Write-Warning 'w'; Write-Error 'e'; Get-Item C:\\none; exit 3010"
)
_SECONDS = 300.0
_SAID = 65536
_REASONS = {
    0: "it does nothing and ends well, as one without a console does",
    6: "it does not find programs by their names, as on Wine before 9",
    7: "it does not find the modules of this image",
    9150: "it has no console",
    0xE0434352: "its runtime cannot start",
    0xC0000602: "its runtime crashes when it collects memory, as on Wine before 9",
}
_BUILD = "C:\\Program Files\\PowerShell\\StandBy\\build.ps1"


def trouble(code: int | None, said: str) -> str | None:
    """Why an engine that ended the script with ``code`` cannot be used; None when it can. ``code`` is None for one that
    did not end."""
    if code == WANTED:
        return None
    if code is None:
        return f"its first script did not end within {_SECONDS:.0f} s"
    return _REASONS.get(code) or f"its first script ended with {code}{_words(said)}"


def standing_by(runner: Runner) -> str | None:
    """Why engines of the image cannot stand by; None when they can. What makes them is compiled first."""
    said, code = _run(runner, f'-File "{_BUILD}"')
    if code != 0:
        return f"what makes them does not compile{_words(said.decode('cp437', 'replace'))}"
    step = f'-Command "{_STEP}"'
    cold = _run(runner, step)
    try:
        engine = engines.stand_by(runner)
    except engines.EngineError as error:
        return str(error)
    warm = _run(runner, step)
    taken = engine.take(_SECONDS, 0)[1] is not None
    engine.close()
    if not taken:
        return "none takes a step"
    return None if warm == cold and cold[1] == WANTED else "a step of one is not what it is of one of its own"


def _run(runner: Runner, arguments: str) -> tuple[bytes, int | None]:
    line = f"powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass {arguments}"
    return runner.run(line, "C:\\").finish(_SECONDS, _SAID)


def _words(said: str) -> str:
    words = " ".join(said.split())
    return f": {words[-200:]}" if words else ""


def main() -> int:
    runner = Runner([WINE, str(PROGRAMS / "runner.exe")], ENVIRONMENT | {"WINEDEBUG": "-all"})
    try:
        said, code = _run(runner, f'-Command "{SCRIPT}"')
        reason = trouble(code, said.decode("cp437", "replace"))
        if reason:
            said_so = f"vmrole-error: the PowerShell that was supplied does not work on this image's Wine: {reason}"
            sys.stdout.write(f"{said_so}\n")
            return 1
        if cold := standing_by(runner):
            sys.stdout.write(f"vmrole-note: every step starts an engine of PowerShell, as none can stand by: {cold}\n")
            shutil.rmtree(places.DRIVE / "Program Files/PowerShell/StandBy")
    finally:
        runner.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
