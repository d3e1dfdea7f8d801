# SPDX-License-Identifier: Apache-2.0
"""What a guest that is the attacker's may answer: nothing leads our requests elsewhere, or keeps us or our memory."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError
from harness.guest.winrm import WinRmGuest

LATER = b"HTTP/1.1 503 Later\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\n"
LEADS = b"HTTP/1.1 %d Look there\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
DENIED = b"HTTP/1.1 401 Who are you\r\nWWW-Authenticate: %s\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[int], tuple[bytes, bytes]]


@contextlib.contextmanager
def answering(answer: Answer, *, every: float = 0.0) -> Iterator[int]:
    """A service on a port of this computer. ``answer`` gives for the request of that number, from 0, what it says once
    and what it then says over and over, ``every`` so many seconds."""
    numbers = itertools.count()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk(client: socket.socket) -> None:
            with contextlib.suppress(OSError), client:
                while client.recv(65536):
                    once, again = answer(next(numbers))
                    client.sendall(once)
                    while again:
                        client.sendall(again)
                        time.sleep(every)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _always(once: bytes, again: bytes = b"") -> Answer:
    return lambda _number: (once, again)


def _connect(port: int, seconds: float = 60) -> WinRmGuest:
    return WinRmGuest.connect("127.0.0.1", port, password="x", certificate=None, deadline=Deadline(seconds))


@contextlib.contextmanager
def neighbour() -> Iterator[tuple[int, list[str]]]:
    """Another service of this computer: its port, and the requests that it got."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_POST = do_CONNECT = do_GET

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
@pytest.mark.parametrize("scheme", ["http", "HTTP", "https", "file", "ftp", ""])
def test_nobody_goes_where_the_guest_points(status: int, scheme: str) -> None:
    with neighbour() as (elsewhere, asked):
        place = f"{scheme}{':' if scheme else ''}//127.0.0.1:{elsewhere}/secret".encode()
        with (
            answering(_always(LEADS % (status, place))) as port,
            pytest.raises(GuestError, match=rf"leads elsewhere, where nobody goes \(HTTP status {status}\)"),
        ):
            _connect(port)
        assert asked == []


def test_nobody_goes_where_the_guest_points_while_it_asks_who_we_are() -> None:
    """Every request of the handshake is answered so in turn."""
    challenge = DENIED % b"NTLM TlRMTVNTUAACAAAA"
    for turn in (1, 2):
        with neighbour() as (elsewhere, asked):
            lead = LEADS % (307, f"http://127.0.0.1:{elsewhere}/".encode())

            def answer(number: int, turn: int = turn, lead: bytes = lead) -> tuple[bytes, bytes]:
                return (lead if number >= turn else challenge), b""

            with answering(answer) as port, pytest.raises(GuestError):
                _connect(port)
            assert asked == []


def test_a_guest_that_never_lets_us_in_is_asked_three_times() -> None:
    asked: list[int] = []

    def answer(number: int) -> tuple[bytes, bytes]:
        asked.append(number)
        return DENIED % b"NTLM TlRMTVNTUAACAAAA", b""

    with answering(answer) as port, pytest.raises(GuestError, match="answer that is none"):
        _connect(port)
    assert len(asked) <= 3


def test_no_proxy_of_the_environment_gets_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with neighbour() as (proxy, asked):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with answering(_always(OK + b"Content-Length: 0\r\n\r\n")) as port, pytest.raises(GuestError):
            _connect(port)
        assert asked == []


def test_an_answer_that_comes_in_drops() -> None:
    for head in (b"HTTP/1.1 200 OK\r\nX: ", OK + b"Content-Length: 99999\r\n\r\n", b"HT"):
        with answering(_always(head, b"x"), every=0.2) as port:
            began = time.monotonic()
            with pytest.raises(GuestNotReadyError, match="did not answer within 1 s"):
                _connect(port, 1)
            assert time.monotonic() - began < 20


ENDLESS = {
    "body": (OK + b"\r\n", b"x" * 65536),
    "body of a failure": (b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536),
    "body of a denial": (b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\n\r\n", b"x" * 65536),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"x" * 4096 + b"\r\n"),
    "patience": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_an_end(name: str) -> None:
    with (
        answering(_always(*ENDLESS[name])) as port,
        pytest.raises(GuestError, match="gives an answer that is none: it is longer than 4 MiB"),
    ):
        _connect(port)


def test_the_length_of_a_chunk_without_an_end() -> None:
    """It is taken for a broken connection, which is tried again until the deadline."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    with answering(_always(head, b"0" * 65536)) as port, pytest.raises(GuestNotReadyError):
        _connect(port, 1)


def test_an_answer_that_unpacks_to_more_than_there_is_memory() -> None:
    """Packed several times, some KiB are as many GiB: nothing is unpacked at all."""
    packed = bytes(64 << 20)
    for _ in range(3):
        packed = gzip.compress(packed)
    for coding in (b"gzip, gzip, gzip", b"gzip", b"deflate", b"br", b"zstd", b"x-gzip"):
        head = OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(packed))
        with (
            answering(_always(head + packed)) as port,
            pytest.raises(GuestError, match=f"in an encoding nobody asked for: {coding.decode()}"),
        ):
            _connect(port)


def test_what_a_guest_wants_remembered_is_not() -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        for _ in range(2):
                            seen.append(client.recv(65536))
                            client.sendall(
                                b"HTTP/1.1 503 Later\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
                            )

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(GuestNotReadyError):
            _connect(listening.getsockname()[1], 1)
        listening.shutdown(socket.SHUT_RDWR)
    assert len(seen) > 1 and not any(b"cookie" in request.lower() for request in seen)
