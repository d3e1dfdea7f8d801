# SPDX-License-Identifier: Apache-2.0
"""``read_package``: a package, however it is kept, as one object."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import PackageError, UsageError
from harness.masking import Masker
from harness.package.archive import CONTENT_TYPES, Archive, Entry, the_document
from harness.package.findings import Finding, Findings, one_line
from harness.package.folder import Listing, find_document, list_folder
from harness.package.jsontext import MAX_BYTES, JsonError, read_json
from harness.package.jsontree import Document
from harness.package.names import MAX_PATH, Tree, composed, folded, is_junk, spelt_as
from harness.package.parameters import Parameters, document_secrets
from harness.package.payload import WINDOWS_FOLDER, FolderSource, Payload, Source, ZipSource

if TYPE_CHECKING:
    from harness.package.models import ResourceExtension

Kind = Literal["archive", "folder", "document"]


_NOTHING: Final = Listing(Path(), (), {}, ())


@dataclass(frozen=True, slots=True)
class Package:
    """A resource extension that was read.

    ``path`` is what the user named, ``name`` the extension's own name (the document's file name when it has none),
    ``document`` the text and tree of the `.resext` with positions, ``extension`` its model, ``files`` every file of the
    package (root-relative), ``findings`` all that was noticed so far.
    """

    path: Path
    kind: Kind
    name: str
    document: Document
    extension: ResourceExtension
    payload: Payload
    files: tuple[Entry, ...]
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """The document as text, without a byte order mark."""
        return self.document.text


def read_package(path: Path) -> Package:
    """Read a `.resextpkg`, a folder, or a `.resext`/`.json` document.

    A bare document takes its payload from the folder ``DataPackage.Location`` beside it, if that is there.
    Raises UsageError when ``path`` does not exist, PackageError when it cannot be read as a resource extension.
    Everything else that is wrong is a finding.
    """
    path = Path(path)
    findings = Findings()
    suffix = path.suffix.lower()
    if suffix in (".resdefpkg", ".resdef", ".viewdef"):
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")
        raise PackageError(
            f"{path.name} is a resource definition, and a resource extension is wanted here",
            hint="give the resource extension (.resextpkg, .resext) that it references",
        )
    try:
        if path.is_dir():
            return _from_folder(path, findings)
        if not path.exists():
            raise UsageError(
                f"there is no file or folder {path}", hint="give a .resextpkg, a .resext or a folder with one"
            )
        if not path.is_file():
            raise PackageError(f"{path} is neither a file nor a folder")
        with path.open("rb") as stream:
            start = stream.read(4)
            if suffix == ".resextpkg" or start[:2] == b"PK":
                return _from_archive(path, findings)
            return _from_document(path, start + stream.read(MAX_BYTES + 1), findings)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror or error}") from None


def _from_archive(path: Path, findings: Findings) -> Package:
    with Archive(path, findings) as archive:
        names = [name for name in archive.entries if "/" not in name and _is_document(name)]
        definition = any(name.lower().endswith(".resdef") for name in archive.entries)
        deeper = [] if names else [name for name in archive.entries if _is_document(name)]
        if deeper:
            raise PackageError(
                f"{path.name} has its resource extension in a folder, {deeper[0][:100]}",
                hint="pack what is in the folder, not the folder: the .resext belongs to the root",
            )
        name = the_document(names, path.name, definition)
        if CONTENT_TYPES not in archive.entries:
            findings.add("content-types-missing", f"{path.name} has no {CONTENT_TYPES}", file=path.name)
        archive.verify(findings)
        data = archive.read(name, MAX_BYTES)
        files = tuple(sorted(archive.entries.values(), key=lambda entry: entry.path))
    return _package(path, "archive", name, data, files, ZipSource(path), findings)


def _is_document(path: str) -> bool:
    return path.lower().endswith(".resext") and not any(map(is_junk, path.split("/")))


def _from_folder(path: Path, findings: Findings) -> Package:
    name = find_document(path)
    listing = list_folder(path)
    data = listing.read(name, MAX_BYTES + 1)
    return _package(path, "folder", name, data, listing.entries, FolderSource(listing), findings)


def _from_document(path: Path, data: bytes, findings: Findings) -> Package:
    try:
        return _package(path, "document", path.name, data, (), FolderSource(_NOTHING), findings)
    except JsonError:
        if path.suffix.lower() in (".resext", ".json"):
            raise
        raise PackageError(
            f"{path.name} is neither a package nor a document of one",
            hint="packages are .resextpkg and .resdefpkg; documents .resext, .resdef, .viewdef, .json, .csdef, .cscfg",
        ) from None


def _package(
    path: Path, kind: Kind, name: str, data: bytes, files: tuple[Entry, ...], source: Source, findings: Findings
) -> Package:
    from harness.package.check import build_extension  # pydantic, which takes a while to import

    document = read_json(data, name)
    extension = build_extension(document)
    location = (extension.data_package.location if extension.data_package else None) or ""
    prefix = _location(location, name)
    if kind == "document" and prefix:
        # pairs of the document and its folder; what else lies beside a bare document is not its business
        for spelt in (prefix, *(unicodedata.normalize(form, prefix) for form in ("NFC", "NFD"))):
            if (path.parent / spelt).is_dir() and not _has_link(path.parent, spelt):
                listing = list_folder(path.parent, spelt)
                files, source = listing.entries, FolderSource(listing)
                break
    payload = _payload(document, location, prefix, files, source)
    # snippets of the text in findings must not show the passwords that the document has
    masker = Masker(document_secrets(document, Parameters()))
    findings.extend(replace(finding, sentence=masker.text(finding.sentence)) for finding in document.findings)
    title = title_of(extension.name, name)
    return Package(path, kind, title, document, extension, payload, files, tuple(findings.sorted()))


def title_of(name: str | None, file: str) -> str:
    """A document's own name as sentences and titles show it, else that of its file."""
    return " ".join(one_line((name or "")[:100]).split()) or Path(file).stem


def _location(location: str, where: str) -> str:
    """``DataPackage.Location`` as the prefix of its files, "" when there is none."""
    parts = [part for part in location.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or ":" in location or location.startswith(("/", "\\")):
        raise PackageError(
            f"{where}: the payload location {location[:100]!r} leads out of the package",
            hint="DataPackage.Location is a folder relative to the package's root",
        )
    return "/".join(parts) + "/" if parts else ""


def _payload(document: Document, location: str, prefix: str, files: tuple[Entry, ...], source: Source) -> Payload:
    prefix = composed(prefix)
    if prefix:
        found = [entry for entry in files if entry.path.startswith(prefix)]
    else:  # "." is the root: everything but the document and the content types
        own = (composed(document.file), CONTENT_TYPES)
        found = [entry for entry in files if location.strip() and entry.path not in own]
    if prefix and not found:  # Windows finds the folder in other letters too
        depth, wanted = prefix.count("/"), folded(prefix)
        like = next((entry.path for entry in files if folded(entry.path).startswith(wanted)), None)
        if like is not None:
            prefix = "/".join(like.split("/", depth)[:depth]) + "/"
            found = [entry for entry in files if entry.path.startswith(prefix)]
        else:
            node = document.find("/DataPackage/Location") or document.root
            document.report("payload-missing", f"the payload folder {location[:100]!r} does not exist", node)
    # commands find files by the names that the document has
    form = spelt_as(document.text)
    entries = tuple(
        Entry(unicodedata.normalize(form, entry.path[len(prefix) :]), entry.size, entry.executable) for entry in found
    )
    _look_for_parts(document, entries)
    _look_for_long(document, entries)
    parts = document.find("/ExtensionSettings/ApplicationProfile/ApplicationPayload")
    if not location.strip() and parts is not None and isinstance(parts.value, list) and parts.value:
        what = "there are application payloads, and no DataPackage with a Location that they are in"
        hint = "add DataPackage, or remove ApplicationPayload"
        document.report("payload-missing", what, parts, hint=hint)
    return Payload(location, entries, source, prefix)


def _look_for_parts(document: Document, entries: tuple[Entry, ...]) -> None:
    """Every ApplicationPayload is a folder or a file of the payload [GUIDE 18274]."""
    parts = document.find("/ExtensionSettings/ApplicationProfile/ApplicationPayload")
    tree = Tree(entry.path for entry in entries)
    for part in parts.value if parts is not None and isinstance(parts.value, list) else ():
        node = part.get("RelativePath")
        if node is None or not isinstance(node.value, str) or "[" in node.value:
            continue
        path = node.value.replace("\\", "/")
        if path.startswith("/") or ":" in path or ".." in path.split("/"):
            document.report("payload-path", f"the payload path {node.value[:100]!r} leads out of the package", node)
        elif entries:
            path = "/".join(piece for piece in path.split("/") if piece not in ("", "."))
            if path and path not in tree:
                document.report("payload-missing", f"the payload has no {node.value[:100]!r}", node)


def _look_for_long(document: Document, entries: tuple[Entry, ...]) -> None:
    """Windows' own limit of a path, in the folder that the payload has here."""
    windows = document.find("/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile")
    if windows is None or windows.value is None:
        return
    most = MAX_PATH - len(WINDOWS_FOLDER) - 1
    long = [
        entry.path
        for entry in entries
        if len(entry.path) > most // 2 and len(entry.path.encode("utf-16-le")) // 2 > most
    ]
    if long:
        others = f" (and {len(long) - 1} others)" if len(long) > 1 else ""
        what = f"{long[0][:100]!a}{others} has a path of more than {MAX_PATH} characters in a Windows guest"
        node = document.find("/DataPackage/Location") or document.root
        document.report("path-long", what, node, hint="shorten the names of its folders")


def _has_link(folder: Path, below: str) -> bool:
    parts = below.rstrip("/").split("/")
    return any((folder / "/".join(parts[:count])).is_symlink() for count in range(1, len(parts) + 1))
