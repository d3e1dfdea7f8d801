# SPDX-License-Identifier: Apache-2.0
"""The payload of a package: the files below DataPackage.Location, wherever they are kept."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from harness.errors import HostError, PackageError
from harness.package.archive import Archive, Entry
from harness.package.findings import Findings
from harness.package.folder import Listing
from harness.package.names import composed

#: Where the payload is in a Windows guest [GUESS: the platform's folder was not found in any source].
WINDOWS_FOLDER: Final = "C:\\ProgramData\\VMRole\\Payload"


class Source(Protocol):
    """Where payload files come from. ``opened`` gives a function from a path in the package to a stream of its file."""

    def opened(self) -> AbstractContextManager[Callable[[str], IO[bytes]]]: ...


@dataclass(frozen=True, slots=True)
class FolderSource:
    listing: Listing

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], IO[bytes]]]:
        yield self.listing.open


@dataclass(frozen=True, slots=True)
class ZipSource:
    """Opens the archive anew for each use, so that a Package needs no closing."""

    archive: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], IO[bytes]]]:
        with Archive(self.archive, Findings()) as archive:
            yield archive.open


@dataclass(frozen=True, slots=True)
class Payload:
    """Payload files. ``files`` have paths relative to ``location``; sorted; empty when there is no payload.

    Their paths are written as the document writes its names, composed or decomposed; ``source`` has composed ones.
    """

    location: str
    files: tuple[Entry, ...]
    source: Source
    prefix: str = ""

    def __bool__(self) -> bool:
        return bool(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Read one file, by its path in ``files``. Raises PackageError when it is not there or damaged."""
        if not any(entry.path == path for entry in self.files):
            raise PackageError(f"the payload has no file {path}")
        with self.source.opened() as open_file, open_file(composed(self.prefix + path)) as stream:
            yield stream

    def read(self, path: str) -> bytes:
        with self.open(path) as stream:
            return stream.read()

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file by its path, with the mode that it gets when it is extracted. Raises PackageError."""
        found = {}
        with self.source.opened() as open_file:
            for entry in self.files:
                digest = hashlib.sha256()
                with open_file(composed(self.prefix + entry.path)) as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
                found[entry.path] = f"{digest.hexdigest()} {0o100755 if entry.executable else 0o100644:o}"
        return found

    def extract(self, to: Path) -> None:
        """Write all files below ``to``, which is made and must hold none of them; modes 0644, 0755 for executables.

        Names were checked when the package was read. Raises PackageError for a damaged file, HostError when the disk is
        full or not writable.
        """
        try:
            to.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(to).free
            if free < self.size:
                raise HostError(
                    f"{to} has {free >> 20} MiB of room, and the payload has {self.size >> 20} MiB",
                    hint="make room, or choose another folder with TMPDIR",
                )
            with self.source.opened() as open_file:
                for entry in self.files:
                    target = to / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open_file(composed(self.prefix + entry.path)) as source, target.open("xb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    target.chmod(0o755 if entry.executable else 0o644)
        except OSError as error:
            raise HostError(f"the payload cannot be written to {to}: {error.strerror or error}") from None
