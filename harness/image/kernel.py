# SPDX-License-Identifier: Apache-2.0
"""The ELF kernel inside a bzImage, so that an emulated processor need not unpack it at every boot.

QEMU boots an ELF file that has a PVH entry point directly; Debian's kernels have one (CONFIG_PVH=y).
Formats: Documentation/arch/x86/boot.rst of Linux; lz4_Block_format.md and lz4_Frame_format.md ("legacy frame") of LZ4.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

from harness.deadline import Deadline
from harness.errors import HostError
from harness.process import run, which

_SECTOR = 512
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_ZSTD = b"\x28\xb5\x2f\xfd"


def elf_of(image: bytes) -> bytes | None:
    """The uncompressed kernel of a bzImage, or None when it is packed in a way that is not known here.

    Raises HostError for what is no bzImage, and for one that only the missing program zstd unpacks.
    """
    if image[0x202:0x206] != b"HdrS":
        raise HostError("the guest's kernel is not a bzImage")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * _SECTOR + offset
    payload = image[start : start + length]
    known: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (_LZ4_LEGACY, _lz4_legacy),
        (b"\xfd7zXZ", lambda data: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)),
        (b"\x1f\x8b", gzip.decompress),
        (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data)),
        (_ZSTD, _zstd),
    )
    for magic, unpack in known:
        if payload.startswith(magic):
            elf = unpack(payload)
            return elf if elf.startswith(b"\x7fELF") else None
    return None


def check_zstd() -> None:
    """Raises HostError when this host cannot unpack a kernel of Debian 13; Python has no zstd before 3.14."""
    if which("zstd") is None:
        raise HostError("the guest's kernel is packed with zstd, which this host lacks", hint="apt-get install zstd")


def _zstd(data: bytes) -> bytes:
    """The build of Linux adds the unpacked size at the end, which zstd would complain of."""
    check_zstd()
    return run(["zstd", "-dc"], stdin=data[:-4], deadline=Deadline(60)).stdout


def _lz4_legacy(data: bytes) -> bytes:
    """A legacy frame: magic, then blocks with their length; the build of Linux adds the unpacked size at the end."""
    parts = []
    at = len(_LZ4_LEGACY)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        parts.append(_lz4_block(memoryview(data)[at : at + length]))
        at += length
    return b"".join(parts)


def _lz4_block(data: memoryview) -> bytes:
    """One block: sequences of literals and a copy from what is already there; the last has no copy."""
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            while True:
                more = data[at]
                at += 1
                literals += more
                if more != 255:
                    break
        if literals:
            out += data[at : at + literals]
            at += literals
        if at >= end:
            break
        distance = data[at] | data[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            while True:
                more = data[at]
                at += 1
                length += more
                if more != 255:
                    break
        length += 4
        start = len(out) - distance
        if distance >= length:
            out += out[start : start + length]
        else:  # the copy runs into itself: a repeating pattern
            pattern = bytes(out[start:])
            out += (pattern * (length // distance + 1))[:length]
    return bytes(out)
