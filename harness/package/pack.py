# SPDX-License-Identifier: Apache-2.0
"""Writing packages, byte for byte the same from the same files."""

from __future__ import annotations

import html
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from harness.errors import PackageError, UsageError
from harness.files import is_of_host, refused
from harness.package.archive import CONTENT_TYPES, Entry
from harness.package.folder import Listing, find_document, list_folder

#: Fixed date of every entry: the earliest that the format has.
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_CHUNK: Final = 1 << 20


def pack_extension(folder: Path, target: Path) -> tuple[str, ...]:
    """Pack ``folder`` (one `.resext` at its root, payload below) as a `.resextpkg`, byte for byte the same each time.

    Laid out as the published packages are: the document first, then the payload sorted by path, ``[Content_Types].xml``
    last, with a byte order mark and application/octet-stream for each extension in order of appearance. Dates are
    fixed; of the rights only the executable bit is kept. Gives what was left out, because another program or a run left
    it in the folder. Raises UsageError when there is no such folder, PackageError when it is no extension.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    document = find_document(folder)
    listing = list_folder(folder)
    return _write(listing, target, sorted(listing.entries, key=lambda entry: (entry.path != document, entry.path)))


def pack_definition(folder: Path, target: Path) -> tuple[str, ...]:
    """Pack ``folder`` (one `.resdef` at its root) as a `.resdefpkg`, byte for byte the same each time.

    Files are in the order of the published packages, ``[Content_Types].xml`` last. Gives what was left out. Raises
    UsageError when there is no such folder, PackageError when it is no definition or cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    listing = list_folder(folder)
    names = [entry.path for entry in listing.entries]
    roots = [name for name in names if "/" not in name and name.lower().endswith(".resdef")]
    if len(roots) != 1:
        what = "no resource definition" if not roots else f"{len(roots)} resource definitions: {', '.join(roots[:5])}"
        raise PackageError(f"{folder} has {what}", hint="a package has one .resdef at its root")
    return _write(listing, target, sorted(listing.entries, key=_place))


def _place(entry: Entry) -> tuple[tuple[int, str, str], ...]:
    """The order of the published packages: without case, files of a folder before its folders [PKG]."""
    *folders, name = entry.path.split("/")
    return (*((1, folder.lower(), folder) for folder in folders), (0, name.lower(), name))


def _write(listing: Listing, target: Path, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Write the files to ``target`` in the order of ``entries``, at once: never half an archive.

    Raises PackageError when it cannot be written, HostError when the disk is full.
    """
    scratch = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    files = [entry for entry in entries if entry.path != CONTENT_TYPES]
    try:
        with scratch.open("xb") as sink_file, zipfile.ZipFile(sink_file, "w") as archive:
            for entry in files:
                info = _info(entry.path, entry.executable)
                info.file_size = entry.size  # zipfile decides by it whether the entry needs zip64
                with listing.open(entry.path) as source, archive.open(info, "w") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
            archive.writestr(_info(CONTENT_TYPES, False), content_types(entry.path for entry in files))
        scratch.replace(target)
    except OSError as error:
        if is_of_host(error):
            raise refused(f"{target} cannot be written", error) from None
        raise PackageError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return listing.left_out


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
