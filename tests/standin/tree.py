# SPDX-License-Identifier: Apache-2.0
"""The files of the stand-in image on this computer, and programs of its Wine that run in them without a machine.

They are taken out of the image's disk once, into a private folder beside the tests' own, and stay for the next session.
"""

from __future__ import annotations

import filecmp
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from harness.deadline import Deadline
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.process import run
from harness.state import qemu_account
from tests.conftest import USERS_CACHE

IMAGE = "windows-stand-in"
_KEPT_SECONDS = 86_400.0
"""How long the files of an image that is not used stay."""
_LIBRARY = "usr/lib/x86_64-linux-gnu/wine"
_PREFIX = "var/lib/standin/prefix"
# In a mount namespace of its own: so no mount is left behind. The temporary folder, where Wine has its sockets, is the
# prefix's own: Debian's wineserver 10.0 ends at once when TMPDIR names another. So is that where the guest's log is.
_ENTER = """\
set -e
tree=$1 own=${WINEPREFIX%/*}
shared=${own%/*}
shift
case $PWD/ in "$shared"/*) here=$PWD ;; *) here=/ ;; esac
mkdir -p "$own/tmp"
for folder in /proc /dev; do mount --rbind "$folder" "$tree$folder"; done
mount --bind "$own/tmp" "$tree/tmp"
mkdir -p "$own/run" "$tree/run/vmrole"
mount --bind "$own/run" "$tree/run/vmrole"
mkdir -p "$tree$shared"
mount --rbind "$shared" "$tree$shared"
exec chroot "$tree" env -C "$here" "$@"
"""


def in_tree(program: str, *argv: str | Path) -> list[str]:
    """The command line of ``program`` of the image, ``wine64`` or ``wineserver64``, in the image's files.

    What it sees of this computer, under the same name, is the folder that the folder of its WINEPREFIX is in.
    """
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    enter = ["unshare", *rights, "--mount", "sh", "-c", _ENTER, "sh", str(image_tree())]
    return [*enter, f"/usr/lib/wine/{program}", *map(str, argv)]


def copy_prefix(prefix: Path) -> None:
    """The image's prefix at ``prefix``, a folder that is not there yet. What is Wine's own is linked, not copied."""
    source = image_tree() / _PREFIX
    shutil.copytree(source, prefix, symlinks=True, copy_function=_link_or_copy)
    # It leads to where local resources are mounted, which here would be this computer's.
    (prefix / "drive_c/Resources").unlink()
    (prefix / "drive_c/Resources").mkdir()


def _link_or_copy(source: str, target: str) -> str:
    if Path(source).stat().st_nlink > 1:
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


@functools.cache
def image_tree() -> Path:
    """The folder with the image's files. The image is built first when the cache lacks it."""
    account = qemu_account()
    cache = Cache(USERS_CACHE, account.gid if account else None)
    image = ensure_image(IMAGE, cache=cache, deadline=Deadline(1200), progress=lambda _: None)
    folder = Path(tempfile.gettempdir()) / f"vmrole-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} is somebody else's"
    tree = folder / image.disk.parent.name
    with filelock.FileLock(folder / "lock"):
        _remove_unused(folder, tree)
        if not tree.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                run(["debugfs", "-R", f"rdump / {work}", str(image.disk)], deadline=Deadline(600))
                _link_twins(Path(work) / _LIBRARY, Path(work) / _PREFIX)
                Path(work).rename(tree)
                Path(work).mkdir()
        os.utime(tree)
    return tree


def _remove_unused(folder: Path, used: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and path != used and path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            shutil.rmtree(path)


def _link_twins(library: Path, prefix: Path) -> None:
    """Wine's files are on the image's disk once, under two names; debugfs makes two files of them."""
    own = {path.name: path for path in _files(library)}
    for path in _files(prefix / "drive_c/windows"):
        twin = own.get(path.name)
        if twin and filecmp.cmp(twin, path, shallow=False):
            path.unlink()
            os.link(twin, path)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
