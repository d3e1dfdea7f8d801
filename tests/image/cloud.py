# SPDX-License-Identifier: Apache-2.0
"""A cloud image as distributions publish them, made of Debian's packages: a partitioned disk with a boot loader of its
own, cloud-init and an SSH server, and nothing of ours. Nothing is mounted on the host."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from harness.deadline import Deadline
from harness.image.builders.debian import MIRROR
from harness.image.builders.namespace import inside, remove
from harness.image.cache import Cache
from harness.process import run

_PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "grub-common", "systemd-sysv", "udev", "dbus", "kmod",
    "cloud-init", "openssh-server", "iproute2", "netbase", "ca-certificates", "openssl", "e2fsprogs", "procps",
    "passwd", "locales", "tzdata", "sudo", "isc-dhcp-client",
)  # fmt: skip
_MIB = 1 << 20
_DISK_MB = 2048
_SECTORS = (_DISK_MB - 2) * _MIB // 512
_GAP = _MIB
"""Before the first partition; the boot loader's second stage lies in it."""
_GRUB = """\
set default=0
set timeout=0
menuentry Debian {
  linux /vmlinuz root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200 net.ifnames=0
  initrd /initrd.img
}
"""
_EARLY = "set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/boot/grub\nconfigfile /boot/grub/grub.cfg\n"
_MODULES = "biosdisk part_msdos ext2 linux normal configfile boot echo"
_HOOK = f"""\
#!/bin/sh
set -eu
here=$(dirname "$0")
mkdir -p "$1/boot/grub"
cp "$here/grub.cfg" "$1/boot/grub/grub.cfg"
cp "$here/early.cfg" "$1/tmp/early.cfg"
chroot "$1" grub-mkimage -O i386-pc -o /tmp/core.img -p /boot/grub -c /tmp/early.cfg {_MODULES}
cp "$1/usr/lib/grub/i386-pc/boot.img" "$1/tmp/core.img" "$here/"
rm "$1/tmp/early.cfg" "$1/tmp/core.img"
echo "LABEL=cloudimg-rootfs / ext4 defaults 0 1" >"$1/etc/fstab"
chroot "$1" systemctl -q enable systemd-networkd
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf"
chroot "$1" passwd -q -l root
: >"$1/etc/machine-id"
"""


def cloud_image(*, deadline: Deadline) -> Path:
    """The raw disk, made once for the user's cache."""
    cache = Cache.of_user()
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    folder = cache.folder / "tests"
    folder.mkdir(mode=0o700, exist_ok=True)
    disk = folder / f"cloud-{digest}.raw"
    with cache.locked(f"tests-{digest}", deadline, lambda: None):
        if not disk.exists():
            with cache.workplace(f"tests-{digest}") as work:
                _build(work, deadline)
                (work / "disk.raw").rename(disk)
    return disk


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
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "cloudimg-rootfs", "-d", str(tree), "-E", f"offset={_GAP}"]
        run(inside([*argv, str(disk), f"{_DISK_MB - 2}M"]), deadline=deadline)
    finally:
        remove(tree)
    boot, core = (work / "boot.img").read_bytes(), (work / "core.img").read_bytes()
    assert len(core) < _GAP - 512
    with disk.open("r+b") as file:
        file.write(boot[:440])
        # One entry of the partition table: bootable, Linux, first sector and number of sectors (no cylinders).
        file.seek(446)
        file.write(struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", _GAP // 512, _SECTORS))
        file.seek(510)
        file.write(b"\x55\xaa" + core)  # the second stage is looked for in the next sector
