# SPDX-License-Identifier: Apache-2.0
"""Windows commands: processes that the resident runner (tools/runner.c) starts, with what they say and are told."""

from __future__ import annotations

import collections
import contextlib
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_STDIN, _TERMINATE = 1, 2
_STARTED, _STDOUT, _STDERR, _EXIT, _FAILED = 65, 66, 67, 68, 69
_HEAD = struct.Struct("<BI")
_PIECE = 256 * 1024
_KEPT = 4 * 1024 * 1024
"""Bytes of output kept for a client that does not fetch them; then the command has to wait."""
_START_SECONDS = 120.0
"""For the first Wine process of a machine without KVM that is busy."""


class StartError(Exception):
    """A command that could not be started; ``code`` is the Windows error, 2 for a program that is not there."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the command cannot be started: Windows error {code}")
        self.code = code


class Runner:
    """The resident Wine process that starts commands; started again when somebody ended it.

    ``argv`` is Wine and the program, which gets its port and token appended.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> None:
        self._argv = list(argv)
        self._environment = dict(environment)
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._port = 0

    def start(self) -> None:
        """Start it, if it does not run. Raises OSError when it does not come up."""
        with self._lock:
            if self._process and self._process.poll() is not None:
                _end(self._process)
                self._process = None
            if self._process is None:
                self._start()

    def run(self, line: str, folder: str = "", environment: Mapping[str, str] | None = None, page: int = 0) -> Process:
        """Start the command ``line`` verbatim in ``folder`` with ``environment`` on top of the machine's own.

        Raises StartError when Windows cannot, OSError when the runner does not come up.
        """
        variables = "".join(f"{name}={value}\0" for name, value in (environment or {}).items())
        return self._request(line, folder, variables, page)

    def _request(self, line: str, folder: str, variables: str, page: int) -> Process:
        texts = [part.encode("utf-16-le", "surrogatepass") for part in (line, folder, variables, str(page or ""))]
        request = struct.pack("<4I", *map(len, texts)) + b"".join(texts)
        for attempt in (1, 2):
            self.start()
            try:
                connection = socket.create_connection(("127.0.0.1", self._port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(self._token.encode() + request)
                return Process(connection)
            except OSError:  # ended in this moment
                if attempt == 2:
                    raise
                self.stop()
        raise AssertionError  # the loop returns or raises

    def set_values(self, values: Sequence[tuple[str, str, str]]) -> int:
        """Write values (key, name, text or dword:N) to the machine's registry, or below HKCU; Windows' error or 0."""
        process = self._request("", "", "".join(f"{part}\0" for value in values for part in value), 0)
        code = process.take(60.0, 0)[1]
        process.close()
        return 1460 if code is None else code  # ERROR_TIMEOUT

    def stop(self) -> None:
        """End it, and with it every command."""
        with self._lock:
            if self._process:
                _end(self._process)
                self._process = None

    def _start(self) -> None:
        self._token = secrets.token_hex(16)
        with contextlib.ExitStack() as stack:
            errors: IO[bytes] | int = subprocess.DEVNULL
            if self._log:
                errors = stack.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(
                [*self._argv, "0", self._token],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )
        said = _first_line(self._process, _START_SECONDS)
        if not said.startswith(b"port "):
            _end(self._process)
            self._process = None
            raise OSError("the program that starts Windows commands does not come up")
        self._port = int(said[5:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], timeout: float) -> bytes:
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        return process.stdout.readline(64)
    finally:
        timer.cancel()


class Process:
    """One command. Its output is kept until it is taken; at most ``_KEPT`` bytes, then it has to wait."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._changed = threading.Condition()
        self._kept: collections.deque[tuple[str, bytes]] = collections.deque()
        self._size = 0
        self._takers = 0
        self._closed = False
        self.exit_code: int | None = None
        """Unsigned 32 bits, once it ended and all of its output was heard."""
        kind, content = self._frame()
        if kind != _STARTED:
            self._file.close()
            connection.close()
            if kind == _FAILED:
                raise StartError(struct.unpack("<I", content)[0])
            raise ConnectionError("the runner ended")
        threading.Thread(target=self._listen, name="command", daemon=True).start()

    def take(
        self, timeout: float, limit: int, wanted: Callable[[], bool] = lambda: True, gather: float = 0.0
    ) -> tuple[list[tuple[str, bytes]], int | None]:
        """Output in pieces (stream, bytes), at most ``limit`` bytes, and the exit code once nothing is left.

        Waits at most ``timeout`` seconds for something to be there, and ``gather`` seconds for more of it while the
        command runs: an answer for each line would cost more than the command. Whoever asks later gets it: one that
        still waits gets nothing then, as does one of whom ``wanted`` says that he is gone.
        """
        with self._changed:
            self._takers += 1
            mine = self._takers
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._kept or self.exit_code is not None or self._takers != mine, timeout)
            if self._kept and gather:
                self._changed.wait_for(
                    lambda: self._size >= limit or self.exit_code is not None or self._takers != mine, gather
                )
            if self._takers != mine or not wanted():
                return [], None
            # One piece of each stream: the order between the two means nothing, and every piece costs an element.
            taken: dict[str, bytearray] = {}
            while self._kept and limit > 0:
                stream, data = self._kept.popleft()
                if len(data) > limit:
                    self._kept.appendleft((stream, data[limit:]))
                    data = data[:limit]
                limit -= len(data)
                self._size -= len(data)
                taken.setdefault(stream, bytearray()).extend(data)
            self._changed.notify_all()
            return [(stream, bytes(data)) for stream, data in taken.items()], None if self._kept else self.exit_code

    def finish(self, seconds: float, most: int) -> tuple[bytes, int | None]:
        """The last ``most`` bytes of both streams and the exit code, None for a command that does not end within so
        many seconds. It is closed then."""
        said, code, limit = b"", None, time.monotonic() + seconds
        while code is None and time.monotonic() < limit:
            pieces, code = self.take(1.0, 65536)
            said = b"".join([said, *(data for _, data in pieces)])[-most:]
        self.close()
        return said, code

    def put_back(self, pieces: Sequence[tuple[str, bytes]]) -> None:
        """What was taken did not arrive: the next one gets it."""
        with self._changed:
            self._kept.extendleft(reversed(pieces))
            self._size += sum(len(data) for _, data in pieces)
            self._changed.notify_all()

    def write(self, data: bytes, *, end: bool) -> None:
        """Give it standard input; ``end`` closes that."""
        for start in range(0, len(data), _PIECE):
            self._send(_STDIN, data[start : start + _PIECE])
        if end:
            self._send(_STDIN, b"")

    def terminate(self) -> None:
        """End it and everything it started; its end is then told as of any other."""
        self._send(_TERMINATE, b"")

    def close(self) -> None:
        """Forget it; what of it still runs is ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # which wakes the thread that listens, and it closes

    def _send(self, kind: int, content: bytes) -> None:
        with contextlib.suppress(OSError):  # it ended, which is told elsewhere
            self._connection.sendall(_HEAD.pack(kind, len(content)) + content)

    def _frame(self) -> tuple[int, bytes]:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return 0, b""
        kind, size = _HEAD.unpack(head)
        content = self._file.read(size)
        return (kind, content) if len(content) == size else (0, b"")

    def _listen(self) -> None:
        code = 1067  # ERROR_PROCESS_ABORTED, when the runner goes without a word
        with contextlib.suppress(OSError):
            while True:
                kind, content = self._frame()
                if kind in (_STDOUT, _STDERR):
                    self._keep("stdout" if kind == _STDOUT else "stderr", content)
                elif kind == _EXIT:
                    code = struct.unpack("<I", content)[0]
                    break
                elif kind == 0:
                    break
        with self._changed:
            self.exit_code = code
            self._changed.notify_all()
            # The connection stays until nobody wants the command any more: its end is the end of what it left running.
            self._changed.wait_for(lambda: self._closed)
        self._file.close()
        self._connection.close()

    def _keep(self, stream: str, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._size < _KEPT or self._closed)
            self._kept.append((stream, data))
            self._size += len(data)
            self._changed.notify_all()
