# SPDX-License-Identifier: Apache-2.0
"""JSON in a string: the values that definitions hand to extensions, and configurations to definitions.

The inner text is parsed first and parameters are filled in its leaves [INFER, spec section 3]: a value with a quote or
a backslash (``domain\\user``) put into the text before would break it. It is read with the same goodwill as documents
are, and its findings point into the outer string.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Final

from harness.package.jsontext import JsonError, read_json
from harness.package.jsontree import Document, Node

#: Of one string; the published ones have a few hundred.
MAX_CHARACTERS: Final = 1 << 20
_UNIT: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|.", re.DOTALL)
_SURROGATES: Final = re.compile(r"(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
#: ``"Port":[Param.Port]`` as it may work where texts are pasted together; only looked for when JSON fails.
_BARE: Final = re.compile(r"(?i)([:,\[]\s*)(\[param\.[^\[\]\"']{1,200}\])(?=\s*[,}\]])")


@dataclass(frozen=True, slots=True)
class Nested:
    """The object inside a string. ``root`` is its tree; ``outer`` the string's own node."""

    outer: Node
    root: Node
    places: _Places

    def place(self, node: Node) -> tuple[int, int]:
        """Line and column in the outer document of a node of the inner one."""
        if node.document is self.outer.document:
            return node.line, node.column
        return self.places(node.key_start if node.key_start >= 0 else node.start)

    def report(self, code: str, sentence: str, node: Node, hint: str = "") -> None:
        """Add a finding at an inner node to the outer document; its pointer is that of the string."""
        line, column = self.place(node)
        document = self.outer.document
        document.findings.add(
            code, sentence, hint=hint, file=document.file, pointer=self.outer.pointer, line=line, column=column
        )

    def members(self) -> dict[str, Node]:
        """The object's members."""
        assert isinstance(self.root.value, dict)
        return self.root.value


def read_nested(node: Node) -> Nested | None:
    """The object in the string ``node``; an empty object for null, "" and a missing one's empty string.

    None, with the finding ``nested-json`` in the node's document, when the string holds none.
    """
    document = node.document
    name = str(node.key)
    if isinstance(node.value, dict):
        document.report("nested-json-object", f"{name} is an object, not a string with one in it", node)
        return Nested(node, node, _Places(node))
    text = node.value
    if text is None or (isinstance(text, str) and not text.strip()):
        text = "{}"
    if not isinstance(text, str):
        document.report("nested-json", f"{name} has to be a string with a JSON object in it", node)
        return None
    if len(text) > MAX_CHARACTERS:
        document.report("nested-json", f"the text in {name} has more than {MAX_CHARACTERS} characters", node)
        return None
    place = _Places(node)
    inner = _parse(text, name, place)
    if inner is None:
        return None
    if not isinstance(inner.root.value, dict):
        document.report("nested-json", f"the text in {name} is JSON, but no object", node)
        return None
    for finding in inner.findings:
        line, column = place(inner.offset(finding.line or 1, finding.column or 1))
        document.findings.add(
            finding.code, f"inside {name}: {finding.sentence}", hint=finding.hint, file=document.file,
            pointer=node.pointer, line=line, column=column,
        )  # fmt: skip
    return Nested(node, inner.root, place)


def _parse(text: str, name: str, place: _Places) -> Document | None:
    node = place.outer
    document = node.document
    try:
        return read_json(text.encode("utf-8", "replace"), name)
    except JsonError as error:
        quoted, count = _BARE.subn(r'\1"\2"', text)
        if count:
            with contextlib.suppress(JsonError):
                inner = read_json(quoted.encode("utf-8", "replace"), name)
                hint = "write it in (escaped) double quotes"
                document.report("nested-json-bare", f"{name} has a parameter without quotes", node, hint=hint)
                return inner
        line, column = place(error.offset)
        what = f"the text in {name} is no JSON object: {error.what}"
        document.findings.add(
            "nested-json", what, hint=error.hint or "", file=document.file, pointer=node.pointer, line=line,
            column=column,
        )  # fmt: skip
        return None


class _Places:
    """Line and column of the character at an offset of a string's value, in the document that has the string.

    Exact for strings that are JSON; the string's start beyond what can be told.
    """

    __slots__ = ("_offsets", "outer")

    def __init__(self, outer: Node) -> None:
        self.outer = outer
        self._offsets: list[int] | None = None

    def __call__(self, offset: int) -> tuple[int, int]:
        if self._offsets is None:
            raw = self.outer.raw[1:-1]
            seconds = {match.end() - 6 for match in _SURROGATES.finditer(raw)}
            self._offsets = [match.start() for match in _UNIT.finditer(raw) if match.start() not in seconds]
        if offset < len(self._offsets):
            return self.outer.document.place(self.outer.start + 1 + self._offsets[offset])
        return self.outer.line, self.outer.column
