# SPDX-License-Identifier: Apache-2.0
"""Findings about the PowerShell of a package: its command lines and its scripts. Nothing of it is executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harness.package.findings import CODES, Finding, Findings, Severity
from harness.package.lint import payload_folders
from harness.package.names import folded
from harness.package.parameters import declared_parameters
from harness.package.patterns import make_check, reboot_codes
from harness.package.powershell.commands import Around, Told, neutral, told_of
from harness.package.powershell.engine import Answer, Asked, Fault, Parsed, Parser
from harness.package.powershell.invocation import Invocation, invocations
from harness.package.powershell.source import Script, Text
from harness.package.powershell.versions import SYNTAX, Difference, differences, may_be_newer
from harness.package.substitution import placeholders

if TYPE_CHECKING:
    from harness.package.archive import Entry
    from harness.package.jsontree import Document, Node
    from harness.package.reader import Package

_SUFFIXES: Final = (".ps1", ".psm1", ".psd1")
_FILES: Final = 500
_BYTES: Final = 12 << 20
"""Of each script."""
_FAULTS: Final = 3
"""Of each text; those after them are often theirs."""
_LISTS: Final = ("ProvisioningScripts", "ScriptCommands", "ScriptApplications")
_COUNTS: Final = (("RebootExitCodeRegex", "the reboot pattern"), ("ExitCodeRegex", "the failure pattern"))
_CODES: Final = (2, 5, 1603, 1641, 3010)
_HINT: Final = "install PowerShell 7 (pwsh), or name its program with VMROLE_PWSH"


@dataclass(frozen=True, slots=True)
class _File:
    """A script of the payload. ``engines`` are those that start it, or those of the package where none names it."""

    path: str
    script: Script
    text: Text
    engines: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Command:
    """A start of PowerShell, and what the document has about it."""

    node: Node
    start: Invocation
    around: Around


@dataclass(slots=True)
class _Package:
    package: Package
    names: dict[str, Entry] = field(default_factory=dict)
    texts: dict[str, tuple[Script, Text]] = field(default_factory=dict)
    """By the folded path in the payload."""


def powershell_findings(package: Package, parser: Parser) -> tuple[list[Finding], str]:
    """Everything that is said of the PowerShell in ``package``, and a sentence about what was not parsed, or "".

    Raises PackageError for a damaged file.
    """
    findings = Findings()
    looked = _Package(package, {folded(e.path): e for e in package.payload.files if e.path.lower().endswith(_SUFFIXES)})
    _read(looked)
    commands = list(_commands(looked))
    for command in commands:
        for told in told_of(command.start, command.around):
            _at(findings, command.node, told.code, told.sentence, told.hint)
    files = _files(looked, commands)
    asked = _asked(files, commands)
    some = any(one.text.strip() for one in asked)
    answer = parser.parse(asked) if some else Answer([Parsed() for _ in asked])
    _of_commands(commands, answer.parsed, findings)
    parsed = iter(answer.parsed[len(commands) :])
    for file in files:
        _of_file(package.payload.prefix, file, next(parsed), next(parsed) if _twice(file) else None, findings)
    left = sum(said is None and bool(one.text) for one, said in zip(asked, answer.parsed, strict=True))
    if not left:
        return list(findings), ""
    texts = "a text of PowerShell was" if left == 1 else f"{left} texts of PowerShell were"
    hint = "" if answer.version else f" ({_HINT})"
    return list(findings), f"{texts} looked at and not parsed: {answer.why}{hint}"


def told_of_values(package: Package, fill: Callable[[str], str]) -> list[tuple[str, Told]]:
    """What is odd about command lines only with the values of a run in them, with the JSON pointer of the script.

    ``fill`` puts the values into a text. Raises PackageError for a damaged file.
    """
    looked = _Package(package, {folded(e.path): e for e in package.payload.files if e.path.lower().endswith(_SUFFIXES)})
    _read(looked)
    found = []
    for written, filled in zip(_commands(looked), _commands(looked, fill), strict=False):
        known = {told.code for told in told_of(written.start, written.around)}
        known.add("secret-in-plain-text")  # as the values are
        node = filled.node.parent if filled.node.key == "Parameters" else filled.node
        source = node.parent.pointer if node is not None and node.parent is not None else ""
        found += [(source, told) for told in told_of(filled.start, filled.around) if told.code not in known]
    return found


def _read(looked: _Package) -> None:
    if not looked.package.extension.windows.model_fields_set or not looked.names:
        return
    payload = looked.package.payload
    with payload.source.opened() as open_file:
        for name, entry in list(looked.names.items())[:_FILES]:
            with open_file(payload.prefix + entry.path) as stream:
                script = Script(stream.read(_BYTES))
            looked.texts[name] = (script, Text(script.text))


def _commands(looked: _Package, fill: Callable[[str], str] = str) -> Iterator[_Command]:
    document = looked.package.document
    types = {one.name: one.type for one in declared_parameters(looked.package)}
    for node in document.root.walk():
        if node.key in _LISTS and isinstance(node.value, list):
            for element in node.value:
                yield from _of_node(element, document, looked, types, fill)


def _of_node(
    node: Node, document: Document, looked: _Package, types: dict[str, str], fill: Callable[[str], str]
) -> Iterator[_Command]:
    program, block = node.get("ExecutableAndParams"), node.get("ScriptBlock")
    executable = program.get("Executable") if program is not None else None
    rest = program.get("Parameters") if program is not None else None
    has_program = executable is not None and isinstance(executable.value, str) and bool(executable.value)
    shown = rest if has_program else block
    if shown is None or not isinstance(shown.value, str):
        return
    folder: list[str] = []
    files = {folded(entry.path) for entry in looked.package.payload.files}
    beside: set[str] = set()
    for _, folder in payload_folders(node, document, files):
        start = "".join(f"{part}/" for part in folder)
        beside |= {name.removeprefix(start) for name in files if name.startswith(start)}

    def script(name: str) -> Text | None:
        parts = [part for part in re.split(r"[\\/]+", folded(name)) if part not in ("", ".")]
        found = looked.texts.get("/".join((*folder, *parts)))
        return found[1] if found else None

    around = Around(types, script, frozenset(beside), _counting(node))
    line, batch = (fill(shown.value), "") if has_program else ("", fill(shown.value))
    for one in invocations(fill(executable.value) if has_program and executable is not None else None, line, batch):
        yield _Command(shown, one, around)


def _counting(node: Node) -> str:
    """Which pattern of a script looks for an exit code that is neither 0 nor 1; "" for none."""
    for name, what in _COUNTS:
        pattern = node.get(name)
        if pattern is None or not isinstance(pattern.value, str) or placeholders(pattern.value):
            continue
        own = {int(number) for number in re.findall(r"[0-9]{1,9}", pattern.value)[:20]} | set(_CODES)
        listed = reboot_codes(pattern.value) if what == "the reboot pattern" else None
        if listed is not None:
            if set(listed) - {0, 1}:
                return what
            continue
        check = make_check("exit code", pattern.value)
        try:
            if check.state != "on":
                continue
            of_failure = what == "the failure pattern" and check.found("1")
            if any(check.found(str(code)) != of_failure for code in own - {0, 1}):
                return what
        except TimeoutError:
            continue
    return ""


def _files(looked: _Package, commands: list[_Command]) -> list[_File]:
    started = frozenset(command.start.engine for command in commands) or frozenset({"powershell"})
    found = []
    for name, (script, text) in looked.texts.items():
        base = name.rpartition("/")[2]
        own = frozenset(c.start.engine for c in commands if base in folded(c.start.raw + c.start.code))
        found.append(_File(looked.names[name].path, script, text, own or started))
    return found


def _twice(file: _File) -> bool:
    """Whether Windows PowerShell may have another text of it, which is parsed as well."""
    return not file.script.plain and "powershell" in file.engines and file.script.encoding == "utf-8"


def _asked(files: list[_File], commands: list[_Command]) -> list[Asked]:
    """Every text to parse: those of the commands, and one or two of each script."""
    asked = []
    for command in commands:
        code = neutral(command.start.code)
        asked.append(Asked(code, command.start.engine == "powershell" and may_be_newer(Text(code))))
    for file in files:
        asked.append(Asked(file.script.text, "powershell" in file.engines and may_be_newer(file.text)))
        if _twice(file):
            asked.append(Asked(file.script.as_windows_reads))
    return asked


def _of_commands(commands: list[_Command], parsed: list[Parsed | None], findings: Findings) -> None:
    for command, said in zip(commands, parsed, strict=False):
        switch = command.start.switch or "the engine's name"
        for fault in said.faults[:1] if said else ():
            what = f"PowerShell cannot parse the text after {switch}: {fault.said}"
            _at(findings, command.node, "script-syntax", what, "", id=fault.id)
        text = Text(command.start.code)
        if said is None:
            for fault in _by_text(text):
                what = f"PowerShell cannot parse the text after {switch}: {fault.said}"
                _at(findings, command.node, "script-syntax", what, "", id=fault.id)
        engines = frozenset({command.start.engine})
        for difference in _differences(text, said):
            told = _told(difference, engines, "the text of the command")
            if told:
                code, severity, sentence = told
                _at(findings, command.node, code, sentence, difference.hint, severity=severity)


def _of_file(prefix: str, file: _File, said: Parsed | None, of_windows: Parsed | None, findings: Findings) -> None:
    path = prefix + file.path

    def add(
        code: str, sentence: str, hint: str, line: int, column: int, id: str = "", severity: Severity | None = None
    ) -> None:
        findings.append(Finding(severity or CODES[code][0], code, sentence, hint, path, "", line, column, id))

    faults = said.faults if said else list(_by_text(file.text))
    for fault in faults[:_FAULTS]:
        add(
            "script-syntax", f"PowerShell cannot parse the script: {fault.said}", "", fault.line, fault.column, fault.id
        )
    for lost in _NO_BRACKET.finditer(file.text.text):
        name = lost[1] or lost[2]
        at = lost.start(1 if lost[1] else 2)
        if file.text.kind(at) == "code" and not faults:
            what = f"{name[:60]} is a command to PowerShell here: the bracket before the name of a type is missing"
            add("script-syntax", what, f"write [{name[:60]}", *file.text.place(at), severity="warning")
            break
    if not file.script.plain:
        sentence, hint = _encoding(file.script, of_windows, bool(faults))
        at = next(found.start() for found in re.finditer(r"[^\x00-\x7f]", file.script.text))
        harmless = not re.search(r"[^\x00-\x7f]", file.text.only("code", "string", "expandable"))
        line, column = file.text.place(at)
        add("script-encoding", sentence, hint, line, column, severity="info" if harmless else None)
    elif not file.script.marked and file.script.encoding.startswith("utf-16"):
        what = "the script is UTF-16 and has no byte order mark: PowerShell reads NUL characters in it"
        add("script-encoding", what, "save it as UTF-8 with a byte order mark", 1, 1)
    for difference in _differences(file.text, said):
        told = _told(difference, file.engines, "the script")
        if told:
            code, severity, sentence = told
            line, column = file.text.place(difference.offset)
            add(code, sentence, difference.hint, line, column, severity=severity)


def _encoding(script: Script, of_windows: Parsed | None, has_faults: bool) -> tuple[str, str]:
    hint = "save it as UTF-8 with a byte order mark"
    if script.encoding != "utf-8":
        what = "the script is not UTF-8 and has no byte order mark: PowerShell 7 loses letters of it"
        return f"{what}, and Windows PowerShell reads them in the code page of its machine", hint
    what = (
        "the script has other than ASCII and no byte order mark: Windows PowerShell reads it in the code page of its "
    )
    what += "machine, as other letters"
    if of_windows is not None and of_windows.faults and not has_faults:
        fault = of_windows.faults[0]
        what += f", and in 1252 cannot parse it (line {fault.line}, {fault.id})"
    return what, hint


def _by_text(text: Text) -> Iterator[Fault]:
    """What is seen without a parser."""
    for found in _DRIVE.finditer(text.text):
        if text.kind(found.start()) in ("code", "expandable"):
            line, column = text.place(found.start())
            what = f"the ':' after {found[0].rstrip(':')[:60]} makes it a drive, of which no name follows"
            yield Fault(line, column, "InvalidVariableReferenceWithDrive", what)
            return


#: A variable with a colon that neither a drive nor a scope has a name behind.
_DRIVE: Final = re.compile(r"(?<![`$])\$[A-Za-z_]\w*:(?![\w:?])")


#: The name of a type that lacks the bracket before it, which is the name of a command then.
_NO_BRACKET: Final = re.compile(
    r"(?m)(?:[=(,;|{]|^)[ \t]*(?:([A-Za-z][\w.]*)\](?:::|\$|\(|\[)"
    r"|(CmdletBinding|Parameter|Validate\w+|Alias)\([^\r\n()]*\)\])"
)


def _differences(text: Text, said: Parsed | None) -> Iterator[Difference]:
    yield from differences(text, parsed=said is not None)
    for kind, place in said.newer.items() if said else ():
        at = text.offset(*place)
        # Behind --% Windows PowerShell reads none of it.
        if text.kind(at) != "string":
            yield Difference("newer", kind, SYNTAX.get(kind, kind), "", at)


def _told(difference: Difference, engines: frozenset[str], subject: str) -> tuple[str, Severity, str] | None:
    """Code, severity and sentence; None where neither engine that executes it minds."""
    if difference.side == "older":
        only = engines == {"pwsh"}
        return (
            "script-older",
            "warning" if only else "info",
            f"{subject} uses what PowerShell 7 lacks: {difference.what}",
        )
    if "powershell" not in engines:
        return None
    verb = "takes for something else" if difference.side == "wrong" else "lacks"
    return "script-newer", "warning", f"{subject} uses what Windows PowerShell {verb}: {difference.what}"


def _at(
    findings: Findings,
    node: Node,
    code: str,
    sentence: str,
    hint: str,
    *,
    id: str = "",
    severity: Severity | None = None,
) -> None:
    findings.append(
        Finding(
            severity or CODES[code][0],
            code,
            sentence,
            hint,
            node.document.file,
            node.pointer,
            node.line,
            node.column,
            id,
        )
    )
