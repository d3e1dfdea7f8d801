# SPDX-License-Identifier: Apache-2.0
"""Files to and from a guest, against a real SSH server."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, HostError
from harness.guest.ssh import SshGuest
from tests.conftest import HANGS


def soon() -> Deadline:
    return Deadline(HANGS)


def test_round_trip(guest: SshGuest, tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 7)
    source, target = tmp_path / "source", tmp_path / "a ü '"
    source.write_bytes(data)
    guest.put(source, str(target), deadline=soon(), mode=0o640)
    assert target.read_bytes() == data
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert guest.get(str(target), deadline=soon()) == data
    guest.put(b"", str(target), deadline=soon())
    assert guest.get(str(target), deadline=soon()) == b""
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a ü '", "source"]


def test_put_replaces_a_link_or_a_pipe_and_does_not_follow_them(guest: SshGuest, tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "victim", tmp_path / "link", tmp_path / "pipe"
    victim.write_text("untouched")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    guest.put(b"new", str(link), deadline=soon())
    guest.put(b"new", str(pipe), deadline=soon())
    assert (victim.read_text(), link.read_text(), pipe.read_text()) == ("untouched", "new", "new")


def test_put_where_nothing_can_be(guest: SshGuest, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="cannot be written in the guest: there is no such file or folder"):
        guest.put(b"x", str(tmp_path / "no" / "file"), deadline=soon())
    (tmp_path / "folder").mkdir()
    with pytest.raises(GuestError, match="cannot be written in the guest"):
        guest.put(b"x", str(tmp_path / "folder"), deadline=soon())
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(HostError, match="cannot be read"):
        guest.put(tmp_path / "absent", str(tmp_path / "file"), deadline=soon())


def test_put_to_a_full_disk(guest: SshGuest) -> None:
    with pytest.raises(GuestError, match="cannot be written"):
        guest.put(b"x", "/dev/full/x", deadline=soon())


def test_get_is_bounded(guest: SshGuest, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(200_000))
    assert len(guest.get(str(tmp_path / "large"), deadline=soon(), limit=100_001)) == 100_001
    # Its size is told as 0.
    assert guest.get("/proc/version", deadline=soon()).startswith(b"Linux")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/dev/zero", "not a regular file"),
        ("/etc", "is a folder"),
        ("/no/such", "there is no such file"),
        ("{tmp}/pipe", "not a regular file"),
    ],
)
def test_get_of_what_is_no_file(guest: SshGuest, tmp_path: Path, path: str, why: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GuestError, match=why):
        guest.get(path.format(tmp=tmp_path), deadline=soon())
