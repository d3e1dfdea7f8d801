# SPDX-License-Identifier: Apache-2.0
"""What a fork changed of its template's RAM: pages that QEMU's private mapping of the RAM file has copied.

The kernel tells which pages those are in /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst): present or
swapped, and not (any more) a page of the file. They are written to a file, and put into another fork of the same
template before it continues. The file: size of RAM, number of runs, (offset, size) of each run, all 64 bits
little-endian; then the runs' bytes.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import re
import struct
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from harness.errors import HostError

_PAGE = mmap.PAGESIZE
_ENTRY = 8
_PRESENT, _SWAPPED, _OF_FILE = 0x80, 0x40, 0x20
"""Bits 63, 62 and 61, in the last byte of an entry."""
_COPIED = bytes((_PRESENT | _SWAPPED) & flags != 0 and not flags & _OF_FILE for flags in range(256))
_RUN = re.compile(rb"\x01+")
_CHUNK = 8 << 20


def save_pages(pid: int, ram: Path, target: Path) -> int:
    """Write the pages that the process ``pid`` has copied of its private mapping of ``ram`` to ``target``; how many
    bytes that were. The guest must be paused. Raises HostError when the kernel does not let us."""
    try:
        begin, end = _mapping(pid, ram)
        runs = list(_runs(_flags(pid, begin, end).translate(_COPIED)))
        buffer = memoryview(bytearray(_CHUNK))
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory, _private(target) as file:
            table = struct.pack(f"<QQ{2 * len(runs)}Q", end - begin, len(runs), *itertools.chain(*runs))
            file.write(table)
            for start, size in runs:
                for at in range(start, start + size, _CHUNK):
                    part = buffer[: min(_CHUNK, start + size - at)]
                    if os.preadv(memory.fileno(), [part], begin + at) != len(part):
                        raise OSError(errno.EIO, "a page could not be read")
                    file.write(part)
        return len(table) + sum(size for _start, size in runs)
    except OSError as error:
        raise HostError(f"the memory of the machine cannot be saved: {error.strerror}") from error


def load_pages(pid: int, ram: Path, source: Path) -> None:
    """Put what ``save_pages`` wrote into the private mapping of ``ram`` of the paused process ``pid``."""
    try:
        begin, end = _mapping(pid, ram)
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory, source.open("rb", buffering=0) as file:
            size, count = struct.unpack("<QQ", _exactly(file, 16))
            if size != end - begin or count > size // _PAGE:
                raise HostError(f"{source} is not of a guest with that much memory")
            table = struct.unpack(f"<{2 * count}Q", _exactly(file, 16 * count))
            for start, length in zip(table[::2], table[1::2], strict=True):
                if start + length > size:
                    raise HostError(f"{source} is damaged")
                for at in range(start, start + length, _CHUNK):
                    part = _exactly(file, min(_CHUNK, start + length - at))
                    if os.pwrite(memory.fileno(), part, begin + at) != len(part):
                        raise OSError(errno.EIO, "a page could not be written")
    except OSError as error:
        raise HostError(f"the memory of the machine cannot be restored: {error.strerror}") from error


def _private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=1 << 20)


def _exactly(file: RawIOBase, size: int) -> bytes:
    parts = []
    while size:
        part = file.read(size)
        if not part:
            raise OSError(errno.EIO, "it is shorter than it says")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def proportional_size(pid: int) -> int:
    """Bytes of memory that the process ``pid`` is to blame for, shared ones by share (PSS, proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _mapping(pid: int, ram: Path) -> tuple[int, int]:
    """Where the process has ``ram``, as one range of addresses."""
    wanted = ram.stat()
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, _rights, _offset, device, inode, *_ = line.split(maxsplit=5)
        major, minor = (int(number, 16) for number in device.split(":"))
        if int(inode) == wanted.st_ino and os.makedev(major, minor) == wanted.st_dev:
            begin, end = (int(number, 16) for number in addresses.split("-"))
            ranges.append((begin, end))
    ranges.sort()
    if not ranges or any(one[1] != two[0] for one, two in itertools.pairwise(ranges)):
        raise HostError(f"the machine does not map {ram} as one range")
    return ranges[0][0], ranges[-1][1]


def _flags(pid: int, begin: int, end: int) -> bytes:
    """The last byte of each page's entry in the page map."""
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        size = (end - begin) // _PAGE * _ENTRY
        parts, at = [], begin // _PAGE * _ENTRY
        while size:
            part = os.pread(pagemap.fileno(), size, at)
            if not part:
                raise OSError(errno.EIO, "the page map could not be read")
            parts.append(part)
            at += len(part)
            size -= len(part)
    return b"".join(parts)[_ENTRY - 1 :: _ENTRY]


def _runs(copied: bytes) -> Iterator[tuple[int, int]]:
    """(offset, size) in bytes of every unbroken run of copied pages."""
    for run in _RUN.finditer(copied):
        yield run.start() * _PAGE, (run.end() - run.start()) * _PAGE
