# SPDX-License-Identifier: Apache-2.0
"""Collecting logs: from a guest that answers, or from the disk of one that does not.

Names of the guest never choose paths on the host: files are numbered, and an index says what they were called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.files import replace_file, writing
from harness.guest.protocol import Guest
from harness.machine.protocol import Machine
from harness.quoting import Mask, quoted
from harness.run.archive import DamagedError, files_in

MAX_FILE = 4 * 1024 * 1024
MAX_FILES = 500
MAX_ALL = 32 * 1024 * 1024
SECONDS = 60.0

_COMMANDS = {
    "journal.log": ("journalctl", "--boot", "--no-pager", "--output=short-iso", "--lines=5000"),
    "dmesg.log": ("dmesg", "--kernel"),
    "mounts.txt": ("findmnt", "--noheadings", "--list"),
}
_FOLDERS = ("/resources/DiagnosticStore", "/var/log")
OFFLINE = (
    "/var/log/syslog",
    "/var/log/messages",
    "/var/log/kern.log",
    "/var/log/dpkg.log",
    "/var/lib/vmrole/agent.log",
    "/etc/hostname",
    "/etc/fstab",
)
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"\x04\x22\x4d\x18")
"""How gzip, xz, bzip2, zip, zstd, 7z and lz4 files begin."""

_TOLD = 5
_NAME = 400
"""Characters of a guest's name of a file that the index has."""
_SUFFIXES = {".log", ".txt", ".json", ".csv"}
"""What every browser shows as text; other files get .txt, so that nothing of a guest's is executed by a click."""
_SEND = """\
cd "$1" || exit
kept() { find . -path ./journal -prune -o -path ./lost+found -prune -o -type f "$@"; }
kept -size +"$2"c -print | head -n 100 >&2
kept -size +0 ! -size +"$2"c -print0 | tar --null --no-recursion --format=gnu --warning=none -cf - -T -
"""
"""What a guest sends: files, none of them larger than is kept; a sparse one would cost the time of all of its zeros."""


def collect(guest: Guest, folder: Path, *, mask: Mask, deadline: Deadline) -> list[str]:
    """Write the guest's logs to ``folder``; returns sentences about what could not be had."""
    limit = deadline.within(SECONDS)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    missing = []
    for name, argv in _COMMANDS.items():
        try:
            done = guest.run(argv, deadline=limit, timeout=20, max_output=MAX_FILE)
        except GuestError as error:
            return [f"the guest's logs could not be collected: {error.message}"]
        if done.exit_code == 0:
            replace_file(folder / name, mask(done.stdout), mode=None)
        else:
            missing.append(f"{argv[0]} gave no {name}")
    index: dict[str, str] = {}
    try:
        for source in _FOLDERS:
            missing += _take_folder(guest, source, folder, index, mask=mask, deadline=limit)
    except GuestError as error:
        missing.append(f"some of the guest's logs could not be collected: {error.message}")
    write_index(folder, index)
    return missing


def write_index(folder: Path, index: Mapping[str, str]) -> None:
    """What the numbered files were called in the guest, masked already."""
    if index:
        replace_file(folder / "index.json", json.dumps(index, indent=1) + "\n", mode=None)


def collect_offline(machine: Machine, paths: Sequence[str], folder: Path, *, mask: Mask, deadline: Deadline) -> None:
    """Write what the disk of a powered-off guest has of ``paths`` to ``folder``, and an index."""
    index: dict[str, str] = {}
    for path, content in machine.read_disk(paths, limit=MAX_FILE, deadline=deadline):
        _put(folder, path, content, index, mask)
    write_index(folder, index)


def _take_folder(
    guest: Guest, source: str, folder: Path, index: dict[str, str], *, mask: Mask, deadline: Deadline
) -> list[str]:
    """One archive, read in memory; returns what stayed behind and why: what is too large, and what is compressed,
    because nobody can mask a secret in it."""
    argv = ("sh", "-c", _SEND, "sh", source, str(MAX_FILE))
    done = guest.run(argv, deadline=deadline, timeout=30, max_output=MAX_ALL)
    lines = done.stderr.decode("utf-8", "replace").split("\n")
    large = [str(PurePosixPath(source) / line) for line in lines if line.startswith("./")]
    left = [f"{name} is larger than {MAX_FILE >> 20} MiB" for name in large]
    more, cut = take_archive(
        done.stdout, lambda name: str(PurePosixPath(source) / name), folder, index, mask, deadline=deadline
    )
    left += more
    if done.stdout and (cut or done.truncated):
        left.append(f"what is in {source} beyond {MAX_ALL >> 20} MiB")
    if done.timed_out:
        left.append(f"what is in {source} and did not come in time")
    told = [f"not collected: {quoted(what, mask=mask)}" for what in left[:_TOLD]]
    return told + ([f"not collected: {len(left) - _TOLD} more files of {source}"] if len(left) > _TOLD else [])


def take_archive(
    data: bytes,
    name_of: Callable[[str], str],
    folder: Path,
    index: dict[str, str],
    mask: Mask,
    *,
    deadline: Deadline,
) -> tuple[list[str], bool]:
    """Keep the files of an archive from a guest; what stayed behind and why, and whether the archive was cut.

    ``name_of`` makes the guest's name of a file from that in the archive. Raises HostError.
    """
    left: list[str] = []
    try:
        for member in files_in(data):
            name = name_of(member.name)
            if deadline.expired:
                return [*left, f"{name} and what follows it, for want of time"], False
            if why := _why_not(member.content, index):
                left.append(f"{name} {why}")
            else:
                _put(folder, name, bytes(member.content), index, mask)
    except DamagedError:
        return left, True
    return left, False


def _why_not(content: memoryview, index: Mapping[str, str]) -> str | None:
    """Why a file is not kept."""
    if len(index) >= MAX_FILES:
        return f"is beyond the {MAX_FILES} files that are kept"
    if len(content) > MAX_FILE:
        return f"is larger than {MAX_FILE >> 20} MiB"
    if bytes(content[:8]).startswith(_COMPRESSED):
        return "is compressed, and what is in it cannot be masked"
    return None


def _put(folder: Path, path: str, content: bytes, index: dict[str, str], mask: Mask) -> None:
    with writing(folder):
        folder.mkdir(exist_ok=True)
    suffix = PurePosixPath(path).suffix.lower()
    name = f"file-{len(index) + 1:03d}{suffix if suffix in _SUFFIXES else '.txt'}"
    replace_file(folder / name, mask(content), mode=None)
    known = mask(path.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    index[name] = known if len(known) <= _NAME else f"{known[:_NAME]}..."
