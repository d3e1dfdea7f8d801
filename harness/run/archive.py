# SPDX-License-Identifier: Apache-2.0
"""Reading a tar archive that a guest sent, which may be anything.

The headers are read by tarfile, the way from one to the next is our own: tarfile follows a size below zero for ever,
calls itself for every long name in a row, and unpacks sparse files to any size. Here nothing is longer than what came.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

_BLOCK = 512
_LONGEST_NAME = 4096
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class DamagedError(Exception):
    """The archive ends in the middle, or goes on with what is no archive."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file that is not empty. ``name`` is the guest's, and may be anything but longer than 4 KiB."""

    name: str
    content: memoryview = field(repr=False)


def files_in(data: bytes) -> Iterator[Member]:
    """The files of an archive in their order; folders, links, devices, sparse files and all else are passed over.

    A name that is longer than a header has room for is understood as GNU tar writes it. Raises DamagedError.
    """
    view, at, long_name = memoryview(data), 0, None
    while at < len(view):
        head = bytes(view[at : at + _BLOCK])
        if not any(head) and len(head) == _BLOCK:
            return
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise DamagedError(str(error)) from None
        at += _BLOCK
        if info.size < 0 or info.size > len(view) - at:
            raise DamagedError(f"a member of {info.size} bytes where {len(view) - at} are left")
        content = view[at : at + info.size]
        at += -(-info.size // _BLOCK) * _BLOCK
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = bytes(content[:_LONGEST_NAME]).split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type != tarfile.GNUTYPE_LONGLINK:
            name, long_name = long_name or info.name, None
            if info.type in _FILES and info.size:
                yield Member(name, content)
