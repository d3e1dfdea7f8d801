# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a program for Windows (PE) tell of it."""

from __future__ import annotations

import struct
from typing import Final

HEAD: Final = 4096
"""Bytes that are enough."""
AMD64: Final = 0x8664
_I386: Final = 0x14C
_RUNTIME: Final = 24 + 96 + 14 * 8
"""Where the header of a 32-bit program says where that of .NET is, from the signature on."""


def machine(head: bytes) -> int | None:
    """The processor that it is for; None for what is no program."""
    at = _signature(head)
    if at is None or len(head) < at + 6:
        return None
    return int(struct.unpack_from("<H", head, at + 4)[0])


def is_32_bit(head: bytes) -> bool:
    """Whether only a 32-bit process executes it. One of .NET says it is for that processor and mostly runs on any."""
    at = _signature(head)
    return machine(head) == _I386 and at is not None and not any(head[at + _RUNTIME : at + _RUNTIME + 8])


def _signature(head: bytes) -> int | None:
    if head[:2] != b"MZ" or len(head) < 64:
        return None
    at = int(struct.unpack_from("<I", head, 60)[0])
    return at if head[at : at + 4] == b"PE\0\0" else None
