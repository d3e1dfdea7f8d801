# SPDX-License-Identifier: Apache-2.0
"""Builds a Debian guest: mmdebstrap makes the tree, mke2fs the disk; nothing of the host is mounted or changed.

It works inside the namespaces of namespace.py: so the tree can lie in the private cache, has the right owners when seen
from inside, and dies with its mounts when the build is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError, HostError
from harness.image import initramfs
from harness.image.builders import Parts, Progress
from harness.image.builders.follow import follow
from harness.image.builders.namespace import check_rights, inside, remove
from harness.image.catalog import Source
from harness.image.components import PROGRAM
from harness.image.kernel import elf_of
from harness.image.recipe import components_in
from harness.image.work import native_seconds
from harness.process import run

MIRROR = "VMROLE_DEBIAN_MIRROR"
"""Environment variable with the mirror to build from; without it mmdebstrap's default."""

# No journal replay is needed of a disk that was unmounted; checksums cost an emulated processor more than they tell,
# and tables that count as zero already are not written at the first mount.
_FEATURES = "^metadata_csum,^64bit,^resize_inode,uninit_bg"
_EXTENDED = "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1,discard"
_NOT_INSTALLED = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
# Its own initramfs: long to make, and nothing boots it.
_NOT_RUN = ("/etc/kernel/postinst.d/initramfs-tools",)
_TOLD = b"vmrole-error: "
"""Begins what a hook says for the user, before it fails."""
_INSTALLED = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")


def build(
    source: Source,
    components: Path,
    folder: Path,
    *,
    deadline: Deadline,
    progress: Progress,
    prepare: Callable[[Path], None] = lambda _work: None,
) -> Parts:
    """See ``harness.image.builders.Build``. ``prepare`` puts more into the folder with ``overlay`` and the hooks."""
    check_rights()
    with _tree(folder, deadline) as tree:
        _install(source, components, folder, tree, deadline, progress, prepare)
        release = _kernel_release(tree)
        modules = tree / "usr/lib/modules" / release
        first = initramfs.module_files(modules, source.recipe.first_modules)
        second = initramfs.module_files(modules, source.recipe.second_modules, without=first)
        kernel, initrd, disk = folder / "kernel", folder / "initrd", folder / "disk.raw"
        packed = (tree / "boot" / f"vmlinuz-{release}").read_bytes()
        kernel.write_bytes(elf_of(packed) or packed)
        initrd.write_bytes(initramfs.pack(components / PROGRAM, first, second))
        progress("writing the disk")
        _make_disk(tree, disk, source.recipe.disk_mb, deadline)
        packages = _packages(tree)
        progress("measuring its work natively")
        seconds = native_seconds(source.recipe, tree, deadline=deadline)
        return Parts(disk, kernel, initrd, packages, seconds)


@contextlib.contextmanager
def _tree(folder: Path, deadline: Deadline) -> Iterator[Path]:
    """The tree's folder; removed afterwards from inside, where the owners of its files are known."""
    tree = folder / "tree"
    tree.mkdir()
    try:
        yield tree
    finally:
        remove(tree)


def _install(
    source: Source,
    components: Path,
    folder: Path,
    tree: Path,
    deadline: Deadline,
    progress: Progress,
    prepare: Callable[[Path], None],
) -> None:
    """mmdebstrap and its last hooks, images/NAME/customize, with the overlay beside them."""
    recipe = source.recipe
    work = folder / "work"
    hooks = []
    for layer in source.layers:
        shutil.copytree(layer / "overlay", work / "overlay", dirs_exist_ok=True)
        hooks.append(work / f"customize-{layer.name}")
        shutil.copyfile(layer / "customize", hooks[-1])
    prepare(work)
    for path in (work, *work.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path in hooks else 0o644)
    place = work / "overlay/usr/lib/vmrole"
    installed = place / "components" / components_in(components)
    installed.mkdir(parents=True)
    for target in (place / "agent", installed / PROGRAM):
        shutil.copyfile(components / PROGRAM, target)
        target.chmod(0o755)
    for name in recipe.masked:
        mask = work / "overlay/etc/systemd" / name
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.symlink_to("/dev/null")
    options = [f"--dpkgopt=path-exclude={path}" for path in (*_NOT_INSTALLED, *_NOT_RUN)]
    options += [f"--dpkgopt=path-include={path}" for path in _INSTALLED]
    argv = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(recipe.packages)}",
        "--dpkgopt=force-unsafe-io",
        *options,
        '--aptopt=Acquire::Languages "none"',
        *(f"--customize-hook={hook}" for hook in hooks),
        recipe.suite,
        str(tree),
    ]
    if mirror := os.environ.get(MIRROR):
        argv.append(mirror)
    log = folder / "build.log"
    with follow(log, progress):
        try:
            run(inside(argv), deadline=deadline, output=log, env={"TMPDIR": str(folder)})
        except CommandError as error:
            said = log.read_bytes()
            if told := [line for line in said.splitlines() if line.startswith(_TOLD)]:
                raise HostError(told[-1].removeprefix(_TOLD).strip().decode("utf-8", "replace")) from error
            if b"NO_PUBKEY" not in said:
                raise
            raise HostError(
                f"this host does not know the keys that Debian's {recipe.suite} is signed with",
                hint="apt-get update && apt-get install debian-archive-keyring",
            ) from error
    shutil.rmtree(work)
    # mmdebstrap leaves "uninitialized" there, which makes systemd do a whole first boot.
    identity = tree / "etc/machine-id"
    identity.unlink(missing_ok=True)
    identity.write_text("", "ascii")


def _kernel_release(tree: Path) -> str:
    releases = sorted(path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*"))
    if len(releases) != 1:
        raise HostError(f"the packages of the recipe brought {len(releases)} kernels instead of one")
    return releases[0]


def _make_disk(tree: Path, disk: Path, megabytes: int, deadline: Deadline) -> None:
    """A file system without a partition table, with the tree in it; sparse."""
    options = ["-t", "ext4", "-q", "-F", "-L", "root", "-m", "0", "-b", "4096", "-I", "256", "-J", "size=16"]
    argv = ["mke2fs", *options, "-O", _FEATURES, "-E", _EXTENDED, "-d", str(tree), str(disk), f"{megabytes}M"]
    run(inside(argv), deadline=deadline)


def _packages(tree: Path) -> tuple[str, ...]:
    """'name=version' of what dpkg says is installed, read from its status file (deb822 paragraphs)."""
    found = []
    for paragraph in (tree / "var/lib/dpkg/status").read_text("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found.append(f"{fields['Package']}={fields['Version']}")
    return tuple(sorted(found))
