# SPDX-License-Identifier: Apache-2.0
"""What a fuzzer's bytes are given to: every reader of untrusted documents, and what follows from what was read.

The first byte chooses a target, the rest is its input. A target may refuse its input with a VmRoleError of exit code 2;
anything else that is raised is a bug, and so is a finding without a documented code or a real place, a secret that is
shown, or JSON that is read as something else than the standard library reads.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.cli.subject import EVENTS
from harness.errors import VmRoleError
from harness.masking import Masker
from harness.package import Package, read_definition, read_package
from harness.package.check_definition import build_view
from harness.package.definition import Definition, read_configuration, read_instance
from harness.package.dotnet import PatternError, compile_pattern
from harness.package.external import with_external
from harness.package.findings import CODES, Finding
from harness.package.jsontext import read_json
from harness.package.lint import lint
from harness.package.parameters import Given, declared_parameters, fill_parameters
from harness.package.patterns import make_check, reboot_codes
from harness.package.resolve import resolve_definition
from harness.package.service import read_service
from harness.plan import OS, make_plan
from harness.plan.linux import split_command
from tests.package.material import SAMPLES

SECRET = "Zq7#Hippopotamus"
"""The value of every secret parameter; no shown text may have it."""

_SMALL = {
    "SchemaVersion": "1.0",
    "Name": "Small",
    "Version": "1.0.0.0",
    "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
    "ResourceExtensionParameters": [{"Name": "A", "Type": "String"}, {"Name": "B", "Type": "Credential"}],
    "ExtensionSettings": {
        "ApplicationProfile": {
            "Name": "Small",
            "LinuxApplicationProfile": {"RunOnceCommands": ["/bin/echo [Param.A] [Param.B]"]},
        }
    },
}


class Place:
    """A folder in memory where there is one, emptied by overwriting."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(prefix="vmf-", dir=memory if os.access(memory, os.W_OK) else None)
        self.path = Path(self._folder.name)
        (self.path / "small.resext").write_text(json.dumps(_SMALL))
        self.small = read_package(self.path / "small.resext")
        sample = (SAMPLES / "everything.resext").read_bytes()
        self.everything = json.dumps(read_json(sample, "everything.resext").root.plain())

    def file(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path


def refused(error: VmRoleError) -> None:
    """Only bad input is refused, with a sentence that is one line."""
    assert error.exit_code == 2, error
    assert error.message and "\n" not in error.message, error.message


def told(findings: Iterable[Finding]) -> None:
    for finding in findings:
        assert finding.code in CODES, finding
        assert finding.sentence and "\n" not in finding.sentence, finding
        assert (finding.line is None) == (finding.column is None), finding
        assert finding.line is None or (finding.line >= 1 and (finding.column or 0) >= 1), finding
        json.dumps(finding.as_json())


def values_for(package: Package) -> dict[str, str]:
    """A value of the right type for every parameter."""
    kinds = {"int": "7", "number": "7", "boolean": "true", "bool": "false", "securestring": SECRET}
    known = kinds | {"credential": f"corp\\bob:{SECRET}"}
    return {item.name: known.get(item.type, "plain [Param.A] 'x\" \\ value") for item in declared_parameters(package)}


def planned(package: Package) -> None:
    """Findings, and the plans of one event on one system (which, the text decides), with and without values."""
    told(package.findings)
    told(lint(package.document, package.payload.files))
    with_external(package)
    empty = fill_parameters(package.name, package.document, declared_parameters(package), Given())
    given = Given(values_for(package))
    full = fill_parameters(package.name, package.document, declared_parameters(package), given)
    choice = zlib.crc32(package.text.encode("utf-8", "replace"))
    os_name: OS = ("windows", "windows", "linux")[choice % 3]
    event = EVENTS[choice // 3 % len(EVENTS)]
    for values, strict in ((empty, False), (full, False), (full, True)):
        try:
            plan = make_plan(package, values, os=os_name, event=event, strict=strict)
        except VmRoleError as error:
            assert strict
            refused(error)
            continue
        told(plan.findings)
        ids = [step.id.lower() for step in plan.steps]
        assert len(ids) == len(set(ids))
        masked = Masker(values.secrets).text(json.dumps(plan.as_json()))
        assert SECRET not in masked, masked


def extension(data: bytes, place: Place) -> None:
    planned(read_package(place.file("a.resext", data)))


def archive(data: bytes, place: Place) -> None:
    """The bytes are the archive."""
    path = place.file("a.resextpkg", data)
    package = read_package(path)
    planned(package)
    for entry in package.payload.files[:20]:
        if entry.size < 1 << 20:
            package.payload.read(entry.path)


def entries(data: bytes, place: Place) -> None:
    """The bytes are names and contents of a well-made archive: blocks of a length, a name's length, name, content."""
    sink = io.BytesIO()
    at = 0
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("small.resext", json.dumps(_SMALL | {"DataPackage": {"Version": "1.0.0.0", "Location": "p"}}))
        while at + 2 < len(data) and len(target.filelist) < 30:
            length, width = data[at], data[at + 1] % 64
            name = data[at + 2 : at + 2 + width].decode("utf-8", "replace")
            info = zipfile.ZipInfo("x")
            info.filename = name or "x"
            info.external_attr = (length & 0xF0) << 24
            target.writestr(info, data[at + 2 + width : at + 2 + width + length])
            at += 2 + width + length
    archive(sink.getvalue(), place)


def deployed(definition: Definition, place: Place) -> None:
    told(definition.findings)
    names = {parameter.name for parameter in definition.definition.resource_parameters}
    for given in ({}, {name: f"corp\\bob:{SECRET}" for name in names if name}):
        try:
            resolved = resolve_definition(definition, place.small, given)
        except VmRoleError as error:
            refused(error)
            continue
        told(resolved.findings)
        make_plan(place.small, resolved.parameters, os="linux", strict=False)


def definition(data: bytes, place: Place) -> None:
    """The document and its view, apart at a NUL."""
    document, _, view = data.partition(b"\0")
    (place.path / "d").mkdir(exist_ok=True)
    place.file("d/a.resdef", document)
    (place.path / "d/a.viewdef").unlink(missing_ok=True)
    if view:
        place.file("d/a.viewdef", view)
    deployed(read_definition(place.path / "d/a.resdef"), place)


def view_alone(data: bytes, place: Place) -> None:
    document = read_json(data, "a.viewdef")
    build_view(document)
    told(document.findings)


def configuration(data: bytes, place: Place) -> None:
    path = place.file("c.json", data)
    for read in (read_configuration, read_instance):
        try:
            told(read(path).findings)
        except VmRoleError as error:
            refused(error)


def service(data: bytes, place: Place) -> None:
    """Definition and configuration, apart at a NUL."""
    first, _, second = data.partition(b"\0")
    other = place.file("a.cscfg", second) if second else None
    told(read_service(place.file("a.csdef", first), other).findings)


def plain_json(data: bytes, place: Place) -> None:
    """What the standard library reads is read the same."""
    document = read_json(data, "a.json")
    told(document.findings)
    try:
        expected = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return
    assert _same(document.root.plain(), expected), (document.root.plain(), expected)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def pattern(data: bytes, place: Place) -> None:
    """A pattern and a text that it is tried on, apart at a NUL."""
    written, _, text = data.decode("utf-8", "replace").partition("\0")
    reboot_codes(written)
    check = make_check("standard output", written)
    try:
        check.found(text)
        compile_pattern(written)
    except (PatternError, TimeoutError):
        pass


def command(data: bytes, place: Place) -> None:
    for word in split_command(data.decode("utf-8", "replace")):
        assert "\0" not in word


def mutated(data: bytes, place: Place) -> None:
    """A whole document with one value replaced: two bytes, the rest is the value."""
    copy = json.loads(place.everything)
    slots: list[tuple[Any, Any]] = []
    stack: list[Any] = [copy]
    while stack:
        here = stack.pop()
        keys: Iterable[Any] = list(here) if isinstance(here, dict) else range(len(here))
        for key in keys:
            slots.append((here, key))
            if isinstance(here[key], dict | list):
                stack.append(here[key])
    where = int.from_bytes(data[:2], "big") % len(slots)
    text = data[2:].decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    holder, key = slots[where]
    holder[key] = value
    try:
        written = json.dumps(copy).encode()
    except RecursionError:
        return
    extension(written, place)


TARGETS: tuple[Callable[[bytes, Place], None], ...] = (
    extension, mutated, definition, view_alone, configuration, service, plain_json, pattern, archive, entries, command,
)  # fmt: skip


def one(data: bytes, place: Place) -> None:
    """Give ``data`` to its target. Raises only for a bug."""
    if len(data) < 2:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:], place)
    except VmRoleError as error:
        refused(error)
