# SPDX-License-Identifier: Apache-2.0
"""Texts of Windows: what the bytes that programs write mean. And what the harness calls in the guest."""

from __future__ import annotations

import re

GUEST = "C:\\Program Files\\VMRole\\vmrole-guest.exe"
"""What the integration components install: specialization, read-back, the ready marker (docs/windows-guest.md)."""
HELPER = "C:\\Program Files\\VMRole\\vmrole-run.exe"
"""Beside it, for the harness alone: starts steps, moves files."""

_CLIXML = b"#< CLIXML"
_CODED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_MESSAGE = re.compile(r'<S S="([A-Za-z]+)">(.*?)</S>', re.DOTALL)
_MESSAGES = frozenset({"error", "warning", "verbose", "debug", "information", "output"})


def decode(data: bytes) -> str:
    """What a program of a Western Windows wrote: UTF-8 or UTF-16 where it is that, else the code page, 437 or 1252,
    in which more of it are letters. Never raises."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    # Programs that write UTF-16 to a pipe write no mark; text without NUL characters has none in any code page.
    if len(data) >= 4 and len(data) % 2 == 0 and data[1::2].count(0) > len(data) // 4 and 0 not in data[::2]:
        return data.decode("utf-16-le", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    of_437 = sum(0x80 <= byte <= 0xA5 for byte in data)
    of_1252 = sum(0xC0 <= byte <= 0xFF for byte in data)
    return data.decode("cp1252" if of_1252 > of_437 else "cp437", "replace")


def without_clixml(text: str) -> str:
    """PowerShell's standard error as a person reads it: the messages of its XML, progress left out."""
    if not text.startswith(_CLIXML.decode()):
        return text
    lines = [_plain(body) for kind, body in _MESSAGE.findall(text) if kind.lower() in _MESSAGES]
    rest = text.rpartition("</Objs>")[2]
    return "".join(lines) + rest.lstrip("\r\n")


def _plain(text: str) -> str:
    for name, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        text = text.replace(f"&{name};", character)
    plain = _CODED.sub(lambda found: chr(int(found[1], 16)), text)
    # What is beyond 16 bits comes in two halves, and a half alone is no text.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
