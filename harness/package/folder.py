# SPDX-License-Identifier: Apache-2.0
"""Packages that are folders: what is in them, and their files read without following a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.errors import PackageError
from harness.package.archive import MAX_ENTRIES, MAX_TOTAL, Entry, the_document
from harness.package.names import check_clashes, is_junk, is_package, safe_name

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of ``folder``, sorted by path. ``on_disk`` has the paths that are written otherwise there, relative to
    the folder; ``left_out`` what is no part of a package: left-overs, runs, the folder's own older package."""

    folder: Path
    entries: tuple[Entry, ...]
    on_disk: Mapping[str, str]
    left_out: tuple[str, ...]

    def open(self, path: str) -> IO[bytes]:
        """One of the files. Raises PackageError when it cannot be read or is no file any more."""
        return open_below(self.folder, self.on_disk.get(path, path))

    def read(self, path: str, most: int) -> bytes:
        """The first ``most`` bytes of a file."""
        with self.open(path) as stream:
            return stream.read(most)


def find_document(folder: Path) -> str:
    """The name of the one `.resext` at the root. Raises PackageError when there is none or more than one.

    Looks at nothing else: most folders that are named by mistake are large.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not is_junk(path.name) and path.is_file())
    except OSError as error:
        raise PackageError(f"{folder} cannot be read: {error.strerror or error}") from None
    found = [name for name in names if name.lower().endswith(".resext")]
    return the_document(found, str(folder), any(name.lower().endswith(".resdef") for name in names))


def list_folder(folder: Path, below: str = "") -> Listing:
    """What is in ``folder``, or only in ``below``, a path with a slash at its end in it. Raises PackageError for links
    and special files, for too many or too large ones, and for names that no package can have."""
    files: list[tuple[str, os.stat_result]] = []
    left_out: list[str] = []
    stack = [below]
    count = 0
    while stack:
        here = stack.pop()
        try:
            with os.scandir(folder / here) as children:
                for child in children:
                    name = here + child.name
                    if is_junk(child.name) or (not here and is_package(child.name)):
                        left_out.append(name)
                        continue
                    count += 1
                    if count > MAX_ENTRIES:
                        raise PackageError(f"{folder} has more than {MAX_ENTRIES} files")
                    status = child.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        stack.append(name + "/")
                    else:
                        _check_file(f"{folder / name}", status)
                        files.append((name, status))
        except OSError as error:
            raise PackageError(f"{folder / here} cannot be read: {error.strerror or error}") from None
    total = sum(status.st_size for _, status in files)
    if total > MAX_TOTAL:
        raise PackageError(f"{folder} has more than {MAX_TOTAL} bytes")
    found = sorted((safe_name(name, folder.name or str(folder)), name, status) for name, status in files)
    check_clashes((path for path, _, _ in found), str(folder), "files")
    return Listing(
        folder,
        tuple(Entry(path, status.st_size, bool(status.st_mode & 0o111)) for path, _, status in found),
        {path: name for path, name, _ in found if path != name},
        tuple(sorted(left_out)),
    )


def open_below(folder: Path, path: str) -> IO[bytes]:
    """The file at the relative ``path`` below ``folder``, through real folders only: what became a link since the
    folder was looked at is not followed. Raises PackageError when it cannot be read or is no file."""
    *folders, name = path.split("/")
    here = descriptor = -1
    try:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in folders:
            below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        descriptor = os.open(name, _FLAGS, dir_fd=here)
        _check_file(f"{folder / path}", os.fstat(descriptor))
        stream = os.fdopen(descriptor, "rb")
        descriptor = -1
        return stream
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise PackageError(f"{folder / path} became a link, which is not followed") from None
        raise PackageError(f"{folder / path} cannot be read: {error.strerror or error}") from None
    finally:
        for number in (here, descriptor):
            if number >= 0:
                os.close(number)


def _check_file(name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise PackageError(f"{name} is a link; packages have files only", hint="replace it by what it points to")
    if not stat.S_ISREG(status.st_mode):
        raise PackageError(f"{name} is a special file; packages have files only")
