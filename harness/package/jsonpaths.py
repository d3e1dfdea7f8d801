# SPDX-License-Identifier: Apache-2.0
"""Which backslashes of a JSON string belong to a Windows path; the rule is in harness.package.jsontext."""

from __future__ import annotations

import re
from typing import Final

SIMPLE: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
#: One string that is a Windows path as a whole, and the words of a string that are; both on the text as written.
WHOLE_PATH: Final = re.compile(r'[A-Za-z]:(?:\\[^\\/:*?"<>|\x00-\x1f]+)+\\?')
_PATH_WORD: Final = re.compile(
    r'(?:(?<![^\s"\'=(;,])(?:[A-Za-z]:|\.{1,2}|%[A-Za-z_][A-Za-z0-9_()]*%))(?:\\[^\\/:*?"<>|\s]+)+'
)
_CONTROL_ESCAPE: Final = re.compile(r"\\(?:[bfnrt]|u[0-9A-Fa-f]{4})")
_LENIENT_ESCAPE: Final = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|.)", re.DOTALL)


def looks_like_path(raw: str) -> bool:
    """Whether a string, as written, has a single backslash with a meaning in JSON inside a Windows path."""
    if "\\\\" in raw or not _CONTROL_ESCAPE.search(raw):
        return False
    return any(_CONTROL_ESCAPE.search(raw, begin, end) for begin, end in _path_spans(raw))


def keep_separators(raw: str) -> str:
    """Decode a string without ``\\\\`` in which the backslashes of paths are separators."""
    pieces: list[str] = []
    at = 0
    for begin, end in [*_path_spans(raw), (len(raw), len(raw))]:
        pieces.append(_LENIENT_ESCAPE.sub(_decode_escape, raw[at:begin]))
        pieces.append(raw[begin:end])
        at = end
    return "".join(pieces)


def _decode_escape(match: re.Match[str]) -> str:
    body = match.group()[1:]
    if body[0] == "u" and len(body) == 5:
        return chr(int(body[1:], 16))
    return SIMPLE.get(body, "'" if body == "'" else "\\" + body)


def _path_spans(raw: str) -> list[tuple[int, int]]:
    if WHOLE_PATH.fullmatch(raw):
        return [(0, len(raw))]
    return [match.span() for match in _PATH_WORD.finditer(raw)]
