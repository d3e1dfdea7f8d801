# SPDX-License-Identifier: Apache-2.0
"""From a definition and values to what a deployment gets: the extension's parameters and the machine's settings.

Values flow as on the platform: what the tenant entered, or the view's default -> the definition's parameters -> the
references' ``ResourceExtensionParameterValues``, JSON in a string, parsed first and filled in its leaves -> the
extension's parameters [INFER, spec section 3]. A field of the view without default that is not required is empty
[INFER]. What was made of a secret stays secret, whatever the type of the parameter that gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.masking import Masker
from harness.package.check_definition import fields, is_utc, nested_values, secrets_of
from harness.package.check_machine import check_machine
from harness.package.findings import Finding, Findings
from harness.package.jsontree import Document, Node
from harness.package.machine_settings import MachineSettings, machine_settings
from harness.package.nested import Nested
from harness.package.parameters import (
    Given,
    Parameters,
    declared_in,
    declared_parameters,
    fill_parameters,
    text_of,
)
from harness.package.rules import Patience, broken_rule
from harness.package.substitution import placeholders

if TYPE_CHECKING:
    from harness.package.definition import Definition
    from harness.package.definition_models import ResourceExtensionReference
    from harness.package.reader import Package


@dataclass(frozen=True, slots=True)
class Resolved:
    """A definition with its values.

    ``parameters`` are the extension's, ready for ``make_plan``; ``values`` the definition's own; ``secrets`` of both
    and of the machine; ``reference`` the name by which the definition calls the extension; ``asked`` the definition's
    parameters without a value, by the extension's parameter that is made of them.
    """

    parameters: Parameters
    machine: MachineSettings
    values: Parameters
    reference: str | None
    findings: tuple[Finding, ...]
    secrets: tuple[str, ...] = field(default=(), repr=False)
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def resolve_definition(definition: Definition, extension: Package | None, given: Given | Mapping[str, Any]) -> Resolved:
    """Fill ``given`` into ``definition``, and what comes out into the parameters of ``extension``.

    ``extension`` None resolves the machine only. Raises UsageError for values that are no parameters of the definition
    or of the wrong type, as ``read_parameters`` does; everything else is a finding.
    """
    given = given if isinstance(given, Given) else Given(given)
    # a document of its own: its findings are of this use, those of the reading are the definition's
    scratch = Document(definition.document.text, definition.document.file)
    scratch.root = _moved(definition.document.root, scratch, None)
    values = _definition_values(definition, given, scratch)
    _apply_rules(definition, values, given, scratch)
    check_machine(scratch, lambda text: None if (filled := values.fill(text)).unresolved else filled.text)
    machine, unresolved = machine_settings(definition.definition.intrinsic, values)
    if machine.time_zone and not is_utc(machine.time_zone):
        node = scratch.find("/IntrinsicSettings/OperatingSystemProfile/TimeZone") or scratch.root
        if placeholders(str(node.value)):  # a fixed one was told at the reading
            what = f"the definition sets the time zone {machine.time_zone[:60]!r}; the machine stays on UTC"
            scratch.report("timezone-kept-utc", what, node)
    needed = dict.fromkeys(unresolved)
    reference: str | None = None
    parameters = Parameters()
    asked: dict[str, tuple[str, ...]] = {}
    if extension is not None:
        index, chosen = _reference(definition, extension, scratch)
        if chosen is not None:
            reference = chosen.reference_name or chosen.name
            nested = dict(nested_values(scratch)).get(index)
            parameters = _extension_values(nested, extension, values, scratch, asked)
    needed.update(dict.fromkeys(name for names in asked.values() for name in names))
    users = _users(scratch) if needed else {}
    for name in needed:
        what = f"the parameter {name[:60]!r} of the definition has no value"
        hint = f"give it with -p {name[:60]}=..."
        scratch.report("value-missing", what, users.get(name, scratch.root), hint=hint)
    found = dict.fromkeys([*parameters.secrets, *values.secrets, *machine.secrets, *secrets_of(scratch)])
    secrets = tuple(secret for secret in found if secret)
    masker = Masker(secrets)
    told = {(f.code, f.pointer, f.line, f.column) for f in definition.findings}
    new = [
        replace(finding, sentence=masker.text(finding.sentence))
        for finding in scratch.findings
        if (finding.code, finding.pointer, finding.line, finding.column) not in told
    ]
    return Resolved(parameters, machine, values, reference, tuple(Findings(new).sorted()), secrets, asked)


def _users(document: Document) -> dict[str, Node]:
    """Parameter -> the first string that uses it."""
    found: dict[str, Node] = {}
    for node in document.root.walk():
        for name in placeholders(node.value) if isinstance(node.value, str) else ():
            found.setdefault(name, node)
    return found


def _moved(node: Node, document: Document, parent: Node | None) -> Node:
    """A copy of a tree that belongs to another document of the same text."""
    copy = Node(document, parent, node.key, node.start)
    copy.key_start, copy.end = node.key_start, node.end
    if isinstance(node.value, dict):
        copy.value = {key: _moved(child, document, copy) for key, child in node.value.items()}
    elif isinstance(node.value, list):
        copy.value = [_moved(child, document, copy) for child in node.value]
    else:
        copy.value = node.value
    return copy


def _definition_values(definition: Definition, given: Given, document: Document) -> Parameters:
    """The definition's parameters: what was given, then the view's defaults."""
    declared = declared_in(document, definition.definition.resource_parameters)
    known = {item.name: item for item in declared}
    raw: dict[str, Any] = {}
    for item in definition.view.parameters if definition.view is not None else ():
        if item.name not in known or (item.name in given.values and given.values[item.name] is not None):
            continue
        initial = item.initial
        if initial is None or (not initial and item.required):
            if item.required:
                continue
            initial = ""
        try:
            text_of(known[item.name], initial)
        except UsageError:  # "" for an Int, or a default of another type (view-default): no value
            continue
        raw[item.name] = initial
    raw.update({name: value for name, value in given.values.items() if value is not None})
    return fill_parameters(definition.name, document, declared, Given(raw, given.literal, given.shown, given.places))


def _apply_rules(definition: Definition, values: Parameters, given: Given, document: Document) -> None:
    if definition.view is None or definition.view_document is None:
        return
    patience = Patience()
    for item, node in fields(definition.view, definition.view_document):
        if not item.name or item.name not in values.values or given.values.get(item.name) is None:
            continue  # defaults were looked at when the view was read
        file = definition.view_document.file
        line, column = node.line, node.column
        if item.configurable is False and values.values[item.name] != (item.initial or ""):
            document.findings.add(
                "value-fixed", f"{item.name[:60]!r} cannot be changed in the portal", file=file, pointer=node.pointer,
                line=line, column=column,
            )  # fmt: skip
        broken = broken_rule(item, values.values[item.name], patience)
        if broken:
            document.findings.add(
                "value-rule", f"the value of {item.name[:60]!r} {broken}", hint=_message(definition, item, broken),
                file=file, pointer=node.pointer, line=line, column=column,
            )  # fmt: skip


def _message(definition: Definition, item: Any, broken: str) -> str:
    """What the portal would have said, in the default language."""
    messages = item.rules.messages
    if messages is None:
        return ""
    if "required" in broken:
        text = messages.required
    elif "characters" in broken:
        text = messages.length
    elif "pattern" in broken:
        text = messages.reg_exp or messages.reg_ex
    else:
        text = messages.range
    return definition.localised(text)[:200] if text else ""


def _reference(
    definition: Definition, extension: Package, document: Document
) -> tuple[int, ResourceExtensionReference | None]:
    """The reference that means ``extension``; with findings about what does not fit."""
    references = definition.definition.resource_extension_references
    if not references:
        return -1, None
    ours = extension.extension
    wanted = (ours.name or "", ours.publisher or "", ours.version or "")
    scored = [
        (sum(_same(a, b) for a, b in zip(_identity(reference), wanted, strict=True)), -index)
        for index, reference in enumerate(references)
    ]
    index = -max(scored)[1]
    chosen = references[index]
    base = f"/ResourceExtensionReferences/{index}"
    names = ("Name", "Publisher", "Version")
    for member, theirs, own in zip(names, _identity(chosen), wanted, strict=True):
        if _same(theirs, own) or placeholders(theirs):
            continue
        node = document.find(f"{base}/{member}") or document.find(base) or document.root
        what = f"the {member.lower()} of the extension is {own[:60]!r}, the definition refers to {theirs[:60]!r}"
        hint = "an extension is found by its name, publisher and version together"
        document.report("reference-mismatch", what, node, hint=hint)
    return index, chosen


def _identity(reference: ResourceExtensionReference) -> tuple[str, str, str]:
    return reference.name or "", reference.publisher or "", reference.version or ""


def _same(one: str, other: str) -> bool:
    return one.strip().lower() == other.strip().lower()


def _extension_values(
    nested: Nested | None,
    extension: Package,
    values: Parameters,
    document: Document,
    asked: dict[str, tuple[str, ...]],
) -> Parameters:
    """The extension's parameters from one reference's values. ``asked`` gets the definition's names that lack one, by
    the extension's."""
    declared = declared_parameters(extension)
    known = {item.name: item for item in declared}
    lower = {name.lower(): name for name in known}
    raw: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for name, node in nested.members().items() if nested is not None else ():
        assert nested is not None
        value, safe, missing = _leaf(node, values)
        target = name
        if name not in known:
            same = lower.get(name.lower())
            code = "reference-value-case" if same else "reference-value-unknown"
            hint = f"the extension calls it {same[:60]}" if same else "declare it in the extension, or remove it"
            nested.report(code, f"the extension has no parameter {name[:60]!r}", node, hint)
            if same is None or same in nested.members():
                continue
            target = same
        if missing:
            asked[target] = missing
            continue
        if value is None:
            continue
        try:
            text_of(known[target], value)
        except UsageError as error:
            nested.report("reference-value-type", error.message, node, error.hint or "")
            continue
        raw[target] = value
        if safe is not None:
            shown[target] = safe
    used = {name for node in extension.document.root.walk() if isinstance(node.value, str)
            for name in placeholders(node.value)}  # fmt: skip
    here = nested.outer if nested is not None else document.root
    for item in declared:
        if item.declared and item.name in used and item.name not in raw and item.name not in asked:
            if nested is not None and item.name in nested.members() and nested.members()[item.name].value is not None:
                continue  # given, and of the wrong type
            what = f"the extension's parameter {item.name[:60]!r} gets no value"
            document.report("reference-value-missing", what, here, hint="add it to ResourceExtensionParameterValues")
    return fill_parameters(extension.name, extension.document, declared, Given(raw, frozenset(), shown))


def _leaf(node: Node, values: Parameters) -> tuple[Any, str | None, tuple[str, ...]]:
    """A value with the definition's parameters filled in, what to show instead if it is secret, and what is missing."""
    if isinstance(node.value, str):
        filled = values.fill(node.value)
        return filled.text, filled.masked if filled.masked != filled.text else None, filled.unresolved
    if isinstance(node.value, dict):  # the object form of a credential
        parts = {key: _leaf(child, values) for key, child in node.value.items()}
        missing = tuple(name for part in parts.values() for name in part[2])
        return {key: part[0] for key, part in parts.items()}, None, missing
    return node.plain(), None, ()


__all__ = ["Resolved", "resolve_definition"]
