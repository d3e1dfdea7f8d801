# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as .NET reads them, executed by the ``regex`` package.

``translate`` is a scanner: it knows which constructs .NET has, refuses what .NET refuses (``a++``, ``\\V``, a leading
quantifier) and what cannot be executed here (balancing groups), and rewrites what is spelt differently. Sources: the
"Regular Expression Language - Quick Reference" of .NET [DOC], and its parser from knowledge [GUESS].

Everything is bounded: the length of a pattern, its depth, its elements with counted repeats written out, and the time
of each match.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import regex

MAX_LENGTH: Final = 2000
MAX_DEPTH: Final = 50
#: Elements of a pattern when its counted repeats are written out, as the engine does: ``((a{1000}){1000}){1000}`` would
#: fill any memory.
MAX_ELEMENTS: Final = 10_000
#: Seconds that one match may take; .NET has no limit unless one is asked for, VMM's agent is not known to [GUESS].
SECONDS: Final = 1.0

_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{([0-9]+)(,([0-9]*))?\})\??")
_NAME: Final = re.compile(r"\w+")
_OPTIONS: Final = re.compile(r"\(\?([imnsx]*(?:-[imnsx]+)?)([:)])")
_HEX: Final = {"x": 2, "u": 4}


class PatternError(ValueError):
    """A pattern that .NET refuses, or that cannot be executed here; the message is the end of a sentence."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The pattern, ready for ``search(text, timeout=SECONDS)``. Raises PatternError."""
    import regex

    translated = translate(pattern)
    try:
        return regex.compile(translated, regex.V1)
    except (regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
        raise PatternError(f"it is no valid regular expression: {str(error)[:100]}") from None


def translate(pattern: str) -> str:
    """``pattern`` in the syntax of ``regex.V1``. Raises PatternError."""
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"it has {len(pattern)} characters; at most {MAX_LENGTH} are looked at")
    return _Scanner(pattern).scan()


class _Scanner:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.out: list[str] = []
        self.depth = 0
        self.sizes = [0]  # elements of each open group
        self.last = 0  # elements of what a quantifier would repeat
        self.extended = False
        self.unnamed = 0
        self.named: dict[str, None] = {}
        self.backs = False

    def scan(self) -> str:
        quantifiable = quantified = False
        while self.at < len(self.text):
            quantifier = _QUANTIFIER.match(self.text, self.at)
            if quantifier:
                if quantified:
                    raise PatternError("it has a quantifier right after a quantifier")
                if not quantifiable:
                    raise PatternError("it has a quantifier that follows nothing")
                self.quantifier(quantifier)
                quantifiable, quantified = False, True
                continue
            quantified = False
            depth, self.last = self.depth, 1
            quantifiable = self.element()
            if self.depth > depth:
                self.sizes.append(0)
            elif self.depth < depth:
                self.last = self.sizes.pop() + 1
            self.grow(self.last)
        if self.depth:
            raise PatternError("it has a parenthesis that is never closed")
        if self.backs and self.named and self.unnamed:
            raise PatternError("it mixes named and numbered groups with a numbered reference, which .NET counts apart")
        return "".join(self.out)

    def grow(self, elements: int) -> None:
        self.sizes[-1] += elements
        if self.sizes[-1] > MAX_ELEMENTS:
            raise PatternError(f"its repeats make more than {MAX_ELEMENTS} elements of it")

    def quantifier(self, match: re.Match[str]) -> None:
        low, comma, high = match.groups()
        if low is not None:
            most = int((high or low)[:12]) if comma is not None else int(low[:12])
            if comma is not None and high and int(high[:12]) < int(low[:12]):
                raise PatternError("it has a repeat whose upper bound is below its lower one")
            self.grow(self.last * (max(1, most, int(low[:12])) - 1))
        self.out.append(match.group())
        self.at = match.end()

    def element(self) -> bool:
        """One element; whether a quantifier may follow it."""
        character = self.text[self.at]
        if character == "\\":
            return self.escape()
        if character == "[":
            self.out.append(self.char_class())
            return True
        if character == "(":
            return self.open()
        self.at += 1
        if character == ")":
            if not self.depth:
                raise PatternError("it has a closing parenthesis too many")
            self.depth -= 1
            self.out.append(character)
            return True
        if character == "#" and self.extended:
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
            return False
        if character == "$":
            self.out.append(character)
            return True
        # a brace that is no quantifier stands for itself in .NET; the engine has other uses for it
        self.out.append("\\" + character if character in "{}" else character)
        return character != "|"

    def open(self) -> bool:
        text, at = self.text, self.at
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise PatternError(f"its parentheses are more than {MAX_DEPTH} deep")
        if not text.startswith("(?", at):
            if text.startswith("(*", at):
                raise PatternError("it has a quantifier that follows nothing")
            self.unnamed += 1
            return self.emit("(", 1)
        for start in ("(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"):
            if text.startswith(start, at):
                return self.emit(start, len(start))
        if text.startswith("(?#", at):
            end = text.find(")", at)
            if end < 0:
                raise PatternError("it has a comment that is never closed")
            self.depth -= 1
            self.at = end + 1
            return False
        options = _OPTIONS.match(text, at)
        if options:
            on, _, off = options[1].partition("-")
            if "n" in options[1]:
                raise PatternError("it uses the option n, which is not supported here")
            self.extended = ("x" in on or self.extended) and "x" not in off
            if options[2] == ")":
                self.depth -= 1
            return self.emit(options.group(), len(options.group()))
        if text.startswith(("(?<", "(?'"), at):
            close = ">" if text[at + 2] == "<" else "'"
            end = text.find(close, at + 3)
            name = text[at + 3 : end] if end > 0 else ""
            if re.fullmatch(r"\w*-\w+", name):
                raise PatternError("it has a balancing group, which is not supported here")
            if not _NAME.fullmatch(name):
                raise PatternError("it has a group with an invalid name")
            if name[0].isdigit():
                raise PatternError("it has a group with a number for a name, which is not supported here")
            self.named[name] = None
            return self.emit(f"(?P<{name}>", end + 1 - at)
        if text.startswith("(?(", at):
            raise PatternError("it has a conditional, which is not supported here")
        raise PatternError(f"it has a group {text[at : at + 4]!r} that .NET does not have")

    def emit(self, text: str, length: int) -> bool:
        self.out.append(text)
        self.at += length
        return False

    def escape(self) -> bool:
        text = self.text
        if self.at + 1 >= len(text):
            raise PatternError("it ends with a backslash")
        character = text[self.at + 1]
        if character in "bBAGZz":
            ends = {"Z": r"(?=\n?\Z)", "z": r"\Z"}
            self.at += 2
            self.out.append(ends.get(character, "\\" + character))
            return True
        if character == "k":
            match = re.compile(r"\\k(?:<(\w+)>|'(\w+)')").match(text, self.at)
            if match is None:
                raise PatternError("it has a malformed \\k")
            self.out.append(f"(?P={match[1] or match[2]})")
            self.at = match.end()
            return True
        if character in "123456789":
            match = re.compile(r"\\[1-9][0-9]*").match(text, self.at)
            assert match is not None
            self.backs = True
            self.out.append(f"(?:{match.group()})")
            self.at = match.end()
            return True
        self.out.append(self.single(in_class=False))
        return True

    def single(self, *, in_class: bool) -> str:
        """An escape that stands for one character or a kind of characters."""
        text, at = self.text, self.at
        if at + 1 >= len(text):
            raise PatternError("it ends with a backslash")
        character = text[at + 1]
        self.at += 2
        if character in "dDwWsS" or character in "aftnrv" or (character == "b" and in_class):
            return "\\" + character
        if character == "e":
            return r"\x1b"
        if character in "pP":
            match = re.compile(r"\{(\w[\w-]*)\}").match(text, self.at)
            if match is None:
                raise PatternError(f"it has a malformed \\{character}")
            self.at = match.end()
            # blocks are called IsGreek in .NET and InGreek here
            name = re.sub(r"^Is", "In", match[1])
            return f"\\{character}{{{name}}}"
        if character == "c":
            letter = text[self.at : self.at + 1].upper()
            if not letter or not "@" <= letter <= "_":
                raise PatternError("it has a malformed \\c")
            self.at += 1
            return f"\\x{ord(letter) - 64:02x}"
        if character in _HEX:
            digits = text[self.at : self.at + _HEX[character]]
            if len(digits) != _HEX[character] or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
                raise PatternError(f"it has a malformed \\{character}")
            self.at += len(digits)
            return f"\\u{int(digits, 16):04x}"
        if character == "0" or (in_class and character in "1234567"):
            match = re.compile(r"[0-7]{1,3}").match(text, at + 1)
            assert match is not None
            self.at = match.end()
            return f"\\x{int(match.group(), 8) & 255:02x}"
        if character.isalnum() or character == "_":
            raise PatternError(f"it has an escape \\{character} that does not exist")
        return re.escape(character)

    def char_class(self, depth: int = 1) -> str:
        """A class as ``[...]``; a subtraction ``[a-z-[aeiou]]`` becomes a look-ahead before the class."""
        if depth > MAX_DEPTH:
            raise PatternError("its character classes are too deep")
        text = self.text
        self.at += 1
        negated = text.startswith("^", self.at)
        self.at += negated
        parts: list[str] = []
        without = ""
        first = True
        while True:
            if self.at >= len(text):
                raise PatternError("it has a character class that is never closed")
            character = text[self.at]
            if character == "]" and not first:
                self.at += 1
                break
            if text.startswith("-[", self.at) and not first:
                self.at += 1
                without = self.char_class(depth + 1)
                if not text.startswith("]", self.at):
                    raise PatternError("it has a subtraction that does not end its character class")
                self.at += 1
                break
            first = False
            if character == "\\":
                parts.append(self.single(in_class=True))
            else:
                # doubled marks are set operators of the engine, and a bracket is a nested set
                parts.append("\\" + character if character in "[]&|~#^" else character)
                self.at += 1
        body = "".join(parts)
        body = re.sub(r"--+", lambda match: "\\-" * len(match.group()), body)
        whole = f"[{'^' if negated else ''}{body}]"
        return f"(?:(?!{without}){whole})" if without else whole
