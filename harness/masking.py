# SPDX-License-Identifier: Apache-2.0
"""Nothing that leaves the harness shows a secret: every one becomes ``__**__``, the portal's own mark.

A secret is recognised in plain, in JSON, XML, URL and shell quoting, as UTF-16 text, and in base64 (standard and
URL-safe alphabet, all three alignments, of the UTF-8 and the UTF-16LE bytes: the latter is what
``powershell -EncodedCommand`` takes). Secrets under four characters are not looked for in text, they would mask half
of it; where a value is known to be one, as in a plan, it is masked by field.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick, MatchKind

MASK: Final = "__**__"
#: Shorter secrets are masked by field only.
SHORTEST: Final = 4
_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
Bytes = bytes
"""The type, in the class whose method has its name."""
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
HEAD: Final = 64
"""Bytes of a spelling that are looked for; the rest is compared where they are found. An automaton takes about 200
bytes for each byte of its patterns: a hostile package's password of a megabyte would fill any memory otherwise."""
_LINE: Final = 8
"""Characters of a line that is a secret by itself; shorter ones are words that stand elsewhere too."""
_MOST_LINES: Final = 200
_EDGE: Final = 3
"""Characters that a span of base64 may grow by at each end."""


class Masker:
    """Replaces secrets in text and bytes. One automaton finds them all in one pass (Aho-Corasick), however many."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these from now on as well: what is made during a run is known to nobody before it."""
        found = {text for secret in (*self.secrets, *secrets) for text in (secret, *_long_lines(secret))}
        self.secrets = tuple(sorted({s for s in found if len(s) >= SHORTEST}, key=len, reverse=True))
        plain: set[bytes] = set()
        encoded: set[bytes] = set()
        for secret in self.secrets:
            plain |= {part for text in _spellings(secret) for part in _byte_spellings(text)}
            encoded |= _base64_cores(secret)
        spellings = plain | encoded
        self.longest = max(map(len, spellings), default=-2 * _EDGE) + 2 * _EDGE
        heads = {spelling[:HEAD] for spelling in plain}
        patterns = [*heads, *({spelling[:HEAD] for spelling in encoded} - heads)]
        self._plain = len(heads)
        wholes: dict[Bytes, list[Bytes]] = {}
        for spelling in spellings:
            if len(spelling) > HEAD:
                wholes.setdefault(spelling[:HEAD], []).append(spelling)
        self._wholes = {number: wholes[head] for number, head in enumerate(patterns) if head in wholes}
        # of two secrets that start alike the longer one is masked whole
        self._automaton = BytesAhoCorasick(patterns, matchkind=MatchKind.LeftmostLongest) if patterns else None

    def text(self, text: str) -> str:
        if self._automaton is None:
            return text
        data = self.bytes(text.encode("utf-8", "surrogatepass"))
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a UTF-16 spelling may begin within a character
            return data.decode("utf-8", "replace")

    def bytes(self, data: bytes) -> bytes:
        out: list[Bytes] = []
        at = 0
        for start, end in self.spans(data):
            out += (data[at:start], MASK.encode())
            at = end
        return b"".join((*out, data[at:])) if out else data

    def spans(self, data: Bytes) -> Iterator[tuple[int, int]]:
        """Where the secrets of ``data`` are, in order, none overlapping.

        In base64 the characters beside the sure ones hold bits of the secret too and are taken along.
        """
        if self._automaton is None:
            return
        at = 0
        for pattern, start, end in self._automaton.find_matches_as_indexes(data):
            if end <= at:
                continue
            for whole in self._wholes.get(pattern, ()):
                end = max(end, start + _alike(data, start, whole))
            if pattern >= self._plain:
                start, end = _widened(data, start, end)
            if end > at:
                yield max(start, at), end
                at = end

    def stream(self) -> MaskStream:
        """A filter for bytes that come in pieces: a secret cut by their borders is found too."""
        return MaskStream(self)


class MaskStream:
    """``feed`` pieces in order, write what it returns, and ``flush`` at the end."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        # a match that starts before `sure` lies wholly in `data`, however long it is
        sure = len(data) - self._masker.longest
        out: list[bytes] = []
        at = 0
        for start, end in self._masker.spans(data):
            if start >= sure:
                break
            out += (data[at:start], MASK.encode())
            at = end
        cut = max(at, sure, 0)
        out.append(data[at:cut])
        self._rest = data[cut:]
        return b"".join(out)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._masker.bytes(rest)


def _long_lines(secret: str) -> list[str]:
    """The lines of a secret of several: whoever shows the first line of a text shows one of these alone."""
    lines = secret.splitlines()
    return [line.strip() for line in lines if len(line.strip()) >= _LINE] if 1 < len(lines) <= _MOST_LINES else []


def _spellings(secret: str) -> set[str]:
    found = {secret}
    for variant in (json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        found |= {variant[1:-1], variant[1:-1].replace("/", "\\/")}
    xml = html.escape(secret, quote=False)
    quotes = (('"', "&quot;"), ('"', "&#34;"), ("'", "&apos;"), ("'", "&#39;"), ("'", "&#x27;"))
    found |= {xml, json.dumps(xml)[1:-1], *(xml.replace(mark, name) for mark, name in quotes)}
    found |= {xml.replace('"', double).replace("'", single) for _, double in quotes[:2] for _, single in quotes[2:]}
    with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair has no URL form
        found |= {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    shell = shlex.quote(secret)
    found |= {shell[1:-1] if shell.startswith("'") else shell, secret.replace("'", "''"), repr(secret)[1:-1]}
    found.add("\0".join(secret))  # UTF-16 that was read as if it were bytes
    return {text for text in found if len(text) >= SHORTEST}


def _byte_spellings(text: str) -> set[bytes]:
    return {
        text.encode("utf-8", "surrogatepass"),
        text.encode("utf-16-le", "surrogatepass"),
        text.encode("utf-16-be", "surrogatepass"),
    }


def _base64_cores(secret: str) -> set[bytes]:
    """What the secret surely looks like in base64, in both alphabets, whatever stands before and after it.

    At each alignment some characters at the ends hold bits of the neighbours and are left out.
    """
    cores: set[bytes] = set()
    for data in (secret.encode("utf-8", "surrogatepass"), secret.encode("utf-16-le", "surrogatepass")):
        for shift in range(3):
            code = base64.b64encode(bytes(shift) + data)
            core = code[(0, 2, 3)[shift] : len(code) - (0, 3, 2)[(shift + len(data)) % 3]]
            if len(core) >= SHORTEST:
                cores |= {core, core.translate(_URL_SAFE)}
    return cores


def _alike(data: bytes, start: int, whole: bytes) -> int:
    """How many bytes of ``whole`` are at ``start``: all, or fewer where the output was cut."""
    if data.startswith(whole, start):
        return len(whole)
    low, high = 0, min(len(whole), len(data) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if data.startswith(whole[low:middle], start + low):
            low = middle
        else:
            high = middle - 1
    return low


def _widened(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The span with the characters of base64 that stand beside it: one before, one and the padding after."""
    if start > 0 and data[start - 1] in _BASE64:
        start -= 1
    if end < len(data) and data[end] in _BASE64:
        end += 1
    while end < len(data) and data[end] == 0x3D and data[end - 2 : end] != b"==":
        end += 1
    return start, end
