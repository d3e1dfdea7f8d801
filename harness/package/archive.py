# SPDX-License-Identifier: Apache-2.0
"""Package archives: reading hostile ones safely, and writing ours reproducibly.

Packages are plain zip files, nominally OPC: no ``_rels``, ``[Content_Types].xml`` usually last, forward slashes,
deflate, directory entries in some [PKG: 25 published packages, spec section 1]. Nothing is ever extracted by name from
the archive without the name having passed ``safe_name``.
"""

from __future__ import annotations

import html
import io
import re
import secrets
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.errors import PackageError, UsageError
from harness.files import is_of_host, refused
from harness.package.findings import Findings

CONTENT_TYPES: Final = "[Content_Types].xml"
MAX_ENTRIES: Final = 20_000
MAX_TOTAL: Final = 8 * 1024**3  # bytes unpacked; installation media are legitimate payload
MAX_RATIO: Final = 200  # unpacked to packed, looked at beyond RATIO_FREE
RATIO_FREE: Final = 64 * 1024**2
#: Fixed date of every entry: the earliest that the format has.
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_CHUNK: Final = 1 << 20
_DOT: Final = re.compile(r"\A(?:\.[\\/])+")
_RESERVED: Final = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
#: Never packed: what version control and desktops leave in folders.
JUNK: Final = frozenset({".git", ".svn", ".hg", ".DS_Store", "Thumbs.db", "desktop.ini", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a package: path with forward slashes from the package's root, size in bytes, executable bit."""

    path: str
    size: int
    executable: bool


def safe_name(name: str, where: str) -> str:
    """``name`` as a relative path with forward slashes.

    Raises PackageError for absolute and drive paths, ``..``, and names that some file system reads differently.
    """
    path = name.replace("\\", "/")
    parts = path.rstrip("/").split("/")
    shown = ascii(name[:100])
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        raise PackageError(f"{where} has an entry with an absolute path, {shown}", hint="pack relative paths only")
    if ".." in parts:
        raise PackageError(f"{where} has an entry that leads out of it, {shown}")
    if not path.rstrip("/") or any(part in ("", ".") for part in parts) or len(path.encode("utf-8", "replace")) > 1000:
        raise PackageError(f"{where} has an entry whose name is no path, {shown}")
    if any(ord(character) < 32 or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in path):
        raise PackageError(f"{where} has an entry with a control character in its name, {shown}")
    if ":" in path or any(len(part.encode()) > 255 or _RESERVED.fullmatch(part) for part in parts):
        raise PackageError(f"{where} has an entry with a name that Windows does not have, {shown}")
    return path


class Archive:
    """An open package archive; a context manager. Every entry has been looked at before the first one is read.

    ``called`` is what errors call an archive that is no package.
    """

    def __init__(self, path: Path, findings: Findings, *, called: str | None = None) -> None:
        self.where = called or path.name
        try:
            self._size = path.stat().st_size
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, UnicodeError, EOFError, ValueError) as e:
            what = f"cannot be read as a zip archive ({_reason(e)})"
            if called:
                raise PackageError(f"{called} {what}") from None
            raise PackageError(
                f"{self.where} is no package: it {what}", hint="packages are zip files; 'vmrole pack' makes them"
            ) from None
        except OSError as error:
            raise PackageError(f"{called or path} cannot be read: {error.strerror or error}") from None
        try:
            self._infos = self._look(findings)
        except BaseException:
            self._zip.close()
            raise
        self.entries = {
            name: Entry(name, info.file_size, _executable(info))
            for name, info in self._infos.items()
            if not name.endswith("/")
        }

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    def _look(self, findings: Findings) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES:
            raise PackageError(f"{self.where} has {len(infos)} entries; more than {MAX_ENTRIES} are not read")
        found: dict[str, zipfile.ZipInfo] = {}
        folded: dict[str, str] = {}
        total = 0
        for info in infos:
            written = _DOT.sub("", info.orig_filename)
            if not written and info.orig_filename:  # the root itself, as some packers write it
                continue
            name = safe_name(written, self.where)
            shown = ascii(name[:100])
            if "\\" in info.orig_filename:
                findings.add("archive-backslash", f"the entry {shown} has backslashes for separators", file=self.where)
            if info.flag_bits & 0x1:
                raise PackageError(f"{self.where} has an encrypted entry, {shown}", hint="pack it without a password")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "a link" if kind == stat.S_IFLNK else "a special file"
                raise PackageError(f"{self.where} has an entry that is {what}, {shown}", hint="pack files only")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise PackageError(f"{self.where} has an entry that is neither stored nor deflated, {shown}")
            if info.header_offset < 0 or info.compress_size < 0:
                raise PackageError(f"{self.where} is damaged at the entry {shown}")
            key = name.rstrip("/").casefold()
            if key in folded:
                raise PackageError(
                    f"{self.where} has two entries of one name, {folded[key][:100]!a} and {shown}",
                    hint="names must differ in more than upper and lower case",
                )
            folded[key] = name
            found[name] = info
            total += info.file_size
            if info.file_size > RATIO_FREE and info.file_size > MAX_RATIO * max(1, info.compress_size):
                raise PackageError(
                    f"{self.where} has an entry that unpacks to over {MAX_RATIO} times its size, {shown}"
                )
        if total > MAX_TOTAL:
            raise PackageError(f"{self.where} unpacks to {total} bytes; more than {MAX_TOTAL} are not read")
        # against the archive's own size: entries that share their packed bytes cannot hide from it
        if total > RATIO_FREE and total > MAX_RATIO * self._size:
            raise PackageError(f"{self.where} unpacks to over {MAX_RATIO} times its size")
        for name in found:  # a file that is also a folder
            parent = name.rstrip("/")
            while "/" in parent:
                parent = parent.rpartition("/")[0]
                clash = folded.get(parent.casefold())
                if clash is not None and not clash.endswith("/"):
                    raise PackageError(f"{self.where} has {clash[:100]!a} both as a file and as a folder")
        return found

    def read(self, name: str, most: int) -> bytes:
        """The content of an entry of at most ``most`` bytes."""
        if self.entries[name].size > most:
            raise PackageError(f"{name} in {self.where} has {self.entries[name].size} bytes, more than {most}")
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> IO[bytes]:
        """A stream of an entry; a damaged one raises PackageError while it is read."""
        try:
            return io.BufferedReader(_Guarded(self._zip.open(self._infos[name]), name, self.where), _CHUNK)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
            raise PackageError(f"{name} in {self.where} is damaged: {_reason(error)}") from None


class _Guarded(io.RawIOBase):
    """An entry's stream whose errors are ours. zipfile never gives more than the declared size."""

    def __init__(self, stream: IO[bytes], name: str, where: str) -> None:
        self._stream = stream
        self._name = name
        self._where = where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise PackageError(f"{self._name} in {self._where} is damaged: {_reason(error)}") from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _executable(info: zipfile.ZipInfo) -> bool:
    return info.create_system == 3 and bool((info.external_attr >> 16) & 0o111)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:100]
    return text or type(error).__name__


def folder_entries(folder: Path) -> Iterator[tuple[Entry, Path]]:
    """Files below ``folder``, sorted by path. Raises PackageError for links and special files; skips JUNK."""
    count = total = 0
    folded: dict[str, str] = {}
    stack = [folder]
    files: list[Path] = []
    while stack:
        here = stack.pop()
        try:
            children = list(here.iterdir())
        except OSError as error:
            raise PackageError(f"{here} cannot be read: {error.strerror or error}") from None
        for child in children:
            if child.name in JUNK:
                continue
            if child.is_symlink():
                raise PackageError(
                    f"{child} is a link; packages have files only", hint="replace it by what it points to"
                )
            if child.is_dir():
                stack.append(child)
            elif child.is_file():
                files.append(child)
            else:
                raise PackageError(f"{child} is a special file; packages have files only")
            count += 1
            if count > MAX_ENTRIES:
                raise PackageError(f"{folder} has more than {MAX_ENTRIES} files")
    for path in sorted(files, key=lambda item: item.relative_to(folder).as_posix()):
        name = safe_name(path.relative_to(folder).as_posix(), folder.name)
        if name.casefold() in folded:
            raise PackageError(
                f"{folder} has two files of one name, {folded[name.casefold()]} and {name}",
                hint="names must differ in more than upper and lower case",
            )
        folded[name.casefold()] = name
        status = path.stat()
        total += status.st_size
        if total > MAX_TOTAL:
            raise PackageError(f"{folder} has more than {MAX_TOTAL} bytes")
        yield Entry(name, status.st_size, bool(status.st_mode & 0o111)), path


def pack_extension(folder: Path, target: Path) -> None:
    """Pack ``folder`` (one `.resext` at its root, payload below) as a `.resextpkg`, byte for byte the same each time.

    Laid out as the published packages are: the document first, then the payload sorted by path, ``[Content_Types].xml``
    last, with a byte order mark and application/octet-stream for each extension in order of appearance. Dates are
    fixed; of the rights only the executable bit is kept. Raises UsageError when there is no
    such folder, PackageError when it is no extension.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    document = find_document(folder, str(folder)).name
    files = [(entry, path) for entry, path in folder_entries(folder) if entry.path != CONTENT_TYPES]
    files.sort(key=lambda item: (item[0].path != document, item[0].path))
    write_archive(files, target)


def write_archive(files: Sequence[tuple[Entry, Path]], target: Path) -> None:
    """Write ``files`` to ``target`` in their order, the content types last, and at once: never half an archive.

    The same files give the same bytes. Raises PackageError when it cannot be written, HostError when the disk is full.
    """
    scratch = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    try:
        with scratch.open("xb") as sink_file, zipfile.ZipFile(sink_file, "w") as archive:
            for entry, path in files:
                info = _info(entry.path, entry.executable)
                info.file_size = entry.size  # zipfile decides by it whether the entry needs zip64
                with path.open("rb") as source, archive.open(info, "w") as sink:
                    while block := source.read(_CHUNK):
                        sink.write(block)
            archive.writestr(_info(CONTENT_TYPES, False), content_types(entry.path for entry, _ in files))
        scratch.replace(target)
    except OSError as error:
        if is_of_host(error):
            raise refused(f"{target} cannot be written", error) from None
        raise PackageError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        scratch.unlink(missing_ok=True)


def _info(name: str, executable: bool) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix: otherwise the executable bit is lost
    info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return info


def content_types(names: Iterator[str]) -> bytes:
    """``[Content_Types].xml`` for files of these names; those without an extension get an Override each, as in OPC."""
    suffixes: dict[str, None] = {}
    bare: list[str] = []
    for name in names:
        _, dot, suffix = name.rpartition("/")[2].rpartition(".")
        if dot and suffix:
            suffixes[suffix] = None
        else:
            bare.append(name)
    kind = "application/octet-stream"
    rows = [f'<Default Extension="{html.escape(suffix)}" ContentType="{kind}" />' for suffix in suffixes]
    rows += [f'<Override PartName="/{html.escape(name)}" ContentType="{kind}" />' for name in bare]
    space = "http://schemas.openxmlformats.org/package/2006/content-types"
    text = f'<?xml version="1.0" encoding="utf-8"?><Types xmlns="{space}">{"".join(rows)}</Types>'
    return b"\xef\xbb\xbf" + text.encode("utf-8")


def find_document(folder: Path, where: str) -> Path:
    """The one `.resext` at the root of a folder. Raises PackageError when there is none or more than one."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".resext" and path.is_file())
    return folder / the_document([path.name for path in found], where, _definition(p.name for p in folder.iterdir()))


def _definition(names: Iterator[str]) -> bool:
    return any(name.lower().endswith(".resdef") for name in names)


def the_document(names: list[str], where: str, definition: bool) -> str:
    """The only name of a list. Raises PackageError with what is there instead."""
    if len(names) == 1:
        return names[0]
    if names:
        raise PackageError(
            f"{where} has {len(names)} resource extensions: {', '.join(names[:5])}",
            hint="a package has one .resext at its root",
        )
    if definition:
        raise PackageError(
            f"{where} is a resource definition, and a resource extension is wanted here",
            hint="give the resource extension (.resextpkg, .resext) that it references",
        )
    raise PackageError(
        f"{where} has no resource extension",
        hint="put one .resext document (or the .resdef of a definition) at its root",
    )
