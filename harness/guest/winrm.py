# SPDX-License-Identifier: Apache-2.0
"""A Windows guest reached by WinRM: one shell stays open, a command costs four requests."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, HostError, UsageError
from harness.guest.command import describe
from harness.guest.protocol import MAX_OUTPUT, GuestResult, Restarted, RestartToCome
from harness.guest.terminal import NO_CODE
from harness.guest.winrm_client import Access, Client, ShellFullError, ShellGoneError, check_environment
from harness.guest.wintext import GUEST, HELPER, decode
from harness.winarguments import join_arguments

MAX_PUT = 8 * 1024 * 1024
"""Bytes that are sent over WinRM: it is slow, and payloads go on the instance medium."""
_READ = 16 * 1024
"""Bytes of a user's input in one message: fewer than it takes, whatever the ends of lines add."""
_END_SECONDS = 15.0


class WinRmGuest:
    """harness.guest.protocol.Guest over WinRM."""

    def __init__(self, client: Client, shell: str, *, boot_id: str = "", restarted: Restarted | None = None) -> None:
        self._client = client
        self._shell: str | None = shell
        self._boot_id = boot_id
        self._restarted = restarted
        self._lost = False

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        *,
        password: str,
        certificate: bytes | None,
        deadline: Deadline,
        username: str = "Administrator",
        boot_id: str = "",
        restarted: Restarted | None = None,
    ) -> WinRmGuest:
        """Log on, trying until the deadline.

        ``certificate`` (PEM) is the only one accepted from an HTTPS service; None is HTTP, whose messages NTLM
        encrypts. ``boot_id`` is that of the boot the guest is in, if it is known, and ``restarted`` awaits another one;
        without it the guest is asked. Raises GuestError for another certificate or a refusal, GuestNotReadyError at the
        deadline.
        """
        client = Client(Access(host, port, username, password, certificate))
        shell = client.await_answer(deadline=deadline)
        return cls(client, shell, boot_id=boot_id, restarted=restarted)

    def __enter__(self) -> WinRmGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """From any thread. The guest's shell ends by itself, or with the guest."""
        self._client.close()

    @property
    def connected(self) -> bool:
        return not self._client.closed and not self._lost

    @property
    def closed(self) -> bool:
        """Whether somebody closed it; it is not to be reached again then."""
        return self._client.closed

    @property
    def last_boot(self) -> str:
        """The boot id that was heard of last."""
        return self._boot_id

    def reconnect(self, *, deadline: Deadline) -> None:
        """See protocol.Guest: the guest answers again, and its ready marker is there."""
        if self._client.closed:
            raise GuestNotReadyError("the connection to the guest was closed", awaited="nothing any more")
        seen, asked = "its ready marker was not there", False
        while True:
            late = deadline.expired
            # A shell that answers is asked again: there are not many of them.
            if self._lost or not asked:
                self._shell, self._lost, asked = self._client.await_answer(deadline=deadline), False, True
            try:
                self.boot_id(deadline=deadline)
                return
            except GuestLostError as error:
                seen = error.message
            except GuestError:
                seen = "its ready marker was not there"
            if late or deadline.expired:
                self._lost = True
                raise GuestNotReadyError(
                    f"the guest is not ready again within {deadline.seconds:.0f} s: {seen}", awaited="the ready marker"
                )
            time.sleep(min(0.5, deadline.remaining))

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
        """See protocol.Guest. The words are quoted as a C run-time library takes them apart again."""
        return self.run_line(
            join_arguments(argv),
            what=f"run {describe(argv)}",
            deadline=deadline,
            timeout=timeout,
            stdin=stdin,
            env=env,
            cwd=cwd,
            max_output=max_output,
        )

    def run_line(
        self,
        line: str,
        *,
        deadline: Deadline,
        what: str = "run a command",
        timeout: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> GuestResult:
        """Run ``line`` exactly as it stands, without a command interpreter; ``what`` is said when that goes wrong.

        The exit code is all 32 bits, unsigned. A program that was not found is a GuestError, as the service says it.
        """
        if timeout is not None and timeout <= 0:
            raise ValueError("a time-out is more than 0 seconds")
        check_environment(env or {})
        own = bool(env) or cwd is not None
        began = time.monotonic()
        try:
            shell = self._open(cwd, env or {}, deadline) if own else self._standing(deadline)
            try:
                command = self._client.start(shell, line, deadline=deadline)
            except ShellGoneError as error:
                if own:
                    raise
                if isinstance(error, ShellFullError):
                    self._client.close_shell(shell, deadline=Deadline(_END_SECONDS))
                # It was idle for too long, or the service was started anew; nothing of this command has begun.
                self._shell = None
                shell = self._standing(deadline)
                command = self._client.start(shell, line, deadline=deadline)
            try:
                return self._follow(shell, command, stdin, deadline, timeout, max_output, what, began)
            finally:
                if own and self.connected:
                    self._client.close_shell(shell, deadline=Deadline(_END_SECONDS))
        except ShellGoneError:
            self._lost = True
            raise GuestLostError(f"the guest or its WinRM service restarted while it was to {what}") from None
        except GuestLostError as error:
            if not deadline.expired:
                self._lost = True
            raise GuestLostError(f"{error.message}; it was to {what}") from None
        except GuestError as error:
            raise GuestError(f"{error.message}; it was to {what}", hint=error.hint) from None

    def interactive(self) -> int:
        """The user's own session: a command interpreter joined to this process' streams until it ends; its exit code.

        There is no terminal on the guest's side: a line reaches it when it is complete. What comes from a pipe gives
        no banner and no prompts (but for the rest of a block), as with a Linux guest.
        """
        shell = self._standing(Deadline(60.0))
        line = "cmd.exe" if os.isatty(0) else "cmd.exe /q /k rem"
        command = self._client.start(shell, line, deadline=Deadline(60.0))
        feeding = self._client.another()

        def feed() -> None:
            # Ends with the session: what is typed after that goes nowhere.
            with contextlib.suppress(ShellGoneError, GuestError, OSError):
                for lines in _lines(0):
                    feeding.feed_part(shell, command, lines, last=False, deadline=Deadline(60.0))
                feeding.feed_part(shell, command, b"", last=True, deadline=Deadline(60.0))

        threading.Thread(target=feed, name="shell-stdin", daemon=True).start()
        code: int | None = None
        try:
            while code is None:
                out, err, code = self._client.receive(shell, command, deadline=Deadline(None))
                for descriptor, data in ((1, out), (2, err)):
                    while data:
                        data = data[os.write(descriptor, data) :]
        except ShellGoneError:
            raise GuestLostError("the session ended: the guest or its WinRM service restarted") from None
        except BrokenPipeError:
            return NO_CODE  # nobody takes what it says any more
        finally:
            feeding.close()
            if code is None and self.connected:
                with contextlib.suppress(GuestError):
                    self._client.end(shell, command, deadline=Deadline(_END_SECONDS))
        return code

    def _open(self, folder: str | None, environment: Mapping[str, str], deadline: Deadline) -> str:
        return self._client.open_shell(folder=folder, environment=environment, deadline=deadline)

    def _standing(self, deadline: Deadline) -> str:
        if self._shell is None:
            self._shell = self._open(None, {}, deadline)
        return self._shell

    def _follow(
        self,
        shell: str,
        command: str,
        stdin: bytes,
        deadline: Deadline,
        timeout: float | None,
        most: int,
        what: str,
        began: float,
    ) -> GuestResult:
        limit = Deadline(timeout)
        streams = bytearray(), bytearray()
        truncated = False
        repeated = self._client.repeated
        # Its end too: a program that reads would wait for it.
        self._client.feed(shell, command, stdin, deadline=deadline)
        while True:
            out, err, code = self._client.receive(shell, command, deadline=deadline.within(limit.timeout()))
            for stream, data in zip(streams, (out, err), strict=True):
                room = most - len(stream)
                stream += data[:room]
                truncated |= len(data) > room
            truncated |= self._client.repeated > repeated
            late = code is None and limit.expired
            if code is not None or late or deadline.expired:
                break
        seconds = time.monotonic() - began
        # The guest keeps what has ended until it is told to forget it.
        self._client.end(shell, command, deadline=Deadline(_END_SECONDS))
        if code is None and not late:
            raise GuestLostError(f"the guest did not end it within {seconds:.0f} s; the connection stands")
        out, err = (bytes(stream) for stream in streams)
        return GuestResult(None if late else code, out, err, seconds, late, truncated)

    def put(self, source: Path | bytes, path: str, *, deadline: Deadline, mode: int = 0o600) -> None:
        """Write one file: whole or not at all, with the rights that its folder gives it. Folders are made."""
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            raise HostError(f"{source!s} cannot be read: {error.strerror}") from None
        if len(data) > MAX_PUT:
            raise UsageError(f"{path} has {len(data) >> 20} MiB, too much for WinRM", hint="put it into the payload")
        if "\n" in path or "\0" in path:
            raise UsageError(f"{path!r} cannot be the name of a file")
        head = f"{len(data)} {path}\n".encode("utf-8", "replace")
        done = self.run([HELPER, "receive"], deadline=deadline, stdin=head + data, max_output=4096)
        if done.exit_code != 0:
            raise GuestError(f"{path} cannot be written in the guest: {done.said}")

    def get(self, path: str, *, deadline: Deadline, limit: int = MAX_OUTPUT) -> bytes:
        """The first ``limit`` bytes of a regular file. Raises GuestError for anything else."""
        done = self.run([HELPER, "send", path, str(limit)], deadline=deadline, max_output=limit)
        if done.exit_code != 0:
            raise GuestError(f"{path} cannot be read in the guest: {done.said}")
        return done.stdout

    def boot_id(self, *, deadline: Deadline) -> str:
        """What the ready marker of this boot says, which is remembered; one that a boot before left does not count."""
        done = self.run([GUEST, "ready"], deadline=deadline, max_output=1024)
        words = decode(done.stdout).split()
        if done.exit_code != 0 or len(words) < 3:
            raise GuestError("the guest does not tell its boot id: it has no ready marker")
        self._boot_id = words[2]
        return self._boot_id

    def reboot(self, *, deadline: Deadline) -> str:
        """See protocol.Guest: another boot id, and the ready marker of that boot, or GuestNotReadyError."""
        self._boot_now(deadline)
        coming = self.restart_to_come(deadline=deadline)
        # The answer may be lost with the boot.
        with contextlib.suppress(GuestLostError):
            asked = self.run(["shutdown.exe", "/r", "/t", "0", "/f"], deadline=deadline.within(30.0))
            if asked.exit_code not in (0, 1115, 1190):  # it is already under way
                raise GuestError(f"the guest refuses to restart: {asked.said}")
        return coming(deadline)

    def restarting(self, *, deadline: Deadline) -> bool:
        """See protocol.Guest: the integration components are asked."""
        try:
            return self.run([HELPER, "restarting"], deadline=deadline, max_output=1024).exit_code == 0
        except GuestLostError:
            return True

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        """See protocol.Guest."""
        before = self._boot_id
        restarted = self._restarted(before) if self._restarted else None
        return lambda deadline: self._come_back(before, restarted, deadline)

    def _come_back(self, before: str, restarted: RestartToCome | None, deadline: Deadline) -> str:
        self._shell = None
        try:
            if restarted:
                self._boot_id = restarted(deadline)
                self._shell = self._client.await_answer(deadline=deadline)
                self._lost = False
                return self._boot_id
            return self._asked_until_restarted(before, deadline)
        except GuestNotReadyError as error:
            self._lost = True
            raise GuestNotReadyError(
                f"the guest did not come back from its restart within {deadline.seconds:.0f} s: {error.message}",
                awaited="the ready marker of the new boot",
                console=error.console,
            ) from None

    def _boot_now(self, deadline: Deadline) -> str:
        """The boot that is to be left: not the one heard of last, if a restart came to its end unnoticed, nor if one is
        under way (the guest is restarted once more then: what its announcement would be of cannot be told)."""
        try:
            self.boot_id(deadline=deadline.within(30.0))
        except GuestError:
            self.reconnect(deadline=deadline)
        return self._boot_id

    def _asked_until_restarted(self, before: str, deadline: Deadline) -> str:
        while True:
            self.reconnect(deadline=deadline)
            if self._boot_id != before:
                return self._boot_id
            if deadline.expired:
                raise GuestNotReadyError("it is still in its old boot", awaited="another boot")
            time.sleep(min(1.0, deadline.remaining))


def _lines(descriptor: int) -> Iterator[bytes]:
    """What comes from a descriptor, in whole lines as Windows ends them: cmd takes a part of one for all of it."""
    pending = b""
    while data := os.read(descriptor, _READ):
        lines, end, pending = (pending + data).rpartition(b"\n")
        if lines or end:
            yield (lines + end).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if len(pending) > _READ:  # no command
            yield pending
            pending = b""
    if pending:
        yield pending
