# SPDX-License-Identifier: Apache-2.0
"""The one way to write a file whole."""

from __future__ import annotations

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.files import refused, replace_file


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, seen, over = tmp_path / "state.json", set(), threading.Event()
    texts = {letter * 300_000 for letter in "abc"}
    replace_file(path, "a" * 300_000)

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for text in sorted(texts) * 20:
        replace_file(path, text, durable=text.startswith("b"))
    over.set()
    reader.join()
    assert seen <= texts
    assert list(tmp_path.iterdir()) == [path]


def test_modes(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for mode, wanted in ((None, 0o640), (0o600, 0o600), (0o755, 0o755)):
            replace_file(tmp_path / "x", b"", mode=mode)
            assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == wanted
        replace_file(tmp_path / "private", b"")
        assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for number, target in enumerate((precious, tmp_path / "nowhere", tmp_path)):
        link = tmp_path / f"link-{number}"
        link.symlink_to(target)
        replace_file(link, "new")
        assert link.read_text() == "new" and not link.is_symlink()
    assert precious.read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_what_cannot_be_encoded_is_escaped(tmp_path: Path) -> None:
    replace_file(tmp_path / "x", "a\udcff")
    assert (tmp_path / "x").read_bytes() == b"a\\udcff"


def test_what_the_computer_refuses_is_its_fault_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match="folder cannot be written: Is a directory"):
        replace_file(tmp_path / "folder", "x")
    with pytest.raises(HostError, match="none/x cannot be written: No such file or directory"):
        replace_file(tmp_path / "none/x", "x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match="x cannot be written: Too many open files") as caught:
            replace_file(tmp_path / "x", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.hint and "ulimit" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_every_refusal_is_a_sentence() -> None:
    for error in (OSError(), OSError("odd\nthing"), OSError(28, "No space left on device"), PermissionError(13, "No")):
        told = str(refused("x cannot be written", error))
        assert told.startswith("x cannot be written: ") and "\n" not in told
