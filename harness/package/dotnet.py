# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as .NET reads them, executed by the ``regex`` package.

``translate`` is a scanner: it knows which constructs .NET has, refuses what .NET refuses (``a++``, ``\\V``, a leading
quantifier) and what cannot be executed here (balancing groups, conditionals), and writes everything in terms that do
not depend on options of the engine, whose letters fold otherwise than .NET's. Sources: the "Regular Expression
Language - Quick Reference" of .NET and the published source of its parser [DOC, SRC].

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

_QUANTIFIER: Final = re.compile(r"[*+?]|\{([0-9]+)(,([0-9]*))?\}")
_BLANKS: Final = re.compile(r"(?:[ \t\n\f\r]+|#[^\n]*)+")
_OPTIONS: Final = re.compile(r"\(\?([imnsxIMNSX+-]*)([:)])")
_WORD: Final = r"\p{L}\p{Mn}\p{Nd}\p{Pc}"
_HEX: Final = {"x": 2, "u": 4}
_CONTROLS: Final = {"a": 7, "b": 8, "e": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CATEGORY: Final = re.compile("C[cfnos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
#: Blocks of which .NET has another name than the engine, without Is.
_BLOCKS: Final = {
    "Greek": "GreekandCoptic",
    "CombiningMarksforSymbols": "CombiningDiacriticalMarksforSymbols",
    "PrivateUse": "PrivateUseArea",
}


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
    """``pattern`` in the syntax of ``regex.V1``, without options. Raises PatternError."""
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"it has {len(pattern)} characters; at most {MAX_LENGTH} are looked at")
    first = _Scanner(pattern, None)  # .NET counts the groups first: \12 is the twelfth, or else a character
    first.scan()
    return _Scanner(pattern, first.groups()).scan()


@lru_cache(maxsize=1)
def _same_letters() -> dict[int, frozenset[int]]:
    """Each letter that has others of the same lower case, with all of them.

    .NET compares letter by letter, by the simple lower case of the invariant culture: K is the Kelvin sign too, and
    ``ss`` is not the sharp s.
    """
    by_lower: dict[int, set[int]] = {}
    for code in range(0x10000):
        lower = chr(code).lower()
        if len(lower) == 1 and ord(lower) != code:
            by_lower.setdefault(ord(lower), {ord(lower)}).add(code)
    return {code: frozenset(codes) for codes in by_lower.values() for code in codes}


def _letters(code: int) -> frozenset[int]:
    """The characters that are equal to one when case is ignored."""
    return _same_letters().get(code, frozenset((code,)))


def _written(code: int) -> str:
    """A character in a form that means nothing else, in a class or outside."""
    letter = chr(code)
    return letter if letter.isascii() and letter.isalnum() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_word(letter: str) -> bool:
    """Whether .NET takes a character for one of a word, as in names of groups."""
    from unicodedata import category

    kind = category(letter) if letter else ""
    return kind[:1] == "L" or kind in ("Mn", "Nd", "Pc")


class _Scanner:
    """One pass over a pattern. ``known`` are its groups, by number and by name, as what the engine calls them; None in
    the pass that finds them."""

    def __init__(self, pattern: str, known: dict[int | str, str] | None) -> None:
        self.text = pattern
        self.known = known
        self.at = 0
        self.out: list[str] = []
        self.sizes = [0]  # elements of each open group
        self.last = 0  # elements of what a quantifier would repeat
        self.options = frozenset[str]()
        self.outer: list[frozenset[str]] = []  # of each open group
        self.unnamed = 0
        self.numbers: set[int] = set()
        self.names: dict[str, None] = {}

    def groups(self) -> dict[int | str, str]:
        """Numbers and names of all groups. Named ones are numbered behind the others."""
        found: dict[int | str, str] = {number: f"g{number}" for number in (*range(1, self.unnamed + 1), *self.numbers)}
        number = 1
        for name in self.names:
            while number in found:
                number += 1
            found[number] = found[name] = f"g{number}"
        return found

    def scan(self) -> str:
        quantifiable = quantified = False
        while True:
            self.blank()
            if self.at >= len(self.text):
                break
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
            depth, self.last = len(self.outer), 1
            quantifiable = self.element()
            if len(self.outer) > depth:
                self.sizes.append(0)
            elif len(self.outer) < depth:
                self.last = self.sizes.pop() + 1
            self.grow(self.last)
        if self.outer:
            raise PatternError("it has a parenthesis that is never closed")
        return "".join(self.out)

    def blank(self) -> None:
        """Go past comments, and with the option x past blanks: a quantifier reaches over them."""
        while True:
            if self.text.startswith("(?#", self.at):
                end = self.text.find(")", self.at)
                if end < 0:
                    raise PatternError("it has a comment that is never closed")
                self.at = end + 1
            elif "x" in self.options and (blanks := _BLANKS.match(self.text, self.at)):
                self.at = blanks.end()
            else:
                return

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
        self.blank()
        if self.text.startswith("?", self.at):
            self.out.append("?")
            self.at += 1

    def element(self) -> bool:
        """One element; whether a quantifier may follow it."""
        character = self.text[self.at]
        if character == "\\":
            self.out.append(self.escape())
            return True
        if character == "[":
            self.out.append(self.char_class())
            return True
        if character == "(":
            self.open()
            return False
        self.at += 1
        if character == ")":
            if not self.outer:
                raise PatternError("it has a closing parenthesis too many")
            self.options = self.outer.pop()
            self.out.append(character)
            return True
        lines = "m" in self.options
        marks = {
            "|": "|",
            ".": r"[\s\S]" if "s" in self.options else r"[^\n]",
            "^": r"(?:\A|(?<=\n))" if lines else r"\A",
            "$": r"(?=\n|\Z)" if lines else r"(?=\n?\Z)",
        }
        self.out.append(marks[character] if character in marks else self.literal(ord(character)))
        return character != "|"

    def literal(self, code: int) -> str:
        codes = _letters(code) if "i" in self.options else (code,)
        return _written(code) if len(codes) == 1 else f"[{''.join(map(_written, sorted(codes)))}]"

    def open(self) -> None:
        text, at = self.text, self.at
        options = _OPTIONS.match(text, at)
        if options and options[2] == ")" and options[1]:
            self.options = self.changed(options[1])
            self.at = options.end()
            return
        self.outer.append(self.options)
        if len(self.outer) > MAX_DEPTH:
            raise PatternError(f"its parentheses are more than {MAX_DEPTH} deep")
        if not text.startswith("(?", at):
            if "n" in self.options:
                self.emit("(?:", 1)
            else:
                self.unnamed += 1
                self.emit(f"(?P<g{self.unnamed}>", 1)
            return
        for start in ("(?=", "(?!", "(?<=", "(?<!", "(?>"):
            if text.startswith(start, at):
                self.emit(start, len(start))
                return
        if options and options[2] == ":":
            self.options = self.changed(options[1])
            self.emit("(?:", options.end() - at)
            return
        if text.startswith(("(?<", "(?'"), at):
            self.named()
            return
        if text.startswith("(?(", at):
            raise PatternError("it has a conditional, which is not supported here")
        raise PatternError(f"it has a group {text[at : at + 4]!r} that .NET does not have")

    def changed(self, written: str) -> frozenset[str]:
        """The options after ``im-s``."""
        now, on = set(self.options), True
        for letter in written.lower():
            if letter in "+-":
                on = letter == "+"
            elif on:
                now.add(letter)
            else:
                now.discard(letter)
        return frozenset(now)

    def named(self) -> None:
        at = self.at
        close = ">" if self.text[at + 2] == "<" else "'"
        end = self.text.find(close, at + 3)
        name = self.text[at + 3 : end] if end > 0 else ""
        if re.fullmatch(r"\w*-\w+", name):
            raise PatternError("it has a balancing group, which is not supported here")
        digits = name[:1] in tuple("0123456789")
        if not name or (digits and not re.fullmatch("0|[1-9][0-9]{0,8}", name)) or not all(map(_is_word, name)):
            raise PatternError("it has a group with an invalid name")
        key: int | str = int(name) if digits else name
        if key == 0:
            raise PatternError("it has a group with the number 0, which is the whole match")
        if isinstance(key, int):
            self.numbers.add(key)
        else:
            self.names[key] = None
        self.emit(f"(?P<{self.known[key] if self.known else 'g0'}>", end + 1 - at)

    def emit(self, text: str, length: int) -> None:
        self.out.append(text)
        self.at += length

    def escape(self) -> str:
        text = self.text
        character = text[self.at + 1 : self.at + 2]
        if not character:
            raise PatternError("it ends with a backslash")
        # at the ends of words the engine counts letter-like numbers too; to say it exactly is slow
        ends = {"Z": r"(?=\n?\Z)", "z": r"\Z", **{letter: f"\\{letter}" for letter in "AGbB"}}
        if character in ends:
            self.at += 2
            return ends[character]
        name = re.compile(r"\\k?(?:<(\w+)>|'(\w+)')").match(text, self.at)
        if name:
            word = name[1] or name[2]
            return self.reference(int(word[:9]) if word[0] in "0123456789" else word, name)
        if character == "k":
            raise PatternError("it has a malformed \\k")
        number = re.compile(r"\\([1-9][0-9]*)").match(text, self.at)
        if number and (self.known is None or int(number[1][:9]) in self.known or len(number[1]) == 1):
            return self.reference(int(number[1][:9]), number)
        kind = self.kind()
        return f"[{kind}]" if kind else self.literal(self.character())

    def reference(self, key: int | str, match: re.Match[str]) -> str:
        """What a group has matched, again."""
        self.at = match.end()
        if self.known is None:
            return ""
        if key == 0:
            raise PatternError("it refers to the group 0, the whole match, which is not supported here")
        if key not in self.known:
            raise PatternError(f"it refers to a group {str(key)[:60]} that it does not have")
        again = f"(?P={self.known[key]})"
        # the engine folds a little more here than .NET does
        return f"(?i-f:{again})" if "i" in self.options else f"(?:{again})"

    def kind(self) -> str:
        """An escape that stands for a kind of characters, as a part of a class; "" for any other."""
        character = self.text[self.at + 1 : self.at + 2]
        if character not in tuple("dDwWsSpP"):
            return ""
        self.at += 2
        if character in "dDsS":
            return "\\" + character
        if character == "w":
            return _WORD
        if character == "W":
            return f"[^{_WORD}]"
        match = re.compile(r"\{(\w[\w-]*)\}").match(self.text, self.at)
        if match is None:
            raise PatternError(f"it has a malformed \\{character}")
        self.at = match.end()
        name = match[1]
        if name.startswith("Is"):
            name = "In" + _BLOCKS.get(name[2:], name[2:])
        elif not _CATEGORY.fullmatch(name):
            raise PatternError(f"it has a property {name[:40]} that .NET does not know")
        if "i" in self.options and name in ("Lu", "Ll", "Lt"):
            return r"\p{Lu}\p{Ll}\p{Lt}" if character == "p" else r"[^\p{Lu}\p{Ll}\p{Lt}]"
        return f"\\{character}{{{name}}}"

    def character(self) -> int:
        """An escape that stands for one character."""
        text, at = self.text, self.at
        character = text[at + 1 : at + 2]
        if not character:
            raise PatternError("it ends with a backslash")
        octal = re.compile(r"[0-7]{1,3}").match(text, at + 1)
        if octal:
            self.at = octal.end()
            return int(octal.group(), 8) & 255
        self.at += 2
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character == "c":
            letter = text[self.at : self.at + 1]
            if not "@" <= letter.upper() <= "_" or not letter.isascii():
                raise PatternError("it has a malformed \\c")
            self.at += 1
            return ord(letter.upper()) - 64
        if character in _HEX:
            digits = text[self.at : self.at + _HEX[character]]
            if len(digits) != _HEX[character] or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
                raise PatternError(f"it has a malformed \\{character}")
            self.at += len(digits)
            return int(digits, 16)
        if _is_word(character):
            raise PatternError(f"it has an escape \\{character} that does not exist")
        return ord(character)

    def char_class(self, depth: int = 1) -> str:
        """A class as ``[...]``; a subtraction ``[a-z-[aeiou]]`` becomes a look-ahead before the class."""
        if depth > MAX_DEPTH:
            raise PatternError("its character classes are too deep")
        text = self.text
        self.at += 1
        negated = text.startswith("^", self.at)
        self.at += negated
        ranges: list[tuple[int, int]] = []
        kinds: list[str] = []
        start: int | None = None  # of a range whose end comes now
        without = ""
        first = True
        while True:
            if self.at >= len(text):
                raise PatternError("it has a character class that is never closed")
            here = text[self.at]
            if here == "]" and not first:
                self.at += 1
                break
            if start is not None and here == "[" and not first:
                ranges.append((start, start))
                start = None
                without = self.subtraction(depth)
                break
            kind = self.kind() if here == "\\" else ""
            if kind:
                if start is not None:
                    raise PatternError("it has a range of characters that ends in a kind of them")
                kinds.append(kind)
                first = False
                continue
            if text.startswith("\\-", self.at):
                self.at += 2
                ranges.append((45, 45))
                first = False
                continue
            code = self.character() if here == "\\" else ord(here)
            self.at += here != "\\"
            if start is not None:
                if code < start:
                    raise PatternError("it has a range of characters that ends before it starts")
                ranges.append((start, code))
                start = None
            elif text.startswith("-", self.at) and self.at + 1 < len(text) and text[self.at + 1] != "]":
                start = code
                self.at += 1
            elif here == "-" and text.startswith("[", self.at) and not first:
                without = self.subtraction(depth)
                break
            else:
                ranges.append((code, code))
            first = False
        body = "".join((*self.ranges(ranges), *kinds))
        whole = f"[{'^' if negated else ''}{body}]" if body else r"[\s\S]" if negated else r"(?!)"
        return f"(?:(?!{without}){whole})" if without else whole

    def subtraction(self, depth: int) -> str:
        without = self.char_class(depth + 1)
        if not self.text.startswith("]", self.at):
            raise PatternError("it has a subtraction that does not end its character class")
        self.at += 1
        return without

    def ranges(self, ranges: list[tuple[int, int]]) -> list[str]:
        """Ranges as they are written, with the other letters of the same lower case where case is ignored."""
        parts = [_written(a) if a == b else f"{_written(a)}-{_written(b)}" for a, b in ranges]
        if "i" not in self.options:
            return parts
        inside = {code for code in _same_letters() if any(a <= code <= b for a, b in ranges)}
        more = {other for code in inside for other in _letters(code)} - inside
        return [*parts, *map(_written, sorted(more))]
