# SPDX-License-Identifier: Apache-2.0
"""A user's session in a guest: this terminal, or a pipe, joined to a channel."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import termios
import tty
from collections.abc import Iterator, Sequence

import paramiko

_CHUNK = 32 * 1024
_TICK = 0.2
"""Seconds between looks at the size of the terminal: a signal handler would belong to the main thread."""
NO_CODE = 255
_LOG_ON = 'exec "$SHELL" -l'
"""A log-on shell that is a command: before one of the server's own come what the distribution says to people and,
with PAM, its licence, which whoever reads a pipe has no use for."""


def session(channel: paramiko.Channel, argv: Sequence[str] | None, *, stdin: int, stdout: int, stderr: int) -> int:
    """Join the descriptors to the channel until the guest's side ends; its exit code, 255 when it has none."""
    on_terminal = os.isatty(stdin) and os.isatty(stdout)
    with contextlib.ExitStack() as stack:
        size = _size(stdout) if on_terminal else None
        if size:
            channel.get_pty(os.environ.get("TERM", "xterm"), width=size[0], height=size[1])
        if argv is None and on_terminal:
            channel.invoke_shell()
        else:
            channel.exec_command(shlex.join(argv) if argv is not None else _LOG_ON)
        if on_terminal:
            stack.enter_context(_raw(stdin))
        _join(channel, stdin, stdout, stderr, size)
    code = channel.recv_exit_status() if channel.exit_status_ready() else -1
    return code if code >= 0 else NO_CODE


def _join(channel: paramiko.Channel, stdin: int, stdout: int, stderr: int, size: tuple[int, int] | None) -> None:
    pending, reading = b"", True
    guest = channel.fileno()
    while True:
        # Copied before the end is looked for: the end may come with the last of the data.
        if not _copy(channel, stdout, stderr):
            return
        if channel.exit_status_ready() and (channel.eof_received or channel.closed):
            _copy(channel, stdout, stderr)
            return
        if size and (now := _size(stdout)) != size:
            size = now
            channel.resize_pty(width=now[0], height=now[1])
        if pending and channel.send_ready():
            # Sent in part when the guest's window is small; never waits, as the guest may wait for us to read.
            pending = pending[channel.send(pending) :]
        poller = select.poll()
        ended = channel.eof_received or channel.closed
        if not ended:
            poller.register(guest, select.POLLIN)
        if reading and not pending:
            poller.register(stdin, select.POLLIN)
        wait = 0.02 if pending or ended else _TICK
        for descriptor, _ in poller.poll(wait * 1000):
            if descriptor == stdin:
                pending = os.read(stdin, _CHUNK)
                if not pending:
                    reading = False
                    with contextlib.suppress(OSError):
                        channel.shutdown_write()


def _copy(channel: paramiko.Channel, stdout: int, stderr: int) -> bool:
    """Write what has come; False when nobody takes it any more."""
    try:
        while channel.recv_ready():
            _write(stdout, channel.recv(_CHUNK))
        while channel.recv_stderr_ready():
            _write(stderr, channel.recv_stderr(_CHUNK))
    except BrokenPipeError:
        return False
    return True


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def _size(descriptor: int) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return columns or 80, rows or 24


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # the default would drop what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
