# SPDX-License-Identifier: Apache-2.0
"""Text of any origin, made fit to be shown: nothing that a terminal would obey, and short enough for a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

Mask = Callable[[bytes], bytes]

SENTENCE = 500
"""Characters of a guest's own words that a finding or an error quotes."""

_REACH = 16 * 1024
"""Characters that are looked at beyond those that are quoted, as what is not printable is left out."""

# CSI ... final, OSC ... BEL or ST, other two-character sequences; what guests and programs colour their output with.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Characters that turn the order of the text around: what is shown would not be what is there.
_ORDER = re.compile("[\u202a-\u202e\u2066-\u2069]")


def strip_ansi(text: str) -> str:
    """``text`` without terminal sequences."""
    return _ESCAPE.sub("", text)


def printable(text: str) -> str:
    """Text of any origin, safe for a terminal and for HTML: lines and tabs stay, other control characters go."""
    clean = strip_ansi(text).replace("\r\n", "\n").replace("\r", "\n")
    return _ORDER.sub("\ufffd", _CONTROL.sub("", clean))


def quoted(text: str, most: int = SENTENCE, *, mask: Mask | None = None, end: bool = False) -> str:
    """A guest's words as a part of a sentence: masked, on one line, and only then shortened to ``most`` characters, the
    first ones, or with ``end`` the last.

    Where whoever quotes knows no secrets the ellipsis is what a mask finds the half of one by (harness.masking).
    """
    text = _masked(text, mask)
    reach = _REACH + most  # a line may have megabytes
    whole = len(text) <= reach
    line = " ".join(printable(text if whole else text[-reach:] if end else text[:reach]).split())
    line = _masked(line, mask)  # what was between the letters of a secret is gone
    if whole and len(line) <= most:
        return line
    return f"...{line[-most:]}" if end else f"{line[:most]}..."


def _masked(text: str, mask: Mask | None) -> str:
    return mask(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace") if mask else text
