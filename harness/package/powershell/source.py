# SPDX-License-Identifier: Apache-2.0
"""The bytes of a script as PowerShell reads them, and which parts of a text are code, strings and comments."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["code", "string", "expandable", "comment"]

_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
CODE_PAGE: Final = "cp1252"
"""What Windows PowerShell takes for the encoding of a script without a mark, on a Western Windows."""

LOOKED_AT: Final = 1 << 20
"""Characters of a text that are taken apart."""
_SINGLE: Final = "'\u2018\u2019\u201a\u201b"
_DOUBLE: Final = '"\u201c\u201d\u201e'
#: What begins something else in code. A "#" does so only where a word may begin.
_IN_CODE: Final = re.compile(
    rf"(?P<block><\#)|(?P<line>(?<![^\s;|&(){{}},=\[\]])\#[^\r\n]*)|(?P<here_single>@[{_SINGLE}][ \t]*\r?\n)"
    rf"|(?P<here_double>@[{_DOUBLE}][ \t]*\r?\n)|(?P<single>[{_SINGLE}])|(?P<double>[{_DOUBLE}])"
    r"|(?P<escape>`(?:\r\n|.))|(?P<verbatim>(?<!\S)--%[^\r\n|]*)|(?P<braced>\$\{[^}]*\}?)|(?P<open>\()|(?P<close>\))",
    re.DOTALL,
)
_IN_DOUBLE: Final = re.compile(rf"`.|(?P<twice>[{_DOUBLE}]{{2}})|(?P<end>[{_DOUBLE}])|(?P<code>\$\()", re.DOTALL)
_IN_HERE: Final = re.compile(rf"(?P<end>\r?\n[{_DOUBLE}]@)|`.|(?P<code>\$\()", re.DOTALL)
_SINGLE_QUOTE: Final = re.compile(f"[{_SINGLE}]")
_HERE_SINGLE_END: Final = re.compile(rf"\r?\n[{_SINGLE}]@")


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a text, ``end`` exclusive. An expandable string is in several where it has code in it."""

    kind: Kind
    start: int
    end: int


class Script:
    """A script that was read: ``text`` as its author meant it, and what is wrong with its encoding.

    ``encoding`` is the one that ``text`` was read in, ``marked`` whether the file says so, ``nul`` whether it has NUL
    characters.
    """

    def __init__(self, data: bytes) -> None:
        self.marked = False
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                self.marked, self.encoding, data = True, encoding, data[len(mark) :]
                break
        else:
            self.encoding = _encoding(data)
        self.text = data.decode(self.encoding, "replace")
        self.as_windows_reads = self.text if self.marked else data.decode(CODE_PAGE, "replace")
        """The text that Windows PowerShell has of it, on a Western Windows."""

    @property
    def plain(self) -> bool:
        """Whether every engine reads it alike."""
        return self.marked or self.text.isascii()


class Text:
    """The text of a script or of a command, in regions and lines. What is beyond LOOKED_AT counts for a comment."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.regions = tuple(_regions(text[:LOOKED_AT]))
        if len(text) > LOOKED_AT:
            self.regions += (Region("comment", LOOKED_AT, len(text)),)
        self._starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """The inverse of ``place``."""
        return self._starts[min(line, len(self._starts)) - 1] + column - 1

    def kind(self, offset: int) -> Kind:
        """What is at ``offset``."""
        low = bisect_right(self.regions, offset, key=lambda region: region.start) - 1
        return self.regions[low].kind if low >= 0 and offset < self.regions[low].end else "code"

    def only(self, *kinds: Kind) -> str:
        """The text with blanks for all that is of another kind; lines and columns stay."""
        parts = []
        for region in self.regions:
            part = self.text[region.start : region.end]
            parts.append(part if region.kind in kinds else _blank(part))
        return "".join(parts)


def _blank(text: str) -> str:
    return re.sub(r"[^\r\n]", " ", text)


def _encoding(data: bytes) -> str:
    """Of a script without a mark."""
    even = data[: len(data) & ~1]
    for encoding, high in (("utf-16-le", even[1::2]), ("utf-16-be", even[::2])):
        if len(even) >= 4 and high.count(0) > len(high) // 2:
            return encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return CODE_PAGE
    return "utf-8"


def _regions(text: str) -> Iterator[Region]:
    """All of ``text``, in order. What is never closed runs to the end."""
    scan = _Scan(text)
    while scan.at < len(text):
        yield from scan.step()


class _Scan:
    """``stack`` has what is open: "(" in code, and the strings whose code this is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stack: list[str] = []

    def step(self) -> Iterator[Region]:
        if self.stack and self.stack[-1] != "(" and self.stack[-1] != "code":
            yield self.string()
        else:
            yield from self.code()

    def code(self) -> Iterator[Region]:
        start, at = self.at, self.at
        while found := _IN_CODE.search(self.text, at):
            at = found.end()
            which = found.lastgroup
            if which == "open":
                self.stack.append("(")
            elif which == "close":
                if self.stack and self.stack.pop() == "code":
                    self.at = at
                    yield Region("code", start, at)
                    return
            elif which not in ("escape", "braced"):
                if found.start() > start:
                    yield Region("code", start, found.start())
                yield from self.other(str(which), found)
                return
        self.at = len(self.text)
        yield Region("code", start, self.at)

    def other(self, which: str, found: re.Match[str]) -> Iterator[Region]:
        """What begins at ``found`` and is no code."""
        start, self.at = found.start(), found.end()
        if which in ("double", "here_double"):
            self.stack.append(which)
            yield Region("expandable", start, self.at)
            return
        if which == "block":
            end = self.text.find("#>", self.at)
            self.at = end + 2 if end >= 0 else len(self.text)
        elif which in ("single", "here_single"):
            self.at = _end(self.text, self.at, here=which == "here_single")
        yield Region("comment" if which in ("block", "line") else "string", start, self.at)

    def string(self) -> Region:
        start, at = self.at, self.at
        pattern = _IN_DOUBLE if self.stack[-1] == "double" else _IN_HERE
        # The line break before the end of a here-string may be that of its beginning.
        if self.stack[-1] == "here_double" and self.text[at - 1] == "\n":
            at -= 1
        while found := pattern.search(self.text, at):
            at = found.end()
            if found.lastgroup == "code":
                self.stack.append("code")
                break
            if found.lastgroup == "end":
                self.stack.pop()
                break
        else:
            at = len(self.text)
        self.at = at
        return Region("expandable", start, at)


def _end(text: str, at: int, *, here: bool) -> int:
    """Where a string in single quotes ends whose text begins at ``at``."""
    if here:  # the line break of its beginning may be that before its end
        found = _HERE_SINGLE_END.search(text, at - 1)
        return found.end() if found else len(text)
    while found := _SINGLE_QUOTE.search(text, at):
        at = found.end()
        if text[at : at + 1] not in _SINGLE or at == len(text):
            return at
        at += 1  # two in a row are one of the text
    return len(text)
