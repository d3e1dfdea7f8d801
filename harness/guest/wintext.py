# SPDX-License-Identifier: Apache-2.0
"""Texts of Windows: what the bytes that programs write mean. And what the harness calls in the guest."""

from __future__ import annotations

import re

from harness.quoting import strip_ansi

GUEST = "C:\\Program Files\\VMRole\\vmrole-guest.exe"
"""What the integration components install: specialization, read-back, the ready marker (docs/windows-guest.md)."""
HELPER = "C:\\Program Files\\VMRole\\vmrole-run.exe"
"""Beside it, for the harness alone: starts steps, moves files."""

_WIDE_LINE = b"\r\0\n"
_MARK = "#< CLIXML"
_BLOCK = re.compile(r"<Objs\b[^>]*>(.*?)(?:</Objs>(?:\r?\n)?|\Z)", re.DOTALL)
_CODED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}));")
_MESSAGE = re.compile(
    r'<S S="([A-Za-z]+)">(.*?)(?:</S>|\Z)|<Obj S="([A-Za-z]+)"(?:(?!<Obj ).)*?<ToString>(.*?)(?:</ToString>|\Z)',
    re.DOTALL,
)
_PREFIXES = {
    "error": "",
    "warning": "WARNING: ",
    "verbose": "VERBOSE: ",
    "debug": "DEBUG: ",
    "information": "",
    "output": "",
}
"""What the engine writes before each kind of message where it writes text."""
_SEVERAL_BYTES = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A character of UTF-8 that is not ASCII."""


def decode(data: bytes, *, cut: bool = False) -> str:
    """What programs of a Western Windows wrote. Never raises.

    The whole is UTF-8 or UTF-16 where it is that. Else each line is for itself, as programs that share a stream differ:
    what is not UTF-8 is in the code page, 437 or 1252, in which more of it are letters. ``cut`` says that the end may
    be missing: half a character there is left out.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data[: len(data) & ~1].decode("utf-16", "replace")
    # Programs that write UTF-16 to a pipe write no mark; text without NUL characters has none in any code page.
    even = data[: len(data) & ~1]
    # In some languages it has few NUL characters, but the ends of its lines are like no other.
    if len(even) >= 4 and 0 not in even[::2] and (even[1::2].count(0) > len(even) // 4 or _has_wide_line(data)):
        return even.decode("utf-16-le", "replace")
    is_utf8 = _SEVERAL_BYTES.search(data) is not None
    if cut or _SEVERAL_BYTES.search(data, data.rfind(b"\n") + 1):
        data = whole_characters(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    lines = data.split(b"\n")
    others = b"".join(line for line in lines if not _is_utf8(line))
    of_437 = sum(0x80 <= byte <= 0xA5 for byte in others)
    of_1252 = sum(0xC0 <= byte <= 0xFF for byte in others)
    code_page = "cp1252" if of_1252 > of_437 else "cp437"
    return "\n".join(_line(line, code_page, is_utf8) for line in lines)


def _has_wide_line(data: bytes) -> bool:
    """Whether a line of ``data`` ends as in UTF-16, on a whole character."""
    at = data.find(_WIDE_LINE)
    while at > 0 and at % 2:
        at = data.find(_WIDE_LINE, at + 1)
    return at >= 0


def whole_characters(data: bytes) -> bytes:
    """``data``, which was cut somewhere, without the half of a character of UTF-8 at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if byte < 0xF5 and back < needs else data
        if byte < 0x80:
            break
    return data


def beginning(data: bytes, most: int) -> bytes:
    """A stream that is no longer than ``most`` bytes, without half a character where it was cut there."""
    return whole_characters(data) if len(data) == most else data


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line(line: bytes, code_page: str, has_utf8: bool) -> str:
    """A line of a stream; ``has_utf8`` where there are letters of UTF-8 elsewhere in it."""
    letters = len(_SEVERAL_BYTES.findall(line))
    lost = sum(byte >= 0x80 for byte in _SEVERAL_BYTES.sub(b"", line))
    # Damaged UTF-8, or bytes that are no text at all beside some.
    damaged = letters >= lost or (has_utf8 and not re.search(rb"[A-Za-z]", line))
    return line.decode("utf-8" if _is_utf8(line) or damaged else code_page, "replace")


def without_clixml(text: str) -> str:
    """PowerShell's standard error as a person reads it: the messages of its XML in the words of the engine, progress
    left out. What other programs wrote before, between and after stays."""
    if _MARK not in text:
        return text
    # In the XML itself every "<" is escaped.
    text = re.sub(f"{_MARK}\r?\n?", "", text)
    return _BLOCK.sub(lambda block: "".join(map(_message, _MESSAGE.finditer(block[1]))), text)


def _message(found: re.Match[str]) -> str:
    kind = (found[1] or found[3]).lower()
    if kind not in _PREFIXES:
        return ""
    said = strip_ansi(_plain(found[2] if found[1] else found[4]))
    # Only errors that come as text bring the ends of their lines.
    ended = said.endswith("\n") or (found[1] is not None and kind == "error")
    return f"{_PREFIXES[kind]}{said}" + ("" if ended else "\n")


def _plain(text: str) -> str:
    text = _REFERENCE.sub(_character, text)
    for name, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        text = text.replace(f"&{name};", character)
    plain = _CODED.sub(lambda found: chr(int(found[1], 16)), text)
    # What is beyond 16 bits comes in two halves, and a half alone is no text.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16) if found[1] else int(found[2])
    return chr(code) if code <= 0x10FFFF else found[0]
