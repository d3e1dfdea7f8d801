# SPDX-License-Identifier: Apache-2.0
"""What an image is put together from: the unpacked kernel, the initramfs, the rights of an ordinary user."""

from __future__ import annotations

import getpass
import gzip
import lzma
import os
import struct
import subprocess
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import HostError
from harness.image import catalog, initramfs, kernel
from harness.image.builders import namespace, standin
from harness.image.components import build_components, components_version
from harness.image.recipe import components_in
from tests.conftest import HANGS


def bzimage(payload: bytes) -> bytes:
    """A bzImage as far as the reader looks: one set-up sector, then ``payload``."""
    head = bytearray(2 * 512)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


def test_gzip_kernel() -> None:
    assert kernel.elf_of(bzimage(gzip.compress(b"\x7fELF kernel"))) == b"\x7fELF kernel"


def test_lz4_kernel() -> None:
    # 4 literals, a copy of 8 from distance 4 (it runs into itself), then 20 literals (15 + 5) and the end.
    block = bytes([0x44]) + b"\x7fELF" + bytes([4, 0]) + bytes([0xF0, 5]) + b"abcdefghijklmnopqrst"
    frame = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", 32)
    assert kernel.elf_of(bzimage(frame)) == b"\x7fELF" * 3 + b"abcdefghijklmnopqrst"


def test_a_build_with_32_bit_programs_asks_for_their_compiler_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/zstd").symlink_to("/usr/bin/zstd")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(HostError, match=r"there is no i686-w64-mingw32-gcc") as caught:
        standin.build(
            catalog.load("windows-stand-in-32"),
            tmp_path,
            tmp_path,
            deadline=Deadline(HANGS),
            progress=lambda _told: None,
        )
    assert caught.value.hint == "install the package gcc-mingw-w64-i686-win32"
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_zstd_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = subprocess.run(["zstd", "-c"], input=b"\x7fELF kernel", stdout=subprocess.PIPE, check=True).stdout
    image = bzimage(packed + struct.pack("<I", 11))
    assert kernel.elf_of(image) == b"\x7fELF kernel"
    monkeypatch.setattr(kernel, "which", lambda _: None)
    with pytest.raises(HostError, match="packed with zstd, which this host lacks") as caught:
        kernel.elf_of(image)
    assert caught.value.hint == "apt-get install zstd"


def test_unknown_packing_is_left_to_the_kernel() -> None:
    assert kernel.elf_of(bzimage(b"\x89LZO\0 packed")) is None


def test_not_a_kernel() -> None:
    with pytest.raises(HostError, match="not a bzImage"):
        kernel.elf_of(bytes(4096))


def modules(folder: Path) -> Path:
    (folder / "modules.dep").write_text("a/top.ko: a/mid-dle.ko a/low.ko\na/mid-dle.ko: a/low.ko\na/low.ko:\n")
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return folder


def test_modules_in_loading_order(tmp_path: Path) -> None:
    folder = modules(tmp_path)
    found = initramfs.module_files(folder, ["mid_dle", "top", "ext4"])
    assert [path.name for path in found] == ["low.ko", "mid-dle.ko", "top.ko"]
    assert initramfs.module_files(folder, ["top"], without=found[:2]) == [folder / "a/top.ko"]
    with pytest.raises(HostError, match="no module nothing"):
        initramfs.module_files(folder, ["nothing"])


def test_archive(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"program")
    (tmp_path / "low.ko").write_bytes(b"module")
    (tmp_path / "high.ko.xz").write_bytes(lzma.compress(b"more"))
    data = initramfs.pack(tmp_path / "init", [tmp_path / "low.ko"], [tmp_path / "high.ko.xz"])
    names, contents, at = [], [], 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        names.append(data[at + 110 : at + 110 + length - 1].decode())
        start = at + 110 + length + 3 & ~3
        contents += [data[start : start + size]] if size else []
        at = start + size + 3 & ~3
    files = ["first", "first/00-low.ko", "second", "second/00-high.ko"]
    assert names == ["dev", "dev/console", "init", *files, "TRAILER!!!"]
    assert contents == [b"program", b"module", b"more"]  # unpacked: nothing in the guest would do it


def test_rights_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(namespace, "which", lambda _: None)
    with pytest.raises(HostError, match=r"newuidmap.*install the package uidmap"):
        namespace.check_rights()
    monkeypatch.setattr(namespace, "which", lambda _: "/usr/bin/newuidmap")
    monkeypatch.setattr(getpass, "getuser", lambda: "nobody-has-this-name")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(HostError, match=r"no 65536 subordinate ids.*usermod --add-subuids"):
        namespace.check_rights()


def test_components_tell_their_version(tmp_path: Path) -> None:
    source = catalog.load("debian-12")
    build_components(source, tmp_path, deadline=Deadline(HANGS))
    assert components_in(tmp_path) == components_version(source)
    assert components_in(tmp_path).encode() in (tmp_path / "vmrole-components").read_bytes()
