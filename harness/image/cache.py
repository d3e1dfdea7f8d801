# SPDX-License-Identifier: Apache-2.0
"""The image cache: private, content-addressed, each entry built by one process at a time and never written again.

CACHE/images/NAME-KEY-BUILT/{disk.raw,kernel,initrd,image.json,build.log}
CACHE/components/VERSION/{VERSION,vmrole-components}
CACHE/building/ENTRY-RANDOM/     a build that runs, or the leftover of one that was killed
CACHE/locks/ENTRY.lock           held by the process that builds ENTRY
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from harness.deadline import Deadline
from harness.errors import HostError
from harness.files import refused
from harness.state import qemu_account

FOLDER = "VMROLE_CACHE_DIR"
"""Environment variable with the folder of the cache."""
_OF_ROOT = Path("/var/cache/vmrole")


def default_folder() -> Path:
    """``$VMROLE_CACHE_DIR``; root's is in /var/cache; a user's in ``$XDG_CACHE_HOME`` or ~/.cache."""
    if chosen := os.environ.get(FOLDER):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return _OF_ROOT
    # "All paths set in these environment variables must be absolute" (XDG base directories), others are ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "vmrole"


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache folder. ``group`` is the group id of the account that QEMU runs under when the harness is root."""

    folder: Path
    group: int | None = None

    @classmethod
    def of_user(cls) -> Cache:
        """The cache of whoever runs this; made and checked."""
        account = qemu_account()
        cache = cls(default_folder(), account.gid if account else None)
        cache.prepare()
        return cache

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def components(self) -> Path:
        return self.folder / "components"

    @property
    def building(self) -> Path:
        return self.folder / "building"

    def prepare(self) -> None:
        """Make the folders that are missing.

        Raises HostError when one belongs to somebody else, is a link, or cannot be made.
        """
        try:
            # mode= is for the last folder only: those above it are the user's, with the user's umask.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.folder, self.images, self.components, self.building, self.folder / "locks"):
                folder.mkdir(mode=0o700, exist_ok=True)
                check_owner(folder)
                self.grant(folder)
        except OSError as error:
            raise refused(f"the image cache {self.folder} cannot be used", error) from error

    def grant(self, path: Path) -> None:
        """Give ``path`` the rights of the cache: the owner's alone, or readable for the group of QEMU's account too."""
        status = path.lstat()
        if status.st_uid != os.geteuid():
            return
        group = self.group if os.geteuid() == 0 else None
        folder = 0o700 if group is None else 0o710
        mode = folder if stat.S_ISDIR(status.st_mode) else 0o440
        if group is not None and status.st_gid != group:
            os.chown(path, -1, group)
        if stat.S_IMODE(status.st_mode) != mode:
            path.chmod(mode)

    @contextlib.contextmanager
    def locked(self, entry: str, deadline: Deadline, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of ``entry``; calls ``waiting`` once when another process has it.

        Raises HostError when the deadline passes first. The kernel releases the lock of a process that dies.
        """
        lock = filelock.FileLock(self.folder / "locks" / f"{entry}.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting()
            try:
                limit = deadline.timeout()
                lock.acquire(timeout=-1 if limit is None else limit, poll_interval=0.1)
            except filelock.Timeout:
                raise HostError(
                    f"another process is still building {entry}", hint="give it more time, or end that process"
                ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def workplace(self, entry: str) -> Iterator[Path]:
        """A new private folder to build ``entry`` in; removed afterwards unless it was renamed into its place."""
        folder = Path(tempfile.mkdtemp(prefix=f"{entry}-", dir=self.building))
        try:
            yield folder
        finally:
            if folder.exists():
                discard(folder)

    def sweep(self) -> list[Path]:
        """Remove what killed builds left; returns the folders removed. Builds that run keep theirs."""
        removed = []
        for folder in sorted(self.building.iterdir()) if self.building.is_dir() else []:
            entry = folder.name.rpartition("-")[0]
            lock = filelock.FileLock(self.folder / "locks" / f"{entry}.lock", mode=0o600)
            with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                discard(folder)
                removed.append(folder)
        return removed


def check_owner(path: Path) -> None:
    """Raise HostError when ``path`` is a link, or belongs to neither this user nor root."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise HostError(f"{path} in the image cache is a link", hint="remove it")
    if status.st_uid not in (os.geteuid(), 0):
        raise HostError(
            f"{path} in the image cache belongs to user id {status.st_uid}",
            hint=f"remove it, or choose another folder with {FOLDER}",
        )


def discard(folder: Path) -> None:
    """Remove a folder of the cache, also a half-built tree with files of subordinate users in it."""
    try:
        shutil.rmtree(folder)
    except OSError:
        from harness.image.builders.namespace import remove  # needed by builds of ordinary users only

        remove(folder)


def disk_usage(folder: Path) -> int:
    """Bytes that the files below ``folder`` occupy; the holes of sparse files do not count."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
