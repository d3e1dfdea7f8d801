# SPDX-License-Identifier: Apache-2.0
"""The frames of the guest channel (docs/guest-channel.md), and the thread that takes them off a connection.

The guest is untrusted: what it sends is bounded here and in whoever listens, and a frame that cannot be one ends the
connection.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from harness.deadline import Deadline
from harness.errors import GuestLostError, GuestNotReadyError

MAGIC = b"\x7fVR1"
MOST = 32 * 1024 - 16
"""Bytes of a frame's content: head and content together are what the guest's driver takes at a time."""
STOPPING = "stopping"
"""The stage of an agent that starts nothing more."""

_HEAD = struct.Struct("<4sIII")
_ASK_EVERY = 0.5


class Frame(IntEnum):
    """Types of frames; those from 65 on come from the guest."""

    hello = 1
    file = 2
    data = 3
    specialize = 4
    exec = 5
    stdin = 6
    kill = 7
    words = 8
    state = 65
    stdout = 66
    stderr = 67
    exit = 68
    taken = 69


class Channel(Protocol):
    """A byte stream to the agent in the guest, as the machine driver gives it; a socket is one."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentState:
    """What the agent says of itself: ``stage`` is awaiting-instance, specializing, ready or stopping."""

    nonce: str
    stage: str
    instance: str
    version: str
    boot_id: str


Listener = Callable[[Frame | None, bytes], None]
"""Gets the frames of one command; None when the connection or the boot has ended."""


class Link:
    """One connection to the agent: sends frames, hands what comes to whoever asked for it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._listeners: dict[int, Listener] = {}
        self._next = 0
        self._state: AgentState | None = None
        self._heard = 0.0
        """When it said so."""
        self._why: str | None = None
        threading.Thread(target=self._receive, name="guest-channel", daemon=True).start()

    @property
    def open(self) -> bool:
        return self._why is None

    @property
    def last_boot(self) -> str:
        return self._state.boot_id if self._state else ""

    @property
    def stopping(self) -> bool:
        """Whether the agent said that it is being stopped, and no other has begun since."""
        return self._state is not None and self._state.stage == STOPPING

    @property
    def why_closed(self) -> str:
        return self._why or "it is open"

    def close(self, why: str = "it was closed") -> None:
        with self._changed:
            if self._why is not None:
                return
            self._why = why
            listeners = list(self._listeners.values())
            self._listeners.clear()
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._channel.close()
        for listener in listeners:
            listener(None, b"")

    def send(self, kind: Frame, number: int, content: bytes = b"") -> None:
        """One frame. Raises GuestLostError when the connection is gone."""
        self.send_all(((kind, number, content),))

    def send_all(self, frames: Iterable[tuple[Frame, int, bytes]]) -> None:
        """Frames that must not be torn apart by those of other threads."""
        data = b"".join(_HEAD.pack(MAGIC, kind, number, len(content)) + content for kind, number, content in frames)
        try:
            with self._sending:
                self._channel.sendall(data)
        except (BlockingIOError, TimeoutError):
            self.close("the guest does not take what is sent to it")
        except OSError as error:
            self.close(error.strerror or str(error))
        if not self.open:
            raise GuestLostError(f"the channel to the guest is gone: {self.why_closed}")

    def add(self, listener: Listener) -> int:
        """Have ``listener`` get the frames of a new number, which is returned."""
        with self._changed:
            self._next += 1
            if self._why is None:
                self._listeners[self._next] = listener
                return self._next
        raise GuestLostError(f"the channel to the guest is gone: {self.why_closed}")

    def remove(self, number: int) -> None:
        with self._changed:
            self._listeners.pop(number, None)

    def state(self, *, deadline: Deadline, until: Callable[[AgentState], bool] = lambda _state: True) -> AgentState:
        """Ask the agent how it is, again and again until ``until`` accepts what it says.

        Raises GuestNotReadyError at the deadline, GuestLostError when the connection ends.
        """
        nonce = secrets.token_hex(16)

        def answered() -> bool:
            state = self._state
            return self._why is not None or (state is not None and state.nonce == nonce and until(state))

        while True:
            self.send(Frame.hello, 0, nonce.encode())
            with self._changed:
                self._changed.wait_for(answered, deadline.within(_ASK_EVERY).timeout())
                state = self._state
                if answered() and state and self._why is None:
                    return state
            if deadline.expired:
                said = "it never answered"
                if state:
                    last = f"it said {state.stage} {time.monotonic() - self._heard:.0f} s ago"
                    said = f"it says {state.stage}" if state.nonce == nonce else f"{last}, and does not answer"
                raise GuestNotReadyError(
                    f"the guest's agent is not there after {deadline.seconds:.0f} s: {said}",
                    awaited="the guest's agent",
                )

    def _receive(self) -> None:
        buffer = bytearray()
        try:
            while data := self._channel.recv(256 * 1024):
                buffer += data
                if not self._take(buffer):
                    self.close("the guest sent what is no frame")
                    return
            self.close("the machine closed it")
        except OSError as error:
            self.close(error.strerror or str(error))

    def _take(self, buffer: bytearray) -> bool:
        """Hand over the whole frames in ``buffer``; False when it holds something else."""
        at = 0
        while len(buffer) - at >= _HEAD.size:
            magic, kind, number, size = _HEAD.unpack_from(buffer, at)
            if magic != MAGIC or size > MOST:
                return False
            if len(buffer) - at - _HEAD.size < size:
                break
            at += _HEAD.size
            content = bytes(buffer[at : at + size])
            at += size
            self._hand_over(kind, number, content)
        del buffer[:at]
        return True

    def _hand_over(self, kind: int, number: int, content: bytes) -> None:
        if kind == Frame.state:
            self._take_state(content)
            return
        with self._changed:
            listener = self._listeners.get(number)
        if listener and kind in (Frame.stdout, Frame.stderr, Frame.exit, Frame.taken):
            listener(Frame(kind), content)

    def _take_state(self, content: bytes) -> None:
        words = content.decode("ascii", "replace").split("\n")
        if len(words) < 5 or not all(re.fullmatch(r"[!-~]{0,100}", word) for word in words[:5]):
            return
        state = AgentState(*words[:5])
        with self._changed:
            before, self._state, self._heard = self._state, state, time.monotonic()
            # An agent says unasked that it has begun, or that it is being stopped: its commands may still end then.
            begun = state.nonce == "-" and state.stage != STOPPING
            another = before is not None and (before.boot_id != state.boot_id or begun)
            listeners = list(self._listeners.values()) if another else []
            if another:
                self._listeners.clear()
            self._changed.notify_all()
        for listener in listeners:  # their commands ended with the boot, or the agent, they were started in
            listener(None, b"")
