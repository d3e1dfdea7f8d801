# SPDX-License-Identifier: Apache-2.0
"""Package archives: reading hostile ones safely, and writing ours reproducibly.

Packages are plain zip files, nominally OPC: no ``_rels``, ``[Content_Types].xml`` usually last, forward slashes,
deflate, directory entries in some [PKG: 25 published packages, spec section 1]. Nothing is ever extracted by name from
the archive without the name having passed ``safe_name``.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.errors import PackageError
from harness.package.findings import Findings
from harness.package.names import check_clashes, is_junk, safe_name

CONTENT_TYPES: Final = "[Content_Types].xml"
MAX_ENTRIES: Final = 20_000
MAX_TOTAL: Final = 8 * 1024**3  # bytes unpacked; installation media and preallocated databases are legitimate payload
_CHUNK: Final = 1 << 20
#: APPNOTE 4.4.5, what packers write beside stored and deflated.
_METHODS: Final = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "BZIP2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 94: "MP3",
    95: "XZ", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES encryption",
}  # fmt: skip
_UTF8: Final = 0x800  # the bit that says so of an entry's name
_DESCRIPTOR: Final = 0x8  # the bit for sizes that come after the content
_ENCRYPTED: Final = 0x1 | 0x40
_UNICODE_PATH: Final = 0x7075
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_COPY_AGAIN: Final = "copy the package again, or pack it anew"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a package: path with forward slashes from the package's root, size in bytes, executable bit."""

    path: str
    size: int
    executable: bool


class Archive:
    """An open package archive; a context manager. Every entry has been looked at before the first one is read.

    ``called`` is what errors call an archive that is no package.
    """

    def __init__(self, path: Path, findings: Findings, *, called: str | None = None) -> None:
        self.where = called or path.name
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, UnicodeError, EOFError, ValueError) as e:
            what = f"cannot be read as a zip archive ({_no_zip(path) or _reason(e)})"
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
        names: list[str] = []
        found: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            written = _written_name(info)
            while written.startswith(("./", ".\\")):
                written = written[2:]
            if not written and info.orig_filename:  # the root itself, as some packers write it
                continue
            name = safe_name(written, self.where)
            self._look_at(info, ascii(name[:100]))
            self._note(info, written, findings)
            names.append(name)
            found[name] = info
        total = sum(info.file_size for info in found.values())
        if total > MAX_TOTAL:
            raise PackageError(f"{self.where} unpacks to {total} bytes; more than {MAX_TOTAL} are not read")
        check_clashes(names, self.where, "entries")
        return found

    def _look_at(self, info: zipfile.ZipInfo, shown: str) -> None:
        if info.flag_bits & _ENCRYPTED:
            raise PackageError(f"{self.where} has an encrypted entry, {shown}", hint="pack it without a password")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise PackageError(f"{self.where} has an entry that is {what}, {shown}", hint="pack files only")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = _METHODS.get(info.compress_type, f"the method {info.compress_type}")
            raise PackageError(
                f"{self.where} has an entry that is packed with {method}, {shown}; packages have Deflate only",
                hint="pack it with 'vmrole pack', or with 7-Zip and -mm=Deflate",
            )
        if info.volume:
            raise PackageError(
                f"{self.where} is one part of an archive in several parts", hint="pack it as one archive"
            )
        if info.header_offset < 0 or info.compress_size < 0:
            raise PackageError(f"{self.where} is damaged at the entry {shown}", hint=_COPY_AGAIN)

    def _note(self, info: zipfile.ZipInfo, written: str, findings: Findings) -> None:
        shown = ascii(written[:100])
        if "\\" in written:
            findings.add("archive-backslash", f"the entry {shown} has backslashes for separators", file=self.where)
        if written == info.orig_filename and not written.isascii() and not info.flag_bits & _UTF8:
            what = f"the name of the entry {written[:100]!r} is not marked as UTF-8; it is read in the code page 437"
            findings.add("archive-name-encoding", what, hint="pack it with 'vmrole pack'", file=self.where)
        if any(map(is_junk, written.split("/", 8)[:8])):
            what = f"the entry {shown} is what another program leaves in folders"
            findings.add("archive-junk", what, hint="pack it with 'vmrole pack'", file=self.where)

    def verify(self, findings: Findings) -> None:
        """Read every entry once. Raises PackageError for one that is damaged, or told in two ways, or shares its bytes
        with another one: of such an archive each program unpacks something else."""
        ordered = sorted(self._infos.items(), key=lambda item: item[1].header_offset)
        if ordered and ordered[0][1].header_offset > 0:
            what = f"{ordered[0][1].header_offset} bytes come before the archive's first entry"
            findings.add("archive-data-before", what, hint="pack it with 'vmrole pack'", file=self.where)
        end = 0
        with self._path.open("rb") as raw:
            for name, info in ordered:
                if info.header_offset < end:
                    raise PackageError(
                        f"{self.where} has entries that share their bytes, {name[:100]!a} is one of them",
                        hint="this is how archives are made that unpack to more than they have; pack it anew",
                    )
                end = self._check_header(raw, name, info)
        for name, info in ordered:
            if not name.endswith("/") and (info.file_size or info.CRC):
                self._check_content(name, info.file_size)

    def _check_header(self, raw: IO[bytes], name: str, info: zipfile.ZipInfo) -> int:
        """Where the entry ends. What an entry's own header says has to be what the archive's directory says."""
        raw.seek(info.header_offset)
        header = raw.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise self._damaged(name, "its header is not where the archive's directory says")
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
        told = method == info.compress_type
        if not (flags | info.flag_bits) & _DESCRIPTOR:
            pairs = ((crc, info.CRC), (packed, info.compress_size), (size, info.file_size))
            told = told and all(one in (0, 0xFFFFFFFF, other) for one, other in pairs)
        if not told:
            raise self._damaged(name, "its header and the archive's directory differ")
        return info.header_offset + _LOCAL.size + int(name_length) + int(extra_length) + info.compress_size

    def _check_content(self, name: str, size: int) -> None:
        with self.open(name) as stream:
            read = 0
            while block := stream.read(_CHUNK):
                read += len(block)
        if read != size:
            raise self._damaged(name, f"it has {read} bytes and not {size}")

    def _damaged(self, name: str, why: str) -> PackageError:
        return PackageError(f"{name} in {self.where} is damaged: {why}", hint=_COPY_AGAIN)

    def read(self, name: str, most: int) -> bytes:
        """The content of an entry of at most ``most`` bytes."""
        if self.entries[name].size > most:
            raise PackageError(f"{name} in {self.where} has {self.entries[name].size} bytes, more than {most}")
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> IO[bytes]:
        """A stream of an entry; a damaged one raises PackageError while it is read."""
        try:
            return io.BufferedReader(_Guarded(self._zip.open(self._infos[name]), name, self._damaged), _CHUNK)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
            raise self._damaged(name, _reason(error)) from None


class _Guarded(io.RawIOBase):
    """An entry's stream whose errors are ours. zipfile never gives more than the declared size."""

    def __init__(self, stream: IO[bytes], name: str, damaged: Callable[[str, str], PackageError]) -> None:
        self._stream = stream
        self._name = name
        self._damaged = damaged

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise self._damaged(self._name, _reason(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _written_name(info: zipfile.ZipInfo) -> str:
    """The entry's name. One that is not marked as UTF-8 has its true form in a field of its own (Info-ZIP, WinZip,
    older 7-Zip), or is UTF-8 all the same (macOS), or in the code page of the packer's computer, which nobody knows."""
    name = info.orig_filename
    if info.flag_bits & _UTF8:
        return name
    raw = name.encode("ascii" if name.isascii() else "cp437")
    field = _unicode_path(info.extra, raw) if info.extra else None
    if field is not None:
        return field
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return name


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in the field 0x7075: version 1, the CRC-32 of the name that it is of, UTF-8 (APPNOTE 4.6.9)."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(data) > 5 and data[0] == 1:
            (crc,) = struct.unpack_from("<I", data, 1)
            if crc == zlib.crc32(raw):
                try:
                    return data[5:].decode("utf-8")
                except UnicodeDecodeError:
                    return None
    return None


def _no_zip(path: Path) -> str | None:
    """Why a file is no zip archive, where it was one or is a part of one."""
    with path.open("rb") as stream:
        start = stream.read(4)
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - (1 << 16) - 22))
        rest = stream.read()
    if not size:
        return "it is empty"
    end = rest.rfind(b"PK\5\6")
    if start == b"PK\7\10" or (end >= 0 and rest[end + 4 : end + 8] not in (bytes(4), b"\xff\xff\xff\xff", b"")):
        return "it is one part of an archive in several parts"
    if start == b"PK\3\4" and end < 0:
        return "its end is missing: it was not copied as a whole"
    return None


def _executable(info: zipfile.ZipInfo) -> bool:
    return info.create_system == 3 and bool((info.external_attr >> 16) & 0o111)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:100]
    return text or type(error).__name__


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
