# SPDX-License-Identifier: Apache-2.0
"""A command line of powershell.exe or pwsh, taken apart as the two do: switches, and what is started in which mode."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from harness.wincmd import is_cmd, is_powershell

Mode = Literal["file", "command", "encoded", "none"]

#: PowerShell takes all of these for a dash, and a slash as well.
_DASHES: Final = "-/\u2013\u2014\u2015"
#: Shortest spelling and whole name of a switch that has a value, and of one that has none.
_WITH_VALUE: Final = (
    ("ex", "executionpolicy"), ("ep", "ep"), ("v", "version"), ("psc", "psconsolefile"), ("in", "inputformat"),
    ("if", "if"), ("o", "outputformat"), ("of", "of"), ("w", "windowstyle"), ("config", "configurationname"),
    ("cus", "custompipename"), ("wd", "wd"), ("wo", "workingdirectory"), ("settings", "settingsfile"),
    ("configurationf", "configurationfile"), ("encodeda", "encodedarguments"), ("ea", "ea"),
)  # fmt: skip
_WITHOUT: Final = (
    ("nol", "nologo"), ("nop", "noprofile"), ("noni", "noninteractive"), ("noe", "noexit"), ("s", "sta"), ("m", "mta"),
    ("h", "help"), ("l", "login"), ("i", "interactive"), ("noprofilel", "noprofileloadtime"),
)  # fmt: skip
SWITCHES: Final = frozenset(name for _, name in (*_WITH_VALUE, *_WITHOUT) if len(name) > 5)
"""Whole names of switches of the engine."""
_SLASHES: Final = re.compile(r"\\+")
_IN_CMD: Final = re.compile(r"(?i)(?<![\w.-])(?:[^\s\"&|()]*\\)?(?P<name>powershell|pwsh)(?:\.exe)?\"?(?=\s)")


@dataclass(frozen=True, slots=True)
class Argument:
    """``text`` as the program gets it, ``raw`` as it is written."""

    text: str
    raw: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """How PowerShell is started. ``arguments`` are what follows on -File or -Command; ``switch`` is how that is
    written, "" where it is left out; ``raw`` the text of the arguments; ``through_cmd`` whether cmd.exe reads the line
    before."""

    engine: Literal["powershell", "pwsh"]
    mode: Mode
    arguments: tuple[Argument, ...]
    switch: str
    raw: str
    through_cmd: bool = False

    @property
    def code(self) -> str:
        """What PowerShell reads as a script; "" after -File, and for an -EncodedCommand that is none."""
        if self.mode == "command":
            return " ".join(argument.text for argument in self.arguments)
        return (self.decoded or "") if self.mode == "encoded" else ""

    @property
    def decoded(self) -> str | None:
        """The text of an -EncodedCommand, None where it is none."""
        coded = self.arguments[0].text if self.arguments else ""
        try:
            return base64.b64decode(coded, validate=True).decode("utf-16-le")
        except (binascii.Error, ValueError):
            return None


def invocations(executable: str | None, parameters: str, block: str = "") -> Iterator[Invocation]:
    """Every start of PowerShell in a command: a program with its parameters, or a batch text."""
    if executable is not None and is_powershell(executable):
        name = re.split(r"[\\/]", executable.strip().strip('"').lower())[-1]
        yield _invocation(name, parameters, through_cmd=False)
        return
    for line in (parameters,) if executable is not None and is_cmd(executable) else block.splitlines():
        if re.match(r"(?i)\s*(?:@?rem\b|::)", line):
            continue
        for found in _IN_CMD.finditer(line):
            rest = line[found.end() :]
            yield _invocation(found["name"].lower(), rest[: _end_of_command(rest)], through_cmd=True)


def _end_of_command(text: str) -> int:
    """Where cmd.exe ends a command: at what is not between quotation marks."""
    quoted = False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character in "&|<>" and not quoted and text[at - 1 : at] != "^":
            return at - (character in "<>" and text[at - 1 : at].isdigit())
    return len(text)


def split_arguments(text: str) -> list[tuple[int, Argument]]:
    """The arguments of a line and where each begins, as the C run-time library of a program has them."""
    found: list[tuple[int, Argument]] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in " \t":
            at += 1
        if at >= end:
            return found
        start, letters, quoted = at, [], False
        while at < end and (quoted or text[at] not in " \t"):
            if found_slashes := _SLASHES.match(text, at):
                slashes = len(found_slashes[0])
                at += slashes
                if at < end and text[at] == '"':
                    letters.append("\\" * (slashes // 2))
                    if slashes % 2:
                        letters.append('"')
                        at += 1
                else:
                    letters.append("\\" * slashes)
            elif text[at] == '"':
                if quoted and text[at + 1 : at + 2] == '"':
                    letters.append('"')
                    at += 1
                else:
                    quoted = not quoted
                at += 1
            else:
                letters.append(text[at])
                at += 1
        found.append((start, Argument("".join(letters), text[start:at])))


def _invocation(name: str, parameters: str, *, through_cmd: bool) -> Invocation:
    engine: Literal["powershell", "pwsh"] = "pwsh" if name.startswith("pwsh") else "powershell"
    words = split_arguments(parameters)
    number = 0
    while number < len(words):
        start, word = words[number]
        if not word.text or word.text[0] not in _DASHES:
            # Windows PowerShell takes what has no switch for a command, PowerShell 7 for a file.
            mode: Mode = "file" if engine == "pwsh" else "command"
            return Invocation(engine, mode, tuple(w for _, w in words[number:]), "", parameters[start:], through_cmd)
        switch = word.text[1:].lower().removeprefix("-")
        number += 1
        if (which := _mode(switch)) != "none":
            rest = tuple(w for _, w in words[number:])
            raw = parameters[words[number][0] :] if number < len(words) else ""
            return Invocation(engine, which, rest, word.text, raw, through_cmd)
        if _is_one(switch, _WITH_VALUE) and not _is_one(switch, _WITHOUT):
            number += 1
    return Invocation(engine, "none", (), "", "", through_cmd)


def _mode(switch: str) -> Mode:
    if switch and "file".startswith(switch):
        return "file"
    if switch and ("command".startswith(switch) or switch in ("cwa", "commandwithargs")):
        return "command"
    if switch in ("ec", "enc") or (switch and "encodedcommand".startswith(switch)):
        return "encoded"
    return "none"


def _is_one(switch: str, names: tuple[tuple[str, str], ...]) -> bool:
    return any(name.startswith(switch) and switch.startswith(least) for least, name in names)
