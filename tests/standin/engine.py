# SPDX-License-Identifier: Apache-2.0
"""A real PowerShell 7 in the image's Wine, started as steps are, without a machine."""

from __future__ import annotations

import contextlib
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.image import modules
from harness.run.windows import pretence as pretending
from standin.runner import Runner
from tests.conftest import HANGS
from tests.powershell import powershell_zip
from tests.standin.native import compile_tool, in_wine, wine_prefix

_ENGINE = "drive_c/Program Files/PowerShell"
_SHIM = ("windows/system32/WindowsPowerShell/v1.0/powershell.exe", "windows/system32/pwsh.exe")


@dataclass(frozen=True)
class Engine:
    """PowerShell in a prefix whose drive C is ``drive``."""

    runner: Runner
    drive: Path

    def run(
        self, line: str, *, stdin: bytes = b"", page: int = 65001, folder: str = "C:\\", **environment: str
    ) -> tuple[int | None, str, str]:
        """Exit code, standard output and standard error of a command line."""
        for log in (self.unavailable, self.pretended, self.standby):
            log.write_bytes(b"")
        process = self.runner.run(line, folder, environment, page)
        process.write(stdin, end=True)
        said = {"stdout": b"", "stderr": b""}
        code = None
        while code is None:
            pieces, code = process.take(HANGS, 1 << 20)
            assert pieces or code is not None, f"{line} does not end"
            for stream, data in pieces:
                said[stream] += data
        process.close()
        return code, said["stdout"].decode(f"cp{page}"), said["stderr"].decode(f"cp{page}")

    def script(self, text: str) -> tuple[int | None, str, str]:
        """The same of a script, by -File."""
        (self.drive / "x.ps1").write_text(text, "utf-8")
        return self.run("powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File C:\\x.ps1")

    @property
    def unavailable(self) -> Path:
        return self.drive / "windows/vmrole-unavailable.log"

    @property
    def standby(self) -> Path:
        """Grows with each command line that an engine takes that stood by."""
        return self.drive / "windows/vmrole-standby.log"

    @property
    def pretended(self) -> Path:
        return self.drive / "windows/vmrole-pretended.log"

    def pretend(self, *names: str, folder: Path | None = None) -> None:
        """Have the engine pretend from now on what a run would."""
        for path, data in pretending.files(pretending.pretence(names, folder)).items():
            target = self.drive / path.removeprefix("C:\\").replace("\\", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


@contextlib.contextmanager
def powershell(folder: Path) -> Iterator[Engine]:
    """One whose files are in ``folder``. Skips the test where there is none."""
    supplied = powershell_zip()
    prefix = folder / "prefix"
    with wine_prefix(prefix) as environment:
        with zipfile.ZipFile(supplied) as archive:
            archive.extractall(prefix / _ENGINE / "7")
        modules.write(modules.tables(), prefix / _ENGINE)
        shim = compile_tool("powershell", folder).read_bytes()
        for name in _SHIM:
            target = prefix / "drive_c" / name
            target.unlink(missing_ok=True)
            target.write_bytes(shim)
        place = prefix / _ENGINE / "StandBy/standby.exe"
        place.write_bytes(compile_tool("standby", folder).read_bytes())
        debugger = "HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion\\AeDebug"
        value = in_wine("reg", "add", debugger, "/v", "Debugger", "/t", "REG_SZ", "/d", "", "/f")
        subprocess.run(value, env=environment, check=True, capture_output=True, timeout=HANGS)
        runner = Runner(in_wine(compile_tool("runner", folder)), environment)
        try:
            yield Engine(runner, prefix / "drive_c")
        finally:
            runner.stop()
