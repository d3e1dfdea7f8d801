# SPDX-License-Identifier: Apache-2.0
"""Files that are whole at every moment, and what it means when this computer does not take them.

A file is written under a name beside its own that nobody can guess, and renamed: a reader sees the old one or the new
one, and a link that somebody planted in its place is replaced, never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HostError

_ROOM = "free some disk space; 'vmrole sweep' and 'vmrole images list' help"
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "it is on a file system that is read-only here",
    errno.EMFILE: "this process may open more files after 'ulimit -n' with a larger number",
    errno.ENFILE: "close other programs: this computer has no more open files",
    errno.EIO: "the disk is broken",
}


def refused(what: str, error: OSError) -> HostError:
    """The HostError of what this computer did not let us do: ``what``, as in "x cannot be written", and why."""
    if error.errno == errno.ENOENT and (gone := _working_directory_is_gone()):
        return gone
    why = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return HostError(f"{what}: {why}", hint=_HINTS.get(error.errno or 0))


def _working_directory_is_gone() -> HostError | None:
    try:
        Path.cwd()
    except FileNotFoundError:
        return HostError("the working directory is not there any more", hint="change to another one: cd /")
    return None


def refusal(error: OSError) -> HostError:
    """The HostError of what nobody expected to go wrong: the disk is full, a folder read-only, descriptors run out."""
    if gone := _working_directory_is_gone():
        return gone
    what = f"{os.fsdecode(error.filename)} cannot be used" if error.filename else "this computer refuses something"
    return refused(what, error)


def is_of_host(error: OSError) -> bool:
    """Whether the computer is at fault, not whoever named a file."""
    return error.errno in _HINTS


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Map what goes wrong while ``path`` is written to HostError."""
    try:
        yield
    except OSError as error:
        raise refused(f"{path} cannot be written", error) from error


def replace_file(path: Path, content: str | bytes, *, mode: int | None = 0o600, durable: bool = False) -> None:
    """Write ``path`` whole or not at all, whoever writes it at the same time. Raises HostError.

    ``mode`` None is what the user's umask leaves: for run directories, which are shared. What cannot be encoded is
    written as an escape. ``durable`` waits until it outlives a loss of power: for what a
    later process goes on from; a run whose computer goes off is over anyway.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    with writing(path):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(beside, flags, 0o666 if mode is None else 0o600), "wb") as stream:
                if mode is not None:
                    os.fchmod(stream.fileno(), mode)
                stream.write(data)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            beside.replace(path)
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
