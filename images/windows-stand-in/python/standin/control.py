# SPDX-License-Identifier: Apache-2.0
"""What Windows programs ask of the machine itself: a port on the loopback, one request a connection.

Words, each ended by a NUL, and an empty one go in; a line with a code, and a text, come out (tools/ask.h).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from standin import places

_MOST = 64 * 1024
Operation = Callable[[Sequence[str]], str]


class Refusal(Exception):
    """Why a program does not get what it asks for, as it shall say it."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Control:
    """Serves ``operations``, by their first word."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        self._operations = operations
        self._socket = socket.create_server(("127.0.0.1", places.CONTROL_PORT), backlog=32)
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            data = b""
            while not data.endswith(b"\0\0") and data != b"\0" and len(data) < _MOST:
                piece = connection.recv(4096)
                if not piece:
                    return
                data += piece
            words = [word.decode("utf-8", "replace") for word in data.split(b"\0")[:-2]]
            code, text = self._do(words)
            connection.sendall(f"{code}\n{text}".encode())

    def _do(self, words: list[str]) -> tuple[int, str]:
        operation = self._operations.get(words[0]) if words else None
        if operation is None:
            return 1, "the stand-in guest does not know what it is asked"
        try:
            return 0, operation(words[1:])
        except Refusal as refusal:
            return refusal.code, str(refusal)
