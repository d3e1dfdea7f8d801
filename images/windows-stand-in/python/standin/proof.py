# SPDX-License-Identifier: Apache-2.0
"""Whether the PowerShell that was supplied works: asked once, when the image is built, in the way that steps are run.

On a Wine or with a PowerShell that it does not fit, an engine ends well without having done anything, or crashes in
longer scripts only. The script does what such an engine cannot.
"""

from __future__ import annotations

import sys

from standin.places import ENVIRONMENT, PROGRAMS, WINE
from standin.runner import Runner

SCRIPT = (
    "cmd /c exit 5; if ($LASTEXITCODE -ne 5) {exit 6}; "
    "foreach ($i in 1..60) {[void]([scriptblock]::Create('$i + 1').Invoke())}; "
    "[GC]::Collect(); [GC]::WaitForPendingFinalizers(); [GC]::Collect(); "
    "if (Get-Command Install-WindowsFeature) {exit 3010}; exit 7"
)
WANTED = 3010
_SECONDS = 300.0
_SAID = 2048
_REASONS = {
    0: "it does nothing and ends well, as one without a console does",
    6: "it does not find programs by their names, as on Wine before 9",
    7: "it does not find the modules of this image",
    9150: "it has no console",
    0xE0434352: "its runtime cannot start",
    0xC0000602: "its runtime crashes when it collects memory, as on Wine before 9",
}


def trouble(code: int | None, said: str) -> str | None:
    """Why an engine that ended the script with ``code`` cannot be used; None when it can. ``code`` is None for one that
    did not end."""
    if code == WANTED:
        return None
    if code is None:
        return f"its first script did not end within {_SECONDS:.0f} s"
    words = " ".join(said.split())
    return _REASONS.get(code) or f"its first script ended with {code}" + (f": {words[-200:]}" if words else "")


def main() -> int:
    runner = Runner([WINE, str(PROGRAMS / "runner.exe")], ENVIRONMENT | {"WINEDEBUG": "-all"})
    try:
        line = f'powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -Command "{SCRIPT}"'
        said, code = runner.run(line, "C:\\").finish(_SECONDS, _SAID)
    finally:
        runner.stop()
    reason = trouble(code, said.decode("cp437", "replace"))
    if reason:
        said_so = f"vmrole-error: the PowerShell that was supplied does not work on this image's Wine: {reason}"
        sys.stdout.write(f"{said_so}\n")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
