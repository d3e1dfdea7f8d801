# SPDX-License-Identifier: Apache-2.0
"""WinRM's two ports: HTTP/1.1 with what WinRM needs of it, a thread for each connection."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

from standin import soap
from standin.auth import Account, Denied, Session
from standin.shells import Shells
from standin.soap import Fault

HTTP_PORT = 5985
HTTPS_PORT = 5986
_MOST_HEAD = 32 * 1024
_MOST_BODY = soap.MOST_ENVELOPE + 4096
"""With the frame of an encrypted message."""
_MOST_CONNECTIONS = 256
_IDLE_SECONDS = 180.0
_SOAP_TYPE = "application/soap+xml;charset=UTF-8"
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
            411: "Length Required", 413: "Request Entity Too Large", 500: "Internal Server Error"}  # fmt: skip


class Server:
    """Listens on one port; with ``tls`` it is the HTTPS one. ``account`` gives the account as it is now."""

    def __init__(
        self, address: tuple[str, int], account: Callable[[], Account], shells: Shells, tls: ssl.SSLContext | None
    ) -> None:
        self._account = account
        self._shells = shells
        self._tls = tls
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._socket = socket.create_server(address, backlog=64)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, name=f"port-{self.port}", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            self._places.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            # TLS errors are OSErrors, and so are clients that go.
            with contextlib.suppress(OSError, _Hangup), connection:
                connection.settimeout(_IDLE_SECONDS)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    _Connection(connection, Session(self._account(), tls=False), self._shells, tls=False).serve()
                    return
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    _Connection(secured, Session(self._account(), tls=True), self._shells, tls=True).serve()
        finally:
            self._places.release()


class _Hangup(Exception):
    """The end of a connection."""


class _Connection:
    def __init__(self, connection: socket.socket, session: Session, shells: Shells, *, tls: bool) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._session = session
        self._shells = shells
        self._tls = tls
        self.undo: Callable[[], None] | None = None

    def connected(self) -> bool:
        """See standin.shells.Client."""
        gone = select.poll()
        gone.register(self._connection, select.POLLRDHUP)
        return not gone.poll(0)

    def serve(self) -> None:
        with self._file:
            while True:
                method, path, headers = self._head()
                body = self._body(headers)
                self._answer(method, path, headers, body)
                if headers.get("connection", "").lower() == "close":
                    return

    def _head(self) -> tuple[str, str, dict[str, str]]:
        read = 0
        lines: list[str] = []
        while True:
            line = self._file.readline(_MOST_HEAD + 1)
            read += len(line)
            if not line:
                raise _Hangup
            if read > _MOST_HEAD or not line.endswith(b"\n"):
                self._refuse(400)
            text = line.rstrip(b"\r\n").decode("latin-1")
            if not text and lines:
                break
            if text:
                lines.append(text)
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._refuse(400)
        headers: dict[str, str] = {}
        for line_ in lines[1:]:
            name, colon, value = line_.partition(":")
            if not colon or name != name.strip():
                self._refuse(400)
            headers[name.lower()] = value.strip()
        return words[0], words[1], headers

    def _body(self, headers: dict[str, str]) -> bytes:
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            self._refuse(411)
        if int(length) > _MOST_BODY:
            self._refuse(413)
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._file.read(int(length))
        if len(body) < int(length):
            raise _Hangup
        return body

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        if path.partition("?")[0].rstrip("/").lower() != "/wsman":
            self._send(404)
        elif method != "POST":
            self._send(405)
        else:
            try:
                known, token = self._session.authenticate(headers.get("authorization"))
                if not known:
                    self._send(401, challenges=[token or ""])
                    return
                message = self._session.unwrap(headers.get("content-type", ""), body)
                encrypted = message is not None
                if message is None:
                    if body and not self._tls:
                        raise Denied  # AllowUnencrypted is false
                    message = body
            except Denied:
                self._send(401, challenges=self._session.offers)
                return
            status, answer = self._operate(message) if message else (200, b"")
            try:
                self._send(status, answer, challenges=[token] if token else [], encrypted=encrypted)
            except OSError:
                if self.undo:
                    self.undo()
                raise

    def _operate(self, message: bytes) -> tuple[int, bytes]:
        """The status and the answer to one message."""
        identifier, self.undo = "", None
        try:
            if len(message) > soap.MOST_ENVELOPE:
                raise Fault(2150858797, f"The message has {len(message)} bytes.", "w:EncodingLimit")
            request = soap.parse(message)
            if request is None:
                return 200, soap.identify_response()
            identifier = request.message_id
            return 200, self._shells.answer(self, request)
        except Fault as fault:
            return 500, soap.fault_response(fault, identifier)

    def _send(self, status: int, body: bytes = b"", *, challenges: Sequence[str] = (), encrypted: bool = False) -> None:
        kind = _SOAP_TYPE
        if encrypted and body:
            kind, body = self._session.wrap(body)
        lines = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            f"Content-Length: {len(body)}",
            "Server: vmrole-stand-in",
        ]
        lines += [f"WWW-Authenticate: {challenge}" for challenge in challenges]
        lines += [f"Content-Type: {kind}"] if body else []
        self._connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)

    def _refuse(self, status: int) -> None:
        self._send(status)
        raise _Hangup
