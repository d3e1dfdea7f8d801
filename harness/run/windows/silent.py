# SPDX-License-Identifier: Apache-2.0
"""What PowerShell 7 on Wine does otherwise without an error than Windows PowerShell on Windows, told of the step whose
text uses it: nothing else can tell."""

from __future__ import annotations

import ntpath
import re
from dataclasses import dataclass
from typing import Final

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError
from harness.guest.protocol import Guest
from harness.package.powershell.invocation import invocations
from harness.package.powershell.source import Script, Text
from harness.package.powershell.versions import differences
from harness.plan import Step
from harness.wincmd import is_powershell

_SCRIPT: Final = re.compile(r"""(?:"([^"]+\.ps1)"|'([^']+\.ps1)'|([^\s"';&|]+\.ps1))""", re.I)
_MOST: Final = 1 << 20
"""Bytes of a script that are looked at."""
_SILENT: Final = tuple(
    (re.compile(pattern, re.I), said)
    for pattern, said in (
        (r"\bSet-Acl\b|\.SetAccessControl\(", "access rights are lost but for Everyone's (Set-Acl)"),
        (r"\b(?:SymbolicLink|mklink)\b", "a symbolic link is not made"),
        (r"\bIsReadOnly\b|\battrib(?:\.exe)?\s+\+r\b|\.Attributes\b.*\bReadOnly\b", "a read-only file can be written"),
        (r"\bNew-Service\b.*\s-Cred", "a service is made with any password (New-Service -Credential)"),
        (r"\bDiagnostics\.EventLog\b", "entries of the event log are lost"),
        (r"\bSWbemLocator\b|\bwinmgmts:", "WMI by COM gives objects without properties"),
    )
)


_TOLD: Final = 5
"""Differences of a step that are told."""


@dataclass(frozen=True, slots=True)
class Executed:
    """What a step executes: its command line, and the script that it names first, as that is in the guest."""

    line: str
    code: str = ""
    """The text after -Command or -EncodedCommand."""
    name: str = ""
    script: Script | None = None


def executed(step: Step, guest: Guest, *, deadline: Deadline) -> Executed:
    """The texts of ``step``. Raises GuestLostError."""
    line = step.command_line
    starts = invocations(step.executable, step.parameters or "") if is_powershell(step.executable) else ()
    code = "\n".join(start.code for start in starts)
    found = _SCRIPT.search(f"{line}\n{code}")
    if found is None:
        return Executed(line, code)
    name = found[1] or found[2] or found[3]
    try:
        data = guest.get(ntpath.join(step.working_directory or "C:\\", name), deadline=deadline, limit=_MOST)
    except GuestLostError:
        raise
    except GuestError:  # which the step will say better
        return Executed(line, code)
    return Executed(line, code, ntpath.basename(name), Script(data))


def silently_wrong(what: Executed) -> list[str]:
    """Sentences about what Wine does wrong."""
    text = f"{what.line}\n{what.code}\n{what.script.text if what.script else ''}"
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [said for pattern, said in _SILENT if pattern.search(code)]


def read_otherwise(what: Executed) -> list[str]:
    """Sentences about what Windows PowerShell reads otherwise than the PowerShell 7 that executes it, with lines."""
    told = []
    if what.script is not None and not what.script.plain:
        told.append(f"{what.name} has other than ASCII and no byte order mark, which the two read as different letters")
    texts = [("the command", Text(what.code))] if what.code else []
    if what.script is not None:
        texts.append((what.name, Text(what.script.text)))
    for name, text in texts:
        for one in differences(text):
            who = "PowerShell 7" if one.side == "older" else "Windows PowerShell"
            verb = "takes for something else" if one.side == "wrong" else "lacks"
            told.append(f"line {text.place(one.offset)[0]} of {name} uses what {who} {verb}, {one.what}")
    return [*told[:_TOLD], *([f"{len(told) - _TOLD} more"] if len(told) > _TOLD else [])]
