# SPDX-License-Identifier: Apache-2.0
"""Files from allowed addresses, from a real server on this host."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import pytest

from harness.deadline import Deadline
from harness.errors import HostError, PackageError, UsageError
from harness.package.download import KEPT_DAYS, check_url, download, is_below, shown
from harness.package.external import Places, with_external
from tests.conftest import HANGS
from tests.package.test_external import codes, package

DATA = b"an installer"
HASH = hashlib.sha256(DATA).hexdigest()


Answer = bytes | str | int | tuple[int, bytes]


class Server:
    """Serves ``files`` by path: bytes, a redirect's target, a status, or bytes behind a longer Content-Length."""

    def __init__(self, files: Mapping[str, Answer]) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                answer = files.get(self.path.partition("?")[0], 404)
                length = None
                if isinstance(answer, tuple):
                    length, answer = answer
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                if isinstance(answer, str):
                    self.send_response(302)
                    self.send_header("Location", answer)
                    answer = b""
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(answer) if length is None else length))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def load(url: str, folder: Path, *allowed: str, wanted: str | None = None, most: int = 1000) -> Path | None:
    return download(url, allowed or (url,), folder, wanted=wanted, most=most, deadline=Deadline(HANGS))


def places(folder: Path, *allowed: str) -> Places:
    return Places.of(allowed, lambda url, urls, wanted: load(url, folder, *urls, wanted=wanted))


def test_a_file_is_loaded_once_and_kept_under_its_hash(tmp_path: Path) -> None:
    with Server({"/a.msi": DATA}) as server:
        path = load(f"{server.url}/a.msi", tmp_path, wanted=HASH)
        assert path == tmp_path / HASH and path.read_bytes() == DATA and path.stat().st_mode & 0o777 == 0o600
        assert load(f"{server.url}/a.msi", tmp_path, wanted=HASH) == path and len(server.asked) == 1
        path.write_bytes(b"damaged")
        again = load(f"{server.url}/a.msi", tmp_path, wanted=HASH)
        assert again == path and path.read_bytes() == DATA and len(server.asked) == 2
        old = tmp_path / ("0" * 64)
        old.write_bytes(b"")
        os.utime(old, (0, time.time() - (KEPT_DAYS + 1) * 86400))
        load(f"{server.url}/a.msi", tmp_path)
        assert not old.exists() and [path.name for path in tmp_path.iterdir()] == [HASH]


def test_what_goes_wrong_is_a_sentence(tmp_path: Path) -> None:
    files: dict[str, Answer] = {
        "/gone": 410, "/broken": 500, "/short": (99, DATA), "/large": DATA, "/away": "http://example.invalid/x",
        "/loop": "/loop",
    }  # fmt: skip
    with Server(files) as server:
        assert load(f"{server.url}/none", tmp_path) is None and load(f"{server.url}/gone", tmp_path) is None
        with pytest.raises(HostError, match="the server says 500"):
            load(f"{server.url}/broken?key=geheim", tmp_path)
        with pytest.raises(HostError, match="ended after 12 of 99 bytes"):
            load(f"{server.url}/short", tmp_path)
        with pytest.raises(PackageError, match="more than 5 bytes"):
            load(f"{server.url}/large", tmp_path, most=5)
        with pytest.raises(PackageError, match=r"leads to http://example.invalid/x, which is not allowed"):
            load(f"{server.url}/away?key=geheim", tmp_path, server.url)
        with pytest.raises(HostError):
            load(f"{server.url}/loop", tmp_path, server.url)
        url = server.url
    with pytest.raises(HostError, match=r"cannot be loaded: Connection refused"):
        load(f"{url}/a.msi", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert shown("https://user:pass@host/a?sig=x#y") == "https://host/a"


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ],
)
def test_a_server_that_sends_a_byte_now_and_then_meets_the_deadline(tmp_path: Path, before: bytes) -> None:
    left = threading.Event()

    def serve() -> None:
        with listener, listener.accept()[0] as connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(before)
            for _ in range(600):
                connection.sendall(b"0")
                if select.select([connection], [], [], 0.1)[0]:  # it hung up
                    left.set()
                    return

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    with pytest.raises(HostError, match="was not loaded within 1 s"):
        download(url, (url,), tmp_path, wanted=None, most=10**6, deadline=Deadline(1))
    thread.join(70)
    assert left.is_set()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_ends_its_handshake_meets_the_deadline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a"
        with pytest.raises(HostError, match="was not loaded within 1 s"):
            download(url, (url,), tmp_path, wanted=None, most=10**6, deadline=Deadline(1))


@pytest.mark.parametrize(
    ("url", "base", "below"),
    [
        ("https://a.example/x/y", "https://a.example/x", True),
        ("https://A.example:443/x/y?q", "https://a.example/x/", True),
        ("https://a.example/x", "https://a.example/x", True),
        ("https://a.example/xy", "https://a.example/x", False),
        ("https://a.example.evil/x/y", "https://a.example/x", False),
        ("https://a.example@evil/x/y", "https://a.example/x", False),
        ("http://a.example/x/y", "https://a.example/x", False),
        ("https://a.example:444/x/y", "https://a.example/x", False),
        ("https://a.example/x/../y", "https://a.example/x", False),
        ("https://a.example/x/%2e%2e/y", "https://a.example/x", False),
        ("https://a.example/x/..%5cy", "https://a.example/x", False),
        ("file:///etc/passwd", "https://a.example/", False),
        ("https://a.example:x/", "https://a.example/", False),
        ("https://a.example/anything", "https://a.example", True),
    ],
)
def test_below(url: str, base: str, below: bool) -> None:
    assert is_below(url, base) is below


def test_addresses_that_are_none() -> None:
    for text in ("ftp://host/", "http://", "http:///x", "https://host:99999/", "file:///etc", "http://a b/"):
        with pytest.raises(UsageError, match="no address"):
            check_url(text)


def test_external_payload_from_an_allowed_address(tmp_path: Path) -> None:
    with Server({"/dl/setup/a.msi": DATA, "/dl/b.msi": b"b", "/hint/c": b"c"}) as server:
        read = package(
            tmp_path,
            {"RelativePath": "setup\\a.msi", "Hash": HASH},
            {"RelativePath": "b.msi"},
            {"RelativePath": "c.msi", "Hash": hashlib.sha256(b"c").hexdigest(), "URLHint": server.url + "/hint/c"},
            {"RelativePath": "d.msi"},
        )
        whole = with_external(read, places(tmp_path / "cache", server.url + "/dl"))
        assert sorted(codes(whole)) == ["external-missing", "external-missing", "external-unverified"]
        assert [entry.path for entry in whole.payload.files] == ["a.sh", "b.msi", "setup/a.msi"]
        assert whole.payload.read("setup/a.msi") == DATA and whole.payload.read("b.msi") == b"b"
        whole = with_external(read, places(tmp_path / "cache", server.url))
        assert "c.msi" in [entry.path for entry in whole.payload.files], "a hint is taken when its address is allowed"
        server.asked.clear()
        assert with_external(read, Places.of([server.url])).payload.files == read.payload.files
        assert server.asked == [], "without a loader nothing is asked"


def test_another_file_than_its_hash_says_is_not_taken(tmp_path: Path) -> None:
    with Server({"/a.msi": b"another"}) as server:
        read = package(tmp_path, {"RelativePath": "a.msi", "Hash": HASH})
        whole = with_external(read, places(tmp_path / "cache", server.url + "/a.msi"))
    assert codes(whole) == ["external-hash"] and [entry.path for entry in whole.payload.files] == ["a.sh"]


@pytest.mark.parametrize("place", ["ftp://127.0.0.1:1/x", "FTP://127.0.0.1:1/x"])
def test_no_redirect_leads_to_another_kind_of_address(tmp_path: Path, place: str) -> None:
    """Also where its content is known by its hash."""
    with Server({"/x": place}) as server, pytest.raises(PackageError, match="which is no http or https address"):
        download(f"{server.url}/x", None, tmp_path, wanted=HASH, most=100, deadline=Deadline(HANGS))
