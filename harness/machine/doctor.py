# SPDX-License-Identifier: Apache-2.0
"""What this host has for a run: programs, libvirt, accelerator, memory, disk, rights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.errors import VmRoleError
from harness.machine.host import OVERHEAD_MB, memory_available_mb, space_available_mb
from harness.machine.slots import capacity_mb, processors
from harness.process import run, which
from harness.state import qemu_account, state_folder

_IMAGE_MB = 2048
"""What building an image takes at most."""

_GUEST_MB = 512


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``error`` means that a run cannot work; ``advice`` is what to do."""

    name: str
    level: Literal["ok", "warning", "error"]
    observed: str
    advice: str | None = None


def examine(*, probe: bool = False) -> list[Check]:
    """Look at everything; a look that fails is a check that fails, never an exception."""
    checks: list[Check] = []
    looks: list[Callable[[], Iterator[Check]]] = [
        _programs, _libvirt, lambda: _accelerator(probe), _memory, _disk, _rights, _images,
    ]  # fmt: skip
    for look in looks:
        try:
            checks.extend(look())
        except VmRoleError as error:
            checks.append(Check(look.__name__.strip("_<>"), "error", error.message, error.hint))
    return checks


_PROGRAMS = {
    "qemu-system-x86_64": ("qemu-system-x86", "error", "runs the machines"),
    "qemu-img": ("qemu-utils", "error", "makes their disks"),
    "mmdebstrap": ("mmdebstrap", "error", "builds Linux images"),
    "mke2fs": ("e2fsprogs", "error", "makes their file systems"),
    "zstd": ("zstd", "warning", "unpacks the kernel of the stand-in for Windows"),
    "gcc": ("gcc libc6-dev", "error", "compiles the guest's agent"),
    "debugfs": ("e2fsprogs", "warning", "reads the disk of a guest that does not answer"),
    "ssh": ("openssh-client", "warning", "reaches guests on another libvirt host"),
}


def _programs() -> Iterator[Check]:
    for program, (package, level, purpose) in _PROGRAMS.items():
        if which(program) is None:
            advice = f"apt-get install {package}"
            yield Check(program, "error" if level == "error" else "warning", f"is missing; it {purpose}", advice)
        elif program.startswith("qemu-system"):
            version = run([program, "--version"]).stdout.decode().splitlines()[0]
            found = re.search(r"version (\S+)", version)
            yield Check(program, "ok", found[1] if found else version)
        else:
            yield Check(program, "ok", f"is there; it {purpose}")


def _libvirt() -> Iterator[Check]:
    try:
        from harness.machine.qemu.connection import connect, reprobing_trap  # first: it sets where libvirt logs

        import libvirt  # isort: skip
    except ImportError as error:
        yield Check("libvirt", "error", f"its Python binding cannot be loaded: {error}", "make setup")
        return
    number = libvirt.getVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    try:
        with connect(None) as connection:
            connection.raw.getDomainCapabilities(connection.emulator, "x86_64", "q35", "qemu")
    except VmRoleError as error:
        yield Check("libvirt", "error", error.message, error.hint)
        return
    except libvirt.libvirtError as error:
        said = (error.get_error_message() or str(error)).splitlines()[0]
        yield Check("libvirt", "error", said, "is qemu-system-x86 installed and does it start?")
        return
    yield Check("libvirt", "ok", f"{version}, the in-process QEMU driver works without a daemon")
    account = qemu_account()
    if account and reprobing_trap(account):
        yield Check(
            "libvirt probing",
            "warning",
            f"/dev/kvm is closed to {account.name}, under which QEMU runs: libvirt would probe QEMU anew at every "
            "look-up, which the harness avoids",
            "other libvirt tools on this host are slowed down by it; 'chgrp kvm /dev/kvm; chmod g+rw /dev/kvm' ends "
            f"it (if {account.name} is in the group kvm)",
        )


def _accelerator(fresh: bool) -> Iterator[Check]:
    from harness.image.build import list_images
    from harness.image.cache import Cache
    from harness.machine.accelerator import choose_accelerator

    if not Path("/dev/kvm").exists():
        yield Check("accelerator", "ok", "TCG: there is no /dev/kvm on this host", "works; KVM would be faster")
        return
    kernels = [entry.folder / "kernel" for entry in list_images(Cache.of_user()) if (entry.folder / "kernel").exists()]
    kernels += [path for path in sorted(Path("/boot").glob("vmlinuz-*")) if os.access(path, os.R_OK)]
    if not kernels:
        yield Check("accelerator", "ok", "not known yet: the probe starts a guest kernel, the first image brings one")
        return
    answer = choose_accelerator(kernels[0], fresh=fresh)
    advice = None if answer.kind == "kvm" else "works, with emulated (slower) guests"
    yield Check("accelerator", "ok", f"{answer.kind.upper()}: {answer.reason}", advice)


def _memory() -> Iterator[Check]:
    available = min(memory_available_mb(), capacity_mb())
    guests = available // (_GUEST_MB + OVERHEAD_MB)
    if guests:
        told = f"{available} MiB for guests, enough for {guests} of {_GUEST_MB} MiB"
        yield Check("memory", "ok", f"{told}; {processors()} processors, so that many work at once")
    else:
        yield Check(
            "memory", "error", f"only {available} MiB available", f"a guest needs {_GUEST_MB + OVERHEAD_MB} MiB"
        )


def _disk() -> Iterator[Check]:
    from harness.image.cache import Cache

    for name, folder in (("state folder", state_folder()), ("image cache", Cache.of_user().folder)):
        free = space_available_mb(folder)
        level: Literal["ok", "error"] = "ok" if free >= _IMAGE_MB else "error"
        advice = None if level == "ok" else f"free some space: an image and its machines need {_IMAGE_MB} MiB"
        yield Check(name, level, f"{folder}, {free} MiB free", advice)


def _rights() -> Iterator[Check]:
    from harness.image.build import list_images
    from harness.image.cache import Cache

    account = qemu_account()
    if account:
        yield Check("rights", "ok", f"root; QEMU runs as {account.name}")
        return
    name = run(["id", "-un"]).stdout.decode().strip()
    subordinate = Path("/etc/subuid")
    if subordinate.exists() and re.search(rf"^{re.escape(name)}:", subordinate.read_text(), re.MULTILINE):
        yield Check("rights", "ok", f"ordinary user {name} with subordinate ids, for building images")
    else:
        there = any(entry.current for entry in list_images(Cache.of_user()))
        yield Check(
            "rights",
            "warning" if there else "error",
            f"ordinary user {name} without subordinate ids: images cannot be built"
            + (", only used" if there else ", and none is there"),
            f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
        )


def _images() -> Iterator[Check]:
    from harness.image.build import list_images
    from harness.image.cache import Cache

    entries = [entry for entry in list_images(Cache.of_user()) if entry.current]
    if not entries:
        yield Check("images", "ok", "none is built yet; the first run builds it, about a minute")
    for entry in entries:
        built = datetime.fromisoformat(entry.built.replace("Z", "+00:00"))
        days = (datetime.now(UTC) - built).days
        advice = f"'vmrole images build {entry.name} --again' takes today's packages" if days > 30 else None
        yield Check("images", "warning" if days > 30 else "ok", f"{entry.name} {entry.key}, {days} days old", advice)
