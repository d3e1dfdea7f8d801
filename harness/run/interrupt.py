# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a run in order: the first one unwinds it, further ones do not disturb the cleaning up;
one more ends the collecting of logs before it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """The run was told to stop by ``signum``."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


_again = False
"""Whether another signal interrupts what is done after the first one."""


@contextlib.contextmanager
def again_interruptible() -> Iterator[None]:
    """Let one more signal end the block: it does what is worth some seconds, and not the cleaning up."""
    global _again
    _again = True
    try:
        yield
    finally:
        _again = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal into Interrupted and ignore the rest, for the time of the context.

    Only the main thread may set handlers; elsewhere (a test runner's thread) its owner decides.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handler(signum: int, _frame: FrameType | None) -> None:
        nonlocal told
        global _again
        if not told or _again:
            told, _again = True, False
            raise Interrupted(signum)

    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
