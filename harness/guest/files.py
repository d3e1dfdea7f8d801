# SPDX-License-Identifier: Apache-2.0
"""Single files of a guest, by SFTP."""

from __future__ import annotations

import contextlib
import io
import posixpath
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import paramiko

from harness.errors import GuestError, GuestLostError, HostError

_CHUNK = 32 * 1024


def put(transport: paramiko.Transport, source: Path | bytes, path: str, *, mode: int) -> None:
    """Write ``source`` to ``path`` in the guest. Raises GuestError, one sentence; HostError for the source."""
    with _source(source) as data, _session(transport) as sftp, _mapped("written", path):
        # Beside it and then renamed: what is at ``path`` may be a link, or a pipe that nobody reads.
        beside = posixpath.join(posixpath.dirname(path), f".vmrole-{secrets.token_hex(8)}")
        try:
            with sftp.open(beside, "wx") as file:
                file.chmod(mode)  # before the first byte is in it
                file.set_pipelined(True)
                while chunk := _read_source(data, source):
                    file.write(chunk)
            sftp.posix_rename(beside, path)
        except BaseException:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                sftp.remove(beside)
            raise


def get(transport: paramiko.Transport, path: str, *, limit: int) -> bytes:
    """At most ``limit`` bytes from the start of the regular file ``path``. Raises GuestError, one sentence."""
    with _session(transport) as sftp, _mapped("read", path):
        # Opening a pipe waits for its other end, and a device may have side effects. A guest that swaps the file in
        # between meets the caller's deadline.
        mode = sftp.stat(path).st_mode
        if mode is None or not stat.S_ISREG(mode):
            kind = "a folder" if mode is not None and stat.S_ISDIR(mode) else "not a regular file"
            raise GuestError(f"{path} in the guest is {kind}")
        got = bytearray()
        with sftp.open(path, "rb") as file:
            # To its end or the limit, not to its size: files below /proc say 0.
            while len(got) < limit and (chunk := file.read(min(_CHUNK, limit - len(got)))):
                got += chunk
        return bytes(got)


@contextlib.contextmanager
def _session(transport: paramiko.Transport) -> Iterator[paramiko.SFTPClient]:
    try:
        sftp = paramiko.SFTPClient.from_transport(transport)
    except paramiko.ChannelException as error:
        raise GuestError(f"the guest's SSH server has no file transfer: {error}") from None
    if sftp is None:
        raise GuestLostError("the guest's SSH server does not begin a file transfer")
    try:
        yield sftp
    finally:
        sftp.close()


@contextlib.contextmanager
def _mapped(done: str, path: str) -> Iterator[None]:
    """The guest's own errors; what breaks the connection goes through."""
    try:
        yield
    except TimeoutError:
        raise
    except (OSError, paramiko.SFTPError) as error:
        if str(error) == "Socket is closed":
            raise
        why: dict[type[Exception], str] = {
            FileNotFoundError: "there is no such file or folder",
            PermissionError: "it does not allow it",
        }
        said = why.get(type(error)) or getattr(error, "strerror", None) or str(error) or "it does not say why"
        raise GuestError(f"{path} cannot be {done} in the guest: {said}") from None


@contextlib.contextmanager
def _source(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise HostError(f"{source} cannot be read: {error.strerror}") from None
    with file:
        yield file


def _read_source(file: BinaryIO, source: Path | bytes) -> bytes:
    try:
        return file.read(_CHUNK)
    except OSError as error:
        raise HostError(f"{source!r} cannot be read: {error.strerror}") from None
