# SPDX-License-Identifier: Apache-2.0
"""What the kernel says from now on, kept in a file: why a process of Wine died is told nowhere else."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from standin import places

_MOST = 256 * 1024
"""Bytes that are kept; steps can make the kernel talk."""
_FATAL = Path("/proc/sys/kernel/print-fatal-signals")


def follow() -> None:
    """Have the kernel tell of processes that a signal ended, and write what it says to ``places.KERNEL_LOG``."""
    with contextlib.suppress(OSError):
        _FATAL.write_text("1\n")
        source = os.open("/dev/kmsg", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(source, 0, os.SEEK_END)
        threading.Thread(target=_copy, args=(source,), name="kernel", daemon=True).start()


def _copy(source: int) -> None:
    size = 0
    with places.KERNEL_LOG.open("ab", buffering=0) as log:
        while size < _MOST:
            with contextlib.suppress(BrokenPipeError):  # it said more than it keeps
                size += log.write(os.read(source, 8192)) or 0
