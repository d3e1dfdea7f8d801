# SPDX-License-Identifier: Apache-2.0
"""Which system a disk has, by what its file systems begin with. Nothing in them is read, and nothing is mounted."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

Os = Literal["linux", "windows"]

SECTOR = 512
_FILE_SYSTEMS: tuple[tuple[int, bytes, str, Os], ...] = (
    (3, b"NTFS    ", "NTFS", "windows"),
    (3, b"-FVE-FS-", "BitLocker", "windows"),
    (1024 + 56, b"\x53\xef", "ext4", "linux"),
    (0, b"XFSB", "XFS", "linux"),
    (65536 + 64, b"_BHRfS_M", "Btrfs", "linux"),
    (512, b"LABELONE", "LVM", "linux"),
)
"""Where in the partition, what stands there, how it is called, and whose it is. FAT is everybody's."""
_PARTITION_TYPES = (0x05, 0x0F, 0x85)
"""Of an MBR: a partition that holds others. Systems start from the other ones."""
_MOST_PARTITIONS = 128
_GPT_ENTRY = range(128, 4097)


def system_on(disk: Path) -> tuple[Os, str] | None:
    """The system of the raw ``disk`` and the file system that tells; None when none does, or they contradict."""
    with disk.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        found = {
            (system, name)
            for start in (0, *_partitions(stream))
            for offset, mark, name, system in _FILE_SYSTEMS
            if start + offset + len(mark) <= size and _read(stream, start + offset, len(mark)) == mark
        }
    return min(found) if len({system for system, _ in found}) == 1 else None


def has_gpt(disk: Path) -> bool:
    with disk.open("rb") as stream:
        return _read(stream, SECTOR, 8) == b"EFI PART"


def _partitions(stream: BinaryIO) -> Iterator[int]:
    """Where partitions begin, in bytes. Tables may say anything: what lies outside of the disk is found to be so."""
    first = _read(stream, 0, SECTOR)
    if first[510:] != b"\x55\xaa":
        return
    header = _read(stream, SECTOR, 92)
    if header[:8] == b"EFI PART":
        table, count, entry = struct.unpack("<QII", header[72:88])
        if entry in _GPT_ENTRY and table < 1 << 40:
            for number in range(min(count, _MOST_PARTITIONS)):
                partition = _read(stream, table * SECTOR + number * entry, 40)
                if len(partition) == 40 and any(partition[:16]):
                    yield int(struct.unpack("<Q", partition[32:40])[0]) * SECTOR
        return
    for at in range(446, 510, 16):
        kind, start = first[at + 4], struct.unpack("<I", first[at + 8 : at + 12])[0]
        if kind and kind not in _PARTITION_TYPES:
            yield int(start) * SECTOR


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)
