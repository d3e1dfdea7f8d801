# SPDX-License-Identifier: Apache-2.0
"""Nothing that leaves the harness shows a secret: every one becomes ``__**__``, the portal's own mark.

A secret is recognised in plain, in JSON, XML, HTML, URL and shell quoting, as a literal and a pattern of PowerShell, in
its raw CLIXML, as UTF-16 text, as hexadecimal and octal bytes, and in base64 (standard and URL-safe alphabet, all three
alignments, of the UTF-8 and the UTF-16LE bytes, quoted or not: the latter is what ``powershell -EncodedCommand``
takes); plain and in base64 also where a line is wrapped within it. One with letters beyond ASCII also with those
composed and decomposed, in the code pages of Western Windows, best fit, and as what becomes of it when it is written in
one encoding and read in another (docs/reports.md lists all, and what cannot be found).
Secrets under four characters are not looked for in text, they would mask half of it; where a value is known to be one,
as in a plan, it is masked by field.

Whoever shortens a text masks it first, and marks the cut by an ellipsis: others (pytest, PowerShell) shorten before we
see it, and beside an ellipsis the beginning or the end of a secret is masked as well.
"""

from __future__ import annotations

import base64
import contextlib
import html
import html.entities
import json
import re
import shlex
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

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
_WRAPPED: Final = range(8, 1025)
"""Bytes of a spelling that is found where a line is wrapped within it."""
_JOINT: Final = re.compile(
    rb"(?:\x1b\[[0-9;]{0,12}m){0,4}[ \t]{0,4}\r?\n(?:\x1b\[[0-9;]{0,12}m|[ \t]){0,40}(?:\|[ \t]{1,4})?"
    rb"(?:\x1b\[[0-9;]{0,12}m){0,4}[ \t]?"
)
"""What is between two lines: PowerShell 7 writes ``     | `` before the second one of an error, coloured."""
_JOINTS: Final = 512
"""Bytes that the joints of one secret may take together."""
_MOST_WRAPPED: Final = 64
"""Secrets whose wrapped forms are looked for: the automaton of a hostile package's thousands would fill any memory."""
_MUCH: Final = 8 << 20
"""Bytes after which an automaton is made that is twice as quick, takes 0.1 s to make, and some 50 MB."""
_MOST_QUICK: Final = 300_000
"""Bytes of patterns that it may have."""
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
        self._all = plain | encoded
        self.__dict__.pop("_pieces", None)
        wrapped: dict[Bytes, bool] = {}
        for secret in self.secrets[-_MOST_WRAPPED:]:
            wrapped |= _that_wrap(secret)
        ends, self._wrapped = _wrapped_by_start(wrapped)
        self.longest = max(map(len, self._all), default=-2 * _EDGE) + 2 * _EDGE + (_JOINTS if wrapped else 0)
        heads = {spelling[:HEAD] for spelling in plain}
        patterns = [*heads, *({spelling[:HEAD] for spelling in encoded} - heads)]
        self._plain, self._closed = len(heads), len(patterns)
        self._of_whole = BytesAhoCorasick(patterns, matchkind=MatchKind.LeftmostLongest) if ends else None
        self._ends = [places for end, places in ends.items() if end not in heads and end not in encoded]
        patterns += [end for end in ends if end not in heads and end not in encoded]
        wholes: dict[Bytes, list[Bytes]] = {}
        for spelling in self._all:
            if len(spelling) > HEAD:
                wholes.setdefault(spelling[:HEAD], []).append(spelling)
        self._wholes = {number: wholes[head] for number, head in enumerate(patterns) if head in wholes}
        # of two secrets that start alike the longer one is masked whole
        self._automaton = BytesAhoCorasick(patterns, matchkind=MatchKind.LeftmostLongest) if patterns else None
        self._patterns = patterns if sum(map(len, patterns)) <= _MOST_QUICK else []
        self._seen = 0

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
        self._seen += len(data)
        if self._seen > _MUCH and self._patterns:
            how = Implementation.DFA
            self._automaton = BytesAhoCorasick(self._patterns, matchkind=MatchKind.LeftmostLongest, implementation=how)
            self._patterns = []
        at = 0
        for pattern, start, end in self._automaton.find_matches_as_indexes(data):
            if end <= at:
                continue
            for first, last in self._found(data, pattern, start, end):
                if last > at:
                    yield max(first, at), last
                    at = last

    def _found(self, data: Bytes, pattern: int, start: int, end: int) -> Iterable[tuple[int, int]]:
        """All of a secret whose ``pattern`` was found. Where that is a beginning at the end of a line, and the rest of
        it does not follow: what else may begin within it."""
        if pattern >= self._closed:
            places = self._ends[pattern - self._closed]
            joined = max([_followed(data, start, form, place) for form, place in places])
            if joined:
                return ((start, joined),)
            assert self._of_whole is not None
            inner = self._of_whole.find_matches_as_indexes(data[start + 1 : end + HEAD])
            after = start + 1
            return [
                found
                for which, first, last in inner
                if after + first < end
                for found in self._found(data, which, after + first, after + last)
            ]
        if wholes := self._wholes.get(pattern, ()):
            known = self._wrapped.get(data[start : start + 1], ())
            end = max(end, *[start + _alike(data, start, whole) for whole in wholes])
            end = max([end, *[_followed(data, start, form, 0) for form in known]])
        return (_widened(data, start, end) if pattern >= self._plain else (start, end),)

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


def _that_wrap(secret: str) -> dict[bytes, bool]:
    """The spellings of a secret that are looked for across lines, and whether the next line may be indented."""
    texts = {form for text in {secret, unicodedata.normalize("NFC", secret)} for form in (text, _doubled(text))}
    forms = {text.encode("utf-8", "surrogatepass"): True for text in texts}
    forms |= dict.fromkeys(_base64_cores(secret, alone=True), False)
    return {form: indented for form, indented in forms.items() if len(form) in _WRAPPED}


_Place = tuple[bytes, int]
"""A form, and how much of it stands before the end of a line."""


def _wrapped_by_start(forms: Mapping[bytes, bool]) -> tuple[dict[bytes, list[_Place]], dict[bytes, list[bytes]]]:
    """The beginnings that may stand at the end of a line, with that, and the forms by how they begin."""
    ends: dict[bytes, list[_Place]] = {}
    by_start: dict[bytes, list[bytes]] = {}
    for form, indented in forms.items():
        by_start.setdefault(form[:1], []).append(form)
        for length in range(1, min(len(form), HEAD)):
            # What begins the next line is a part of what is looked for: many a line ends in a word of a secret.
            following = form[length:].lstrip(b" ")[:1]
            starts = (following, b" ", b"\x1b") if indented else (following,)
            for end in (*(line + start for line in (b"\n", b"\r\n") for start in starts), *([b"\x1b"] * indented)):
                ends.setdefault(form[:length] + end, []).append((form, length))
    return ends, by_start


def _followed(data: bytes, start: int, form: bytes, place: int) -> int:
    """Where ``form`` ends, which begins at ``start`` and may be on several lines; 0 where it is not there. ``place``
    bytes of it are known to be."""
    at, left = start + place, _JOINTS
    while place < len(form):
        if data[at : at + 1] == form[place : place + 1]:
            at, place = at + 1, place + 1
            continue
        joint = _JOINT.match(data, at) if place else None
        if joint is None or (left := left - (joint.end() - at)) < 0:
            return 0
        at = joint.end()
        while form[place : place + 1] == b" ":
            place += 1
    return at


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
    found |= {shell[1:-1] if shell.startswith("'") else shell, _doubled(secret), repr(secret)[1:-1]}
    found.add("\0".join(secret))  # UTF-16 that was read as if it were bytes
    return {text for text in found if len(text) >= SHORTEST}


def _of_programs(secret: str) -> set[str]:
    """How PowerShell, .NET and other programs write a secret where they quote it for another reader."""
    found = {secret.replace('"', '""'), secret.replace("'", "''"), re.escape(secret), _clixml(secret)}
    found |= {_clixml(html.escape(secret, quote=False)), secret.translate(_BACKTICKS), secret.translate(_PATTERN)}
    found |= {_json(secret, marks, upper=upper, ascii=ascii) for marks, upper, ascii in _JSONS}
    found |= {form.replace("/", "\\/") for form in found if "\\u" in form}
    found |= _html(secret)
    with contextlib.suppress(UnicodeEncodeError):
        for kept in _URLS:
            for form in (quote(secret, safe=kept), quote(secret, safe=kept + " ").replace(" ", "+")):
                found |= {form, re.sub("%..", lambda code: code[0].lower(), form)}
    fit = _best_fit(secret)
    found |= {fit} if _enough(fit, secret) else set()
    data = secret.encode("utf-8", "surrogatepass")
    found.add("".join(chr(byte) if byte < 0x80 else f"\\{byte:03o}" for byte in data))
    for coded in (data, secret.encode("utf-16-le", "surrogatepass")):
        found |= _as_numbers(coded)
    return {text for text in found if len(text) >= SHORTEST}


def _as_numbers(data: bytes) -> set[str]:
    """Bytes as programs list them."""
    codes = [f"{byte:02x}" for byte in data]
    found = {separator.join(codes) for separator in ("", " ", "-", ":", ", 0x", ",0x")}
    found |= {form.upper().replace("0X", "0x") for form in found}
    found |= {separator.join(map(str, data)) for separator in (",", ", ", " ")}
    return {*found, "".join(f"\\x{code}" for code in codes)}


_QUOTES: Final = "'\u2018\u2019\u201a\u201b"
_BACKTICKS: Final = str.maketrans({mark: f"`{mark}" for mark in '`$"\u201c\u201d\u201e'})
"""A text in double quotes of PowerShell."""
_PATTERN: Final = str.maketrans(
    {mark: f"\\{mark}" for mark in "\\*+?|{[()^$.# "} | {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
)
"""[regex]::Escape."""
_JSONS: Final = tuple(
    (marks, upper, ascii)
    for marks in ("<>'&", "<>&", "<>'&\"", "<>'&\"+`")
    for upper in (False, True)
    for ascii in (False, True)
)
"""Characters that are in code in ConvertTo-Json of Windows PowerShell, in Go, in ConvertTo-Json -EscapeHandling
EscapeHtml, and in .NET; in which case, and whether all that is not ASCII is, too."""
_URLS: Final = ("", "!*()-._", "!*()'-._~", ";/?:@&=+$,#[]!*'()")
"""What WebUtility.UrlEncode, Uri.EscapeDataString and Uri.EscapeUriString keep."""
_FITS: Final = str.maketrans(
    "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u2013\u2014\u2022\u00df", "''''" + '"""' + "--*s"
)
"""Letters of code page 1252 that Unicode does not take apart."""


def _doubled(text: str) -> str:
    """A literal in single quotes of PowerShell, to which typographic ones are quotes as well."""
    return "".join(mark * 2 if mark in _QUOTES else mark for mark in text)


def _json(text: str, marks: str, *, upper: bool, ascii: bool) -> str:
    out = json.dumps(text, ensure_ascii=ascii)[1:-1]
    if '"' in marks:
        out = out.replace('\\"', '"')
    out = "".join(f"\\u{ord(mark):04x}" if mark in marks else mark for mark in out)
    return re.sub(r"(\\u)([0-9a-f]{4})", lambda code: code[1] + code[2].upper(), out) if upper else out


def _html(text: str) -> set[str]:
    """Character references: by name, decimal and hexadecimal, of the marks alone and of what is beyond ASCII, too."""
    found = set()
    for form in ("&#{};", "&#x{:x};", "&#x{:X};", ""):
        for marks in (_MARKS, {mark: form.format(ord(mark)) or _MARKS[mark] for mark in _MARKS}):
            for as_dotnet in (False, True):
                found.add("".join(_reference(letter, form, marks, as_dotnet) for letter in text))
    return found


_MARKS: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}


def _reference(letter: str, form: str, marks: dict[str, str], as_dotnet: bool) -> str:
    code = ord(letter)
    if letter in marks:
        return marks[letter]
    # .NET writes what is in 160 to 255 or beyond 16 bits so, and keeps the rest.
    if code < 0x80 or (as_dotnet and not (0xA0 <= code <= 0xFF or code > 0xFFFF)):
        return letter
    if form:
        return form.format(code)
    name = html.entities.codepoint2name.get(code)
    return f"&{name};" if name else letter


def _clixml(text: str) -> str:
    """As it stands in CLIXML: control characters and halves of pairs in code, and what looks like code as well."""
    out = []
    for letter in re.sub("_(?=[xX])", "_x005F_", text):
        units = letter.encode("utf-16-be", "surrogatepass")
        coded = len(units) == 4 or ord(letter) < 0x20
        out += [f"_x{units[at : at + 2].hex().upper()}_" for at in range(0, len(units), 2)] if coded else [letter]
    return "".join(out)


def _best_fit(text: str) -> str:
    """What Windows makes of letters that a code page lacks: those that look like them."""
    letters = unicodedata.normalize("NFKD", text.translate(_FITS))
    return "".join(letter if letter.isascii() else "?" for letter in letters if not unicodedata.combining(letter))


def _plain_spellings(secret: str) -> set[bytes]:
    """Every way in which the secret is written out, in every encoding."""
    found: set[bytes] = set()
    composed = _composed(secret)
    for form in composed:
        for text in _spellings(form):
            found |= _unicode(text) | _in_code_pages(text)
        for text in _of_programs(form) if len(form) <= _LONG else ():
            found |= _unicode(text)
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


def _base64_cores(secret: str, *, alone: bool = False) -> set[bytes]:
    """What the secret surely looks like in base64, in both alphabets, whatever stands before and after it, also where
    it is quoted in what is coded; ``alone`` only as it is, in the first alphabet.

    At each alignment some characters at the ends hold bits of the neighbours and are left out.
    """
    cores: set[bytes] = set()
    datas: set[bytes] = set()
    for form in [secret] if alone else _composed(secret):
        texts = {form, *(_quoted(form) if not alone and len(form) <= _LONG else ())}
        datas |= {text.encode(name, "surrogatepass") for text in texts for name in ("utf-8", "utf-16-le")}
        datas |= set() if alone else _in_code_pages(form)
    for data in datas:
        for shift in range(3):
            code = base64.b64encode(bytes(shift) + data)
            core = code[(0, 2, 3)[shift] : len(code) - (0, 3, 2)[(shift + len(data)) % 3]]
            if len(core) >= SHORTEST:
                cores |= {core} if alone else {core, core.translate(_URL_SAFE)}
    return cores


def _quoted(text: str) -> set[str]:
    """How a script, a command or a document that is coded as a whole has it."""
    xml = html.escape(text, quote=False)
    found = {_doubled(text), text.replace("'", "''"), text.translate(_BACKTICKS), text.replace('"', '""'), xml}
    return found | {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], xml.replace('"', "&quot;")}


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
