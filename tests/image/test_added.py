# SPDX-License-Identifier: Apache-2.0
"""Images from a user's own disk, and the machine that is made for them: no Windows is needed to see that it starts."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, Ran, inventory, vmrole

# A boot sector that sends a text to COM1: xor ax,ax; mov ds,ax; mov si,text; next: lodsb; test al,al; jz end;
# mov ah,al; mov dx,3fd; wait: in al,dx; test al,20; jz wait; mov al,ah; mov dx,3f8; out dx,al; jmp next; end: hlt;
# jmp end
_CODE = bytes.fromhex("31c0 8ed8 be217c ac 84c0 7412 88c4 bafd03 ec a820 74fb 88e0 baf803 ee ebe9 f4 ebfd")
_SAID = b"\r\nvmrole: stage booting\r\nvmrole: failed this disk has a boot sector and nothing else\r\n\0"


@pytest.fixture
def cache() -> Iterator[Path]:
    """A cache of its own, where the account of QEMU reaches it."""
    with tempfile.TemporaryDirectory(prefix="vmc-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "cache"


def within(cache: Path, *arguments: str | Path) -> Ran:
    return vmrole(*arguments, timeout=240, VMROLE_CACHE_DIR=str(cache))


def disk(folder: Path, *, kind: str, suffix: str, gpt: bool = False) -> Path:
    raw = folder / "disk.raw"
    sector = (_CODE + _SAID).ljust(510, b"\0") + b"\x55\xaa"
    raw.write_bytes((sector + (b"EFI PART" if gpt else b"")).ljust(8 << 20, b"\0"))
    target = folder / f"server{suffix}"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, str(raw), str(target)], check=True)
    return target


@pytest.mark.vm
@pytest.mark.parametrize(("kind", "suffix"), [("vhdx", ".vhdx"), ("vpc", ".vhd"), ("qcow2", ".qcow2")])
def test_a_disk_is_added_and_started(cache: Path, tmp_path: Path, state_folder: Path, kind: str, suffix: str) -> None:
    before = inventory(state_folder)
    file = disk(tmp_path, kind=kind, suffix=suffix)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    done = within(cache, "images", "add", "windows-server", file, "--sha256", digest.upper(), "--json")
    assert done.code == 0, done.stderr
    assert done.json["image"] == {"name": "windows-server", "key": digest[:16]}
    listed = within(cache, "images", "list").stdout
    assert "windows-server" in listed and " MiB  built" in listed
    if suffix != ".vhdx":
        return
    output = tmp_path / "out"
    start = ("--image", "windows-server", "--memory", "512", "--output", output, "--json")
    done = within(cache, "run", SAMPLES / "msi", *start)
    assert done.code == 3 and done.json["blame"] == "guest", done.stderr
    assert "the guest cannot specialise: this disk has a boot sector and nothing else" in done.json["summary"]
    assert "boot sector" in (output / "console.log").read_text()
    assert not done.json["forked"] and "cannot renew itself" in done.json["fork_reason"]
    assert within(cache, "images", "remove", "windows-server").code == 0
    assert inventory(state_folder).processes == before.processes


def test_what_is_no_image(cache: Path, tmp_path: Path) -> None:
    file = disk(tmp_path, kind="qcow2", suffix=".qcow2")
    overlay, iso, text = tmp_path / "overlay.qcow2", tmp_path / "x.iso", tmp_path / "text.vhdx"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", file, "-F", "qcow2", overlay], check=True)
    iso.write_bytes(bytes(32769) + b"CD001" + bytes(100_000))
    text.write_text("hello")
    for path, more, what in (
        (tmp_path / "none.vhdx", (), "cannot be read: No such file"),
        (file, ("--sha256", "ab" * 32), "has the SHA-256"),
        (overlay, (), "is an overlay and not a whole disk"),
        (iso, (), "is an installation medium"),
        (text, (), "is no disk that can be read"),
    ):
        done = within(cache, "images", "add", "windows-server", path, *more)
        assert done.code == 2 and what in done.stderr, done.stderr
        assert not list((cache / "images").glob("*")) and not list((cache / "building").glob("*"))
    done = within(cache, "images", "add", "debian-12", file)
    assert done.code == 2 and "built from its recipe" in done.stderr
    done = within(cache, "run", SAMPLES / "msi", "--image", "windows-server", "--output", tmp_path / "out", "--json")
    assert done.code == 2 and "made from media of your own" in json.dumps(done.json), done.stderr


def test_uefi_is_seen(cache: Path, tmp_path: Path) -> None:
    file = disk(tmp_path, kind="vhdx", suffix=".vhdx", gpt=True)
    assert within(cache, "images", "add", "windows-server", file).code == 0
    [record] = (cache / "images").glob("*/image.json")
    assert json.loads(record.read_text())["uefi"] is True
