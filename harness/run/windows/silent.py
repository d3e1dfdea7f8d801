# SPDX-License-Identifier: Apache-2.0
"""What PowerShell on Wine does wrong without an error, told of the step whose text uses it: nothing else can tell."""

from __future__ import annotations

import ntpath
import re
from typing import Final

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError
from harness.guest.protocol import Guest
from harness.guest.wintext import decode
from harness.plan import Step

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


def silently_wrong(step: Step, guest: Guest, *, deadline: Deadline) -> list[str]:
    """Sentences about the command line of ``step`` and the script that it names first, as that is in the guest."""
    text = step.command_line
    if found := _SCRIPT.search(text):
        path = ntpath.join(step.working_directory or "C:\\", found[1] or found[2] or found[3])
        try:
            text += "\n" + decode(guest.get(path, deadline=deadline, limit=_MOST))
        except GuestLostError:
            raise
        except GuestError:  # which the step will say better
            pass
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [said for pattern, said in _SILENT if pattern.search(code)]
