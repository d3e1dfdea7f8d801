# SPDX-License-Identifier: Apache-2.0
"""What is odd about command lines that start PowerShell: quotes, arguments, and exit codes that are lost.

The same is said of a line as it is written, with ``[Param.X]`` in it, and with the values of a run in their places.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.package.names import folded
from harness.package.plain_passwords import PASSWORD, PASSWORD_HINT, has_password
from harness.package.powershell.invocation import SWITCHES, Argument, Invocation
from harness.package.powershell.source import Text
from harness.package.substitution import placeholders

_PLACEHOLDER: Final = re.compile(r"(?i)(?<!\[)\[param\.([^\[\]\x00-\x1f]{1,200})\]")
_NAME: Final = re.compile(r"[-\u2013-\u2015/]([A-Za-z]\w*)(:?)(.*)", re.DOTALL)
_SHELL: Final = re.compile(r"(?:\d|\*)?>{1,2}(?:&\d|\S*)|<\S*|\||;|&|&&|\|\|")
_STARTS: Final = r"(?:^|[|;({=&])\s*(?P<call>[&.]\s*(?=['\"\s])\s*)?"
_PROGRAM: Final = re.compile(
    rf"{_STARTS}(?P<quote>['\"]?)(?P<path>[^'\"|;&(){{}}\r\n\s][^'\"|;&(){{}}\r\n]*?)\.(?P<suffix>ps1|exe|cmd|bat|msi)"
    r"(?P=quote)(?=[\s;|&)}]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_KNOWN_PROGRAM: Final = re.compile(
    _STARTS + r"(?P<path>msiexec|cscript|sqlcmd|dism|reg|netsh|sc\.exe|robocopy|start-process|saps)(?=\s)",
    re.IGNORECASE,
)
_ENDS_ITSELF: Final = re.compile(
    r"(?i)(?<![\w-])exit(?![\w-])|SetShouldExit|Environment\]::(?:Exit|FailFast)|\bthrow\b"
)
_BOOLEAN: Final = re.compile(r"(?i)\$?(?:true|false)")
_BOOLEANS: Final = ("bool", "boolean", "switch", "management.automation.switchparameter")
_STRINGS: Final = ("string", "securestring", "credential")


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be said of a command."""

    code: str
    sentence: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """What is known besides a command line. ``types`` has those of the extension's parameters, ``script`` gives the
    text of a file that the command names, ``beside`` the names in its folder, folded; ``counts`` says which pattern
    looks for exit codes that are neither 0 nor 1, "" for none."""

    types: Mapping[str, str] = field(default_factory=dict)
    script: Callable[[str], Text | None] = lambda _: None
    beside: frozenset[str] = frozenset()
    counts: str = ""


def told_of(start: Invocation, around: Around) -> Iterator[Told]:
    """Everything odd about one start of PowerShell."""
    if start.mode == "file":
        yield from _of_file(start, around)
    elif start.mode == "command":
        yield from _of_values(start, around)
        yield from _of_code(start, around)
    elif start.mode == "encoded":
        if start.decoded is None and "[Param." in start.raw:
            return  # it is known with its value
        if start.decoded is None:
            what = "the text after -EncodedCommand is no UTF-16 in base64: PowerShell refuses it"
            yield Told("command-encoded", what, "encode it anew from UTF-16 without a mark")
            return
        if has_password(start.code):
            yield Told("secret-in-plain-text", f"{PASSWORD}, in base64", PASSWORD_HINT)
        yield from _of_code(start, around)


def _of_file(start: Invocation, around: Around) -> Iterator[Told]:
    arguments = start.arguments[1:]
    script = around.script(start.arguments[0].text) if start.arguments else None
    if not start.arguments:
        yield Told("command-argument", "no script is named after -File", "name one")
    if any(one.text.startswith("'") and not one.raw.startswith('"') for one in arguments):
        what = "after -File single quotes are a part of the value: the script gets them"
        yield Told("command-file-quotes", what, 'write \\"...\\"')
    for one in arguments:
        if '"' not in one.raw and _SHELL.fullmatch(one.text) and not start.through_cmd:
            what = f"{one.text[:40]!r} after -File is an argument of the script: nothing else reads it"
            yield Told("command-argument", what, "use -Command, or StandardOutputPath for what is written")
            break
    for one in arguments:
        name = _NAME.fullmatch(one.text)
        if name and not name[2] and name[1].lower() in SWITCHES and not _declared(script, name[1]):
            what = f"{one.text[:40]} after -File is an argument of the script, and none of PowerShell"
            yield Told("command-argument", what, "write it before -File")
            break
    yield from _of_booleans(arguments, script, around)


def _of_booleans(arguments: tuple[Argument, ...], script: Text | None, around: Around) -> Iterator[Told]:
    """Values that -File gives as texts to parameters of other types."""
    named, told = "", set()
    for one in arguments:
        match = _NAME.fullmatch(one.text)
        name, value, colon = (match[1], match[3], True) if match and match[2] else (named, one.text, False)
        named = match[1] if match and not match[2] else ""
        if not name or (match and not match[2]):
            continue
        wanted = _declared(script, name)
        # -Name:$true is the one spelling that is read as a Boolean
        boolean = not colon and (_BOOLEAN.fullmatch(value) is not None or _is_boolean(value, around))
        if boolean and wanted != "string" and (wanted in _BOOLEANS or value.startswith("$")):
            if "boolean" not in told:
                told.add("boolean")
                what = f"-{name[:40]} gets a text after -File, which is no Boolean"
                yield Told("command-boolean", what, f"write -{name[:40]}:$true, or use -Command")
        elif "," in value and wanted.endswith("[]") and '"' not in one.raw and "list" not in told:
            told.add("list")
            what = f"-{name[:40]} gets one text after -File, and not a list"
            yield Told("command-argument", what, "use -Command, or split it in the script")


def _is_boolean(value: str, around: Around) -> bool:
    match = _PLACEHOLDER.fullmatch(value.removeprefix("$"))
    return match is not None and around.types.get(match[1], "").lower() == "boolean"


def _declared(script: Text | None, name: str) -> str:
    """Type of a parameter of a script, "" where it is not known; "object" for one without."""
    if script is None:
        return ""
    code = script.only("code")
    found = re.search(rf"(?i)(?:\[([\w.]+(?:\[\])?)\]\s*)?\${re.escape(name)}(?!\w)", code[: 1 << 16])
    return (found[1] or "object").lower().removeprefix("system.") if found else ""


def _of_values(start: Invocation, around: Around) -> Iterator[Told]:
    """Where the value of a parameter is code."""
    text = Text(start.code)
    for found in _PLACEHOLDER.finditer(start.code):
        type_of = around.types.get(found[1], "").lower()
        kind = text.kind(found.start())
        before = start.code[found.start() - 1 : found.start()]
        if kind == "code" and type_of in _STRINGS and before != "$" and f'"{found[0]}"' in start.raw:
            what = f"the value of {found[1][:60]} is code to PowerShell, which does not see the quotes around it"
            yield Told("command-value", what, f"write '{found[0][:80]}'")
            return
        if kind == "expandable" and type_of in _STRINGS:
            what = f"in the value of {found[1][:60]} PowerShell reads $ and ` as more than themselves"
            yield Told("command-value", what, f"write '{found[0][:80]}'")
            return


def _of_code(start: Invocation, around: Around) -> Iterator[Told]:
    """What a text that PowerShell reads as a script starts, and what becomes of its exit code."""
    text = Text(start.code)
    code = text.only("code", "string", "expandable")
    last = None
    for found in _PROGRAM.finditer(code):
        path, suffix = found["path"], found["suffix"].lower()
        if re.search(r"\s", path) if not found["quote"] else not found["call"]:
            continue  # a command that has the name as an argument, or a text
        last = found
        if not re.search(r"[\\/:$%\[]", path) and folded(f"{path}.{suffix}") in around.beside:
            what = (
                f"PowerShell looks for {path[:60]}.{suffix} in the path only, not in the folder that it is started in"
            )
            yield Told("command-no-path", what, f"write .\\{path[:60]}.{suffix}")
            break
    for found in _KNOWN_PROGRAM.finditer(code):
        if text.kind(found.start("path")) == "code" and (last is None or found.start() > last.start()):
            last = found
    if around.counts and last is not None and not _ENDS_ITSELF.search(_from(text.only("code"), last.start("path"))):
        mode = "-Command" if start.mode == "command" else "-EncodedCommand"
        name = ntpath.basename(last["path"]) + (f".{last['suffix']}" if "suffix" in last.groupdict() else "")
        what = f"PowerShell ends with 0 or 1 after {mode}, whatever {name[:60]} ends with"
        what += f": {around.counts} sees no other code"
        yield Told("command-exit-code", what, "end it with ; exit $LASTEXITCODE")


def _from(code: str, at: int) -> str:
    """What follows from the statement on that is at ``at``."""
    return code[max(code.rfind(end, 0, at) for end in ";{\n") + 1 :]


def neutral(code: str) -> str:
    """A text with a word of the same length for each value that is not known."""
    return _PLACEHOLDER.sub(lambda found: "P" * len(found[0]), code) if placeholders(code) else code
