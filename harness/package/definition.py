# SPDX-License-Identifier: Apache-2.0
"""``read_definition``: a resource definition with its view and texts, however it is kept.

A `.resdefpkg` has one `.resdef` and one `.viewdef` at its root, icons, and a folder for each language with one
`.resources` file, a JSON object of texts [GUIDE 18273, PKG]. A folder is the same unpacked. A bare `.resdef` takes the
view of its name beside it, or the only one there, and the languages' folders of that place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.errors import PackageError, UsageError
from harness.masking import Masker
from harness.package.archive import CONTENT_TYPES, Archive, Entry
from harness.package.credentials import few_enough
from harness.package.findings import Finding, Findings
from harness.package.folder import list_folder, open_below
from harness.package.jsontext import MAX_BYTES, read_json
from harness.package.jsontree import Document
from harness.package.names import is_junk
from harness.package.reader import Kind, Package, read_package, title_of

if TYPE_CHECKING:
    from harness.package.definition_models import ResourceConfiguration, ResourceDefinition, VirtualMachineRole
    from harness.package.view_models import ViewDefinition

#: Languages that are read; the published packages have one.
MAX_LANGUAGES: Final = 100


@dataclass(frozen=True, slots=True)
class Definition:
    """A resource definition that was read.

    ``path`` is what the user named, ``name`` the definition's own name, ``document`` and ``view_document`` the texts
    with their places, ``definition`` and ``view`` their models, ``resources`` the texts by language (as its folder is
    called) and key, ``files`` every file of the package, ``findings`` all that was noticed so far. ``view`` is None
    when there is none.
    """

    path: Path
    kind: Kind
    name: str
    document: Document
    definition: ResourceDefinition
    view: ViewDefinition | None
    view_document: Document | None
    resources: Mapping[str, Mapping[str, str]]
    files: tuple[Entry, ...]
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """The document as text, without a byte order mark."""
        return self.document.text

    def localised(self, text: str, language: str | None = None) -> str:
        """``text`` with ``{{Key}}`` replaced by the language's text: the asked, the default, or any one that has it."""
        from harness.package.check_definition import KEY

        wanted = (language, self.view.default_language_code if self.view else None)
        lower = {name.lower(): table for name, table in self.resources.items()}
        tables = [lower[name.lower()] for name in wanted if name and name.lower() in lower]
        tables += list(self.resources.values())
        return KEY.sub(
            lambda found: next((table[found[1]] for table in tables if found[1] in table), found[0]), text
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Configuration:
    """A ResourceConfiguration that was read; ``values`` are its ParameterValues, secret ones among them."""

    document: Document
    configuration: ResourceConfiguration = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A VirtualMachineRole that was read: what the service's interface takes and gives."""

    document: Document
    role: VirtualMachineRole = field(repr=False)
    findings: tuple[Finding, ...]


def read_any(path: Path) -> Package | Definition:
    """What `check` and `run` are given: an extension or a definition, told apart by name or content.

    Raises UsageError when there is no such path, PackageError when it is neither.
    """
    path = Path(path)
    return read_definition(path) if is_definition(path) else read_package(path)


def is_definition(path: Path) -> bool:
    """Whether ``path`` is meant to be a definition; extensions and what cannot be told are not."""
    suffix = path.suffix.lower()
    if suffix in (".resdefpkg", ".resdef"):
        return True
    try:
        if path.is_dir():
            suffixes = {child.suffix.lower() for child in path.iterdir() if not is_junk(child.name)}
            return ".resdef" in suffixes and ".resext" not in suffixes
        if suffix in (".resextpkg", ".resext") or not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(2)
        if start == b"PK":
            with Archive(path, Findings()) as archive:
                names = [name.lower() for name in archive.entries if "/" not in name]
            return any(n.endswith(".resdef") for n in names) and not any(n.endswith(".resext") for n in names)
        if suffix != ".json":
            return False
        root = read_json(_content(path), path.name).root.value
        return isinstance(root, dict) and "IntrinsicSettings" in root and "ExtensionSettings" not in root
    except OSError:
        return False


def read_definition(path: Path) -> Definition:
    """Read a `.resdefpkg`, a folder, or a `.resdef`/`.json` document.

    Raises UsageError when ``path`` does not exist, PackageError when it cannot be read as a resource definition.
    """
    path = Path(path)
    findings = Findings()
    try:
        if path.is_dir():
            listing = list_folder(path)
            return _definition(
                path, "folder", listing.entries, lambda entry: listing.read(entry.path, MAX_BYTES + 1), findings
            )
        if not path.exists():
            raise UsageError(
                f"there is no file or folder {path}", hint="give a .resdefpkg, a .resdef or a folder with one"
            )
        if not path.is_file():
            raise PackageError(f"{path} is neither a file nor a folder")
        with path.open("rb") as stream:
            packed = stream.read(2) == b"PK"
        if packed or path.suffix.lower() == ".resdefpkg":
            with Archive(path, findings) as archive:
                if CONTENT_TYPES not in archive.entries:
                    findings.add("content-types-missing", f"{path.name} has no {CONTENT_TYPES}", file=path.name)
                archive.verify(findings)
                entries = tuple(archive.entries.values())
                return _definition(
                    path, "archive", entries, lambda entry: archive.read(entry.path, MAX_BYTES), findings
                )
        beside = _beside(path)

        def content(entry: Entry) -> bytes:
            if entry.path == path.name:  # the user named it, so it may be a link
                return _content(path)
            with open_below(path.parent, entry.path) as stream:
                return stream.read(MAX_BYTES + 1)

        return _definition(path, "document", beside, content, findings)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror or error}") from None


def read_configuration(path: Path) -> Configuration:
    """Read a ResourceConfiguration. Raises UsageError or PackageError as ``read_definition`` does."""
    from harness.package.definition_models import ResourceConfiguration
    from harness.package.nested import read_nested
    from harness.package.validate import compare, validate

    document = _document(path, "a resource configuration", ("ParameterValues", "Version"))
    model = validate(ResourceConfiguration, document)
    compare(model, document.root, document, "the resource configuration")
    node = document.root.get("ParameterValues")
    nested = read_nested(node) if node is not None else None
    values = nested.root.plain() if nested is not None else {}
    # which values are secret is the definition's to say: none of them is shown
    leaves = [leaf.value for leaf in nested.root.walk() if isinstance(leaf.value, str)] if nested is not None else []
    masker = Masker(few_enough({*leaves, *(leaf.partition(":")[2] for leaf in leaves)}, document.file))
    found = tuple(replace(finding, sentence=masker.text(finding.sentence)) for finding in document.findings.sorted())
    return Configuration(document, model, values, found)


def read_instance(path: Path) -> Instance:
    """Read a VirtualMachineRole. Raises UsageError or PackageError as ``read_definition`` does."""
    from harness.package.definition_models import VirtualMachineRole
    from harness.package.validate import compare, validate

    document = _document(path, "an instance of a VM role", ("ResourceDefinition", "ProvisioningState"))
    model = validate(VirtualMachineRole, document)
    compare(model, document.root, document, "the instance")
    return Instance(document, model, tuple(document.findings.sorted()))


def _document(path: Path, noun: str, marks: tuple[str, ...]) -> Document:
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        document = read_json(_content(path), path.name)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror or error}") from None
    root = document.root.value
    if not isinstance(root, dict) or not {mark.lower() for mark in marks} & {key.lower() for key in root}:
        raise PackageError(f"{path.name} is not {noun}: it has no {' or '.join(marks)}")
    return document


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _beside(path: Path) -> tuple[Entry, ...]:
    """A bare definition, its view and its languages: nothing else of the folder is looked at."""
    found = [path]
    views = sorted(other for other in path.parent.iterdir() if other.suffix.lower() == ".viewdef" and other.is_file())
    same = [view for view in views if view.stem.lower() == path.stem.lower()]
    for view in (same or (views if len(views) == 1 else []))[:1]:
        found.append(view)
        for text in sorted(path.parent.glob("*/*.resources"))[: 2 * MAX_LANGUAGES]:
            if text.is_file() and not text.is_symlink() and not text.parent.is_symlink():
                found.append(text)
    return tuple(Entry(file.relative_to(path.parent).as_posix(), file.stat().st_size, False) for file in found)


def _definition(
    path: Path, kind: Kind, entries: tuple[Entry, ...], content: Callable[[Entry], bytes], findings: Findings
) -> Definition:
    from harness.package.check_definition import build_definition, build_view, check_together, secrets_of

    by_path = {entry.path: entry for entry in entries}
    suffixes = (".resdef", ".json") if kind == "document" else (".resdef",)
    name = _only(by_path, suffixes, path, needed=True) if kind != "document" else path.name
    assert name is not None
    document = read_json(content(by_path[name]), name)
    definition = build_definition(document)
    view_name = _only(by_path, (".viewdef",), path, needed=False)
    view = view_document = None
    if view_name is not None:
        view_document = read_json(content(by_path[view_name]), view_name)
        view = build_view(view_document)
    resources = _resources(by_path, content, findings)
    check_together(document, definition, view_document, view, resources)
    masker = Masker(secrets_of(document))
    for source in (document, view_document):
        for finding in source.findings if source is not None else ():
            findings.append(replace(finding, sentence=masker.text(finding.sentence)))
    files = () if kind == "document" else tuple(sorted(entries, key=lambda entry: entry.path))
    title = title_of(definition.name, name)
    found = tuple(findings.sorted())
    return Definition(path, kind, title, document, definition, view, view_document, resources, files, found)


def _only(entries: Mapping[str, Entry], suffixes: tuple[str, ...], path: Path, *, needed: bool) -> str | None:
    names = [name for name in sorted(entries) if "/" not in name and name.lower().endswith(suffixes)]
    if len(names) > 1:
        what = "resource definitions" if needed else "view definitions"
        raise PackageError(f"{path} has {len(names)} {what}: {', '.join(names[:5])}", hint="a package has one")
    if not names and needed:
        extension = any(name.lower().endswith(".resext") for name in entries)
        raise PackageError(
            f"{path} has no resource definition" + ("; it is a resource extension" if extension else ""),
            hint="put one .resdef document at its root",
        )
    return names[0] if names else None


def _resources(
    entries: Mapping[str, Entry], content: Callable[[Entry], bytes], findings: Findings
) -> dict[str, dict[str, str]]:
    """Language -> key -> text. What is no JSON object of texts is a finding, the rest still counts."""
    tables: dict[str, dict[str, str]] = {}
    for name in sorted(entries):
        folder, slash, _file = name.rpartition("/")
        if not slash or "/" in folder or not name.lower().endswith(".resources") or len(tables) >= MAX_LANGUAGES:
            continue
        try:
            document = read_json(content(entries[name]), name)
        except PackageError as error:  # the portal alone reads them: the rest of the package is as good as before
            findings.add("resource-text", error.message, hint=error.hint or "", file=name)
            continue
        findings.extend(document.findings)
        if not isinstance(document.root.value, dict):
            findings.add("resource-text", "the texts are not a JSON object", file=name, line=1, column=1)
            continue
        table = tables.setdefault(folder, {})
        for key, node in document.root.value.items():
            if isinstance(node.value, str):
                table[key] = node.value
            else:
                findings.add(
                    "resource-text", f"the text {key[:60]!r} is no string", file=name, pointer=node.pointer,
                    line=node.line, column=node.column,
                )  # fmt: skip
    return tables
