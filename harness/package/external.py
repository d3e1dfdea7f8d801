# SPDX-License-Identifier: Apache-2.0
"""ExternalPayload: files that an extension needs and its package may not carry [DOC dn249757].

``RelativePath`` is where it belongs, below the data package's folder [INFER]; ``Hash`` is its SHA-256, ``URLHint``
where an administrator may get it. Files that are there are verified. Missing ones are taken from a folder or an address
that the user allows, and from nowhere else: a URLHint alone allows nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote, urlsplit

from harness.errors import PackageError, UsageError
from harness.package.archive import MAX_TOTAL, Entry
from harness.package.findings import Findings
from harness.package.folder import open_below
from harness.package.jsontree import Node
from harness.package.names import composed, folded, safe_name
from harness.package.payload import Payload, Source
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
                # no link was in the way when it was found
                return open_below(Path("/"), self.added[path].as_posix().lstrip("/"))

            yield open_file


Fetch = Callable[[str, Sequence[str], str | None], Path | None]
"""From an address, the allowed ones and the wanted hash to a file; None when there is none at that address."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where missing files may be taken from. ``fetch`` loads from addresses; without it there is no network."""

    folders: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    fetch: Fetch | None = None

    @classmethod
    def of(cls, texts: Sequence[str], fetch: Fetch | None = None) -> Places:
        """From what the user wrote, folders and addresses. Raises UsageError for what is neither."""
        urls = [text for text in texts if "://" in text]
        if urls:
            from harness.package.download import check_url

            urls = [check_url(url) for url in urls]
        folders = [Path(text) for text in texts if "://" not in text]
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"there is no folder {folder} with files for the external payload")
        return cls(tuple(folders), tuple(urls), fetch)

    def find(self, path: str, url_hint: str | None, wanted: str | None) -> tuple[Path, str | None] | None:
        """A file for ``path`` and the address that it was loaded from; None when no place has it."""
        for folder in self.folders:
            found = _search(folder, path)
            if found is not None:
                return found, None
        for url in self._addresses(path, url_hint) if self.fetch else ():
            assert self.fetch is not None
            found = self.fetch(url, self.urls, wanted)
            if found is not None:
                return found, url
        return None

    def _addresses(self, path: str, url_hint: str | None) -> list[str]:
        """Where ``path`` may be: the hint where it is allowed, else below each allowed address as in a folder."""
        if not self.urls:
            return []
        from harness.package.download import is_below

        if url_hint and any(is_below(url_hint, base) for base in self.urls):
            return [url_hint]
        name = path.rpartition("/")[2]
        found: dict[str, None] = {}
        for base in self.urls:
            last = urlsplit(base).path.rpartition("/")[2]
            if last and last.lower() in (name.lower(), quote(name).lower()):
                found[base] = None
            elif not urlsplit(base).query:
                stem = base if base.endswith("/") else base + "/"
                found.update(dict.fromkeys((stem + quote(path), stem + quote(name))))
        return list(found)


def with_external(package: Package, places: Places | None = None) -> Package:
    """``package`` with its external payload verified, and what is missing taken from ``places``.

    In a folder a file is found by its RelativePath or by its name alone. One whose hash differs is not taken.
    Everything that is wrong is a finding: ``external-missing``, ``external-hash`` (an error),
    ``external-hash-format``, ``external-unverified``, ``payload-path`` (an error). Raises PackageError for a damaged
    archive and for an address that leads elsewhere, HostError when an address cannot be reached.
    """
    places = places or Places()
    data = package.extension.data_package
    if data is None or not data.external_payload:
        return package
    findings = Findings(package.findings)
    payload = package.payload
    present = {folded(entry.path): entry for entry in payload.files}
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
        entry = present.get(folded(path))
        if entry is not None:
            with payload.open(entry.path) as stream:
                _agrees(stream, wanted, path, place)
            continue
        taken = places.find(path, item.url_hint, wanted)
        if taken is None:
            where = [folder.name or str(folder) for folder in places.folders]
            where += ["no allowed address"] if places.fetch and places.urls else []
            lacks = f", and {' and '.join(where)} has none of its name" if where else ""
            known = " (its URLHint says where it comes from)" if item.url_hint else ""
            what = f"the external payload {path[:100]!r} is not in the package{lacks}"
            place.report("external-missing", what, f"put it into a folder and allow that{known}")
            continue
        source, address = taken
        try:
            size = source.stat().st_size
            with open_below(Path("/"), source.as_posix().lstrip("/")) as stream:
                if not _agrees(stream, wanted, path, place):
                    continue
        except OSError as error:
            raise UsageError(f"{source} cannot be read: {error.strerror or error}") from None
        if address and wanted is None:
            what = f"the external payload {path[:100]!r} was loaded, and no hash says that it is the right file"
            place.report("external-unverified", what, "add Hash, the SHA-256 of the file")
        total += size
        if total > MAX_TOTAL:
            raise PackageError(f"the payload of {package.name} has more than {MAX_TOTAL} bytes")
        entry = Entry(path, size, False)
        present[folded(path)] = entry
        entries.append(entry)
        added[composed(payload.prefix + path)] = source
    if added:
        base = payload.source
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
    with contextlib.suppress(ValueError):  # the page does not say how it is written [GUESS]
        if len(digest := base64.b64decode(written.strip(), validate=True)) == 32:
            return digest.hex()
    what = "the hash is not SHA-256, 64 hexadecimal digits or its base64: the file is not verified"
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


def _search(allowed: Path, path: str) -> Path | None:
    """The file in ``allowed``, never through a link that leads out of it."""
    root = allowed.resolve()
    for name in dict.fromkeys((path, path.rpartition("/")[2])):
        found = (root / name).resolve()
        if found.is_relative_to(root) and found.is_file():
            return found
    return None
