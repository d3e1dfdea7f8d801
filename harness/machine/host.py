# SPDX-License-Identifier: Apache-2.0
"""What this host has: memory and disk space, asked before a machine is started rather than after it failed."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import HostError

OVERHEAD_MB = 150
"""What QEMU needs beside the guest's memory (translation cache, device state; measured 90-140 MiB with TCG)."""

SPACE_MB = 512
"""Free space below which starting a machine makes no sense: overlay, medium and logs need some."""


def memory_available_mb() -> int:
    """MiB that can be used without swapping (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def space_available_mb(folder: Path) -> int:
    """MiB free for us where ``folder`` is, or where it will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // (1024 * 1024)


def check_means(memory_mb: int, folder: Path) -> None:
    """Raise HostError when a machine of ``memory_mb`` with its disk in ``folder`` cannot work here."""
    available = memory_available_mb()
    if memory_mb + OVERHEAD_MB > available:
        raise HostError(
            f"a guest of {memory_mb} MiB needs {memory_mb + OVERHEAD_MB} MiB of memory, {available} MiB are available",
            hint="give --memory a smaller number, or end something",
        )
    free = space_available_mb(folder)
    if free < SPACE_MB:
        raise HostError(
            f"only {free} MiB are free where machines are kept ({folder})",
            hint=f"a machine needs at least {SPACE_MB} MiB: free some space or set VMROLE_STATE_DIR",
        )
