# SPDX-License-Identifier: Apache-2.0
"""A guest reached through its agent's channel: commands start without a network, a log-on or a shell."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import GuestError, GuestGoingError, GuestLostError, GuestNotReadyError, HostError, UsageError
from harness.guest.command import ENVIRONMENT, describe
from harness.guest.frames import MOST, STOPPING, AgentState, Channel, Frame, Link
from harness.guest.protocol import MAX_OUTPUT, GuestResult, Restarted, RestartToCome
from harness.guest.wintext import beginning
from harness.quoting import quoted

_LONGEST = 1 << 20
"""Bytes of a command with its environment that the agent takes."""
_LONGEST_WORD = 128 * 1024 - 1
"""MAX_ARG_STRLEN of Linux."""
_WINDOW = 64 * 1024
_AGENT_SECONDS = 10.0
"""An agent that was stopped alone is there again in this time."""
_GRACE = 15.0
"""Seconds that the agent may take to tell of the end of a command that it has killed."""

_GOING = 108
"""ESHUTDOWN of Linux: the agent starts nothing more."""

File = tuple[str, int, bytes | Path | None]
"""Name below the instance data, mode, content; no content is a folder, whose name then ends with "/"."""


class ChannelGuest:
    """harness.guest.protocol.Guest over the agent's channel."""

    def __init__(self, channel: Channel, *, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._link = Link(channel)
        self._environment = dict(environment)
        self._restarted: Restarted | None = None

    def __enter__(self) -> ChannelGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()

    @property
    def connected(self) -> bool:
        return self._link.open

    @property
    def last_boot(self) -> str:
        """The boot id that was heard of last, "" for none yet."""
        return self._link.last_boot

    def state(self, *, deadline: Deadline) -> AgentState:
        """What the agent says of itself, as soon as it answers. Raises GuestNotReadyError at the deadline."""
        return self._link.state(deadline=deadline)

    def reconnect(self, *, deadline: Deadline) -> None:
        """Wait until the guest, perhaps of another boot, is ready again."""
        self._link.state(deadline=deadline, until=lambda state: state.stage == "ready")

    def follow_restarts(self, restarted: Restarted) -> None:
        """Have ``reboot`` await what the guest announces: it tells why it does not come back, an agent that is not
        there cannot."""
        self._restarted = restarted

    def specialize(self, files: Iterable[File]) -> None:
        """Send the instance data and let a generalized guest specialise; its stages are told on the console."""
        for name, mode, content in files:
            self._send_file(f"{mode:04o} {name}".encode("utf-8", "surrogateescape") + b"\0", content)
        self._link.send(Frame.specialize, 0)

    def _send_file(self, head: bytes, content: bytes | Path | None) -> None:
        if isinstance(content, Path):
            try:
                with content.open("rb") as file:
                    self._link.send(Frame.file, 0, head)
                    while part := file.read(MOST):
                        self._link.send(Frame.data, 0, part)
            except OSError as error:
                raise HostError(f"{content} cannot be read: {error.strerror}") from None
            return
        data = content or b""
        first = data[: MOST - len(head)]
        parts = (data[at : at + MOST] for at in range(len(first), len(data), MOST))
        self._link.send_all([(Frame.file, 0, head + first), *((Frame.data, 0, part) for part in parts)])

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
        """See protocol.Guest. Exit code 127 is "no such program", 126 one that cannot be started, 128+N death by
        signal N. Raises GuestError when there is no folder ``cwd``, UsageError for what no command line can carry."""
        frames = _description(argv, self._environment | dict(env or {}), cwd, timeout)
        what = f"run {describe(argv)}"
        if self._link.stopping:
            raise GuestGoingError(f"the guest restarts; it was to {what}")
        command = _Command(max_output)
        began, boot = time.monotonic(), self._link.last_boot
        number = self._link.add(command.hear)
        try:
            self._link.send_all([(kind, number, content) for kind, content in frames])
            threading.Thread(target=self._feed, args=(number, command, stdin), daemon=True).start() if len(
                stdin
            ) > _WINDOW else self._feed(number, command, stdin)
            limit = deadline if timeout is None else deadline.within(max(timeout, 0) + _GRACE)
            ended = command.over.wait(limit.timeout())
            seconds = time.monotonic() - began
            if not ended:
                with contextlib.suppress(GuestLostError):
                    self._link.send(Frame.kill, number)
                raise GuestLostError(
                    f"the guest did not {what} to its end within {seconds:.0f} s; the connection stands"
                )
        finally:
            self._link.remove(number)
        if command.ending is None:
            who = "the guest" if self._link.last_boot != boot else "the guest's agent"
            why = f"its connection ended ({self._link.why_closed})" if not self.connected else f"{who} restarted"
            raise GuestLostError(f"{why} while the guest was to {what}")
        return command.result(argv, cwd, what, seconds)

    def _feed(self, number: int, command: _Command, stdin: bytes) -> None:
        """Send standard input no faster than the command takes it, and its end."""
        with contextlib.suppress(GuestLostError):
            for at in range(0, len(stdin), MOST):
                part = stdin[at : at + MOST]
                if not command.may_send(at + len(part)):
                    return
                self._link.send(Frame.stdin, number, part)
            self._link.send(Frame.stdin, number)

    def put(self, source: Path | bytes, path: str, *, deadline: Deadline, mode: int = 0o600) -> None:
        """Write one file: whole or not at all, never readable for more than ``mode``. Its folder must be there."""
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            raise HostError(f"{source!s} cannot be read: {error.strerror}") from None
        beside = posixpath.join(posixpath.dirname(path), f".vmrole-{secrets.token_hex(8)}")
        script = 'umask 077; cat >"$1" && chmod "$2" "$1" && mv -fT "$1" "$0" || { rm -f "$1"; exit 1; }'
        argv = ["sh", "-c", script, path, beside, f"{mode:04o}"]
        done = self.run(argv, deadline=deadline, stdin=data, max_output=4096)
        if done.exit_code != 0:
            raise GuestError(f"{path} cannot be written in the guest: {_why(done, path, beside)}")

    def get(self, path: str, *, deadline: Deadline, limit: int = MAX_OUTPUT) -> bytes:
        """The first ``limit`` bytes of a regular file. Raises GuestError for anything else."""
        script = '[ -e "$0" ] || { echo there is no such file or folder >&2; exit 1; }; [ ! -d "$0" ] || { '
        script += 'echo it is a folder >&2; exit 1; }; [ -f "$0" ] || { echo it is not a regular file >&2; exit 1; }; '
        script += 'exec head -c "$1" -- "$0"'
        done = self.run(["sh", "-c", script, path, str(limit)], deadline=deadline, max_output=limit)
        if done.exit_code != 0:
            raise GuestError(f"{path} cannot be read in the guest: {_why(done, path)}")
        return done.stdout

    def boot_id(self, *, deadline: Deadline) -> str:
        return self.state(deadline=deadline).boot_id

    def reboot(self, *, deadline: Deadline) -> str:
        """See protocol.Guest: another boot id, and the ready marker of that boot, or GuestNotReadyError."""
        before = self.boot_id(deadline=deadline)
        restarted = self._restarted(before) if self._restarted else None
        # The answer may be lost with the boot.
        with contextlib.suppress(GuestLostError):
            asked = self.run(["systemctl", "reboot"], deadline=deadline.within(30.0))
            if asked.exit_code not in (0, 128 + 9, 128 + 15):
                raise GuestError(f"the guest refuses to reboot: {asked.said}")
        return self._come_back(before, restarted, deadline)

    def restarting(self, *, deadline: Deadline) -> bool:
        """See protocol.Guest: the agent says so unasked when it is stopped, which may be later than the end of what
        asked for that, and when it is asked, as soon as the service manager knows."""
        try:
            return self._link.stopping or self._link.state(deadline=deadline.within(_AGENT_SECONDS)).stage == STOPPING
        except (GuestLostError, GuestNotReadyError):
            return True

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        """See protocol.Guest."""
        before = self.last_boot
        restarted = self._restarted(before) if self._restarted else None

        def follow(deadline: Deadline) -> str:
            if self._link.stopping:
                with contextlib.suppress(GuestNotReadyError):
                    limit = deadline.within(_AGENT_SECONDS)
                    state = self._link.state(deadline=limit, until=lambda state: state.stage == "ready")
                    if state.boot_id == before:
                        return before  # the agent alone was started again
            return self._come_back(before, restarted, deadline)

        return follow

    def _come_back(self, before: str, restarted: RestartToCome | None, deadline: Deadline) -> str:
        try:
            if restarted:
                restarted(deadline)
            now = self._link.state(
                deadline=deadline, until=lambda state: state.boot_id != before and state.stage == "ready"
            )
        except GuestNotReadyError as error:
            raise GuestNotReadyError(
                f"the guest did not come back from its reboot within {deadline.seconds:.0f} s: {error.message}",
                awaited="the ready marker of the new boot",
                console=error.console,
            ) from None
        return now.boot_id


class _Command:
    """What has been heard of one command; filled by the link's thread."""

    def __init__(self, most: int) -> None:
        self.over = threading.Event()
        self.ending: tuple[int, int, int, bool] | None = None
        """Exit code, signal, errno of a program that could not be started, whether its time was over."""
        self._most = most
        self._streams = {Frame.stdout: bytearray(), Frame.stderr: bytearray()}
        self._truncated = False
        self._taken = 0
        self._changed = threading.Condition()

    def hear(self, kind: Frame | None, content: bytes) -> None:
        if kind in self._streams:
            stream = self._streams[kind]
            room = self._most - len(stream)
            stream += content[:room]
            self._truncated |= len(content) > room
        elif kind is Frame.taken:
            with self._changed:
                self._taken += int(content) if re.fullmatch(rb"[0-9]{1,9}", content) else 0
                self._changed.notify_all()
        elif kind is Frame.exit or kind is None:
            if match := re.fullmatch(rb"(\d{1,5}) (\d{1,3}) (-?\d{1,5}) ([01])", content):
                self.ending = (int(match[1]), int(match[2]), int(match[3]), match[4] == b"1")
            with self._changed:
                self.over.set()
                self._changed.notify_all()

    def may_send(self, end: int) -> bool:
        """Wait until the command has taken so much that ``end`` bytes may have been sent; False when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over.is_set() or end - self._taken <= _WINDOW)
        return not self.over.is_set()

    def result(self, argv: Sequence[str], cwd: str | None, what: str, seconds: float) -> GuestResult:
        assert self.ending is not None
        code, _signal, errno, late = self.ending
        out, err = (beginning(bytes(stream), self._most) for stream in self._streams.values())
        if errno == _GOING:
            raise GuestGoingError(f"the guest restarts; it was to {what}")
        if errno < 0:
            raise GuestError(f"the guest has no folder {cwd}, in which it was to {what}")
        if errno > 0:
            # The words of env(1), which is what starts a command over SSH.
            err = f"env: \u2018{argv[0]}\u2019: {os.strerror(errno)}\n".encode()
        return GuestResult(None if late else code, out, err, seconds, late, self._truncated)


def _description(
    argv: Sequence[str], environment: Mapping[str, str], cwd: str | None, timeout: float | None
) -> list[tuple[Frame, bytes]]:
    """The frames that start a command."""
    if not argv:
        raise UsageError("there is no command to run")
    for name in environment:
        if not re.fullmatch(r"[^=\0]+", name):
            raise UsageError(f"{name!r} cannot be the name of an environment variable")
    variables = [f"{name}={value}" for name, value in environment.items()]
    words = [*argv, *variables, cwd or ""]
    if any("\0" in word for word in words):
        raise UsageError("a command or its environment has a NUL character in it, which no command can be given")
    if timeout is not None and timeout <= 0:
        raise ValueError("a time-out is more than 0 seconds")
    limit = "0" if timeout is None else str(max(1, round(timeout * 1000)))
    encoded = [w.encode("utf-8", "surrogateescape") for w in (limit, cwd or "", str(len(argv)), *argv, *variables)]
    data = b"".join(word + b"\0" for word in encoded)
    if len(data) > _LONGEST or max(map(len, encoded)) > _LONGEST_WORD:
        raise UsageError(
            f"the command {argv[0]} with its environment has {len(data)} bytes, a Linux guest takes {_LONGEST_WORD}",
            hint="put long values into a file of the payload",
        )
    parts = [data[at : at + MOST] for at in range(0, len(data), MOST)]
    return [*((Frame.words, part) for part in parts[:-1]), (Frame.exec, parts[-1])]


def _why(done: GuestResult, *paths: str) -> str:
    """The last line of what was said, without the names of programs and files."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    said = lines[0] if lines else "it does not say why"
    return quoted(said.rpartition(": ")[2], 200)
