# SPDX-License-Identifier: Apache-2.0
"""What Windows and its cmd.exe, the command interpreter, can take, and which programs are interpreters."""

from __future__ import annotations

import ntpath
import re
from typing import Final

LONGEST: Final = 8191
"""Characters of a command line of cmd.exe, and of a line of a batch file."""
LONGEST_OF_WINDOWS: Final = 32_766
"""Characters of any command line."""


def is_cmd(program: str) -> bool:
    """Whether ``program``, a name or a path, is cmd.exe or is started by it."""
    name = ntpath.basename(program.strip().strip('"')).lower()
    return name in ("cmd", "cmd.exe", "%comspec%") or name.endswith((".cmd", ".bat"))


def is_powershell(program: str | None) -> bool:
    """Whether ``program``, a name or a path, is Windows PowerShell or PowerShell 7."""
    name = ntpath.basename((program or "").strip().strip('"')).lower()
    return name.removesuffix(".exe") in ("powershell", "pwsh")


def starts_powershell(line: str) -> bool:
    """Whether the command ``line`` starts one of them, whose start takes seconds in an emulated guest."""
    quoted = re.match(r'\s*"([^"]*)"', line)
    return is_powershell(quoted[1] if quoted else line.strip().partition(" ")[0])


def long_line(text: str) -> int:
    """Number of the first line of a batch text that is too long; 0 for none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return next((number for number, line in enumerate(lines, 1) if len(line) > LONGEST), 0)
