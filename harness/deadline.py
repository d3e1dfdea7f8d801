# SPDX-License-Identifier: Apache-2.0
"""One deadline, made at the top and passed down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """A moment on the monotonic clock by which something must have happened."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        """``seconds`` from now; None is never."""
        self.seconds = math.inf if seconds is None else float(seconds)
        self._at = time.monotonic() + self.seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self._at

    def within(self, seconds: float | None) -> Deadline:
        """The nearer of this deadline and ``seconds`` from now."""
        return Deadline(self.remaining if seconds is None else min(self.remaining, seconds))

    def timeout(self, most: float | None = None) -> float | None:
        """Seconds left as libraries want them: None instead of infinity, at most ``most``."""
        left = self.remaining if most is None else min(self.remaining, most)
        return None if math.isinf(left) else left

    def poll(self, probe: Callable[[], T | None], *, every: float = 0.1) -> T | None:
        """Call ``probe`` until it returns something other than None, or None when the deadline has passed.

        The probe is called at least once, and once more after the deadline, so that "late" is told from "never".
        """
        while True:
            late = self.expired
            found = probe()
            if found is not None or late:
                return found
            time.sleep(min(every, self.remaining))
