# SPDX-License-Identifier: Apache-2.0
"""What this host has: memory and disk space, asked before a machine is started rather than after it failed."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

from harness.errors import HostError

OVERHEAD_MB = 150
"""What QEMU needs beside the guest's memory (translation cache, device state; measured 90-140 MiB with TCG)."""

SPACE_MB = 512
"""Free space below which starting a machine makes no sense: overlay, medium and logs need some."""


def memory_available_mb() -> int:
    """MiB that can be used without swapping (proc(5), MemAvailable), or that a container has left."""
    limit = _cgroup_mb("memory.max")
    free = _meminfo_mb("MemAvailable")
    return free if limit is None else min(free, max(0, limit - (_cgroup_mb("memory.current") or 0)))


def memory_total_mb() -> int:
    """MiB of memory that this host has (proc(5), MemTotal), or that a container may use."""
    limit = _cgroup_mb("memory.max")
    total = _meminfo_mb("MemTotal")
    return total if limit is None else min(total, limit)


def _cgroup_mb(name: str) -> int | None:
    """A number of the control group in MiB; None where it has none (the root group does not), and for "max"."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text()) >> 20
    except (OSError, ValueError):
        return None


def _meminfo_mb(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    return 0


def space_available_mb(folder: Path) -> int:
    """MiB free for us where ``folder`` is, or where it will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // (1024 * 1024)


def memory_advice() -> str:
    """What to do where this host did not give a machine its memory. A limit of our process is one of QEMU's."""
    limit, _most = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return "give --memory a smaller number"
    return f"'ulimit -v' lets a process have {limit >> 20} MiB of addresses here: take that limit away"


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
