# SPDX-License-Identifier: Apache-2.0
"""Formats of disk files, told by their first bytes before any program of QEMU opens them.

Of a disk that names other files, a backing one, the extents of a VMDK, the data file of a qcow2, QEMU opens those too,
whatever they are on this computer. So nothing is left to its guesses: the format is always given to it, and a disk that
is not whole in itself is refused here.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final

from harness.errors import UsageError

_SUFFIXES: Final = {".vhd": "vpc", ".vhdx": "vhdx", ".qcow2": "qcow2", ".vmdk": "vmdk", ".img": "raw", ".raw": "raw"}
_SECTOR: Final = 512
_HEAD: Final = 64 * 1024
_MOST_DESCRIPTOR: Final = 1 << 20
_DATA_FILE: Final = 1 << 2  # of the incompatible features of a qcow2
_DIFFERENCING: Final = 4  # kind of a VHD
_WHOLE: Final = "'qemu-img convert' makes it whole, on a computer that has the other files"
_DESCRIPTOR: Final = re.compile(rb"\A(?:\s|#[^\n]*\n|version=\S*\n)*# *Disk DescriptorFile", re.IGNORECASE)


def checked_format(file: Path) -> str:
    """The format of ``file`` as qemu-img calls it; its name decides where it says one: a raw disk's own first bytes
    could make it look like another.

    Raises UsageError for a disk that is not whole in itself.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _SECTOR))
            end = stream.read(_SECTOR)
            format = _SUFFIXES.get(file.suffix.lower()) or _seen(head, end)
            if format == "vmdk" and head[:4] == b"KDMV":
                start, sectors = struct.unpack_from("<QQ", head.ljust(_SECTOR), 28)
                stream.seek(min(start * _SECTOR, size))
                head += stream.read(min(sectors * _SECTOR, _MOST_DESCRIPTOR))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if format == "qcow2":
        _check_qcow2(file, head)
    elif format == "vmdk":
        _check_vmdk(file, head)
    elif format == "vpc":
        _check_vhd(file, head, end)
    return format


def _seen(head: bytes, end: bytes) -> str:
    if head[:4] == b"QFI\xfb":
        return "qcow2"
    if head[:4] in (b"KDMV", b"COWD") or _DESCRIPTOR.match(head):
        return "vmdk"
    if head[:8] == b"vhdxfile":
        return "vhdx"
    return "vpc" if b"conectix" in (head[:8], end[:8]) else "raw"


def _check_qcow2(file: Path, head: bytes) -> None:
    """Version at 4, offset of the backing file's name at 8, incompatible features at 72 [QEMU docs/interop/qcow2]."""
    if head[:4] != b"QFI\xfb":
        return  # QEMU refuses it
    version, backing = struct.unpack_from(">IQ", head.ljust(_SECTOR, b"\0"), 4)
    (features,) = struct.unpack_from(">Q", head.ljust(_SECTOR, b"\0"), 72)
    if backing:
        raise UsageError(f"{file} is an overlay and not a whole disk", hint="merge it with the disk it stands on")
    if version >= 3 and features & _DATA_FILE:
        raise UsageError(f"{file} keeps its content in another file", hint=_WHOLE)


def _check_vmdk(file: Path, head: bytes) -> None:
    """A sparse extent with its own descriptor, "monolithicSparse" or "streamOptimized". A capacity of 0 at 12 makes
    QEMU open the extents that the descriptor names [QEMU block/vmdk.c]."""
    if head[:4] == b"COWD" or _DESCRIPTOR.match(head):
        raise UsageError(f"{file} keeps its content in other files", hint=_WHOLE)
    if head[:4] != b"KDMV":
        raise UsageError(f"{file} is no disk that can be read: it does not begin as a VMDK does")
    (capacity,) = struct.unpack_from("<Q", head.ljust(_SECTOR, b"\0"), 12)
    kinds = re.findall(rb'(?i)createType\s*=\s*"([^"]*)"', head)
    if not capacity or any(kind.lower() not in (b"monolithicsparse", b"streamoptimized") for kind in kinds):
        raise UsageError(f"{file} keeps its content in other files", hint=_WHOLE)
    if re.search(rb"(?i)parentFileNameHint", head):
        raise UsageError(f"{file} is an overlay and not a whole disk", hint="merge it with the disk it stands on")


def _check_vhd(file: Path, head: bytes, end: bytes) -> None:
    """Kind of the disk at 60 of the footer, which a dynamic one has at its start too."""
    for part in (head, end):
        if part[:8] == b"conectix" and struct.unpack_from(">I", part.ljust(_SECTOR, b"\0"), 60)[0] == _DIFFERENCING:
            raise UsageError(f"{file} is an overlay and not a whole disk", hint="merge it with the disk it stands on")
