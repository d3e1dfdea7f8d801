# SPDX-License-Identifier: Apache-2.0
"""Steps of PowerShell in forks of the stand-in: by an engine that stood by and by one of its own, as a run takes them.

``python -m tests.bench.powershell`` measures this alone. Seconds are those of the step in result.json, each in a fork
of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.conftest import VMROLE
from tests.powershell import IMAGE, found, main

ROUNDS = 3
_PAYLOAD = "0b1f1c52-93a5-4f0b-8a7d-0d5c1b6c1a0f"
_SHELL = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass"
# Forty lines as authors write them: a log, JSON, XML, the registry, services, processes, files.
_FORTY = r"""param([string] $Name = 'app')
$ErrorActionPreference = 'Stop'
$root = "C:\$Name"
$log = "$root\install.log"
New-Item -ItemType Directory -Force -Path $root | Out-Null
function Write-Log([string] $Text) { Add-Content -Path $log -Value "$(Get-Date -Format s) $Text" }
Write-Log 'begins'
$settings = @{ name = $Name; port = 8080; paths = @('a', 'b') }
$settings | ConvertTo-Json | Set-Content "$root\settings.json"
$read = Get-Content "$root\settings.json" -Raw | ConvertFrom-Json
if ($read.port -ne 8080) { throw 'the settings are not as written' }
[xml] $config = '<configuration><appSettings><add key="a" value="1"/></appSettings></configuration>'
$config.configuration.appSettings.add.value = '2'
$config.Save("$root\app.config")
$key = "HKLM:\SOFTWARE\$Name"
New-Item $key -Force | Out-Null
Set-ItemProperty $key -Name Port -Value $read.port
Set-ItemProperty $key -Name Root -Value $root
if ((Get-ItemProperty $key).Port -ne 8080) { throw 'the registry is not as written' }
[Environment]::SetEnvironmentVariable("${Name}_HOME", $root, 'Machine')
$running = Get-Service | Where-Object { $_.Status -eq 'Running' }
foreach ($service in $running) { Write-Log "service $($service.Name)" }
$process = Start-Process cmd.exe -ArgumentList '/c', 'exit 0' -Wait -PassThru -NoNewWindow
if ($process.ExitCode -ne 0) { throw "the program ended with $($process.ExitCode)" }
$found = Get-ChildItem $root -Recurse | Sort-Object Length -Descending | Select-Object -First 5
foreach ($file in $found) { Write-Log "$($file.Name) $($file.Length)" }
Copy-Item "$root\settings.json" "$root\settings.bak"
Move-Item "$root\settings.bak" "$root\settings.old" -Force
$sum = (1..40 | ForEach-Object { $_ * 2 } | Measure-Object -Sum).Sum
Write-Log "sum $sum"
switch ($Name) {
    'app' { $kind = 'usual' }
    default { $kind = 'other' }
}
$text = '{0} is {1}' -f $Name, ($kind -replace 'usual', 'as usual')
try { Get-Item C:\nowhere | Out-Null } catch { Write-Log "caught $($_.Exception.Message)" }
cmd /c 'exit 3'
Write-Log "native $LASTEXITCODE"
Write-Output $text
exit 3010
"""


@dataclass(frozen=True, slots=True)
class Step:
    """Medians in seconds: by an engine that stood by, and by one of its own; and what they may be at most."""

    name: str
    most_warm: float
    most_cold: float
    warm: float = 0.0
    cold: float = 0.0


_STEPS = {
    f'{_SHELL} -Command "exit 3"': Step("exit 3", 4, 12),
    f"{_SHELL} -File C:\\ProgramData\\VMRole\\Payload\\forty.ps1": Step("a script of 40 lines", 9, 20),
    f'{_SHELL} -Command "1..1000; exit 3"': Step("1,000 lines and exit 3", 6, 14),
}


def measure(folder: Path, rounds: int = ROUNDS) -> list[Step]:
    """Nothing where there is no PowerShell to measure."""
    if found() is None or main() != 0:
        return []
    measured: list[Step] = []
    for number, (line, step) in enumerate(_STEPS.items()):
        package = _package(folder / f"package-{number}", line)
        if not measured:
            _seconds(package, folder / "first", ())  # makes the template
        warm, cold = (
            [_seconds(package, folder / f"{number}-{round_}{''.join(options)}", options) for round_ in range(rounds)]
            for options in ((), ("--cold-engines",))
        )
        measured.append(replace(step, warm=statistics.median(warm), cold=statistics.median(cold)))
    return measured


def _package(folder: Path, line: str) -> Path:
    """An extension of one step."""
    (folder / "payload").mkdir(parents=True)
    (folder / "payload/forty.ps1").write_text(_FORTY)
    program, _, parameters = line.partition(" ")
    step = {
        "ScriptType": "PreInstall",
        "DeploymentOrder": 1,
        "ErrorPolicy": "FailOnMatch",
        "ExitCodeRegex": "99",
        "TimeoutInSeconds": 600,
        "ExecutableAndParams": {"Executable": program, "Parameters": parameters},
        "ApplicationPayloadId": _PAYLOAD,
    }
    profile = {
        "Name": "X",
        "ApplicationPayload": [{"ID": _PAYLOAD, "RelativePath": "."}],
        "WindowsApplicationProfile": {"ProvisioningScripts": [step]},
    }
    document = {
        "SchemaVersion": "1.0",
        "Name": "X",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ExtensionSettings": {"ApplicationProfile": profile},
        "DataPackage": {"Version": "1.0.0.0", "Location": "payload"},
    }
    (folder / "x.resext").write_text(json.dumps(document))
    return folder / "x.resext"


def _seconds(package: Path, output: Path, options: Sequence[str]) -> float:
    """Of the one step, in a fork of its own."""
    argv: list[str | Path] = [VMROLE, "run", package, "--image", IMAGE, "--output", output, "--json", *options]
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    instance = json.loads(done.stdout)["instances"][0] if done.stdout else None
    if done.returncode or instance is None or instance["engine"]["warm"] is bool(options):
        raise RuntimeError(f"the step of PowerShell is not what is to be measured: {done.stderr}")
    return float(instance["steps"][0]["seconds"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vmb-", dir="/tmp") as work:
        for each in measure(Path(work)):
            for how, seconds, most in (("warm", each.warm, each.most_warm), ("cold", each.cold, each.most_cold)):
                print(f"{each.name:<24} {how} {seconds:>6.1f} s, at most {most:g}")  # noqa: T201
