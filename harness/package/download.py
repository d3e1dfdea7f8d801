# SPDX-License-Identifier: Apache-2.0
"""Files from addresses that the user allowed, and from no others: redirects that lead out of them are not followed.

A file is kept under the SHA-256 of its content, private to the user, so that a later run with the same hash loads
nothing. Nothing of a query or of a user name in an address is ever shown: they may hold a key.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from harness.deadline import Deadline
from harness.errors import HostError, PackageError, UsageError

SECONDS: Final = 1800.0
"""For all files of a package together; installation media are large."""
SILENCE: Final = 30.0
"""Seconds without a single byte after which a server is given up."""
KEPT_DAYS: Final = 30
_BLOCK: Final = 1 << 20
_GONE: Final = (404, 410)


def check_url(url: str) -> str:
    """``url`` if it can be allowed. Raises UsageError for what is no http or https address of a host."""
    try:
        parts = urlsplit(url)
        good = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or any(character <= " " for character in url):
        raise UsageError(
            f"{url[:200]!r} is no address of a folder or file", hint="write http:// or https:// and a host"
        )
    return url


def is_below(url: str, base: str) -> bool:
    """Whether ``url`` is the address ``base`` or lies below it; no trick with ``..``, hosts or users leads out."""
    try:
        one, other = urlsplit(url), urlsplit(base)
        same = _origin(one) == _origin(other) and one.username == other.username and one.password == other.password
    except ValueError:
        return False
    path = one.path or "/"
    if not same or ".." in unquote(unquote(path)).replace("\\", "/").split("/"):
        return False
    folder = other.path or "/"
    return path == folder or path.startswith(folder if folder.endswith("/") else folder + "/")


def shown(url: str) -> str:
    """An address without its query and user."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:200]


def download(
    url: str, allowed: Sequence[str] | None, folder: Path, *, wanted: str | None, most: int, deadline: Deadline
) -> Path | None:
    """The file at ``url``, in ``folder`` under its hash; None when the server has none there.

    One whose hash ``wanted`` is in ``folder`` already is not loaded again. ``allowed`` is where redirects may lead to,
    None for anywhere: for what is known by its hash. Raises PackageError for a redirect out of
    ``allowed`` and for more than ``most`` bytes, HostError when the server cannot be reached or does not finish.
    """
    _prepare(folder)
    if wanted and (known := folder / wanted).is_file():
        with known.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == wanted:
                os.utime(known)
                return known
    try:
        with _Watch(deadline) as watch:
            opener = urllib.request.build_opener(watch.http(), watch.https(), _Redirects(allowed))
            with opener.open(url, timeout=deadline.timeout(SILENCE)) as response:
                return _save(response, url, folder, most, deadline)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _GONE:
                return None
            raise HostError(f"{shown(url)} cannot be loaded: the server says {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if deadline.expired:
            raise _late(url, deadline) from None
        raise HostError(f"{shown(url)} cannot be loaded: {_reason(error.reason)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.expired:
            raise _late(url, deadline) from None
        raise HostError(f"{shown(url)} cannot be loaded: {_reason(error)}") from None


def _save(response: Any, url: str, folder: Path, most: int, deadline: Deadline) -> Path:
    digest, total = hashlib.sha256(), 0
    expected = response.headers.get("Content-Length")
    with NamedTemporaryFile(dir=folder, prefix=".loading-", delete=False) as sink:  # 0600
        scratch = Path(sink.name)
        try:
            # what has come, not whole blocks: a server may send byte by byte, and the deadline is of all of them
            while block := response.read1(_BLOCK):
                total += len(block)
                if total > most:
                    raise PackageError(f"{shown(url)} has more than {most} bytes")
                if deadline.expired:
                    raise _late(url, deadline)
                digest.update(block)
                sink.write(block)
            if deadline.expired:  # the watch ended it
                raise _late(url, deadline)
            # a connection that ends early is no error for http.client when it reads in blocks
            if expected is not None and expected.isascii() and expected.isdigit() and int(expected) != total:
                raise HostError(f"{shown(url)} ended after {total} of {expected} bytes")
            sink.flush()
            target = folder / digest.hexdigest()
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    return target


def _late(url: str, deadline: Deadline) -> HostError:
    return HostError(f"{shown(url)} was not loaded within {deadline.seconds:.0f} s")


def _prepare(folder: Path) -> None:
    """Make the folder, ours alone, and remove what nobody asked for in KEPT_DAYS."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = time.time() - KEPT_DAYS * 86400
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < old:
                    path.unlink()
    except OSError as error:
        raise HostError(f"{folder} cannot be used for downloads: {error.strerror or error}") from None


def _origin(parts: Any) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or {"http": 80, "https": 443}.get(scheme, 0)


def _reason(error: object) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return str(text)[:200]


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, allowed: Sequence[str] | None) -> None:
        self.allowed = allowed

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise PackageError(f"{shown(req.full_url)} leads to {shown(newurl)}, which is no http or https address")
        if self.allowed is not None and not any(is_below(newurl, base) for base in self.allowed):
            raise PackageError(
                f"{shown(req.full_url)} leads to {shown(newurl)}, which is not allowed",
                hint=f"allow it too with --external-payload {shown(newurl)}",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Watch:
    """Ends the connections made in its block when the deadline passes: the library's time-outs are of one read each, so
    a server that sends a byte now and then, in the headers too, holds them for ever."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._late = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Watch:
        seconds = self._deadline.timeout()
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._end)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            for sock in self._open:
                sock.close()

    def _end(self) -> None:
        with self._lock:
            self._late = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def add(self, sock: socket.socket) -> None:
        """Watch a connection; of our own descriptor, since TLS takes the other one over."""
        with self._lock:
            if self._late:
                sock.shutdown(socket.SHUT_RDWR)
            self._open.append(sock.dup())

    def http(self) -> urllib.request.HTTPHandler:
        watch = self

        class Connection(_WatchedConnection):
            watched_by = watch

        class Handler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> Any:
                return self.do_open(Connection, req)

        return Handler()

    def https(self) -> urllib.request.HTTPSHandler:
        watch = self

        class Connection(http.client.HTTPSConnection, _WatchedConnection):
            watched_by = watch

        class Handler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> Any:
                return self.do_open(Connection, req)

        return Handler()


class _WatchedConnection(http.client.HTTPConnection):
    """What connects before TLS begins: the last class before the library's own plain connection."""

    watched_by: _Watch

    def connect(self) -> None:
        super().connect()
        self.watched_by.add(self.sock)
