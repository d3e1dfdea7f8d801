# SPDX-License-Identifier: Apache-2.0
"""Images from a user's own disk, and the machine that is made for them: no Windows is needed to see that it starts."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.image.contents import system_on
from harness.image.disks import checked_format
from tests.conftest import HANGS, SAMPLES, Ran, inventory, vmrole

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
    return vmrole(*arguments, timeout=HANGS, VMROLE_CACHE_DIR=str(cache))


_NTFS = (3, b"NTFS    ")
_EXT4 = (1080, b"\x53\xef")


def disk(
    folder: Path, *, kind: str, suffix: str, gpt: bool = False, marks: Sequence[tuple[int, bytes]] = (_NTFS,)
) -> Path:
    """A disk with the boot sector and a partition of 1 MiB for each of the file systems that begin with ``marks``."""
    raw = folder / "disk.raw"
    code = (_CODE + _SAID).ljust(446, b"\0")
    parts = [(2048 * number, 2048) for number, _ in enumerate(marks, 1)]
    table = b"".join(struct.pack("<8B2I", 0, 0, 0, 0, 7, 0, 0, 0, *part) for part in parts)
    content = bytearray(code + (b"" if gpt else table).ljust(64, b"\0") + b"\x55\xaa").ljust(8 << 20, b"\0")
    if gpt:
        content[512:600] = struct.pack("<8s64xQII", b"EFI PART", 2, 128, 128)
        for number, (start, size) in enumerate(parts):
            entry = struct.pack("<16s16sQQ", b"kind", b"itself", start, start + size - 1)
            content[1024 + 128 * number : 1072 + 128 * number] = entry
    for (start, _), (offset, mark) in zip(parts, marks, strict=True):
        content[start * 512 + offset : start * 512 + offset + len(mark)] = mark
    raw.write_bytes(content)
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
    assert not done.json["forked"] and "cannot renew clock" in done.json["fork_reason"]
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
        (iso, (), "is no medium that a machine starts from"),
        (text, (), "is no disk that can be read"),
        (tmp_path, (), "is a folder and no file"),
        (Path("/dev/zero"), (), "is a device and no file"),
    ):
        done = within(cache, "images", "add", "windows-server", path, *more)
        assert done.code == 2 and what in done.stderr, done.stderr
        assert not list((cache / "images").glob("*")) and not list((cache / "building").glob("*"))
    done = within(cache, "images", "add", "debian-12", file)
    assert done.code == 2 and "built from its recipe" in done.stderr
    done = within(cache, "run", SAMPLES / "msi", "--image", "windows-server", "--output", tmp_path / "out", "--json")
    assert done.code == 2 and "made from media of your own" in json.dumps(done.json), done.stderr


SECRET = b"a secret of the host".ljust(2 << 20, b"\0")


def descriptor(secret: Path, *, kind: str = "monolithicFlat", more: str = "") -> bytes:
    text = f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{kind}"\n{more}'
    return (text + f'RW 4096 FLAT "{secret}" 0\n').encode()


def sparse_vmdk(text: bytes, *, capacity: int) -> bytes:
    header = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, capacity, 128, 1, 20)
    return (header.ljust(512, b"\0") + text.ljust(20 * 512, b"\0")).ljust(2 << 20, b"\0")


def differencing_vhd() -> bytes:
    footer = (b"conectix" + bytes(52) + struct.pack(">I", 4)).ljust(512, b"\0")
    return footer + bytes(2 << 20) + footer


def data_file_qcow2(folder: Path, secret: Path) -> bytes:
    path = folder / "made.qcow2"
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "2M"], check=True)
    secret.write_bytes(SECRET)
    return path.read_bytes()


def overlay_qcow2(folder: Path, backing: str) -> bytes:
    path = folder / "made.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, "2M"], check=True
    )
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["own", ".disk"])
@pytest.mark.parametrize(
    "case",
    ["flat", "device", "parts", "hidden extents", "parent", "old parts", "backing", "device backing", "json backing",
     "data file", "differencing"],
)  # fmt: skip
def test_a_disk_that_names_other_files_is_refused(cache: Path, tmp_path: Path, case: str, suffix: str) -> None:
    """None of those files is opened: the refusal is of what the disk's own first bytes say."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    json_name = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{secret}"}}}}'
    parent = f'parentFileNameHint="{secret}"\n'
    cases: dict[str, Callable[[], tuple[bytes, str]]] = {
        "flat": lambda: (descriptor(secret), ".vmdk"),
        "device": lambda: (descriptor(Path("/dev/sda"), kind="fullDevice"), ".vmdk"),
        "parts": lambda: (sparse_vmdk(descriptor(secret, kind="twoGbMaxExtentSparse"), capacity=4096), ".vmdk"),
        "hidden extents": lambda: (sparse_vmdk(descriptor(secret, kind="monolithicSparse"), capacity=0), ".vmdk"),
        "parent": lambda: (
            sparse_vmdk(descriptor(secret, kind="monolithicSparse", more=parent), capacity=4096),
            ".vmdk",
        ),
        "old parts": lambda: (b"COWD".ljust(2 << 20, b"\0"), ".vmdk"),
        "backing": lambda: (overlay_qcow2(tmp_path, str(secret)), ".qcow2"),
        "device backing": lambda: (overlay_qcow2(tmp_path, "/dev/sda"), ".qcow2"),
        "json backing": lambda: (overlay_qcow2(tmp_path, json_name), ".qcow2"),
        "data file": lambda: (data_file_qcow2(tmp_path, secret), ".qcow2"),
        "differencing": lambda: (differencing_vhd(), ".vhd"),
    }
    data, own = cases[case]()
    path = tmp_path / f"disk{own if suffix == 'own' else suffix}"
    path.write_bytes(data)
    secret.unlink()  # what opens it fails in another way
    with pytest.raises(UsageError, match=r"its content in (other files|another file)|is an overlay"):
        checked_format(path)
    if case == "flat":
        done = within(cache, "images", "add", "windows-server", path)
        assert done.code == 2 and "keeps its content in other files" in done.stderr
        assert not list((cache / "images").glob("*")) and not list((cache / "building").glob("*"))


@pytest.mark.parametrize("kind", ["vmdk", "vpc", "vhdx", "qcow2", "raw"])
def test_the_format_of_a_whole_disk_is_seen(tmp_path: Path, kind: str) -> None:
    assert checked_format(disk(tmp_path, kind=kind, suffix=".disk")) == kind


def test_uefi_is_seen(cache: Path, tmp_path: Path) -> None:
    file = disk(tmp_path, kind="vhdx", suffix=".vhdx", gpt=True)
    assert within(cache, "images", "add", "windows-server", file).code == 0
    [record] = (cache / "images").glob("*/image.json")
    assert json.loads(record.read_text())["uefi"] is True


@pytest.mark.vm
def test_a_windows_of_any_name(cache: Path, tmp_path: Path) -> None:
    """It is seen on the disk that it is one; machines of it are made as those of windows-server."""
    file = disk(tmp_path, kind="vhdx", suffix=".vhdx")
    done = within(cache, "images", "add", "server-2019", file)
    assert done.code == 0 and "taken for Windows: it has a file system of the kind NTFS" in done.stderr, done.stderr
    assert "server-2019" in within(cache, "images", "list").stdout
    output = tmp_path / "out"
    done = within(
        cache, "run", SAMPLES / "msi", "--image", "server-2019", "--memory", "512", "--output", output, "--json"
    )
    assert done.code == 3 and "a boot sector and nothing else" in done.json["summary"], done.stderr
    assert done.json["image"]["name"] == "server-2019" and not done.json["image"]["stand_in"]
    assert "no real Windows was at hand" in done.stderr
    assert within(cache, "images", "remove", "server-2019").code == 0
    assert "server-2019" not in within(cache, "images", "list").stdout


@pytest.mark.parametrize("gpt", [False, True])
@pytest.mark.parametrize(
    ("marks", "options", "os"),
    [
        ((_NTFS, _NTFS), (), "windows"),
        ((_EXT4,), (), "linux"),
        (((0, b"XFSB"),), (), "linux"),
        (((65600, b"_BHRfS_M"),), (), "linux"),
        (((3, b"MSDOS5.0"),), ("--os", "windows"), "windows"),
        ((_NTFS, _EXT4), ("--os", "linux"), "linux"),
    ],
)
def test_which_system_it_is(
    cache: Path, tmp_path: Path, gpt: bool, marks: Sequence[tuple[int, bytes]], options: tuple[str, ...], os: str
) -> None:
    file = disk(tmp_path, kind="qcow2", suffix=".qcow2", gpt=gpt, marks=marks)
    done = within(cache, "images", "add", "mine", file, *options)
    assert done.code == 0, done.stderr
    recipe = tomllib.loads((cache / "recipes/mine/recipe.toml").read_text())
    like = {"like": "windows-server"} if os == "windows" else {"os": "linux"}
    assert recipe["name"] == "mine" and like.items() <= recipe.items()
    other = {"linux": "windows", "windows": "linux"}[os]
    done = within(cache, "images", "add", "mine", file, "--os", other)
    assert done.code == 2 and f"the image mine is a {os.capitalize()}" in done.stderr, done.stderr


def test_what_does_not_tell_its_system(cache: Path, tmp_path: Path) -> None:
    for marks in ((), ((3, b"MSDOS5.0"),), (_NTFS, _EXT4)):
        file = disk(tmp_path, kind="qcow2", suffix=".qcow2", marks=marks)
        done = within(cache, "images", "add", "mine", file)
        assert done.code == 2 and "does not tell whether it is a Windows or a Linux" in done.stderr, done.stderr
        assert "--os windows or --os linux" in done.stderr
        assert not list((cache / "images").glob("*")) and not list((cache / "building").glob("*"))
        assert not (cache / "recipes").exists()
    done = within(cache, "images", "add", "Mine", file)
    assert done.code == 2 and "cannot be the name of an image" in done.stderr
    linux = disk(tmp_path, kind="qcow2", suffix=".qcow2", marks=(_EXT4,))
    done = within(cache, "images", "add", "windows-server", linux)
    assert done.code == 2 and "server.qcow2 is a Linux" in done.stderr, done.stderr


def test_partition_tables_that_lie(tmp_path: Path) -> None:
    """Whatever a table says, looking at it ends and finds nothing that is not there."""
    for table in (
        struct.pack("<8s64xQII", b"EFI PART", 1 << 63, 1 << 31, 128),
        struct.pack("<8s64xQII", b"EFI PART", 2, 1 << 31, 0),
        struct.pack("<8s64xQII", b"EFI PART", 2, 128, 1 << 31),
        b"EFI PART",
    ):
        path = tmp_path / "disk.raw"
        path.write_bytes(b"\0" * 510 + b"\x55\xaa" + table.ljust(512, b"\xff") + b"\xff" * 20000)
        assert system_on(path) is None
    path.write_bytes(b"\0" * 446 + b"\xff" * 64 + b"\x55\xaa")
    assert system_on(path) is None
    path.write_bytes(b"")
    assert system_on(path) is None
