# SPDX-License-Identifier: Apache-2.0
"""What a guest can do, whichever transport reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.deadline import Deadline
from harness.guest.wintext import decode

MAX_OUTPUT = 16 * 1024 * 1024
"""Bytes kept of each stream of a guest command unless the caller says otherwise; guests are untrusted."""
RestartToCome = Callable[[Deadline], str]
"""Waits until the guest has restarted by itself, reaches it again and returns the new boot id."""
Restarted = Callable[[str], Callable[[Deadline], str]]
"""Called with the boot id before the guest is asked to restart. What it returns waits until the guest announces that it
is ready in another boot, and returns that one's id, or raises GuestError with why it is not."""
_SAID = 200
_READ_FOR_SAID = 4096


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What a command in the guest did.

    ``exit_code`` is None when it was killed at its time-out. ``truncated`` tells that a stream was longer than the cap.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    timed_out: bool = False
    truncated: bool = False

    @property
    def said(self) -> str:
        """What a command that failed tells of it, to end a sentence with: the first words of its standard error, or
        of its output, at most 200 characters without unprintable ones; its exit code where it wrote nothing.

        Whole words: half a secret would escape the mask of whoever shows it.
        """
        for stream in (self.stderr, self.stdout):
            text = "".join(
                c if c.isprintable() else " " for c in decode(stream[:_READ_FOR_SAID], cut=len(stream) > _READ_FOR_SAID)
            )
            if words := text.split():
                return shortened(words, _SAID)
        return "it was stopped" if self.exit_code is None else f"exit code {self.exit_code}"


def shortened(words: Iterable[str], most: int) -> str:
    """The words, without those from the first one on that goes past ``most`` characters."""
    said = ""
    for word in words:
        longer = f"{said} {word}" if said else word
        if len(longer) > most:
            return f"{said} ..." if said else "..."
        said = longer
    return said


class Guest(Protocol):
    """A specialised guest operating system that takes commands. One connection for a machine's life."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        timeout: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> GuestResult:
        """Run ``argv`` without a shell as the administrator.

        ``timeout`` seconds are the command's own limit: it is killed with everything it started, and the result says
        ``timed_out``. ``deadline`` is the harness's: passing it raises GuestLostError.
        """

    def put(self, source: Path | bytes, path: str, *, deadline: Deadline, mode: int = 0o600) -> None:
        """Write one file in the guest."""

    def get(self, path: str, *, deadline: Deadline, limit: int = MAX_OUTPUT) -> bytes:
        """Read at most ``limit`` bytes of one file of the guest. Raises GuestError when it is not there."""

    def boot_id(self, *, deadline: Deadline) -> str:
        """What changes with every boot of the guest's kernel."""

    def reboot(self, *, deadline: Deadline) -> str:
        """Reboot, wait until the ready marker of the *new* boot is there, return the new boot id."""

    def restarting(self, *, deadline: Deadline) -> bool:
        """Whether the guest says that it is about to restart, or is gone in this moment."""

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        """Called before what may let the guest restart: what it returns follows that restart. It raises
        GuestNotReadyError when there is none before its deadline."""

    @property
    def last_boot(self) -> str:
        """The boot id that was heard of last, "" for none yet."""

    @property
    def connected(self) -> bool: ...

    def reconnect(self, *, deadline: Deadline) -> None:
        """Reach the same guest again, e.g. after it rebooted by itself. Raises GuestNotReadyError at the deadline."""

    def close(self) -> None: ...
