# SPDX-License-Identifier: Apache-2.0
"""Threads that get no processor for a while, as on a computer that many share, but for sure."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def threads_of(pid: int) -> list[int]:
    """The threads of a process of this computer, in the order in which they began."""
    return sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())


@contextlib.contextmanager
def held(threads: Sequence[int]) -> Iterator[None]:
    """Stop them, which have to be of a descendant of this process, for the time of the context."""
    seized: list[int] = []
    try:
        for thread in threads:
            _trace(_SEIZE, thread)
            seized.append(thread)
            _trace(_INTERRUPT, thread)
            os.waitpid(thread, _WALL)
        yield
    finally:
        for thread in seized:
            try:
                _trace(_DETACH, thread)
            except ProcessLookupError:  # killed meanwhile, and its process does not end before this was heard
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(thread, _WALL)


def _trace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
