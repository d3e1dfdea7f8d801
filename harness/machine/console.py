# SPDX-License-Identifier: Apache-2.0
"""Recording what a guest writes on its serial console.

The guest is untrusted and may flood: the first half of the cap and the last half are kept, what lies between is
counted and dropped. Nothing ever blocks the guest but our own reading speed.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence

from harness.deadline import Deadline

CAP = 4 * 1024 * 1024
"""Bytes of console output kept."""

_LINE = 2000
"""Characters of one line that matching sees; a line without an end is cut here."""

_LINES = 2000

_ANNOUNCEMENTS = 5000
"""At least two a boot; a guest may restart as often as it likes, but not fill the host's memory."""

_ANNOUNCEMENT = re.compile(r"vmrole: |.*(?:Kernel panic - not syncing|end Kernel panic)")
"""What somebody may wait for: kept apart, so that a flood between cannot push it out."""

# CSI and OSC sequences, then any other control character but tab.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")


class ConsoleRecorder:
    """The protocol's Console over anything that delivers bytes: a thread feeds it, others ask."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._pending = b""
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._announced: list[str] = []
        self._closed = False

    def start(self, receive: Callable[[], bytes]) -> None:
        """Read with ``receive`` (b"" is the end) in a thread of its own until the console closes."""

        def pump() -> None:
            try:
                while data := receive():
                    self.feed(data)
            except OSError:
                pass  # the machine is gone; what was read stays
            finally:
                self.close()

        threading.Thread(target=pump, name="console", daemon=True).start()

    def feed(self, data: bytes) -> None:
        """Take what the guest wrote."""
        with self._changed:
            room = CAP // 2 - len(self._head)
            self._head += data[:room]
            rest = data[room:] if room < len(data) else b""
            if rest:
                self._tail.append(rest)
                self._tail_size += len(rest)
                while self._tail_size > CAP // 2:
                    gone = self._tail.popleft()
                    self._tail_size -= len(gone)
                    self._dropped += len(gone)
            *complete, self._pending = (self._pending + data).split(b"\n")
            if len(self._pending) > _LINE:
                complete.append(self._pending)
                self._pending = b""
            for line in complete:
                text = _clean(line)
                self._lines.append(text)
                if len(self._announced) < _ANNOUNCEMENTS and _ANNOUNCEMENT.match(text):
                    self._announced.append(text)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def lines(self) -> Sequence[str]:
        with self._changed:
            return [*self._lines, *([_clean(self._pending)] if self._pending.strip() else [])]

    def wait_for(self, match: Callable[[str], str | None], *, deadline: Deadline) -> str | None:
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._announced) > seen or self._closed, deadline.timeout())  # noqa: B023
                fresh, closed = self._announced[seen:], self._closed
            for line in fresh:
                if (found := match(line)) is not None:
                    return found
            seen += len(fresh)
            if deadline.expired or (closed and not fresh):
                return None

    def content(self) -> tuple[bytes, int, bytes]:
        with self._changed:
            head, dropped, tail = bytes(self._head), self._dropped, b"".join(self._tail)
        return (head, dropped, tail) if dropped else (head + tail, 0, b"")


def _clean(line: bytes) -> str:
    return _CONTROL.sub("", line[:_LINE].decode("utf-8", "replace")).rstrip()
