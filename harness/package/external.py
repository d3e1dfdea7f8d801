# SPDX-License-Identifier: Apache-2.0
"""ExternalPayload: files that an extension needs and its package may not carry [DOC dn249757].

``RelativePath`` is where it belongs, below the data package's folder [INFER]; ``Hash`` is its SHA-256, ``URLHint``
where an administrator may get it. Files that are there are verified. Missing ones are taken from a folder that the user
allows, never from the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from harness.errors import PackageError, UsageError
from harness.package.archive import MAX_TOTAL, Entry, safe_name
from harness.package.findings import Findings
from harness.package.jsontree import Node
from harness.package.payload import FolderSource, Payload, Source
from harness.package.reader import Package

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class AddedSource:
    """``base`` and, by their paths in the package, files from elsewhere."""

    base: Source
    added: Mapping[str, Path]

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], IO[bytes]]]:
        with self.base.opened() as below:

            def open_file(path: str) -> IO[bytes]:
                if path not in self.added:
                    return below(path)
                try:
                    return self.added[path].open("rb")
                except OSError as error:
                    raise PackageError(f"{self.added[path]} cannot be read: {error.strerror or error}") from None

            yield open_file


def with_external(package: Package, allowed: Path | None = None) -> Package:
    """``package`` with its external payload verified, and what is missing taken from the folder ``allowed``.

    There a file is found by its RelativePath or by its name alone. One whose hash differs is not taken. Everything that
    is wrong is a finding: ``external-missing``, ``external-hash`` (an error), ``external-hash-format``,
    ``payload-path`` (an error). Raises UsageError when ``allowed`` is no folder, PackageError for a damaged archive.
    """
    if allowed is not None and not allowed.is_dir():
        raise UsageError(f"there is no folder {allowed} with files for the external payload")
    data = package.extension.data_package
    if data is None or not data.external_payload:
        return package
    findings = Findings(package.findings)
    payload = package.payload
    present = {entry.path.lower(): entry for entry in payload.files}
    added: dict[str, Path] = {}
    entries = list(payload.files)
    total = payload.size
    for index, item in enumerate(data.external_payload):
        node = package.document.find(f"/DataPackage/ExternalPayload/{index}") or package.document.root
        if not item.relative_path:
            continue  # missing-field was told
        place = _Place(package, node, findings)
        path = _path(item.relative_path, place)
        if path is None:
            continue
        wanted = _hash(item.hash, place)
        entry = present.get(path.lower())
        if entry is not None:
            with payload.open(entry.path) as stream:
                _agrees(stream, wanted, path, place)
            continue
        source = _search(allowed, path)
        if source is None:
            where = "" if allowed is None else f", and {allowed.name} has none of its name"
            known = " (its URLHint says where it comes from)" if item.url_hint else ""
            what = f"the external payload {path[:100]!r} is not in the package{where}"
            place.report("external-missing", what, f"put it into a folder and allow that{known}")
            continue
        try:
            size = source.stat().st_size
            with source.open("rb") as stream:
                if not _agrees(stream, wanted, path, place):
                    continue
        except OSError as error:
            raise UsageError(f"{source} cannot be read: {error.strerror or error}") from None
        total += size
        if total > MAX_TOTAL:
            raise PackageError(f"the payload of {package.name} has more than {MAX_TOTAL} bytes")
        entry = Entry(path, size, False)
        present[path.lower()] = entry
        entries.append(entry)
        added[payload.prefix + path] = source
    if added:
        base = payload.source if payload.files else FolderSource(package.path)  # nothing is read from an empty one
        files = tuple(sorted(entries, key=lambda entry: entry.path))
        payload = Payload(payload.location, files, AddedSource(base, added), payload.prefix)
    return replace(package, payload=payload, findings=tuple(findings.sorted()))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the findings about one item go."""

    package: Package
    node: Node
    findings: Findings

    def report(self, code: str, sentence: str, hint: str = "", member: str = "RelativePath") -> None:
        node = self.node.get(member) or self.node
        self.findings.add(
            code, sentence, hint=hint, file=self.package.document.file, pointer=node.pointer, line=node.line,
            column=node.column,
        )  # fmt: skip


def _path(written: str, place: _Place) -> str | None:
    """The path below the payload's folder; None, with a finding, when it leads elsewhere."""
    plain = "/".join(part for part in written.replace("\\", "/").split("/") if part not in ("", "."))
    try:
        if written.startswith(("/", "\\")) or not plain:
            raise PackageError("absolute")
        return safe_name(plain, "")
    except PackageError:
        place.report("payload-path", f"the external payload's path {written[:100]!r} leads out of the package")
        return None


def _hash(written: str | None, place: _Place) -> str | None:
    if not written:
        return None
    text = re.sub(r"[\s-]", "", written).lower()
    if _SHA256.fullmatch(text):
        return text
    what = "the hash is not SHA-256, 64 hexadecimal digits: the file is not verified"
    place.report("external-hash-format", what, member="Hash")
    return None


def _agrees(stream: IO[bytes], wanted: str | None, path: str, place: _Place) -> bool:
    """Whether the content has the hash ``wanted``; None is any."""
    if wanted is None:
        return True
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    if digest.hexdigest() == wanted:
        return True
    what = f"the external payload {path[:100]!r} is another file: its SHA-256 is {digest.hexdigest()}"
    place.report("external-hash", what, member="Hash")
    return False


def _search(allowed: Path | None, path: str) -> Path | None:
    """The file in ``allowed``, never through a link that leads out of it."""
    if allowed is None:
        return None
    root = allowed.resolve()
    for name in dict.fromkeys((path, path.rpartition("/")[2])):
        found = (root / name).resolve()
        if found.is_relative_to(root) and found.is_file():
            return found
    return None
