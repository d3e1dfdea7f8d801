# SPDX-License-Identifier: Apache-2.0
"""Engines of PowerShell that stand by (tools/standby.c): they start before the guest is frozen, and steps of forks take
them."""

from __future__ import annotations

import time
from pathlib import Path

from standin import places
from standin.runner import Process, Runner

PROGRAM = "C:\\Program Files\\PowerShell\\StandBy\\standby.exe"
_READY = b"ready"
_SECONDS = 400.0
"""For one engine to warm up: half a minute of an emulated processor, which others may use as well."""
_MOST = 2
_NEEDED_KB = 260 * 1024
"""Memory to be free for one, so that an installer finds its own beside it."""
_SPARED_KB = 24 * 1024
"""Free memory that is left alone while the rest is zeroed."""


class EngineError(Exception):
    """Why an engine does not stand by, one sentence."""


def are_there() -> bool:
    """Whether this image has a PowerShell whose engines can stand by."""
    return (places.DRIVE / "Program Files/PowerShell/StandBy/StandBy.dll").exists()


def stand_by(runner: Runner) -> Process:
    """An engine that stands by, for as long as what is returned is not closed. Raises EngineError."""
    process = runner.run(f'"{PROGRAM}"', places.SYSTEM)
    said, code, limit = b"", None, time.monotonic() + _SECONDS
    while code is None and _READY not in said and time.monotonic() < limit:
        pieces, code = process.take(1.0, 65536)
        said = b"".join([said, *(data for _, data in pieces)])[-4096:]
    if code is None and _READY in said:
        return process
    process.close()
    if code is None:
        raise EngineError(f"an engine of PowerShell does not stand by within {_SECONDS:.0f} s")
    words = " ".join(said.decode("utf-8", "replace").split())[-200:]
    raise EngineError(f"an engine of PowerShell ends with {code:#x} instead of standing by" + (words and f": {words}"))


def stand_by_all(runner: Runner) -> list[Process]:
    """As many as the memory allows. Raises EngineError."""
    engines: list[Process] = []
    while len(engines) < _MOST and _kilobytes("MemAvailable") >= _NEEDED_KB:
        engines.append(stand_by(runner))
    # What the warm-ups left in memory that is free now would be in the template's file; zeros are not.
    zeros = b"\0" * max(0, (_kilobytes("MemFree") - _SPARED_KB) * 1024)
    del zeros
    return engines


def _kilobytes(name: str) -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
