# SPDX-License-Identifier: Apache-2.0
"""Images that cannot be built because nobody but their owner has the media: a user's own disk becomes one.

The disk has to hold a generalized Windows (sysprep), as evaluation disks do. It is copied: the user's file stays as it
is, and machines stand on overlays of the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError, HostError, UsageError
from harness.image.builders import Progress
from harness.image.cache import Cache
from harness.image.catalog import Source
from harness.process import run

BUILDER = "added"
_CHUNK = 4 << 20
_SECTOR = 512
_ISO = (32769, b"CD001")
_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vpc": "vpc", "vhdx": "vhdx", "vmdk": "vmdk"}
"""Formats of qemu-img that are taken; vpc is VHD."""
_SUFFIXES = {".vhd": "vpc", ".vhdx": "vhdx", ".qcow2": "qcow2", ".vmdk": "vmdk", ".img": "raw", ".raw": "raw"}


def add_image(
    source: Source, file: Path, *, sha256: str | None, cache: Cache, deadline: Deadline, progress: Progress
) -> str:
    """Take ``file`` as the disk of the image ``source``; its key, 16 digits of the file's SHA-256.

    Raises UsageError for a file that is none, another one than ``sha256`` says, or no disk; HostError without room.
    """
    if source.recipe.builder != BUILDER:
        raise UsageError(
            f"the image {source.recipe.name} is built from its recipe, no file is added to it",
            hint=f"'vmrole images build {source.recipe.name}'",
        )
    _look(file)
    progress(f"reading {file.name}")
    digest = _digest(file, deadline)
    if sha256 and digest != sha256.strip().lower():
        raise UsageError(f"{file} has the SHA-256 {digest}, expected was {sha256}", hint="download it again")
    facts = _facts(file, deadline)
    size = int(facts["virtual-size"])
    key, built = digest[:16], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = source.recipe.name
    free = shutil.disk_usage(cache.building).free
    if free < int(facts.get("actual-size") or size) + (1 << 30):
        raise HostError(
            f"the image cache {cache.folder} has {free >> 20} MiB of room, which is not enough for {file.name}",
            hint="remove old images with 'vmrole images remove', or choose another folder with VMROLE_CACHE_DIR",
        )
    with cache.locked(f"{name}-{key}", deadline, lambda: None), cache.workplace(f"{name}-{key}") as work:
        progress(f"copying {file.name}, {size >> 20} MiB")
        disk = work / "disk.raw"
        argv = ["qemu-img", "convert", "-q", "-f", facts["format"], "-O", "raw", str(file.absolute()), str(disk)]
        try:
            run(argv, deadline=deadline)
        except CommandError as error:
            raise UsageError(f"{file} cannot be read as a disk: {error.stderr[:200]}") from error
        record = {
            "schema": 1,
            "name": name,
            "key": key,
            "built": built,
            "components_version": "",
            "files": {"disk": disk.name},
            "packages": [f"{file.name}={digest}"],
            "uefi": _is_gpt(disk),
        }
        (work / "image.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        for path in (*work.iterdir(), work):
            cache.grant(path)
        work.rename(cache.images / f"{name}-{key}-{built.replace(':', '').replace('-', '')}")
    return key


def key_of(cache: Cache, name: str) -> str | None:
    """The key of the disk that was added last, None when none was."""
    found = []
    for path in cache.images.glob(f"{name}-*/image.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text("utf-8"))
            if record["name"] == name:
                found.append((str(record["built"]), str(record["key"])))
    return max(found)[1] if found else None


def missing(name: str) -> UsageError:
    """What is said of an image whose disk was not added yet."""
    return UsageError(
        f"the image {name} is made from media of your own, and none were added",
        hint=f"'vmrole images add {name} FILE.vhdx' takes a generalized Windows Server, e.g. an evaluation disk",
    )


def _look(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            stream.seek(_ISO[0])
            if stream.read(len(_ISO[1])) == _ISO[1]:
                raise UsageError(
                    f"{file} is an installation medium, and Windows Setup is not run from it here",
                    hint="install it once into a VHDX, generalize that with sysprep, and add it",
                )
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def _digest(file: Path, deadline: Deadline) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
            if deadline.expired:
                raise HostError(f"{file} could not be read within {deadline.seconds:.0f} s")
    return digest.hexdigest()


def _facts(file: Path, deadline: Deadline) -> dict[str, str]:
    """What qemu-img says of the file. Its format comes from the name where that says one: a raw disk's own first bytes
    could make it look like a disk that names others."""
    wanted = _SUFFIXES.get(file.suffix.lower())
    argv = ["qemu-img", "info", "--output=json", *(["-f", wanted] if wanted else []), str(file.absolute())]
    try:
        facts: dict[str, str] = json.loads(run(argv, deadline=deadline).stdout)
    except CommandError as error:
        if error.returncode == 127:
            raise
        raise UsageError(f"{file} is no disk that can be read: {error.stderr.strip()[:200]}") from None
    if facts.get("format") not in _FORMATS:
        raise UsageError(f"{file} is a disk of the format {facts.get('format')}", hint="VHD, VHDX, VMDK, qcow2 or raw")
    if facts.get("backing-filename"):
        raise UsageError(f"{file} is an overlay and not a whole disk", hint="merge it with the disk it stands on")
    if int(facts["virtual-size"]) < 1 << 20:
        raise UsageError(f"{file} is too small to be a disk of Windows")
    return facts


def _is_gpt(disk: Path) -> bool:
    """A generation 2 disk, which starts with UEFI: such disks have a GUID partition table."""
    with disk.open("rb") as stream:
        stream.seek(_SECTOR)
        return stream.read(8) == b"EFI PART"
