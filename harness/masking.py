# SPDX-License-Identifier: Apache-2.0
"""Nothing that leaves the harness shows a secret: every one becomes ``__**__``, the portal's own mark.

A secret is recognised in plain, in JSON, XML, URL and shell quoting, as UTF-16 text, and in base64 (standard and
URL-safe alphabet, all three alignments, of the UTF-8 and the UTF-16LE bytes: the latter is what
``powershell -EncodedCommand`` takes). One with letters beyond ASCII also with those composed and decomposed, in the
code pages of Western Windows, and as what becomes of it when it is written in one encoding and read in another.
Secrets under four characters are not looked for in text, they would mask half of it; where a value is known to be one,
as in a plan, it is masked by field.

Whoever shortens a text masks it first, and marks the cut by an ellipsis: others (pytest, PowerShell) shorten before we
see it, and beside an ellipsis the beginning or the end of a secret is masked as well.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import shlex
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
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
CODE_PAGES: Final = ("latin-1", "cp1252", "cp850", "cp437")
"""What programs of a Western Windows and old ones of Linux write."""
_LONG: Final = 64 * 1024
"""Characters of a secret whose misread forms, some hundred of them, are still looked for."""
_LOST: Final = "?\ufffd"
"""What stands for a character that an encoding does not have."""
_UNSEEN: Final = re.compile("[\x80-\x9f]")
"""Control characters that arise from letters which are misread, and that reports leave out."""
_ELLIPSES: Final = (b"...", "\u2026".encode())
_MARK: Final = 3
"""Bytes of each of them."""
_ELLIPSIS: Final = re.compile(rb"[ \t]?(?:\.\.\.|\xe2\x80\xa6)")
_PIECE: Final = 4
"""Bytes of the beginning or the end of a secret that are masked where something was cut."""
_REACH: Final = 256
"""Bytes before and after a cut that may be such a piece. One that is longer has a whole head in it, or is of a secret
that is long enough for what is left of it to be of no use."""


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
            plain |= _plain_spellings(secret)
            encoded |= _base64_cores(secret)
        self._all = spellings = plain | encoded
        self.__dict__.pop("_pieces", None)
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
        data = b"".join((*out, data[at:])) if out else data
        return self._beside_ellipses(data) if self._automaton and any(mark in data for mark in _ELLIPSES) else data

    def beginning(self, data: Bytes) -> Bytes:
        """``bytes`` of the beginning of something longer, which may end within a secret."""
        if self._automaton is None:
            return data
        data = self.bytes(data)
        if left := self._pieces.before_the_end(data):
            data = data[:-left] + MASK.encode()
        return data

    def excerpt(self, data: Bytes) -> Bytes:
        """``bytes`` of what was cut out of something longer; at both of its ends there may be pieces of secrets."""
        if self._automaton is None:
            return data
        data = self.beginning(data)
        left = self._pieces.at_the_start(data)
        return MASK.encode() + data[left:] if left else data

    @cached_property
    def _pieces(self) -> _Pieces:
        return _Pieces(self._all)

    def _beside_ellipses(self, data: Bytes) -> Bytes:
        out: list[Bytes] = []
        at = 0
        for start, end in self._pieces.beside_ellipses(data):
            if start >= at:
                out += (data[at:start], MASK.encode())
            at = max(at, end)
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


class _Pieces:
    """Beginnings and ends of secrets, where something was cut."""

    def __init__(self, spellings: Iterable[bytes]) -> None:
        long = [spelling for spelling in spellings if len(spelling) >= _PIECE]
        self._heads = sorted({spelling[:_REACH] for spelling in long})
        self._tails = sorted({spelling[::-1][:_REACH] for spelling in long})
        self._first = {head[:_PIECE] for head in self._heads}
        self._last = {tail[:_PIECE][::-1] for tail in self._tails}
        self._firsts = BytesAhoCorasick(list(self._first))
        self._lasts = BytesAhoCorasick(list(self._last))

    def before_the_end(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` a secret begins with."""
        window = data[-_REACH:]
        for start in range(len(window) - _PIECE + 1):
            if window[start : start + _PIECE] in self._first and _begins(self._heads, window[start:]):
                return len(window) - start
        return 0

    def at_the_start(self, data: bytes) -> int:
        """How many bytes at the start of ``data`` a secret ends with."""
        window = data[:_REACH]
        for end in range(len(window), _PIECE - 1, -1):
            if window[end - _PIECE : end] in self._last and _begins(self._tails, window[:end][::-1]):
                return end
        return 0

    def beside_ellipses(self, data: bytes) -> list[tuple[int, int]]:
        """Where such pieces are, in order; some may overlap."""
        found: list[tuple[int, int]] = []
        for _, start, end in self._firsts.find_matches_as_indexes(data, overlapping=True):
            cut = _ELLIPSIS.search(data, end, start + _REACH)
            if cut and _begins(self._heads, data[start : cut.start()]):
                found.append((start, cut.start()))
        for _, start, end in self._lasts.find_matches_as_indexes(data, overlapping=True):
            begin = max(data.rfind(mark, max(0, end - _REACH), start) for mark in _ELLIPSES) + _MARK
            begin += begin >= _MARK and data[begin : begin + 1] in (b" ", b"\t")
            if _MARK <= begin <= start and _begins(self._tails, data[begin:end][::-1]):
                found.append((begin, end))
        return sorted(found, key=lambda span: (span[0], -span[1]))


def _begins(known: list[bytes], piece: bytes) -> bool:
    """Whether one of ``known``, which are sorted, begins with ``piece``."""
    place = bisect_left(known, piece)
    return place < len(known) and known[place].startswith(piece)


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


def _plain_spellings(secret: str) -> set[bytes]:
    """Every way in which the secret is written out, in every encoding."""
    found: set[bytes] = set()
    composed = _composed(secret)
    for form in composed:
        for text in _spellings(form):
            found |= _unicode(text) | _in_code_pages(text)
    if not secret.isascii() and len(secret) <= _LONG:
        for misread in {misread for form in composed for misread in _misread(form)}:
            for text in _spellings(misread):
                found |= _unicode(text)
    return found


def _composed(secret: str) -> set[str]:
    """The secret as it is, on one line as sentences have it, and with its accented letters as one character and as
    two."""
    forms = {secret, " ".join(secret.split())}
    return forms | {unicodedata.normalize(how, form) for form in forms if not form.isascii() for how in ("NFC", "NFD")}


def _unicode(text: str) -> set[bytes]:
    return {
        text.encode("utf-8", "surrogatepass"),
        text.encode("utf-16-le", "surrogatepass"),
        text.encode("utf-16-be", "surrogatepass"),
    }


def _in_code_pages(text: str) -> set[bytes]:
    """``text`` in the code pages that have enough of its characters; "?" stands for one that they lack, as in what
    Windows writes."""
    if text.isascii():
        return set()
    pages = {name: text.encode(name, "replace") for name in ("ascii", *CODE_PAGES)}
    return {page for name, page in pages.items() if _enough(page.decode(name), text)}


def _misread(text: str) -> set[str]:
    """What becomes of ``text`` when it is written in one encoding and read in another."""
    written = _in_code_pages(text) | {text.encode("utf-8", "surrogatepass")}
    found: set[str] = set()
    for data in written:
        for name in CODE_PAGES:
            # Windows takes the bytes that code page 1252 leaves out for control characters.
            found |= {data.decode(name, "replace"), "".join(_character(byte, name) for byte in data)}
        found |= {data.decode("utf-8", how) for how in ("replace", "surrogateescape")}
        # How programs, Python among them, show bytes.
        found.add(data.decode("ascii", "backslashreplace"))
    found |= {_UNSEEN.sub("", form) for form in found}
    return {form for form in found if _enough(form, text)}


def _character(byte: int, code_page: str) -> str:
    try:
        return bytes((byte,)).decode(code_page)
    except UnicodeDecodeError:
        return chr(byte)


def _enough(form: str, text: str) -> bool:
    """Whether so much is left of ``text`` in ``form`` that nothing else looks like it."""
    lost = sum(map(form.count, _LOST)) - sum(map(text.count, _LOST))
    return lost <= 0 or len(form) - lost >= SHORTEST


def _base64_cores(secret: str) -> set[bytes]:
    """What the secret surely looks like in base64, in both alphabets, whatever stands before and after it.

    At each alignment some characters at the ends hold bits of the neighbours and are left out.
    """
    cores: set[bytes] = set()
    datas: set[bytes] = set()
    for form in _composed(secret):
        datas |= {form.encode("utf-8", "surrogatepass"), form.encode("utf-16-le", "surrogatepass")}
        datas |= _in_code_pages(form)
    for data in datas:
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
