# SPDX-License-Identifier: Apache-2.0
"""A tiny initramfs: one static /init and the kernel modules it loads, as an uncompressed cpio archive.

Uncompressed because it is about a megabyte, and an emulated processor copies faster than it unpacks.
"""

from __future__ import annotations

import lzma
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import HostError


def module_files(modules: Path, wanted: Sequence[str], *, without: Iterable[Path] = ()) -> list[Path]:
    """Files of the kernel modules ``wanted`` in loading order, with what they need, minus ``without``.

    ``modules`` is /lib/modules/RELEASE of the guest; its modules.dep lists what each needs, deepest last.
    Raises HostError for a module that this kernel does not have, neither as a file nor built in.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text("ascii").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[_name(path)] = path
    builtin = {_name(line) for line in (modules / "modules.builtin").read_text("ascii").splitlines()}
    done = list(without)
    found: list[Path] = []
    for name in wanted:
        own = by_name.get(_name(name))
        if own is None and _name(name) in builtin:
            continue
        if own is None:
            raise HostError(f"the guest's kernel has no module {name}")
        for each in (*reversed(needs[own]), own):
            file = modules / each
            if file not in done:
                done.append(file)
                found.append(file)
    return found


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def pack(init: Path, first: Sequence[Path], second: Sequence[Path]) -> bytes:
    """The archive: /init, /first/NN-NAME.ko, /second/NN-NAME.ko, and /dev/console, which the kernel opens for /init."""
    archive = _Cpio()
    archive.add("dev", stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("init", stat.S_IFREG | 0o755, init.read_bytes())
    for folder, files in (("first", first), ("second", second)):
        archive.add(folder, stat.S_IFDIR | 0o755)
        for number, file in enumerate(files):
            data = file.read_bytes()
            if file.suffix == ".xz":  # of Debian 13; /init hands the kernel what is in them
                data = lzma.decompress(data)
            archive.add(f"{folder}/{number:02d}-{file.name.removesuffix('.xz')}", stat.S_IFREG | 0o644, data)
    return archive.finish()


class _Cpio:
    """Writer of the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode("ascii") + b"\0"
        # inode, mode, uid, gid, links, time, size, device of the file, device it is, length of the name, checksum
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._parts += [_padded(header + path), _padded(data)]

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
