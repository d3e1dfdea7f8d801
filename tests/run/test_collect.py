# SPDX-License-Identifier: Apache-2.0
"""Logs of a guest that is the attacker's: an archive that is none, files without an end, names that lead elsewhere."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.guest.protocol import GuestResult
from harness.run.archive import DamagedError, files_in
from harness.run.collect import MAX_ALL, MAX_FILE, MAX_FILES, _take_folder, take_archive


def header(name: str = "a.log", size: int = 0, kind: bytes = b"0", **changed: Any) -> bytes:
    """One block of an archive; ``size`` may be what no size can be."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in changed.items():
        setattr(info, key, value)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[-512:])
    block[124:136] = b"\xff" + struct.pack(">3xq", size) if size < 0 else b"%011o\0" % size
    return checked(block)


def checked(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, content: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def kept(data: bytes) -> list[tuple[str, bytes]]:
    return [(member.name, bytes(member.content)) for member in files_in(data)]


END = bytes(1024)
GOOD = member("good.log", b"good")


def test_what_tar_writes_is_read(tmp_path: Path) -> None:
    names = ["plain.log", "ü and blank", "d/" * 60 + "deep.log", "d/" * 60 + "x" * 150, "new\nline"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("plain.log")
    os.mkfifo(tmp_path / "pipe")
    for form in ("gnu", "ustar"):
        argv = ["tar", "-C", str(tmp_path), f"--format={form}", "-cf", "-", "."]
        made = subprocess.run(argv, capture_output=True, check=False).stdout
        found = dict(kept(made))
        wanted = [name for name in names if form == "gnu" or len(name) < 250]
        assert found == {f"./{name}": name.encode() for name in wanted}


@pytest.mark.parametrize("size", [-1, -511, -512, -513, -1024, -(1 << 40), 1 << 32])
@pytest.mark.parametrize("kind", [b"0", b"\0", b"5", b"2", b"L", b"K", b"x", b"g", b"S", b"V", b"~"])
def test_a_size_that_cannot_be_ends_it(size: int, kind: bytes) -> None:
    with pytest.raises(DamagedError):
        kept(header("evil", size, kind) + GOOD + END)


@pytest.mark.parametrize("letter", "123456KSVMDxgX~")
def test_what_is_no_plain_file_is_passed_over(letter: str) -> None:
    """Among them sparse files of every kind, whose bytes are a map and less than they are said to be."""
    for content in (b"", b"30 path=../../evil\n", b"22 GNU.sparse.major=1\n" * 20, bytes(2000)):
        assert kept(member("evil", content, letter.encode()) + GOOD + END) == [("good.log", b"good")]


def test_sparse_files_take_no_room(tmp_path: Path) -> None:
    """As GNU tar writes them, old and new: no file on the host is larger than what came."""
    for number in range(40):
        with (tmp_path / f"hole-{number}").open("wb") as file:
            file.truncate(MAX_FILE)
            file.seek(MAX_FILE - 1)
            file.write(b"x")
    for form in ("--format=gnu", "--sparse-version=0.1", "--sparse-version=1.0"):
        argv = ["tar", "-C", str(tmp_path), "--format=posix", "--sparse", form, "-cf", "-", "."]
        made = subprocess.run(argv, capture_output=True, check=True).stdout
        assert len(made) < 1 << 20
        assert sum(len(content) for _name, content in kept(made)) <= len(made)


def test_long_names_in_a_row_are_no_more_than_one() -> None:
    chain = b"".join(member("././@LongLink", b"n%d\0" % number, b"L") for number in range(20000))
    assert kept(chain + GOOD + END) == [("n19999", b"good")]
    assert kept(member("@", b"x" * (1 << 20), b"L") + GOOD + END)[0][0] == "x" * 4096
    assert kept(chain) == []


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 515])
def test_an_archive_that_is_cut(cut: int) -> None:
    with pytest.raises(DamagedError):
        kept((GOOD + GOOD)[: 1024 + cut] if cut != 513 else GOOD + header("b", 600) + b"few")


def test_noise_is_no_archive() -> None:
    for noise in (os.urandom(5000), b"<html>", bytes(100), GOOD + os.urandom(512)):
        with pytest.raises(DamagedError):
            kept(noise)


def test_no_name_of_a_guest_chooses_a_file_or_what_a_browser_makes_of_it(tmp_path: Path) -> None:
    suffixes = [
        "html", "htm", "HTML", "xhtml", "xht", "shtml", "svg", "svgz", "xml", "xsl", "mht", "mhtml", "js", "mjs", "css",
        "pdf", "swf", "hta", "wasm", "", "log", "txt", "json", "csv", "LOG", "html.log", "log.html", "webarchive",
    ]  # fmt: skip
    names = [f"../../evil.{suffix}" if suffix else "/etc/evil" for suffix in suffixes]
    index: dict[str, str] = {}
    data = b"".join(member(name, b"<script>") for name in names) + END
    assert take_archive(data, str, tmp_path / "guest", index, bytes, deadline=Deadline(60)) == ([], False)
    assert list(index.values()) == names
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert written == sorted(Path("guest") / name for name in index)
    assert {Path(name).suffix for name in index} == {".log", ".txt", ".json", ".csv"}


def test_no_link_that_is_there_is_followed(tmp_path: Path) -> None:
    (tmp_path / "guest").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "guest/file-001.log").symlink_to(tmp_path / "precious")
    take_archive(GOOD + END, str, tmp_path / "guest", {}, bytes, deadline=Deadline(60))
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "guest/file-001.log").read_bytes() == b"good"


def test_counts_and_sizes_have_an_end(tmp_path: Path) -> None:
    many = b"".join(member(f"{number}.log", b"x") for number in range(MAX_FILES + 3)) + END
    left, cut = take_archive(many, str, tmp_path / "many", {}, bytes, deadline=Deadline(60))
    assert not cut and len(left) == 3 and left[0].endswith(f"is beyond the {MAX_FILES} files that are kept")
    left, cut = take_archive(
        member("large.log", bytes(MAX_FILE + 1)) + GOOD + END, str, tmp_path / "large", {}, bytes, deadline=Deadline(60)
    )
    assert left == ["large.log is larger than 4 MiB"] and not cut
    left, cut = take_archive(GOOD + GOOD, str, tmp_path / "late", {}, bytes, deadline=Deadline(0))
    assert left == ["good.log and what follows it, for want of time"] and not cut


class _Here:
    """A guest whose files are those of this computer."""

    def run(
        self, argv: Sequence[str], *, deadline: Deadline, timeout: float | None = None, max_output: int = 0
    ) -> GuestResult:
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False)
        seconds = time.monotonic() - began
        whole = len(done.stdout) > max_output
        return GuestResult(done.returncode, done.stdout[:max_output], done.stderr, seconds, False, whole)


def test_what_is_large_is_told_and_not_sent(tmp_path: Path) -> None:
    """A file of a terabyte of holes costs no time and no other file."""
    source, folder = tmp_path / "source", tmp_path / "guest"
    (source / "journal").mkdir(parents=True)
    (source / "journal/system.journal").write_bytes(b"no")
    with (source / "hole").open("wb") as file:
        file.truncate(1 << 40)
    (source / "just").write_bytes(bytes(MAX_FILE))
    (source / "two\nlines -newer").write_text("odd")
    (source / "empty").touch()
    (source / "link").symlink_to("/etc/hostname")
    folder.mkdir()
    index: dict[str, str] = {}
    said = _take_folder(_Here(), str(source), folder, index, mask=bytes, deadline=Deadline(60))  # type: ignore[arg-type]
    assert said == [f"not collected: {source}/hole is larger than 4 MiB"]
    assert sorted(index.values()) == [f"{source}/just", f"{source}/two\nlines -newer"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_ALL
    assert _take_folder(_Here(), str(tmp_path / "none"), folder, index, mask=bytes, deadline=Deadline(60)) == []  # type: ignore[arg-type]
    json.dumps(index)
