# SPDX-License-Identifier: Apache-2.0
"""Writing definition packages; extensions are written by harness.package.archive.pack_extension in the same way."""

from __future__ import annotations

from pathlib import Path

from harness.errors import PackageError, UsageError
from harness.package.archive import CONTENT_TYPES, Entry, folder_entries, write_archive


def pack_definition(folder: Path, target: Path) -> None:
    """Pack ``folder`` (one `.resdef` at its root) as a `.resdefpkg`, byte for byte the same each time.

    Files are in the order of the published packages, ``[Content_Types].xml`` last. Raises UsageError when there is no
    such folder, PackageError when it is no definition or cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    files = [(entry, path) for entry, path in folder_entries(folder) if entry.path != CONTENT_TYPES]
    roots = [entry.path for entry, _ in files if "/" not in entry.path and entry.path.lower().endswith(".resdef")]
    if len(roots) != 1:
        what = "no resource definition" if not roots else f"{len(roots)} resource definitions: {', '.join(roots[:5])}"
        raise PackageError(f"{folder} has {what}", hint="a package has one .resdef at its root")
    files.sort(key=lambda item: _place(item[0]))
    write_archive(files, target)


def _place(entry: Entry) -> tuple[tuple[int, str, str], ...]:
    """The order of the published packages: without case, files of a folder before its folders [PKG]."""
    *folders, name = entry.path.split("/")
    return (*((1, folder.lower(), folder) for folder in folders), (0, name.lower(), name))
