# SPDX-License-Identifier: Apache-2.0
"""The tree of a JSON document that keeps the place of everything; made by harness.package.jsontext."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

from harness.package.findings import Findings

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Node:
    """One value of the document.

    ``value`` is a scalar, a dict of member nodes, or a list of element nodes. ``start`` and ``end`` are offsets in the
    document's text (end exclusive); ``key_start`` is where the member's name starts, or -1.
    """

    __slots__ = ("document", "end", "key", "key_start", "parent", "start", "value")

    def __init__(self, document: Document, parent: Node | None, key: str | int | None, start: int) -> None:
        self.document = document
        self.parent = parent
        self.key = key
        self.key_start = -1
        self.start = start
        self.end = start
        self.value: Any = None

    @property
    def line(self) -> int:
        return self.document.place(self.start)[0]

    @property
    def column(self) -> int:
        return self.document.place(self.start)[1]

    @property
    def key_place(self) -> tuple[int, int]:
        """Line and column of the member's name; of the value itself where there is no name."""
        return self.document.place(self.key_start if self.key_start >= 0 else self.start)

    @property
    def pointer(self) -> str:
        """JSON pointer (RFC 6901); "" is the whole document."""
        parts: list[str] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            parts.append(str(node.key).replace("~", "~0").replace("/", "~1"))
            node = node.parent
        return "".join("/" + part for part in reversed(parts))

    @property
    def raw(self) -> str:
        """The text as it is written."""
        return self.document.text[self.start : self.end]

    def get(self, key: str | int) -> Node | None:
        """The member or element, None when there is none."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]  # type: ignore[no-any-return]
        return None

    def walk(self) -> Iterator[Node]:
        """This node and everything below it, in the order of the document."""
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value
        if isinstance(self.value, dict | list):
            for child in children:
                yield from child.walk()

    def plain(self) -> Any:
        """The value as the standard library would give it."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


class Document:
    """A text that was read: its tree, and the findings about how it is written."""

    __slots__ = ("_starts", "file", "findings", "root", "text")

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.findings = Findings()
        self.root: Node = Node(self, None, None, 0)
        self._starts: list[int] | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1, in characters; lines end with LF, CR or CRLF."""
        if self._starts is None:
            self._starts = [0, *(match.end() for match in _LINE_END.finditer(self.text))]
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """The offset of a place: the inverse of ``place``."""
        self.place(0)
        assert self._starts is not None
        return self._starts[min(max(line, 1), len(self._starts)) - 1] + column - 1

    def line_text(self, line: int) -> str:
        """One line without its end; "" beyond the text."""
        self.place(0)
        assert self._starts is not None
        if not 0 < line <= len(self._starts):
            return ""
        end = self._starts[line] if line < len(self._starts) else len(self.text)
        return self.text[self._starts[line - 1] : end].rstrip("\r\n")

    def find(self, pointer: str) -> Node | None:
        """The node at a JSON pointer."""
        node: Node | None = self.root
        for part in pointer.split("/")[1:]:
            if node is None:
                return None
            name = part.replace("~1", "/").replace("~0", "~")
            key: str | int = int(name) if isinstance(node.value, list) and name.isdigit() else name
            node = node.get(key)
        return node

    def report(self, code: str, sentence: str, node: Node, *, hint: str = "", at_key: bool = False) -> None:
        """Add a finding at a node, or at the name of the member that it is."""
        line, column = node.key_place if at_key else (node.line, node.column)
        self.findings.add(code, sentence, hint=hint, file=self.file, pointer=node.pointer, line=line, column=column)
