# SPDX-License-Identifier: Apache-2.0
"""Engines of PowerShell that stand by in forks of a stand-in (images/windows-stand-in/tools/standby.c)."""

from __future__ import annotations

from typing import Final

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError
from harness.guest.protocol import Guest
from harness.guest.winrm import WinRmGuest

_PROGRAM: Final = "C:\\Program Files\\PowerShell\\StandBy\\standby.exe"
"""Not in an image whose engines cannot stand by."""
_LOG: Final = "C:\\windows\\vmrole-standby.log"


def end_engines(guest: WinRmGuest, *, deadline: Deadline) -> None:
    """End those that stand by. Raises GuestError."""
    line = f'cmd.exe /d /c if exist "{_PROGRAM}" "{_PROGRAM}" end'
    done = guest.run_line(line, what="end the engines of PowerShell", deadline=deadline)
    if done.exit_code != 0:
        raise GuestError(f"the guest does not end the engines of PowerShell that stand by: {done.said}")


def was_taken(guest: Guest, *, deadline: Deadline) -> bool:
    """Whether one of them took a command line since the guest is there."""
    try:
        return bool(guest.get(_LOG, deadline=deadline, limit=64))
    except GuestLostError:
        raise
    except GuestError:  # there is no such file
        return False
