# SPDX-License-Identifier: Apache-2.0
"""The tolerant JSON reader that keeps the place of everything; the only one in the project for authored documents.

Valid JSON reads exactly as the standard library reads it. What people really wrote (trailing commas, comments, single
quotes, lone backslashes: the reference page's own sample has two of them [DOC dn249757]) is read too, and each
deviation is a finding with line, column and what to write instead. What cannot be read is a PackageError that names
file, line and column. Work is linear in the size of the text and bounded by the limits below.

**Backslashes.** ``\\e`` and every other escape that JSON does not have keeps its backslash: ``c:\\err.txt`` stays
a path. A valid escape (``\\t``, ``\\u0041``...) means what JSON says, always, in a document that is valid JSON.
Only when
- the document is *not* valid JSON for some reason, so that no conforming parser reads it in any way, and
- the string has no ``\\\\`` in it, so that its author did not escape backslashes there, and
- the backslash belongs to a Windows path: the whole string is one (``c:\\temp\\new.txt``), or a word of it that starts
  with a drive, ``.\\``, ``..\\`` or ``%NAME%\\`` is,
it is a path separator: control characters are impossible in Windows file names, so nothing else can be meant.
Either way a valid escape in a path is a finding (``json-path-escape``) that says how it was read.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, NoReturn

from harness.errors import PackageError
from harness.package.jsonpaths import SIMPLE, WHOLE_PATH, keep_separators, looks_like_path
from harness.package.jsontree import Document, Node

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 100
MAX_NODES: Final = 400_000
MAX_NUMBER: Final = 1000  # characters; CPython itself refuses more than 4300 digits

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD: Final = re.compile(r"-?[A-Za-z_$][A-Za-z0-9_$.\-]*")
_COMMENT: Final = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_PLAIN: Final = {"'": re.compile(r"[^'\\\x00-\x1f]*"), '"': re.compile(r'[^"\\\x00-\x1f]*')}
#: What follows a closing quote: the end of the line, of the document, or of the member.
_STRING_ENDS: Final = re.compile(r"[ \t]*(?:[,}\]\r\n]|\Z)")
_HEX4: Final = re.compile(r"[0-9A-Fa-f]{4}")
_WORDS: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "null": None,
    "nan": float("nan"),
    "infinity": float("inf"),
    "-infinity": float("-inf"),
}
Scalar = str | int | float | bool | None


class JsonError(PackageError):
    """No JSON, even with goodwill: ``what`` is wrong at ``offset`` of the text."""

    def __init__(self, message: str, *, what: str, offset: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.what = what
        self.offset = offset


def read_json(data: bytes, file: str) -> Document:
    """Read a document of ``file`` (the name that findings and errors carry).

    Bytes that are not of the text's encoding become U+FFFD and a finding, as in the decoders of the platform [INFER]:
    an umlaut in a description never stopped a deployment. Raises PackageError with file, line and column for what is no
    JSON even with goodwill, and beyond the limits of this module.
    """
    if len(data) > MAX_BYTES:
        raise PackageError(f"{file} has {len(data)} bytes; documents of more than {MAX_BYTES} bytes are not read")
    encoding = _encoding(data)
    text = data.decode(encoding, "replace")
    document = Document(text, file)
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        line, column = document.place(len(data[: error.start].decode(encoding, "replace")))
        if text[:1] == "\ufffd":  # no text at all
            what = f"{file}, line {line}, column {column}: the bytes are not text"
            raise PackageError(what, hint="save the file as UTF-8") from None
        shown = " ".join(f"{byte:02X}" for byte in data[error.start : error.start + 1])
        what = f"the byte {shown} is not {encoding[:6].strip('-').upper()}; it is read as the replacement character"
        hint = "save the file as UTF-8"
        document.findings.add("json-encoding", what, hint=hint, file=file, line=line, column=column)
    if encoding.startswith("utf-16"):
        document.findings.add(
            "json-utf16", "the document is written in UTF-16", hint="save it as UTF-8", file=file, line=1, column=1
        )
    _Reader(document).read()
    return document


def _encoding(data: bytes) -> str:
    """By the byte order mark, or by where the zero bytes of the first character are (RFC 4627, section 3)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(data) > 1 and not data[0] and data[1]:
        return "utf-16-be"
    if len(data) > 1 and data[0] and not data[1]:
        return "utf-16-le"
    return "utf-8-sig"


class _Reader:
    """Recursive descent; its depth is bounded by MAX_DEPTH."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.text = document.text
        self.nodes = 0
        self.deviates = False  # from valid JSON
        self.paths: list[Node] = []  # strings with a valid escape in what looks like a path
        self.long_string = -1  # start of a string over several lines: often a missing quote

    def read(self) -> None:
        start = self.blank(0)
        if start == len(self.text):
            self.fail(start, "there is no JSON value, the document is empty", "")
        end = self.value(self.document.root, start, 1)
        rest = self.blank(end)
        if rest != len(self.text):
            self.fail(rest, f"{self.seen(rest)} follows after the end of the document", "is a bracket closed early?")
        self.settle_paths()

    # ---- what can be wrong

    def fail(self, offset: int, what: str, hint: str) -> NoReturn:
        line, column = self.document.place(offset)
        if self.long_string >= 0:
            first = self.document.place(self.long_string)[0]
            hint = f"a string that starts in line {first} goes over several lines: is its closing quote missing?"
        message = f"{self.document.file}, line {line}, column {column}: {what}"
        raise JsonError(message, what=what, offset=offset, hint=hint or None)

    def note(self, code: str, offset: int, sentence: str, hint: str, node: Node | None = None) -> None:
        self.deviates = True
        findings = self.document.findings
        if findings.full(code, self.document.file):
            return
        line, column = self.document.place(offset)
        findings.add(
            code,
            sentence,
            hint=hint,
            file=self.document.file,
            pointer="" if node is None else node.pointer,
            line=line,
            column=column,
        )

    def seen(self, offset: int) -> str:
        if offset >= len(self.text):
            return "the end of the document"
        return repr(self.text[offset])

    # ---- tokens

    def blank(self, offset: int) -> int:
        """Skip white space and comments."""
        text = self.text
        match = _BLANK.match(text, offset)
        assert match is not None  # it matches the empty string
        offset = match.end()
        while text.startswith("/", offset):
            comment = _COMMENT.match(text, offset)
            if comment is None:
                closed = not text.startswith("/*", offset)
                self.fail(offset, "'/' starts no value" if closed else "the comment is never closed", "")
            self.note("json-comment", offset, "JSON has no comments", "remove it")
            match = _BLANK.match(text, comment.end())
            assert match is not None
            offset = match.end()
        return offset

    def value(self, node: Node, offset: int, depth: int) -> int:
        """Read one value into ``node``; ``offset`` is at its first character. Returns the offset behind it."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fail(offset, f"the document has more than {MAX_NODES} values", "")
        node.start = offset
        first = self.text[offset : offset + 1]
        if first == '"' or first == "'":
            node.value, end = self.string(node, offset)
        elif first == "{":
            end = self.object(node, offset, depth)
        elif first == "[":
            end = self.array(node, offset, depth)
        else:
            node.value, end = self.scalar(node, offset)
        node.end = end
        return end

    def scalar(self, node: Node, offset: int) -> tuple[Scalar, int]:
        text = self.text
        number = _NUMBER.match(text, offset)
        if number is not None and not (text[number.end() : number.end() + 1] or " ")[0].isalnum():
            if number.end() - offset > MAX_NUMBER:
                self.fail(offset, f"a number of more than {MAX_NUMBER} characters", "")
            whole = number.group(1) is None and number.group(2) is None
            return (int(number.group()) if whole else float(number.group())), number.end()
        word = _WORD.match(text, offset)
        if word is not None:
            name = word.group()
            if name.lower() in _WORDS:
                if name not in ("true", "false", "null"):
                    self.note("json-literal", offset, f"{name} is no value of JSON", "write true, false or null", node)
                return _WORDS[name.lower()], word.end()
            self.fail(offset, f"the text {name[:40]!r} is not in quotes", "put it in double quotes")
        if number is not None or text[offset : offset + 1] in ("+", "-", "."):
            self.fail(offset, "this is no number as JSON writes it", "no leading zero, plus sign or bare point")
        self.fail(offset, f"a value is missing here, {self.seen(offset)} starts none", "")

    def object(self, node: Node, offset: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            self.fail(offset, f"values are nested more than {MAX_DEPTH} deep", "")
        text, document = self.text, self.document
        members: dict[str, Node] = {}
        node.value = members
        at = self.blank(offset + 1)
        comma = -1  # where the last comma is, -1 when a member was read since
        while True:
            first = text[at : at + 1]
            if first == "}":
                if comma >= 0 and members:
                    self.note("json-trailing-comma", comma, "a comma before a closing bracket", "remove it", node)
                return at + 1
            if first == ",":
                self.note("json-trailing-comma", at, "a comma without a member before it", "remove it", node)
                at = self.blank(at + 1)
                continue
            if not first:
                self.fail(offset, "this { is never closed", "add the missing }")
            key, end = self.key(node, at)
            colon = self.blank(end)
            if not text.startswith(":", colon):
                self.fail(colon, f"a colon is missing after the name {key[:40]!r}", "")
            child = Node(document, node, key, colon)
            child.key_start = at
            if key in members:
                self.duplicate(members[key], child, key)
            end = self.value(child, self.blank(colon + 1), depth + 1)
            members[key] = child
            at = self.blank(end)
            comma = -1
            if text.startswith(",", at):
                comma = at
                at = self.blank(at + 1)
            elif text[at : at + 1] and (text[at] in "\"'" or _WORD.match(text, at)):
                self.note("json-missing-comma", end, "a comma is missing between two members", "add it", node)
            elif not text.startswith("}", at):
                if at >= len(text):
                    self.fail(offset, "this { is never closed", "add the missing }")
                self.fail(at, f"a comma or }} is missing before {self.seen(at)}", "")

    def array(self, node: Node, offset: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            self.fail(offset, f"values are nested more than {MAX_DEPTH} deep", "")
        text, document = self.text, self.document
        elements: list[Node] = []
        node.value = elements
        at = self.blank(offset + 1)
        comma = -1
        while True:
            first = text[at : at + 1]
            if first == "]":
                if comma >= 0 and elements:
                    self.note("json-trailing-comma", comma, "a comma before a closing bracket", "remove it", node)
                return at + 1
            if first == ",":
                self.note("json-trailing-comma", at, "a comma without an element before it", "remove it", node)
                at = self.blank(at + 1)
                continue
            if not first:
                self.fail(offset, "this [ is never closed", "add the missing ]")
            child = Node(document, node, len(elements), at)
            end = self.value(child, at, depth + 1)
            elements.append(child)
            at = self.blank(end)
            comma = -1
            if text.startswith(",", at):
                comma = at
                at = self.blank(at + 1)
            elif text[at : at + 1] and text[at] in "\"'{[":
                self.note("json-missing-comma", end, "a comma is missing between two elements", "add it", node)
            elif not text.startswith("]", at):
                if at >= len(text):
                    self.fail(offset, "this [ is never closed", "add the missing ]")
                self.fail(at, f"a comma or ] is missing before {self.seen(at)}", "")

    def duplicate(self, old: Node, new: Node, key: str) -> None:
        """Two members of one name: the last wins, as in the platform's parser; valid JSON, so no deviation."""
        findings = self.document.findings
        if findings.full("json-duplicate-key", self.document.file):
            return
        line, column = old.key_place
        there = new.key_place
        findings.add(
            "json-duplicate-key",
            f"the member {key[:80]!r} is there twice, first in line {line}, column {column}; "
            f"this one in line {there[0]}, column {there[1]} wins",
            hint="remove one of them",
            file=self.document.file,
            pointer=new.pointer,
            line=there[0],
            column=there[1],
        )

    def key(self, node: Node, offset: int) -> tuple[str, int]:
        if self.text[offset] in "\"'":
            return self.string(node, offset, key=True)
        word = _WORD.match(self.text, offset)
        if word is None:
            self.fail(offset, f"a member name is missing, {self.seen(offset)} starts none", "put it in double quotes")
        name = word.group()
        self.note("json-unquoted-key", offset, f"the name {name[:80]!r} is not in quotes", "use double quotes", node)
        return name, word.end()

    # ---- strings

    def string(self, node: Node, offset: int, key: bool = False) -> tuple[str, int]:
        text = self.text
        if text[offset] == '"':
            try:
                value, end = scanstring(text, offset + 1, True)
            except json.JSONDecodeError:
                return self.crooked_string(node, offset, key)
            if end - offset - 2 != len(value):  # it has escapes
                self.look_at_escapes(node, text[offset + 1 : end - 1], value, offset, key)
            return value, end
        self.note("json-single-quotes", offset, "a string in single quotes", "use double quotes", node)
        return self.crooked_string(node, offset, key)

    def look_at_escapes(self, node: Node, raw: str, value: str, offset: int, key: bool) -> None:
        if not key and looks_like_path(raw):
            self.paths.append(node)
        if "\\ud" in raw or "\\uD" in raw:
            self.look_for_surrogates(node, value, offset)

    def look_for_surrogates(self, node: Node, value: str, offset: int) -> None:
        if any("\ud800" <= character <= "\udfff" for character in value):
            deviates = self.deviates
            self.note("json-lone-surrogate", offset, "half of a surrogate pair is no character", "write both", node)
            self.deviates = deviates  # the standard accepts it

    def crooked_string(self, node: Node, offset: int, key: bool) -> tuple[str, int]:
        """A string that the standard does not accept: other quotes, lone backslashes, control characters."""
        text, quote = self.text, self.text[offset]
        plain = _PLAIN[quote]
        pieces: list[str] = []
        at = offset + 1
        lone = control = -1
        while True:
            match = plain.match(text, at)
            assert match is not None  # it matches the empty string
            pieces.append(match.group())
            at = match.end()
            if at >= len(text):
                self.fail(offset, "the string that starts here is never closed", f"add the missing {quote}")
            character = text[at]
            if character == quote:
                break
            if character != "\\":
                control = at if control < 0 else control
                if character in "\r\n":
                    self.long_string = offset
                pieces.append(character)
                at += 1
                continue
            piece, width = self.escape(at, quote, offset)
            if piece == "\\":
                lone = at if lone < 0 and width == 1 else lone
            pieces.append(piece)
            at += width
        value = "".join(pieces)
        if "\\ud" in text[offset:at].lower():
            value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            self.look_for_surrogates(node, value, offset)
        if lone >= 0:
            shown = " ".join(text[offset + 1 : min(at, offset + 61)].split())
            sentence = f"a backslash in '{shown}' is not doubled; it is kept as written"
            self.note("json-lone-backslash", lone, sentence, "write \\\\ for each backslash", node)
        if control >= 0:
            sentence = f"the control character {text[control]!r} in a string"
            self.note("json-control-character", control, sentence, "write it as an escape, for example \\n", node)
        if not key and looks_like_path(text[offset + 1 : at]):
            self.paths.append(node)
        return value, at + 1

    def escape(self, at: int, quote: str, start: int) -> tuple[str, int]:
        """What a backslash at ``at`` stands for, and how many characters it takes; a lone one stands for itself."""
        text = self.text
        letter = text[at + 1 : at + 2]
        if letter == quote:
            # "c:\dir\" at the end of a member: the author meant a path that ends there
            # (a path has at most 260 characters; the bound keeps a string of many escaped quotes linear)
            short = at - start <= 260 and WHOLE_PATH.fullmatch(text, start + 1, at) is not None
            if short and _STRING_ENDS.match(text, at + 2):
                return "\\", 1
            return quote, 2
        if letter in SIMPLE and letter:
            return SIMPLE[letter], 2
        if letter == "u":
            digits = _HEX4.match(text, at + 2)
            if digits is not None:
                return chr(int(digits.group(), 16)), 6
        return "\\", 1

    def settle_paths(self) -> None:
        """Decide what valid escapes in paths mean, now that it is known whether the document is valid JSON."""
        broken = self.deviates
        for node in self.paths:
            raw = node.raw[1:-1]
            how = "the backslashes are kept, as in a path" if broken else "it is read as JSON says, which is no path"
            self.note(
                "json-path-escape",
                node.start,
                f"{raw[:60]} looks like a Windows path and has an escape of JSON in it; {how}",
                "write \\\\ for each backslash",
                node,
            )
            if broken:
                node.value = keep_separators(raw)
