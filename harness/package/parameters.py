# SPDX-License-Identifier: Apache-2.0
"""Values for the parameters that an extension declares.

Types are String, Int (Number), Boolean (Bool), Credential and SecureString, compared without case [GUIDE 18275, PKG].
A credential is one string, ``domain\\user:password``; everything behind its *first* colon is the password [INFER]. A
credential is inserted whole, there are no accessors for its parts [PKG].
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import PackageError, UsageError
from harness.masking import MASK
from harness.package.credentials import few_enough, is_credential, is_edition, is_password, is_product_key, password
from harness.package.jsontext import MAX_BYTES, read_json
from harness.package.jsontree import Document, Node
from harness.package.substitution import Substituted, placeholders, substitute

if TYPE_CHECKING:
    from harness.package.models import Parameter
    from harness.package.reader import Package


@dataclass(frozen=True, slots=True)
class Declared:
    """A parameter as the document declares it; ``type`` in lower case. Used but undeclared ones are strings."""

    name: str
    type: str
    declared: bool = True

    @property
    def secret(self) -> bool:
        return self.type in ("credential", "securestring")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Resolved values.

    ``values`` has the text of every parameter that was given, ``masked`` what to show instead of the secret ones,
    ``secrets`` every string that must not be shown (of values and of the document), ``missing`` the declared names
    without a value, ``warnings`` sentences for the user, ``exposed`` the secret ones that were written in the open.
    """

    declared: tuple[Declared, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    masked: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()

    def fill(self, text: str) -> Substituted:
        """``text`` with ``[Param.X]`` filled in; see harness.package.substitution."""
        return substitute(text, self.values, self.masked)


def read_parameters(
    package: Package,
    given: Sequence[str] = (),
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Parameters:
    """Values for ``package``: those of ``file`` (--parameters), then ``given`` (-p, each ``NAME=...``), which win.

    ``NAME=VALUE`` is literal, ``NAME=@FILE`` the content of a file without its last line break, ``NAME=env:VAR`` an
    environment variable. Raises UsageError for unknown names, malformed values, files that cannot be read.
    """
    return fill_parameters(
        package.name, package.document, declared_parameters(package), read_values(given, file, environ)
    )


@dataclass(frozen=True, slots=True)
class Given:
    """Values as they were given, not looked at yet: text, numbers, booleans, null, or a credential's object form.

    ``literal`` are the names whose values stood on the command line. ``shown`` has what to show instead of values that
    were made of secrets, whatever the type of the parameter that gets them. ``places`` says of values that a file has
    where they are, ``file:line:column``.
    """

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    literal: frozenset[str] = frozenset()
    shown: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def wrong(self, name: str, error: UsageError) -> UsageError:
        """``error``, which is about the value ``name``, with the place of that."""
        place = self.places.get(name)
        return UsageError(f"{place}: {error.message}", hint=error.hint) if place else error


def read_values(given: Sequence[str] = (), file: Path | None = None, environ: Mapping[str, str] | None = None) -> Given:
    """The values of ``file`` (--parameters) and then of ``given`` (-p), which win; see ``read_parameters``."""
    raw: dict[str, Any] = {}
    places: dict[str, str] = {}
    if file is not None:
        raw, places = _from_file(file)
    literal: set[str] = set()
    told: set[str] = set()
    for assignment in given:
        name, value, is_literal = _assignment(assignment, os.environ if environ is None else environ)
        if name in told:
            raise UsageError(f"-p {name[:60]} is given twice", hint="which of the two is meant? leave the other out")
        told.add(name)
        raw[name] = value
        places.pop(name, None)
        (literal.add if is_literal else literal.discard)(name)
    return Given(raw, frozenset(literal), places=places)


def fill_parameters(owner: str, document: Document, declared: Sequence[Declared], given: Given) -> Parameters:
    """Check ``given`` against what ``owner``'s ``document`` declares. Raises UsageError as ``read_parameters`` does."""
    known = {item.name: item for item in declared}
    values: dict[str, str] = {}
    masked: dict[str, str] = {}
    secrets: list[str] = []
    warnings: list[str] = []
    exposed: list[str] = []
    for name, value in given.values.items():
        if name not in known:
            raise given.wrong(name, _unknown(name, owner, known))
        parameter = known[name]
        if value is None:  # null in a file: no value
            continue
        try:
            values[name] = text = text_of(parameter, value)
        except UsageError as error:
            raise given.wrong(name, error) from None
        if name in given.shown:
            masked[name] = given.shown[name]
        if parameter.secret:
            # an undeclared credential may come without a colon: then nothing of it is known to be harmless
            secret = password(text) if parameter.type == "credential" and ":" in text else text
            secrets.append(secret)
            masked[name] = (text[: len(text) - len(secret)] if secret else text) + (MASK if secret else "")
            if name in given.literal and secret:
                exposed.append(name)
                warnings.append(
                    f"the value of {name} is secret and was written on the command line, where other users of this "
                    f"computer and the shell's history see it; use -p {name}=@FILE or -p {name}=env:VAR"
                )
    missing = tuple(name for name, item in known.items() if name not in values and item.declared)
    filled = Parameters(tuple(known.values()), values, masked, tuple(secrets), missing, tuple(warnings), tuple(exposed))
    inside = document_secrets(document, filled)
    everything = tuple(dict.fromkeys(secret for secret in (*secrets, *inside) if secret))
    return dataclasses.replace(filled, secrets=everything)


def declared_parameters(package: Package) -> tuple[Declared, ...]:
    """Every parameter of a package: the declared ones in order, then those that are used without declaration.

    The seed's own sample uses two that it does not declare; they can be given a value, or nothing could run it.
    """
    return declared_in(package.document, package.extension.resource_extension_parameters)


def declared_in(document: Document, parameters: Iterable[Parameter]) -> tuple[Declared, ...]:
    """The same of any document and the parameters that it declares."""
    found: dict[str, Declared] = {}
    for parameter in parameters:
        if parameter.name:
            found[parameter.name] = Declared(parameter.name, (parameter.type or "String").lower())
    for node in document.root.walk():
        if isinstance(node.value, str):
            for name in placeholders(node.value):
                if name not in found:
                    secret = is_password(node) or is_product_key(node)
                    kind = "credential" if is_credential(node) else "securestring" if secret else "string"
                    found[name] = Declared(name, kind, False)
    return tuple(found.values())


def document_secrets(document: Document, parameters: Parameters) -> tuple[str, ...]:
    """Passwords and product keys that the document has in plain text, or makes of parameters, each once."""
    found: dict[str, None] = {}
    for node in document.root.walk():
        if is_credential(node) or is_password(node) or is_product_key(node):
            filled = parameters.fill(node.value)
            if not filled.unresolved and not (is_product_key(node) and is_edition(filled.text)):
                found[password(filled.text) if is_credential(node) else filled.text] = None
    return few_enough(found, document.file)


def _assignment(text: str, environ: Mapping[str, str]) -> tuple[str, str, bool]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        what = "gives no value" if name.strip() else "names no parameter"
        raise UsageError(f"-p {name[:60]!r} {what}", hint="write -p NAME=VALUE, NAME=@FILE or NAME=env:VAR")
    name = name.strip()
    if value.startswith("@"):
        return name, _content(name, Path(value[1:])), False
    if value.startswith("env:"):
        if value[4:] not in environ:
            raise UsageError(f"the environment variable {value[4:]!r} for the parameter {name} is not set")
        return name, environ[value[4:]], False
    return name, value, True


def _content(name: str, path: Path) -> str:
    data = _read(path, f"the value of the parameter {name}")
    return decode_text(data, f"{path}, for the parameter {name},").removesuffix("\n").removesuffix("\r")


def decode_text(data: bytes, what: str) -> str:
    """A text file as editors and PowerShell save it: UTF-8, or UTF-16 by its mark or its NUL characters. Raises
    UsageError about ``what``."""
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(data) > 1 and len(data) % 2 == 0 and 0 in data[:2] and any(data[:2]):
        encoding = "utf-16-le" if data[0] else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise UsageError(f"{what} is neither UTF-8 nor UTF-16 text", hint="save it as UTF-8") from None
    if "\0" in text:
        raise UsageError(f"{what} has NUL characters in it", hint="save it as UTF-8")
    return text


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read for {what}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes, too many for {what}")
    return data


def _from_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and places, by name, of a flat JSON object, of a ResourceConfiguration, or of an instance with one.

    [DOC dn249733]: a configuration has ``Version`` and ``ParameterValues``, JSON in a string, and no other member.
    """
    from harness.package.nested import read_nested

    try:
        root = read_json(_read(path, "parameters"), path.name).root
        place: Callable[[Node], tuple[int, int]] = _key_place
        inside = root.get("ResourceConfiguration")
        if inside is not None and isinstance(inside.value, dict):
            root = inside
        node = root.get("ParameterValues") if "ParameterValues" in (root.value or ()) else None
        if node is not None and set(root.value) <= {"Version", "ParameterValues"}:
            nested = read_nested(node)
            if nested is None:
                problem = next(iter(finding for finding in node.document.findings if finding.code == "nested-json"))
                where = f"{path.name}:{problem.line}:{problem.column}"
                raise UsageError(f"{where}: {problem.sentence}", hint=problem.hint or None)
            root, place = nested.root, nested.place
        data = root.plain()
    except PackageError as error:  # the same reader, but it is the user's file and not the package
        raise UsageError(error.message, hint=error.hint) from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} has no JSON object with parameter values", hint='write {"NAME": "VALUE"}')
    return data, {name: "{}:{}:{}".format(path.name, *place(node)) for name, node in root.value.items()}


def _key_place(node: Node) -> tuple[int, int]:
    return node.key_place


def text_of(parameter: Declared, value: Any) -> str:
    """The text that is inserted. Values are checked against the declared type; none is ever shown in an error."""
    name = parameter.name
    if isinstance(value, dict) and parameter.type == "credential" and set(value) == {"UserName", "Password"}:
        value = f"{value['UserName']}:{value['Password']}"
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise UsageError(f"the value of the parameter {name} has to be text, a number, true or false")
    if "\0" in value:
        raise UsageError(f"the value of the parameter {name} has a NUL character, which no command line can carry")
    if parameter.type in ("int", "number") and not re.fullmatch(r"\s*[-+]?[0-9]{1,100}\s*", value):
        raise UsageError(f"the parameter {name} is an Int, its value is not a whole number")
    if parameter.type in ("boolean", "bool") and value.strip().lower() not in ("true", "false"):
        raise UsageError(f"the parameter {name} is a Boolean, its value is not true or false")
    if parameter.type == "credential" and parameter.declared and ":" not in value:
        raise UsageError(
            f"the parameter {name} is a Credential, its value has no colon",
            hint="write user:password or domain\\user:password; built-in accounts end with the colon",
        )
    return value


def _unknown(name: str, package: str, known: Iterable[str]) -> UsageError:
    names = list(known)
    if not names:
        return UsageError(f"{package} has no parameters, and no {name[:60]!r}")
    near = next((other for other in names if other.lower() == name.lower()), None)
    near = near or next(iter(get_close_matches(name[:80], names, n=1, cutoff=0.6)), None)
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UsageError(
        f"{package} has no parameter {name[:60]!r}; it has {listed}", hint=f"did you mean {near}?" if near else None
    )
