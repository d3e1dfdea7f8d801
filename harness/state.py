# SPDX-License-Identifier: Apache-2.0
"""The private state folder: where overlays, media, keys and libvirt roots of this user's machines live.

One folder per harness process, held by a kernel lock that dies with its owner; whoever gets the lock of a folder knows
that its owner is gone. Paths are short, because libvirt's sockets below them end at 108 bytes (unix(7)).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from harness.errors import HostError
from harness.files import refused, replace_file
from harness.process import Account, find_account

_LONGEST = 46
"""Bytes of the state folder's path; what libvirt appends below it takes the rest of a socket path's 108."""

_REMOVAL_TRIES = 50
_REMOVAL_PAUSE = 0.02

_QEMU_ACCOUNTS = ("libvirt-qemu", "qemu", "nobody")


@cache
def qemu_account() -> Account | None:
    """The unprivileged account that QEMU runs under when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in _QEMU_ACCOUNTS:
        if account := find_account(name):
            return account
    raise HostError(
        "there is no unprivileged account to run QEMU under",
        hint="install the package libvirt-daemon-system, which creates libvirt-qemu",
    )


def state_folder() -> Path:
    """This user's state folder, made private and checked.

    VMROLE_STATE_DIR, else /var/lib/vmrole for root, else $XDG_STATE_HOME/vmrole; where that is too long for socket
    paths, /var/tmp/vmrole-<uid>.
    """
    if given := os.environ.get("VMROLE_STATE_DIR"):
        folder = Path(given).absolute()
        if len(os.fsencode(folder)) > _LONGEST:
            raise HostError(
                f"VMROLE_STATE_DIR is {len(os.fsencode(folder))} bytes long: {folder}",
                hint=f"socket paths below it need it to be at most {_LONGEST}",
            )
        if not _usable(folder):
            raise HostError(
                f"VMROLE_STATE_DIR is {str(folder)!r}, which libvirt cannot give to QEMU",
                hint="name a folder without commas and control characters",
            )
    elif os.geteuid() == 0:
        folder = Path("/var/lib/vmrole")
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "vmrole"
        if len(os.fsencode(folder)) > _LONGEST or not _usable(folder):
            folder = Path(f"/var/tmp/vmrole-{os.getuid()}")
    make_private(folder)
    _check_way(folder)
    return folder


def _usable(folder: Path) -> bool:
    """Whether libvirt can hand paths below ``folder`` to QEMU, whose options end at commas."""
    return "," not in str(folder) and str(folder).isprintable()


def _check_way(folder: Path) -> None:
    """Raise HostError where the account that QEMU runs under may not pass through a folder above ``folder``."""
    if account := qemu_account():
        for above in folder.parents:
            status = above.stat()
            passed = 0o010 if status.st_gid == account.gid else 0o001
            if not status.st_mode & passed:
                raise HostError(
                    f"{account.name}, under which QEMU runs, may not pass through {above} to {folder}",
                    hint=f"name another folder with VMROLE_STATE_DIR, or 'chmod o+x {above}'",
                )


def make_private(folder: Path) -> None:
    """Make ``folder`` ours alone: 0700, or as root 0710 with the group of the account that QEMU runs under."""
    account = qemu_account()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise HostError(f"{folder} belongs to somebody else", hint="remove it, or set VMROLE_STATE_DIR")
        if account:
            os.chown(folder, 0, account.gid)
        folder.chmod(0o710 if account else 0o700)
    except OSError as error:
        raise refused(f"the folder {folder} cannot be made", error) from error


def give_to_qemu(path: Path, *, write: bool) -> None:
    """Let the account that QEMU runs under read (or write) a private file; nothing to do when we are not root."""
    if account := qemu_account():
        if write:
            os.chown(path, account.uid, account.gid)
        else:
            os.chown(path, 0, account.gid)
            path.chmod(path.stat().st_mode & 0o700 | 0o040)


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """What a later process needs to know of a machine: to adopt it, to reach it, to remove it.

    ``volumes`` are (pool, volume) of another libvirt than the in-process one. ``access`` is where `shell` connects.
    ``memory_mb`` is what it takes of this host, 0 where another one runs it.
    """

    name: str
    uri: str
    image: str
    created: float
    boot_id: str
    kept_until: float | None = None
    run: str | None = None
    volumes: tuple[tuple[str, str], ...] = ()
    access: dict[str, str | int] = field(default_factory=dict)
    pool: str | None = None
    memory_mb: int = 0

    @property
    def kept(self) -> bool:
        """Whether it was kept and has not expired; a host reboot ends it."""
        return self.kept_until is not None and self.kept_until > time.time() and self.boot_id == host_boot_id()


@cache
def host_boot_id() -> str:
    """What changes with every boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class ProcessFolder:
    """One harness process's part of the state folder."""

    path: Path
    owner: int = 0
    """Pid of the process whose folder it is; 0 where that does not matter. A forked child is not the owner."""

    def write(self, record: MachineRecord) -> None:
        """Keep ``record``, atomically and readable by nobody else."""
        folder = self.path / "machines"
        folder.mkdir(mode=0o700, exist_ok=True)
        replace_file(self.record(record.name), json.dumps(asdict(record)))

    def record(self, name: str) -> Path:
        """The file of the record of ``name``."""
        return self.path / "machines" / f"{name}.json"

    def forget(self, name: str) -> None:
        self.record(name).unlink(missing_ok=True)

    def records(self) -> list[MachineRecord]:
        """Every machine this process has or had; unreadable records are skipped, their files go with the folder."""
        found = []
        for path in sorted((self.path / "machines").glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                data = json.loads(path.read_text())
                data["volumes"] = tuple(tuple(v) for v in data["volumes"])
                found.append(MachineRecord(**data))
        return found

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the folder's lock; yields whether we got it. It is never waited for."""
        try:
            with alone_in(self.path.parent):
                descriptor = self._take_lock()
        except (FileNotFoundError, BlockingIOError):
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def _take_lock(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder, and hold its lock: nobody sees it without, who would take it for one of the dead."""
        with alone_in(self.path.parent):
            make_private(self.path)
            descriptor = self._take_lock()
        try:
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one, among processes and threads, who adds to ``folder`` or takes over what is in it. It is waited
    for, so for a moment only."""
    descriptor = os.open(folder / "registry", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_process_folder() -> Iterator[ProcessFolder]:
    """A fresh locked folder for this process; removed at the end unless a kept machine lives in it."""
    parent = state_folder() / "r"
    make_private(parent)
    folder = ProcessFolder(parent / secrets.token_hex(4), os.getpid())
    with folder.made():
        try:
            yield folder
        finally:
            if folder.owner == os.getpid() and not any(record.kept for record in folder.records()):
                remove_folder(folder.path)


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` with what is in it. libvirt's threads may still be putting a file there or taking one away."""
    for _ in range(_REMOVAL_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_REMOVAL_PAUSE)


def process_folders() -> list[ProcessFolder]:
    """Every process folder of this user, of the living and of the dead."""
    parent = state_folder() / "r"
    return [ProcessFolder(path) for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []
