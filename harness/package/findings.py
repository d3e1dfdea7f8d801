# SPDX-License-Identifier: Apache-2.0
"""What is odd, doubtful or wrong in a package, said once, with its place.

A finding never stops anything by itself: what cannot be read or cannot work at all is a PackageError instead.
``CODES`` is the documented list; a code keeps its meaning for ever, its sentence may improve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "info"]

#: Code -> (severity, when it is given). Errors are only for what cannot work; what deployed in production is none.
CODES: Final[dict[str, tuple[Severity, str]]] = {
    # how the text is written (harness.package.jsontext)
    "json-trailing-comma": ("warning", "a comma before a closing bracket, or two in a row"),
    "json-missing-comma": ("warning", "two members or elements without a comma between them"),
    "json-comment": ("warning", "a // or /* */ comment"),
    "json-single-quotes": ("warning", "a string in single quotes"),
    "json-unquoted-key": ("warning", "a member name without quotes"),
    "json-lone-backslash": ("warning", "a backslash that starts no escape of JSON; it is kept"),
    "json-path-escape": ("warning", "a valid escape such as \\t inside what looks like a Windows path"),
    "json-control-character": ("warning", "a line break or another control character inside a string"),
    "json-lone-surrogate": ("warning", "half of a surrogate pair: no character"),
    "json-literal": ("warning", "NaN, Infinity, or true, false, null in other letters"),
    "json-duplicate-key": ("warning", "a member is there twice; the last one wins"),
    "json-encoding": ("warning", "bytes that are not of the text's encoding; each becomes U+FFFD"),
    "json-utf16": ("warning", "the text is UTF-16, not UTF-8"),
    "findings-left-out": ("info", "more findings of the same kind were left out"),
    # what the document says (harness.package.models, harness.package.check)
    "unknown-field": ("warning", "a member that the format does not have; it is ignored"),
    "field-case": ("warning", "a member whose name differs from the format's only in upper and lower case"),
    "missing-field": ("warning", "a member that the format requires is missing"),
    "bad-value": ("error", "a value of the wrong type; it is treated as missing"),
    "type-name": ("warning", "an extension type that is not spelt as any platform spells it"),
    "version-format": ("warning", "a version that is not four numbers with dots"),
    "schema-version": ("warning", "a SchemaVersion that is neither 1.0 nor 1.0.0.0"),
    "identifier-blank": ("warning", "an identifier with a blank in it"),
    "identifier-format": ("warning", "an identifier that is no GUID"),
    "limit-negative": ("error", "a negative time-out, or a negative limit of the output that is kept"),
    "nul-character": ("error", "a text with a NUL character; no command or path can have one"),
    "order-negative": ("warning", "a negative DeploymentOrder; the script comes before those without one"),
    "feature-empty": ("error", "a role or feature without a name"),
    "payload-unknown-id": ("warning", "a script refers to an application payload that is not declared"),
    "payload-duplicate-id": ("warning", "two application payloads with one identifier"),
    "payload-missing": ("warning", "the payload folder or file that the document names does not exist"),
    "path-long": ("warning", "a file of the payload whose path is longer than programs on Windows can open"),
    "payload-path": ("error", "a payload path that leads out of the package"),
    "parameter-type": ("warning", "a parameter of a type that extensions do not have"),
    "parameter-duplicate": ("warning", "a parameter is declared twice; the last one wins"),
    "parameter-undeclared": ("warning", "[Param.X] is used and X is not declared"),
    "parameter-case": ("warning", "[Param.x] is used, X is declared: names are case-sensitive"),
    "parameter-unused": ("info", "a declared parameter that is used nowhere"),
    "parameter-unresolved": ("warning", "a step for another operating system has a parameter without a value"),
    "secret-in-plain-text": ("warning", "a password is written in the document or in a command"),
    # definitions, configurations and views (harness.package.definition, harness.package.resolve)
    "nested-json": ("error", "a string that has to hold a JSON object holds none"),
    "nested-json-bare": ("warning", "[Param.X] without quotes inside JSON in a string; it is read as a string"),
    "nested-json-object": ("warning", "a JSON object where the format wants one written in a string"),
    "definition-type": ("warning", "a definition's type that is not spelt as any platform spells it"),
    "definition-profiles": ("warning", "Windows and Linux profiles together, or a workgroup and a domain"),
    "definition-ports": ("error", "a balanced port whose front and back end differ, or that is none"),
    "definition-lun": ("error", "two data disks with one logical unit number, or one that a controller does not have"),
    "definition-scale": ("error", "numbers of instances that contradict each other or are too small"),
    "definition-value": ("error", "a credential, a computer name or a workgroup that no machine can have"),
    "definition-choice": ("warning", "a protocol, a kind of address or an allocation that is not known"),
    "definition-not-here": ("warning", "what a machine of the emulator cannot have; a run refuses the definition"),
    "definition-size": ("warning", "a VMSize that is none of the default size profiles"),
    "computer-name": (
        "warning",
        "a computer name pattern that makes names of more than 15 characters, or fewer names than instances",
    ),
    "timezone-kept-utc": ("warning", "the definition sets a time zone; the machine stays on UTC"),
    "view-parameter-unknown": ("warning", "a field of the view that is no parameter of the definition"),
    "view-parameter-missing": ("info", "a parameter of the definition that the view does not ask for"),
    "view-parameter-duplicate": ("warning", "a parameter that the view asks for twice"),
    "view-type": ("warning", "a field of the view of a type that views do not have"),
    "view-default": ("warning", "a default that the field's own rules refuse"),
    "view-rule": ("warning", "a rule of a field that contradicts another, or a pattern that is none"),
    "view-missing": ("info", "the definition comes without a view"),
    "resource-key-missing": ("warning", "{{Key}} is used and no .resources file of the default language has it"),
    "resource-text": ("error", "a .resources file, or an entry of one, that is no JSON text"),
    "value-rule": ("error", "a value that the view's rules refuse: the portal does not accept it"),
    "value-fixed": ("warning", "a value for a field that the view does not let anybody change"),
    "value-missing": (
        "warning",
        "a parameter of the definition has no value and the machine or the extension needs it",
    ),
    "reference-missing": ("warning", "the definition refers to no extension"),
    "reference-many": ("warning", "the definition refers to more than one extension; one of them is deployed"),
    "reference-mismatch": ("error", "the extension is not the one that the definition refers to"),
    "reference-value-unknown": ("warning", "the definition gives a value to a parameter that the extension lacks"),
    "reference-value-case": ("warning", "the same, but for upper and lower case"),
    "reference-value-missing": ("error", "the extension uses a parameter to which the definition gives no value"),
    "reference-value-type": ("error", "the definition gives a parameter of the extension a value of another type"),
    # what scripts say (harness.package.lint)
    "pattern-invalid": ("warning", "a failure pattern that .NET refuses, or that cannot be executed; it never matches"),
    "pattern-path": ("warning", "a path where a failure pattern belongs; it never matches"),
    "pattern-never": ("warning", "an ExitCodeRegex that no exit code matches"),
    "pattern-always": ("warning", "a failure pattern that success matches too"),
    "reboot-pattern": ("warning", "a RebootExitCodeRegex that restarts nothing, or after each success"),
    "reboot-pattern-braces": ("info", "a RebootExitCodeRegex that is no regular expression; it is read as a list"),
    "path-pattern": ("warning", "a pattern where a path belongs"),
    "error-policy": ("warning", "an ErrorPolicy that is none"),
    "script-empty": ("warning", "a script without a program and without a script block"),
    "script-double": ("warning", "a script with a program and a script block"),
    "order-collision": ("warning", "two scripts of one type with the same DeploymentOrder"),
    "feature-unknown": ("warning", "a role or feature that no Windows Server is known to have"),
    "command-too-long": (
        "warning",
        "a command line or a line of a batch text that is longer than Windows or its cmd.exe takes",
    ),
    "command-single-quotes": ("warning", "cmd.exe with single quotes, which it does not know"),
    "command-file-missing": ("warning", "a command names a file that the payload does not have"),
    "requirement-tag": ("warning", "a requirement tag that the image named with --image does not declare"),
    "image-powershell": ("warning", "the extension starts PowerShell, and the image named with --image has none"),
    "image-32-bit": (
        "warning",
        "a command names a 32-bit program of the payload, and the image named with --image executes none",
    ),
    # scripts of the payload (harness.package.scripts)
    "script-bom": ("warning", "a byte order mark before #! or before the first command of a script"),
    "script-utf16": ("warning", "a script in UTF-16, which neither a shell nor cmd.exe reads"),
    "script-line-ends": (
        "warning",
        "a script of Linux with CR LF, a batch file with labels and LF, or one that ends lines in CR",
    ),
    "script-no-interpreter": (
        "warning",
        "a script for another interpreter than /bin/sh that a Linux command starts itself, without #! in front",
    ),
    "script-not-executable": ("warning", "a script without executable bit that a Linux command starts itself"),
    # PowerShell (harness.package.powershell)
    "script-syntax": ("error", "a script, or a text after -Command or -EncodedCommand, that PowerShell cannot parse"),
    "script-encoding": (
        "warning",
        "a script with other than ASCII whose file does not say its encoding; the engines read it as different texts",
    ),
    "script-newer": ("warning", "what Windows PowerShell 5.1 lacks, or takes for something else than is meant"),
    "script-older": ("info", "what PowerShell 7 lacks, or takes for something else; a warning where it executes it"),
    "command-file-quotes": ("warning", "single quotes after -File, which the script gets as a part of the value"),
    "command-value": ("warning", "a value after -Command that PowerShell reads as code, or changes"),
    "command-argument": ("warning", "what is an argument of the script after -File, and is meant as something else"),
    "command-boolean": ("warning", "a Boolean after -File, which gives the script a text"),
    "command-no-path": ("warning", "a file of the payload that a text after -Command starts without .\\"),
    "command-exit-code": ("warning", "an exit code that a pattern looks for, and that is lost behind -Command"),
    "command-encoded": ("warning", "an -EncodedCommand that is no UTF-16 in base64"),
    # external payload (harness.package.external)
    "external-missing": ("warning", "a file of the external payload is neither in the package nor where it may be got"),
    "external-unverified": ("warning", "a file of the external payload was loaded, and no hash says what it has to be"),
    "external-hash": ("error", "a file of the external payload is not the one that its hash is of"),
    "external-hash-format": (
        "warning",
        "a hash that is not SHA-256, in hexadecimal or base64; nothing is verified",
    ),
    # service definition and configuration (harness.package.service)
    "service-attribute": ("error", "an element without an attribute that it needs"),
    "service-value": ("error", "an attribute with a value that it cannot have"),
    "service-store": ("error", "a certificate for another store location than LocalMachine"),
    "service-thumbprint": ("error", "a thumbprint that is not SHA-1 in hexadecimal"),
    "service-duplicate": ("error", "two of one name"),
    "service-element": ("warning", "an element that a VirtualMachineRole does not have"),
    "service-unconfigured": ("warning", "the configuration lacks what the definition declares"),
    "service-undeclared": ("warning", "the configuration has what the definition does not declare"),
    # the archive (harness.package.archive)
    "archive-backslash": ("warning", "an entry of the archive has backslashes for separators"),
    "archive-name-encoding": ("warning", "the name of an entry is in a code page that nobody knows, not in UTF-8"),
    "archive-junk": ("info", "an entry of the archive that another program leaves in folders, such as .DS_Store"),
    "archive-data-before": ("warning", "bytes before the first entry of the archive, which belong to none"),
    "content-types-missing": ("info", "the package has no [Content_Types].xml"),
    # what is planned (harness.plan)
    "command-empty": ("warning", "a Linux command without a single argument; starting it fails"),
    "command-shell-syntax": (
        "warning",
        "a Linux command with |, > or && outside a shell, where they are plain arguments",
    ),
    "command-quote": ("warning", "a Linux command with a quote that is never closed"),
    "script-type": ("warning", "a script type that is never run"),
}

#: At most so many findings of one code in one file: a hostile document must not fill memory and reports.
MOST_PER_CODE: Final = 100


def one_line(text: str) -> str:
    """Text of a package as one line that moves no cursor: control characters become blanks or a replacement mark."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character in "\t\r\n" else "\ufffd" for character in text
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``line`` and ``column`` count from 1, in characters; None where there is no text to point at.

    ``file`` is the name inside the package (``x.resext``, ``src/a.sh``), ``pointer`` a JSON pointer (RFC 6901) or "".
    ``hint`` says what to do, or is "". ``id`` is the name that another program's error has there, or "".
    """

    severity: Severity
    code: str
    sentence: str
    hint: str = ""
    file: str = ""
    pointer: str = ""
    line: int | None = None
    column: int | None = None
    id: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        text = f"{self.severity}: {self.sentence}" + (f" ({self.hint})" if self.hint else "")
        return f"{place}: {text}" if place else text

    def as_json(self) -> dict[str, Any]:
        """The fields by name, as `check --json` and findings.json have them."""
        return asdict(self)


class Findings:
    """A growing list of findings, in the order in which they were made."""

    __slots__ = ("_count", "_items")

    def __init__(self, items: Iterable[Finding] = ()) -> None:
        self._items: list[Finding] = []
        self._count: Counter[tuple[str, str]] = Counter()
        self.extend(items)

    def add(
        self,
        code: str,
        sentence: str,
        *,
        hint: str = "",
        file: str = "",
        pointer: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        """Make a finding of ``code``; its severity is the one in CODES."""
        self.append(Finding(CODES[code][0], code, sentence, hint, file, pointer, line, column))

    def append(self, finding: Finding) -> None:
        if not (finding.sentence.isprintable() and finding.hint.isprintable()):
            finding = replace(finding, sentence=one_line(finding.sentence), hint=one_line(finding.hint))
        key = (finding.file, finding.code)
        self._count[key] += 1
        if self._count[key] <= MOST_PER_CODE:
            self._items.append(finding)
        elif self._count[key] == MOST_PER_CODE + 1:
            left = f"there are more findings of the kind {finding.code}; they are left out"
            self._items.append(Finding("info", "findings-left-out", left, file=finding.file))

    def full(self, code: str, file: str) -> bool:
        """Whether another finding of ``code`` would only be counted: its sentence need not be made."""
        return self._count[(file, code)] > MOST_PER_CODE

    def extend(self, items: Iterable[Finding]) -> None:
        for finding in items:
            self.append(finding)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self._items)

    @property
    def warnings(self) -> int:
        return sum(finding.severity == "warning" for finding in self._items)

    def codes(self) -> set[str]:
        return {finding.code for finding in self._items}

    def sorted(self) -> list[Finding]:
        """By file and place; findings without a place first."""
        return sorted(self._items, key=lambda f: (f.file, f.line or 0, f.column or 0, f.code))

    def as_json(self) -> dict[str, Any]:
        """``{"findings": [...], "errors": N, "warnings": N}``, in the order of ``sorted``."""
        return {
            "findings": [finding.as_json() for finding in self.sorted()],
            "errors": self.errors,
            "warnings": self.warnings,
        }
