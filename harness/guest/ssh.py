# SPDX-License-Identifier: Apache-2.0
"""A Linux guest reached by SSH: one connection, a channel for each command."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import paramiko

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError
from harness.guest import files, terminal
from harness.guest.command import ENVIRONMENT, NO_FOLDER, TIMED_OUT, command_line, describe
from harness.guest.connection import Access, connect, lost_when_broken
from harness.guest.protocol import MAX_OUTPUT, GuestResult, RestartToCome
from harness.guest.wintext import beginning

READY_PATH = "/run/vmrole/ready"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CHUNK = 64 * 1024
_POLL = 0.1
_LEFT_QUIET = 0.25
_LEFT_MOST = 1.0
"""Seconds in which what a command left running may still write when all that it wrote itself is there."""
_KILLED = 128 + 9


class SshGuest:
    """harness.guest.protocol.Guest over SSH."""

    def __init__(
        self,
        access: Access,
        transport: paramiko.Transport,
        *,
        ready_path: str = READY_PATH,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self._access = access
        self._transport = transport
        self._ready_path = ready_path
        self._environment = dict(environment)
        self._last_boot = ""

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        *,
        client_key: bytes,
        host_key: str,
        deadline: Deadline,
        username: str = "root",
        ready_path: str = READY_PATH,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> SshGuest:
        """Log on, trying until the deadline.

        ``client_key`` is a private ed25519 key in OpenSSH's format, ``host_key`` the public line of the only server
        accepted. Raises GuestError for another host key or a refusal, GuestNotReadyError at the deadline.
        """
        access = Access(host, port, username, client_key, host_key)
        transport = connect(access, deadline=deadline)
        return cls(access, transport, ready_path=ready_path, environment=environment)

    def __enter__(self) -> SshGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def connected(self) -> bool:
        return self._transport.is_active()

    def reconnect(self, *, deadline: Deadline) -> None:
        """A new connection to the same guest, e.g. after it rebooted by itself."""
        self._transport.close()
        self._transport = connect(self._access, deadline=deadline)

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
        """See protocol.Guest. Exit code 127 is "no such program", 128+N death by signal N.

        ``env`` is added to the guest's standard environment. A program that leaves others behind which hold its output
        open ends when it ends. Raises GuestError when there is no folder ``cwd``.
        """
        line = command_line(argv, environment=self._environment | dict(env or {}), cwd=cwd, timeout=timeout)
        what = f"run {describe(argv)}"
        began = time.monotonic()
        with lost_when_broken(self._transport, what, deadline):
            channel = self._transport.open_session(timeout=deadline.timeout(3600.0))
            channel.exec_command(line.text)
        with contextlib.closing(channel):
            _feed(channel, stdin)
            streams = _read(channel, deadline, max_output, line.end)
            seconds = time.monotonic() - began
            if streams is None:
                state = "stands" if self.connected else "is gone"
                raise GuestLostError(
                    f"the guest did not {what} to its end within {seconds:.0f} s; the connection {state}"
                )
            code = self._exit_code(channel, what)
        if not streams.whole:
            raise GuestLostError(f"the end of what the guest said was lost on its way; it was to {what}")
        if code == NO_FOLDER and streams.err == line.no_folder:
            raise GuestError(f"the guest has no folder {cwd}, in which it was to {what}")
        # A command may say 124 itself, but not at the very moment of its time-out.
        timed_out = timeout is not None and code == TIMED_OUT and seconds >= timeout * 0.95
        return GuestResult(None if timed_out else code, streams.out, streams.err, seconds, timed_out, streams.truncated)

    def _exit_code(self, channel: paramiko.Channel, what: str) -> int:
        code = channel.recv_exit_status()
        if code >= 0:
            return code
        # The shell around the command died without a word: with the whole guest, or killed alone.
        Deadline(1.0).poll(lambda: None if self.connected else True, every=0.05)
        if not self.connected:
            raise GuestLostError(f"the guest closed the connection while it was to {what}")
        return _KILLED

    def put(self, source: Path | bytes, path: str, *, deadline: Deadline, mode: int = 0o600) -> None:
        """Write one file: whole or not at all, never readable for more than ``mode``. Its folder must be there."""
        with lost_when_broken(self._transport, f"write {path}", deadline):
            files.put(self._transport, source, path, mode=mode)

    def get(self, path: str, *, deadline: Deadline, limit: int = MAX_OUTPUT) -> bytes:
        """The first ``limit`` bytes of a regular file. Raises GuestError for anything else."""
        with lost_when_broken(self._transport, f"read {path}", deadline):
            return files.get(self._transport, path, limit=limit)

    def boot_id(self, *, deadline: Deadline) -> str:
        result = self.run(["cat", _BOOT_ID], deadline=deadline, max_output=1024)
        if result.exit_code != 0:
            raise GuestError("the guest does not tell its boot id")
        self._last_boot = result.stdout.decode("ascii", "replace").strip()
        return self._last_boot

    @property
    def last_boot(self) -> str:
        """The boot id that was heard of last, "" for none yet."""
        return self._last_boot

    def reboot(self, *, deadline: Deadline) -> str:
        """See protocol.Guest: another boot id, and the ready marker of that boot, or GuestNotReadyError."""
        self.boot_id(deadline=deadline)
        coming = self.restart_to_come(deadline=deadline)
        # The answer may be lost with the connection.
        with contextlib.suppress(GuestLostError):
            asked = self.run(["systemctl", "reboot"], deadline=deadline.within(30.0))
            if asked.exit_code not in (0, _KILLED):
                raise GuestError(f"the guest refuses to reboot: {asked.said}")
        return coming(deadline)

    def restarting(self, *, deadline: Deadline) -> bool:
        """See protocol.Guest: its service manager is asked."""
        try:
            told = self.run(["systemctl", "is-system-running"], deadline=deadline, max_output=1024)
        except GuestLostError:
            return True
        return told.stdout.strip() == b"stopping"

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        """See protocol.Guest."""
        before = self._last_boot or self.boot_id(deadline=deadline)
        return lambda deadline: self._come_back(before, deadline)

    def _come_back(self, before: str, deadline: Deadline) -> str:
        self._await_end(deadline)
        seen = "it did not answer"
        while True:
            late = deadline.expired
            try:
                self.reconnect(deadline=deadline)
                now, marker = self._boot(deadline)
                if now != before and marker == now:
                    self._last_boot = now
                    return now
                seen = "it is still in its old boot" if now == before else "its ready marker was not there"
            except (GuestLostError, GuestNotReadyError):
                pass
            if late or deadline.expired:
                raise GuestNotReadyError(
                    f"the guest did not come back from its reboot within {deadline.seconds:.0f} s: {seen}",
                    awaited="the ready marker of the new boot",
                )
            time.sleep(min(0.5, deadline.remaining))

    def _boot(self, deadline: Deadline) -> tuple[str, str]:
        """The boot id, and the one in the ready marker as soon as there is a marker of this boot."""
        script = 'read -r b <"$0"; n=0; while [ $n -lt 300 ]; do m=; read -r _ _ m <"$1" && [ "$m" = "$b" ] && break; '
        script += 'sleep 0.1; n=$((n+1)); done; echo "$b $m"'
        argv = ["sh", "-c", script, _BOOT_ID, self._ready_path]
        words = self.run(argv, deadline=deadline, max_output=1024).stdout.decode("ascii", "replace").split()
        return (words[0] if words else ""), (words[1] if len(words) > 1 else "")

    def _await_end(self, deadline: Deadline) -> None:
        """Wait until the connection has died with the old boot."""
        while self.connected and not deadline.expired:
            # Provokes the new boot's "I know no such connection" where the old one ended without a word.
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                self._transport.send_ignore(8)
            time.sleep(min(0.2, deadline.remaining))

    def interactive(
        self, argv: Sequence[str] | None = None, *, stdin: int = 0, stdout: int = 1, stderr: int = 2
    ) -> int:
        """The user's own session: a log-on shell, or ``argv`` in one's place. Returns its exit code.

        The arguments are file descriptors. With terminals on both sides it is a terminal session, otherwise the
        commands come from ``stdin`` and the streams stay separate.
        """
        with lost_when_broken(self._transport, "open a session", Deadline(60.0)):
            channel = self._transport.open_session(timeout=60.0)
        with contextlib.closing(channel):
            try:
                return terminal.session(channel, argv, stdin=stdin, stdout=stdout, stderr=stderr)
            except (EOFError, paramiko.SSHException) as error:
                raise GuestLostError(f"the session ended: {error}") from None


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    """Send standard input and its end, in a thread: the command may write before it reads."""

    def send() -> None:
        # Closed under us when the command ends without reading it all.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.sendall(stdin)
            channel.shutdown_write()

    if stdin:
        threading.Thread(target=send, name="guest-stdin", daemon=True).start()
    else:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.shutdown_write()


class _Kept:
    """The beginning of a stream, without its end mark; the rest is read, so that the guest can go on, and dropped."""

    def __init__(self, most: int, mark: bytes) -> None:
        self.truncated = False
        self.marked = False
        """Whether the mark has come: all before it is there."""
        self._data = bytearray()
        self._most = most
        self._mark = mark
        self._held = b""
        """May be the beginning of the mark."""

    def add(self, data: bytes) -> None:
        if not self.marked:
            before, mark, after = (self._held + data).partition(self._mark)
            self.marked = bool(mark)
            at = len(before) if self.marked else max(0, len(before) - len(self._mark) + 1)
            self._held = before[at:]
            data = before[:at] + after
        self._keep(data)

    def ended(self) -> bytes:
        """What is kept when nothing more is read."""
        self._keep(self._held)
        self._held = b""
        return beginning(bytes(self._data), self._most)

    def _keep(self, data: bytes) -> None:
        room = self._most - len(self._data)
        self._data += data[:room]
        self.truncated |= len(data) > room


@dataclass(frozen=True, slots=True)
class _Streams:
    """What came of both. ``whole`` tells whether that is all that the command wrote, but for what is over the cap."""

    out: bytes
    err: bytes
    truncated: bool
    whole: bool


def _read(channel: paramiko.Channel, deadline: Deadline, most: int, mark: bytes) -> _Streams | None:
    """Both streams until the command has ended, or None when the deadline passed first.

    All that it wrote is waited for, however slow the guest or the host is: until the streams end, or, where something
    that it left running holds them open, until its ``mark`` is in both.
    """
    out, err = _Kept(most, mark), _Kept(most, mark)
    poller = select.poll()  # not select(): descriptors may be above 1023
    poller.register(channel.fileno(), select.POLLIN)
    ended = last = 0.0
    while True:
        got = False
        # Looked at before what has come is taken: with the end the last of it may have come.
        done = channel.exit_status_ready()
        over = done and (channel.eof_received or channel.closed)
        if channel.recv_ready():
            out.add(channel.recv(_CHUNK))
            got = True
        if channel.recv_stderr_ready():
            err.add(channel.recv_stderr(_CHUNK))
            got = True
        now = time.monotonic()
        if got:
            last = now
        if over and not got:
            break
        if done and out.marked and err.marked:
            ended = ended or now
            if now - ended > _LEFT_MOST or now - max(ended, last) > _LEFT_QUIET:
                break
        if deadline.expired:
            return None
        if got:
            continue
        if channel.eof_received or channel.closed:
            # The poll descriptor stays readable from here on.
            channel.status_event.wait(_POLL)
        else:
            poller.poll(1000 * min(_POLL, deadline.remaining))
    # A connection that broke closes the channel, too, and ends no stream.
    whole = bool(channel.eof_received) or (out.marked and err.marked)
    return _Streams(out.ended(), err.ended(), out.truncated or err.truncated, whole)
