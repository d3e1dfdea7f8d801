# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a run in order: the first one unwinds it, further ones do not disturb the cleaning up."""

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
        if not told:
            told = True
            raise Interrupted(signum)

    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
