# SPDX-License-Identifier: Apache-2.0
"""The largest number, and the size profiles of VMM: what ``VMSize`` means in processors and memory [BLOG 2014-03-09].

An administrator could add profiles of other names; theirs are not known here.
"""

from __future__ import annotations

from typing import Final

#: Numbers of the format are 32-bit ones of .NET [INFER]; no time-out, count or port needs more.
LARGEST: Final = 2**31 - 1

#: Name -> (processors, memory in MB).
SIZES: Final = {
    "ExtraSmall": (1, 768),
    "Small": (1, 1792),
    "Medium": (2, 3584),
    "Large": (4, 7168),
    "ExtraLarge": (8, 14336),
    "A6": (4, 28672),
    "A7": (8, 57344),
}
_LOWER: Final = {name.lower(): size for name, size in SIZES.items()}


def size_of(name: str | None) -> tuple[int, int] | None:
    """Processors and MB of a profile, its name compared without case [GUESS]; None when it is none of the default."""
    return _LOWER.get(name.strip().lower()) if name is not None else None
