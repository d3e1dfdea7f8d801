# SPDX-License-Identifier: Apache-2.0
"""A cloud image as distributions publish them, made of Debian's packages: a partitioned disk with a boot loader of its
own for BIOS and for UEFI, cloud-init and an SSH server, and nothing of ours. Nothing is mounted on the host."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from pathlib import Path

import filelock

from harness.deadline import Deadline
from harness.image.builders.debian import MIRROR
from harness.image.builders.namespace import inside, remove
from harness.image.cache import discard
from harness.process import run
from tests.conftest import HANGS, REPOSITORY

FOLDER = REPOSITORY / "build/cloud-image"
_PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "grub-efi-amd64-bin", "grub-common", "systemd-sysv",
    "udev", "dbus", "kmod", "cloud-init", "openssh-server", "iproute2", "netbase", "ca-certificates", "openssl",
    "e2fsprogs", "procps", "passwd", "locales", "tzdata", "sudo", "isc-dhcp-client",
)  # fmt: skip
_MIB = 1 << 20
_SECTOR = 512
_DISK_MB = 2048
_BIOS, _ESP, _ROOT = 1, 2, 16
"""MiB at which the partitions begin: GRUB's second stage, the one UEFI reads, the system."""
_BOOT_CODE = 440
"""Bytes of the first sector that are a program."""
_PARTITIONS = f"""\
label: gpt
start={_BIOS}MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649
start={_ESP}MiB, size={_ROOT - _ESP}MiB, type=U
start={_ROOT}MiB, type=L
"""
_GRUB = """\
set default=0
set timeout=0
menuentry Debian {
  linux /vmlinuz root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200 net.ifnames=0
  initrd /initrd.img
}
"""
_EARLY = "search --label --set=root cloudimg-rootfs\nset prefix=($root)/boot/grub\nconfigfile /boot/grub/grub.cfg\n"
_MODULES = "part_gpt ext2 linux normal configfile boot echo search search_label"
_HOOK = f"""\
#!/bin/sh
set -eu
here=$(dirname "$0")
mkdir -p "$1/boot/grub"
cp "$here/grub.cfg" "$1/boot/grub/grub.cfg"
cp "$here/early.cfg" "$1/tmp/early.cfg"
chroot "$1" grub-mkimage -O i386-pc -o /tmp/core.img -p /boot/grub -c /tmp/early.cfg biosdisk {_MODULES}
chroot "$1" grub-mkimage -O x86_64-efi -o /tmp/bootx64.efi -p /boot/grub -c /tmp/early.cfg {_MODULES}
cp "$1/usr/lib/grub/i386-pc/boot.img" "$1/tmp/core.img" "$1/tmp/bootx64.efi" "$here/"
rm "$1/tmp/early.cfg" "$1/tmp/core.img" "$1/tmp/bootx64.efi"
echo "LABEL=cloudimg-rootfs / ext4 defaults 0 1" >"$1/etc/fstab"
chroot "$1" systemctl -q enable systemd-networkd
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf"
chroot "$1" passwd -q -l root
: >"$1/etc/machine-id"
"""


def cloud_image(*, deadline: Deadline) -> Path:
    """The raw disk, made once for this clone; nothing of it is in the user's cache."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    FOLDER.mkdir(parents=True, exist_ok=True)
    disk = FOLDER / f"{digest}.raw"
    with filelock.FileLock(FOLDER / "lock"):
        if not disk.exists():
            for old in FOLDER.iterdir():
                if old.name != "lock":
                    discard(old) if old.is_dir() else old.unlink()
            work = Path(tempfile.mkdtemp(dir=FOLDER))
            try:
                _build(work, deadline)
                (work / "disk.raw").rename(disk)
            finally:
                discard(work)
    return disk


def without_boot_code(disk: Path, copy: Path) -> None:
    """Write ``copy``, the same image for UEFI alone: its first sector has no program."""
    run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(copy)], deadline=Deadline(HANGS))
    with copy.open("r+b") as file:
        file.write(bytes(_BOOT_CODE))


def _build(work: Path, deadline: Deadline) -> None:
    tree, log = work / "tree", work / "build.log"
    tree.mkdir()
    for name, text in (("grub.cfg", _GRUB), ("early.cfg", _EARLY), ("hook", _HOOK)):
        (work / name).write_text(text)
    (work / "hook").chmod(0o755)
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    argv += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man"))]
    argv += ['--aptopt=Acquire::Languages "none"', f"--customize-hook={work / 'hook'}", "bookworm", str(tree)]
    argv += [mirror] if (mirror := os.environ.get(MIRROR)) else []
    try:
        run(inside(argv), deadline=deadline, output=log, env={"TMPDIR": str(work)})
        (tree / "etc/machine-id").write_text("")
        disk = work / "disk.raw"
        with disk.open("wb") as file:
            file.truncate(_DISK_MB * _MIB)
        run(["sfdisk", "-q", str(disk)], stdin=_PARTITIONS.encode(), deadline=deadline)
        where = f"offset={_ROOT * _MIB}"
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "cloudimg-rootfs", "-d", str(tree), "-E", where]
        run(inside([*argv, str(disk), f"{_DISK_MB - _ROOT - 1}M"]), deadline=deadline)
    finally:
        remove(tree)
    esp = f"{disk}@@{_ESP * _MIB}"
    run(["mformat", "-i", esp, "-T", str((_ROOT - _ESP) * _MIB // _SECTOR), "::"], deadline=deadline)
    run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"], deadline=deadline)
    run(["mcopy", "-i", esp, str(work / "bootx64.efi"), "::/EFI/BOOT/BOOTX64.EFI"], deadline=deadline)
    boot, core = bytearray((work / "boot.img").read_bytes()), bytearray((work / "core.img").read_bytes())
    assert len(core) <= _MIB
    # Where the first stage looks for the second, and the second's first sector for its others.
    first = _BIOS * _MIB // _SECTOR
    struct.pack_into("<Q", boot, 0x5C, first)
    struct.pack_into("<Q", core, 0x1F4, first + 1)
    with disk.open("r+b") as file:
        file.write(boot[:_BOOT_CODE])
        file.seek(_BIOS * _MIB)
        file.write(core)
