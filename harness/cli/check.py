# SPDX-License-Identifier: Apache-2.0
"""`vmrole check`. Imports little: its answer is wanted while one types."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.package.findings import one_line

if TYPE_CHECKING:
    from harness.masking import Masker
    from harness.package.definition import Definition
    from harness.package.findings import Finding, Findings
    from harness.package.jsontree import Document
    from harness.package.powershell.engine import Parser
    from harness.package.reader import Package

_WIDTH = 100  # characters of a line that are shown


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--extension", type=click.Path(path_type=Path), help="What a definition references, to be checked with it."
)
@click.option("--image", metavar="NAME", help="Check the requirement tags against this guest image.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
def command(path: Path, extension: Path | None, image: str | None, as_json: bool) -> None:
    """Say what is odd, doubtful or wrong in the package PATH, all at once; no machine is started.

    PATH is a .resextpkg, a .resdefpkg, an unpacked folder, a bare document (a .viewdef and a configuration too), a
    .csdef or a .cscfg. Exit codes: 0 it has
    no errors, 1 it has, 2 it cannot be read.
    """
    findings, documents, masker = examine(path, extension, image)
    if as_json:
        click.echo(json.dumps(findings.as_json(), indent=2))
    else:
        for finding in findings.sorted():
            click.echo("\n".join(_shown(finding, documents.get(finding.file), masker)))
        click.echo(_summary(findings))
    sys.exit(1 if findings.errors else 0)


def examine(
    path: Path, extension: Path | None = None, image: str | None = None
) -> tuple[Findings, dict[str, Document], Masker]:
    """Every finding about a package, the documents they point into by file name, and what masks their secrets.

    Raises UsageError and PackageError when something cannot be read.
    """
    with _Engine(extension or path) as engine:
        return _examine(path, extension, image, engine)


def _examine(
    path: Path, extension: Path | None, image: str | None, engine: _Engine
) -> tuple[Findings, dict[str, Document], Masker]:
    from harness.errors import PackageError, UsageError
    from harness.masking import Masker
    from harness.package.definition import Definition, read_any
    from harness.package.findings import Findings

    findings = Findings()
    documents: dict[str, Document] = {}
    secrets: list[str] = []
    if path.suffix.lower() in (".csdef", ".cscfg"):
        if extension is not None or image is not None:
            raise UsageError("--extension and --image are not for service documents")
        _service(path, findings, documents)
        return findings, documents, Masker(secrets)
    if path.suffix.lower() == ".viewdef" and path.is_file():
        document = _view(path)
        findings.extend(document.findings)
        return findings, {document.file: document}, Masker(secrets)
    try:
        read = read_any(path)
    except PackageError:
        alone = path.suffix.lower() == ".json" and extension is None and image is None
        other = _configuration(path) if alone else None
        if other is None:
            raise
        findings.extend(other)
        return findings, documents, Masker(secrets)
    if isinstance(read, Definition):
        _definition(read, extension, findings, documents, secrets)
        if extension is not None:
            from harness.package.reader import read_package

            _extension(read_package(extension), image, findings, documents, secrets, engine)
        elif image is not None:
            hint = "add --extension PATH"
            raise UsageError("--image is for extensions: definitions have no requirements", hint=hint)
    elif extension is not None:
        raise UsageError(f"--extension is for definitions, and {path} is an extension")
    else:
        _extension(read, image, findings, documents, secrets, engine)
    return Findings(map(_named, findings)), documents, Masker(secrets)


def _named(finding: Finding) -> Finding:
    """Many a sample's password is the word itself, which is then masked in our own sentence."""
    from dataclasses import replace

    from harness.masking import MASK

    if finding.code != "secret-in-plain-text":
        return finding
    return replace(finding, sentence=finding.sentence.replace(MASK, "password"))


def _view(path: Path) -> Document:
    """A view alone: what it says of the definition's parameters is not looked at."""
    from harness.errors import PackageError
    from harness.package.check_definition import build_view
    from harness.package.jsontext import MAX_BYTES, read_json

    try:
        with path.open("rb") as stream:
            document = read_json(stream.read(MAX_BYTES + 1), path.name)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror or error}") from None
    build_view(document)
    return document


def _configuration(path: Path) -> tuple[Finding, ...] | None:
    """Findings of a ResourceConfiguration or a VirtualMachineRole; None when it is neither. Their lines are not shown:
    they hold the values of secret parameters."""
    from harness.errors import PackageError
    from harness.package.definition import read_configuration, read_instance

    for read in (read_configuration, read_instance):
        try:
            return read(path).findings
        except PackageError:
            continue
    return None


def _service(path: Path, findings: Findings, documents: dict[str, Document]) -> None:
    """A service definition or configuration of 2011. Lines of a configuration are not shown: settings hold keys."""
    from harness.package.jsontree import Document
    from harness.package.service import read_service_configuration, read_service_definition

    if path.suffix.lower() == ".cscfg":
        findings.extend(read_service_configuration(path)[1])
        return
    findings.extend(read_service_definition(path)[1])
    text = path.read_bytes().decode("utf-8-sig", "replace")
    documents.update({name: Document(text, name) for name in {finding.file for finding in findings}})


class _Engine:
    """The real parser of PowerShell, which starts while the package is read, where it looks as if it had scripts."""

    def __init__(self, path: Path | None) -> None:
        self.parser: Parser | None = None
        if path is not None and _may_have_scripts(path):
            self.get().begin()

    def get(self) -> Parser:
        from harness.package.powershell.engine import Parser

        self.parser = self.parser or Parser()
        return self.parser

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.parser is not None:
            self.parser.close()


def _may_have_scripts(path: Path) -> bool:
    """Whether a package that is not read yet has scripts of PowerShell, as far as that is seen at once."""
    try:
        if path.is_dir():
            return any(found.suffix.lower() == ".ps1" for found in islice(path.rglob("*"), 2000))
        if not path.is_file():
            return False  # a pipe would be waited for
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - (1 << 18)))
            return b".ps1" in stream.read().lower()  # in the list at the end of an archive
    except OSError:
        return False


def _powershell(package: Package, engine: _Engine) -> list[Finding]:
    """Findings about PowerShell; what finds them is imported only where there is some."""
    text = package.document.text.lower()
    has = "powershell" in text or "pwsh" in text
    if not has and not any(entry.path.lower().endswith((".ps1", ".psm1")) for entry in package.payload.files):
        return []
    from harness.package.powershell.check import powershell_findings

    findings, left = powershell_findings(package, engine.get())
    if left:
        click.echo(f"vmrole: {left}", err=True)
    return findings


def _extension(
    package: Package,
    image: str | None,
    findings: Findings,
    documents: dict[str, Document],
    secrets: list[str],
    engine: _Engine,
) -> None:
    from dataclasses import replace

    from harness.masking import Masker
    from harness.package.external import with_external
    from harness.package.lint import lint, tags, without_powershell
    from harness.package.parameters import Parameters, document_secrets
    from harness.package.programs import without_programs_32
    from harness.package.scripts import script_findings
    from harness.plan.linux import command_findings, started_files

    secrets.extend(document_secrets(package.document, Parameters()))
    masker = Masker(secrets)
    documents[package.document.file] = package.document
    # what the package does not carry is no fault of it: a run says what is missing
    verified = with_external(package).findings
    findings.extend(finding for finding in verified if finding.code != "external-missing")
    for finding in (*lint(package.document, package.payload.files), *command_findings(package)):
        findings.append(replace(finding, sentence=masker.text(finding.sentence), hint=masker.text(finding.hint)))
    findings.extend(script_findings(package, started_files(package)))
    for finding in _powershell(package, engine):
        findings.append(replace(finding, sentence=masker.text(finding.sentence), hint=masker.text(finding.hint)))
    if image is not None:
        from harness.image import catalog

        recipe = catalog.load(image).recipe
        findings.extend(tags(package.document, recipe.tags, image))
        if recipe.lacks_powershell:
            findings.extend(without_powershell(package.document, image))
        if recipe.lacks_programs_32:
            findings.extend(without_programs_32(package, recipe))


def _definition(
    definition: Definition,
    extension: Path | None,
    findings: Findings,
    documents: dict[str, Document],
    secrets: list[str],
) -> None:
    from harness.package.check_definition import secrets_of

    secrets.extend(secrets_of(definition.document))
    documents[definition.document.file] = definition.document
    if definition.view_document is not None:
        documents[definition.view_document.file] = definition.view_document
    findings.extend(definition.findings)
    if extension is not None:
        from harness.package.reader import read_package
        from harness.package.resolve import resolve_definition

        resolved = resolve_definition(definition, read_package(extension), {})
        # values come with a deployment; what its references say is there already
        findings.extend(finding for finding in resolved.findings if finding.code.startswith("reference-"))


def _shown(finding: Finding, document: Document | None, masker: Masker) -> list[str]:
    """``file:line:column: severity: sentence [code]``, the line with a caret below the column, and the hint."""
    place = finding.file if finding.line is None else f"{finding.file}:{finding.line}:{finding.column}"
    lines = [f"{one_line(place)}: {finding.severity}: {one_line(finding.sentence)} [{finding.code}]"]
    if document is not None and finding.line is not None and finding.column is not None:
        text, column = _excerpt(document.line_text(finding.line), finding, masker)
        number = str(finding.line)
        lines.append(f"  {number} | {text}")
        lines.append(f"  {' ' * len(number)} | {' ' * column}^")
    if finding.hint:
        lines.append(f"    {one_line(finding.hint)}")
    return lines


def _excerpt(line: str, finding: Finding, masker: Masker) -> tuple[str, int]:
    """The part of a line around a finding, without secrets, and the place of the caret in it, from 0."""
    assert finding.column is not None
    before, after = line[: finding.column - 1], line[finding.column - 1 :]
    if finding.code == "secret-in-plain-text":  # also one that is too short to be found by its text
        after = '"__**__"'
    # a secret that is in the part that is shown is wholly in what is masked
    reach = _WIDTH + masker.longest
    cut = len(before) > reach
    before, after = (one_line(masker.text(part)) for part in (before[-reach:] if cut else before, after[:reach]))
    before = before if cut else before.lstrip()
    if len(before) > _WIDTH // 2:
        before = "..." + before[3 - _WIDTH // 2 :]
    room = _WIDTH - len(before)
    return before + (after if len(after) <= room else after[: room - 3] + "..."), _width(before)


def _width(text: str) -> int:
    """Columns that a terminal shows ``text`` in: letters of East Asia take two."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def _summary(findings: Findings) -> str:
    def count(number: int, word: str) -> str:
        return f"{number or 'no'} {word}{'' if number == 1 else 's'}"

    rest = len(findings) - findings.errors - findings.warnings
    notes = f", {count(rest, 'note')}" if rest else ""
    return f"{count(findings.errors, 'error')}, {count(findings.warnings, 'warning')}{notes}"
