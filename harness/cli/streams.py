# SPDX-License-Identifier: Apache-2.0
"""Our standard streams: what they do not take is told apart from everything else that goes wrong on this computer."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import IO, Any, TextIO

_NAMES = {1: "standard output", 2: "standard error"}


class StreamError(OSError):
    """A standard stream takes no more. ``filename`` is what it is called."""

    @property
    def gone(self) -> bool:
        """Whether whoever read it went away, which is no failure of anybody's."""
        return self.errno == errno.EPIPE


class _Raw(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise StreamError(error.errno, error.strerror, _NAMES[self.fileno()]) from None


def guard() -> None:
    """Put streams that raise StreamError in the place of Python's.

    One that is closed gets a descriptor that takes nothing: the next file that is opened would become it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Standard error is where the rest would be told; nobody wants to hear it.
            os.open(os.devnull, os.O_RDWR if descriptor == 2 else os.O_RDONLY)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _guarded(1, sys.stdout), _guarded(2, sys.stderr)


def _guarded(descriptor: int, before: TextIO | None) -> TextIO:
    raw: IO[bytes] = _Raw(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before else "backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def finish(code: int) -> int:
    """Write what the streams still hold. The exit code: as it was to be, but 3 for a 0 that is not delivered, and 141
    when nobody reads it any more."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except StreamError as error:
        return refused(error, code)
    return code


def refused(error: StreamError, code: int) -> int:
    """Say on standard error that a stream takes no more; the exit code."""
    if not error.gone:
        with contextlib.suppress(StreamError):
            sys.stderr.write(f"vmrole: {error.filename} cannot be written: {error.strerror}\n")
    # What they still hold Python would fail with at its very end.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    return 141 if error.gone else code or 3
