# SPDX-License-Identifier: Apache-2.0
"""The instance medium: the ISO that a generalized guest becomes a machine from (docs/instance-medium.md)."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pycdlib
import pycdlib.dates
import pycdlib.headervd
import pycdlib.pycdlib
import pycdlib.pycdlibexception
import pycdlib.utils

from harness.errors import HarnessError, HostError, PackageError
from harness.run.answer import Answer
from harness.run.instance import SshKeyPair, certificate_files, payload_files

LABEL = "VMROLE"
_JOLIET_NAME = 64
"""Of a Joliet name; characters by its standard, but pycdlib counts bytes of UTF-8. Windows guests see these names;
Linux guests mount Rock Ridge, which has the whole name."""
_JOLIET_PATH = 240
"""Bytes of a Joliet path, by its standard; Windows opens nothing deeper."""
_NAME_BYTES = 255
_JOLIET_FORBIDDEN = frozenset('*/:;?\\"<>|')


def build_medium(
    path: Path,
    *,
    answer: Answer,
    host_key: SshKeyPair,
    components: Path,
    payload_root: Path | None = None,
    label: str = LABEL,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write the medium to ``path``, which must not exist; it is never readable by anybody else.

    ``components`` is the folder with ``VERSION`` and ``vmrole-components``, ``more`` further files. The
    same arguments give the same bytes.
    Raises PackageError for a payload no medium can carry and HostError when it cannot be written; then no file is left.
    """
    files: list[tuple[str, int, bytes | Path | None]] = [
        *((name, 0o600, data) for name, data in (more or {}).items()),
        ("answer.conf", 0o600, answer.render()),
        ("ssh/", 0o755, None),
        ("ssh/host_ed25519", 0o600, host_key.private),
        ("ssh/host_ed25519.pub", 0o644, host_key.public.encode() + b"\n"),
    ]
    for name, data in sorted(certificate_files(answer).items()):
        files.append((f"certificates/{name}", 0o600 if name.endswith(".prv") else 0o644, data))
    files += component_files(components)
    if payload_root is not None:
        files.append(("payload/", 0o755, None))
        files += payload_files("payload", payload_root)
    write_iso(path, files, now=answer.time, label=label)


def component_files(components: Path) -> Iterator[tuple[str, int, bytes | Path | None]]:
    """The integration components in the folder ``components``, as they are on every medium."""
    yield "components/VERSION", 0o644, components / "VERSION"
    yield "components/vmrole-components", 0o755, components / "vmrole-components"


def write_iso(
    path: Path, files: Iterable[tuple[str, int, bytes | Path | None]], *, now: float, label: str = LABEL
) -> None:
    """Write a medium with ``files``: names with ``/``, modes, contents, None for a folder (made as needed, too).

    ``now`` (seconds since 1970) is the time of everything on it. Raises as ``build_medium`` does.
    """
    with _clock(now), contextlib.ExitStack() as open_files:
        iso = pycdlib.PyCdlib()
        # Level 4: no limit on the depth of folders, so that nothing has to be relocated. Joliet for Windows guests.
        iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident=label)
        open_files.callback(iso.close)
        folders = {"": _Folder(iso)}

        def folder(name: str) -> _Folder:
            if name not in folders:
                above, _, last = name.rpartition("/")
                folders[name] = folder(above).folder(last)
            return folders[name]

        for name, mode, content in files:
            if content is None:
                folder(name.rstrip("/"))
            else:
                above, _, last = name.rpartition("/")
                folder(above).file(last, content, mode)
        with _new_file(path) as file:
            iso.write_fp(file)


class _Folder:
    """A folder of the medium, under its three names: ISO 9660 (nobody's), Rock Ridge (Linux), Joliet (Windows)."""

    def __init__(self, iso: Any, iso_path: str = "", joliet_path: str | None = "") -> None:
        self._iso = iso
        self._iso_path = iso_path
        self._joliet_path = joliet_path
        """None: too deep for Joliet, it and all below are in Rock Ridge only."""
        self._count = 0
        self._joliet_names: set[str] = set()

    def folder(self, name: str) -> _Folder:
        names = self._names(name, "D")
        with _mapped(name):
            self._iso.add_directory(names.iso, rr_name=name, joliet_path=names.joliet, file_mode=stat.S_IFDIR | 0o755)
        return _Folder(self._iso, names.iso, names.joliet)

    def file(self, name: str, content: bytes | Path, mode: int) -> None:
        names = self._names(name, "F")
        options = {
            "iso_path": f"{names.iso}.;1",
            "rr_name": name,
            "joliet_path": names.joliet,
            "file_mode": stat.S_IFREG | mode,
        }
        with _mapped(name):
            if isinstance(content, bytes):
                self._iso.add_fp(io.BytesIO(content), len(content), **options)
            else:
                # Opened when it is written, so that thousands of files do not need thousands of descriptors.
                self._iso.add_file(str(content), **options)

    def _names(self, name: str, kind: str) -> SimpleNamespace:
        try:
            size = len(name.encode("utf-8"))
        except UnicodeEncodeError:
            raise PackageError(
                f"the payload has a file name that is not UTF-8: {os.fsencode(name)!r}", hint="rename it"
            ) from None
        if size > _NAME_BYTES:  # some file systems of hosts allow more than Linux guests do
            raise PackageError(f"the payload has a file name of more than {_NAME_BYTES} bytes: {name}")
        # Numbered, because cutting names to what ISO 9660 allows makes them collide. Both other trees have the name.
        self._count += 1
        joliet = None
        if self._joliet_path is not None:
            joliet = f"{self._joliet_path}/{self._joliet_name(name)}"
            if len(joliet.encode("utf-16-be")) > _JOLIET_PATH:
                joliet = None
        return SimpleNamespace(iso=f"{self._iso_path}/{kind}{self._count:07}", joliet=joliet)

    def _joliet_name(self, name: str) -> str:
        """``name`` without what Joliet forbids, shortened before its extension, unique without regard to case."""
        clean = "".join("_" if c in _JOLIET_FORBIDDEN or ord(c) < 32 or ord(c) > 0xFFFF else c for c in name)
        stem, dot, extension = clean.rpartition(".")
        if not dot or not stem or len(extension.encode()) > 16:
            stem, dot, extension = clean, "", ""
        number = 0
        while True:
            mark = f"~{number}" if number else ""
            end = f"{mark}{dot}{extension}"
            # Whole characters only.
            room = _JOLIET_NAME - len(end.encode())
            wanted = stem.encode()[:room].decode("utf-8", "ignore") + end
            if wanted.casefold() not in self._joliet_names:
                self._joliet_names.add(wanted.casefold())
                return wanted
            number += 1


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"{error.filename or name} cannot be read: {error.strerror or error}") from None
    except pycdlib.pycdlibexception.PyCdlibException as error:
        raise HarnessError(f"{name!r} cannot be put on the instance medium: {error}") from error


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is private from its first moment, whole or not there at all."""
    try:
        # Not by umask, and O_EXCL: what is there already may be a link to somewhere else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"the instance medium {path} cannot be made: {error.strerror}") from None
    try:
        with open(descriptor, "w+b") as file:  # noqa: PTH123 (a descriptor)
            os.fchmod(descriptor, 0o600)
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise HostError(
                f"the instance medium {path} cannot be written: {error.strerror or error}",
                hint="'vmrole doctor' shows where space is needed",
            ) from None
        if isinstance(error, pycdlib.pycdlibexception.PyCdlibException):
            raise HarnessError(f"the instance medium cannot be written: {error}") from error
        raise


_clock_lock = threading.Lock()
_CLOCKED = (pycdlib.pycdlib, pycdlib.headervd, pycdlib.dates, pycdlib.utils)


@contextlib.contextmanager
def _clock(now: float) -> Iterator[None]:
    """Make pycdlib, and nothing else, see ``now`` and UTC.

    It takes no time as a parameter, and writes the host's time zone into every entry. What is replaced is the name
    ``time`` inside its own modules, not the module; media are short, so they are simply made one at a time.
    """
    fixed = SimpleNamespace(
        time=lambda: now,
        localtime=lambda seconds=None: time.gmtime(now if seconds is None else seconds),
        gmtime=lambda seconds=None: time.gmtime(now if seconds is None else seconds),
        strftime=time.strftime,
        strptime=time.strptime,
        struct_time=time.struct_time,
    )
    with _clock_lock:
        for module in _CLOCKED:
            vars(module)["time"] = fixed
        try:
            yield
        finally:
            for module in _CLOCKED:
                vars(module)["time"] = time
