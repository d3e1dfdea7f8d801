# SPDX-License-Identifier: Apache-2.0
"""TOML with the place of every key: whoever authored a file is told line and column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError

MAX_BYTES = 1 << 20

Where = tuple[str | int, ...]
"""Where something is in a document: names of tables and keys, numbers of elements."""


@dataclass(frozen=True, slots=True)
class TomlDocument:
    """``values`` as tomllib has them, and the places of keys, tables and elements; lines and columns start at 1."""

    file: str
    values: Mapping[str, Any]
    places: Mapping[Where, tuple[int, int]]

    def place(self, path: Where) -> str:
        """``file:line:column`` of what lies at ``path``, or of what it would lie in."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                line, column = self.places[path[:end]]
                return f"{self.file}:{line}:{column}"
        return f"{self.file}:1:1"

    def blamed(self, message: str, *within: Where) -> str:
        """The place below one of ``within`` whose key or text ``message`` speaks of; the first of them when it speaks
        of none."""
        best, most = within[0], 2
        for path in self.places:
            if not any(path[: len(top)] == top for top in within):
                continue
            for text in (path[-1], self._at(path)):
                if isinstance(text, str) and len(text) > most and text in message:
                    best, most = path, len(text)
        return self.place(best)

    def _at(self, path: Where) -> Any:
        value: Any = self.values
        for part in path:
            value = value[part]
        return value


def read_toml(path: Path) -> TomlDocument:
    """Raises UsageError, one sentence with the place, for what cannot be read or is no TOML."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="name a file that is there") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES >> 20} MiB", hint="is it the right file?")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8", hint="save the file as UTF-8") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, text, str(error)) from None
    except RecursionError:
        raise UsageError(f"{path}:1:1: this is nested too deeply", hint="is it the right file?") from None
    return TomlDocument(str(path), values, _Scanner(text).places)


def _not_toml(path: Path, text: str, said: str) -> UsageError:
    what, _, where = said.rpartition(" (at ")
    found = re.fullmatch(r"line (\d+), column (\d+)\)", where)
    lines = text.split("\n")
    place = f"{found[1]}:{found[2]}" if found else f"{len(lines)}:{len(lines[-1]) + 1}"
    return UsageError(
        f"{path}:{place}: this is no TOML: {(what or said)[:1].lower()}{(what or said)[1:]}",
        hint='texts stand in quotes, lists in [ ], and each package begins with [[packages]]; "vmrole schema nightly"',
    )


class _Scanner:
    """Finds the places in a text that tomllib has read, so it need not find errors."""

    _SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
    _BARE = re.compile(r"[A-Za-z0-9_-]+")
    _STRING = re.compile(
        r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
        r"|'''(?:[^']|'(?!''))*'{3,5}"
        r'|"(?:[^"\\\n]|\\.)*"'
        r"|'[^'\n]*'",
        re.DOTALL,
    )
    _OTHER = re.compile(r"[^,\]}#\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line, self._line_at = 1, 0
        self.places: dict[Where, tuple[int, int]] = {}
        self._last: dict[Where, int] = {}
        """Arrays of tables, and the number of their last one."""
        self._document()

    def _document(self) -> None:
        table: Where = ()
        while self._next():
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> Where:
        place = self._place()
        self._at += brackets
        *names, name = self._key()
        table: Where = ()
        for part in names:
            table = (*table, part)
            self.places.setdefault(table, place)
            table = self._inside(table)
        table = (*table, name)
        if brackets == 2:
            self.places.setdefault(table, place)
            self._last[table] = self._last.get(table, -1) + 1
            table = (*table, self._last[table])
        self.places[table] = place
        self._next()
        self._at += brackets
        return table

    def _inside(self, table: Where) -> Where:
        """``table``, or the last one of that array of tables."""
        return (*table, self._last[table]) if table in self._last else table

    def _pair(self, table: Where) -> None:
        self._next()
        place = self._place()
        for name in self._key():
            table = (*table, name)
            self.places.setdefault(table, place)
        self._next()
        self._at += 1  # =
        self._next()
        self._value(table)

    def _key(self) -> list[str]:
        names = []
        while True:
            self._next()
            if string := self._STRING.match(self._text, self._at):
                names.append(next(iter(tomllib.loads(f"{string[0]} = 0"))))
                self._at = string.end()
            elif bare := self._BARE.match(self._text, self._at):
                names.append(bare[0])
                self._at = bare.end()
            self._next()
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _value(self, path: Where) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            number = 0
            while self._next() and self._text[self._at] != "]":
                self.places[(*path, number)] = self._place()
                self._value((*path, number))
                self._comma()
                number += 1
            self._at += 1
        elif opening == "{":
            self._at += 1
            while self._next() and self._text[self._at] != "}":
                self._pair(path)
                self._comma()
            self._at += 1
        elif string := self._STRING.match(self._text, self._at):
            self._at = string.end()
        elif other := self._OTHER.match(self._text, self._at):
            self._at = other.end()

    def _comma(self) -> None:
        if self._next() and self._text[self._at] == ",":
            self._at += 1

    def _next(self) -> bool:
        """Go over white space and comments; False at the end."""
        if found := self._SPACE.match(self._text, self._at):
            self._at = found.end()
        return self._at < len(self._text)

    def _place(self) -> tuple[int, int]:
        # Places are asked for in the order of the text, so each line break is counted once.
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line, self._at - self._text.rfind("\n", 0, self._at)
