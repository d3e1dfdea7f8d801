# SPDX-License-Identifier: Apache-2.0
"""Images that are not built here: a disk becomes one.

A user's own disk with a generalized Windows (sysprep), as evaluation disks are, which nobody else has the media for;
and cloud images, as distributions publish them, with a boot loader of their own and cloud-init (docs/images.md). The
disk is copied: the user's file stays as it is, and machines stand on overlays of the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from harness.deadline import Deadline
from harness.errors import CommandError, HostError, UsageError
from harness.image import catalog
from harness.image.builders import Progress
from harness.image.cache import Cache, check_owner
from harness.image.catalog import Source
from harness.image.recipe import Recipe
from harness.package.download import check_url, download
from harness.process import run
from harness.state import replace_text

BUILDER = "added"
_CHUNK = 4 << 20
_SECTOR = 512
_BOOT_CODE = 440
"""Bytes of the first sector that are a program."""
_CLOUD = """\
name = "{name}"
os = "linux"
family = "Linux"
version = "0.0.0.0"
tags = ["Linux"]
bootstrap = "cloud-init"
freeze_point = "awaiting-instance"
renews = ["entropy", "clock", "host-key", "name"]
base = "debian-12"
builder = "added"
packages = []
memory_mb = 1024
suite = ""
patience = 2
"""
MOST_BYTES = 32 << 30
"""Of a disk that is downloaded."""
_ISO = (32769, b"CD001")
_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vpc": "vpc", "vhdx": "vhdx", "vmdk": "vmdk"}
"""Formats of qemu-img that are taken; vpc is VHD."""
_SUFFIXES = {".vhd": "vpc", ".vhdx": "vhdx", ".qcow2": "qcow2", ".vmdk": "vmdk", ".img": "raw", ".raw": "raw"}


def cloud_source(name: str) -> Source:
    """The recipe of a cloud image that is called ``name``. Raises UsageError for what cannot be a name."""
    try:
        recipe = Recipe.model_validate(tomllib.loads(_CLOUD.format(name=name)))
    except (ValidationError, tomllib.TOMLDecodeError):
        raise UsageError(
            f"{name[:60]!r} cannot be the name of an image", hint="small letters, digits, . and -, at most 41"
        ) from None
    return Source(recipe, catalog.added_folder() / name)


def keep_recipe(source: Source) -> None:
    """Make an image that was added known under its name."""
    for folder in (source.folder.parent, source.folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(folder)
    replace_text(source.folder / "recipe.toml", _CLOUD.format(name=source.recipe.name))


def forget_recipe(name: str) -> None:
    """Undo ``keep_recipe``; what was not added has its recipe elsewhere."""
    shutil.rmtree(catalog.added_folder() / name, ignore_errors=True)


def fetch(url: str, sha256: str | None, *, cache: Cache, deadline: Deadline) -> Path:
    """The file at ``url`` in the cache. Raises UsageError unless it is known what it has to be."""
    if not sha256:
        raise UsageError(
            f"what is at {url} has to be known before it is taken", hint="add --sha256, which its publisher tells"
        )
    folder = cache.folder / "downloads"
    wanted = sha256.strip().lower()
    path = download(check_url(url), None, folder, wanted=wanted, most=MOST_BYTES, deadline=deadline)
    if path is None:
        raise UsageError(f"there is nothing at {url}", hint="look the address up again")
    # Its name says what kind of disk it is.
    named = path.with_suffix(Path(urlsplit(url).path).suffix)
    path.replace(named)
    return named


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
            "uefi": _needs_uefi(disk, source.recipe.os),
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


def _facts(file: Path, deadline: Deadline) -> dict[str, Any]:
    """What qemu-img says of the file. Its format comes from the name where that says one: a raw disk's own first bytes
    could make it look like a disk that names others."""
    wanted = _SUFFIXES.get(file.suffix.lower())
    argv = ["qemu-img", "info", "--output=json", *(["-f", wanted] if wanted else []), str(file.absolute())]
    try:
        facts: dict[str, Any] = json.loads(run(argv, deadline=deadline).stdout)
    except CommandError as error:
        if error.returncode == 127:
            raise
        raise UsageError(f"{file} is no disk that can be read: {error.stderr.strip()[:200]}") from None
    if facts.get("format") not in _FORMATS:
        raise UsageError(f"{file} is a disk of the format {facts.get('format')}", hint="VHD, VHDX, VMDK, qcow2 or raw")
    if _data_file(facts):
        raise UsageError(f"{file} keeps its content in another file", hint="'qemu-img convert' makes it whole")
    if facts.get("backing-filename"):
        raise UsageError(f"{file} is an overlay and not a whole disk", hint="merge it with the disk it stands on")
    if int(facts["virtual-size"]) < 1 << 20:
        raise UsageError(f"{file} is too small to be the disk of a system")
    return facts


def _data_file(facts: Mapping[str, Any]) -> bool:
    """A qcow2 may name another file for its content, of whoever reads it."""
    specific = facts.get("format-specific")
    data = specific.get("data") if isinstance(specific, dict) else None
    return isinstance(data, dict) and "data-file" in data


def _needs_uefi(disk: Path, os: str) -> bool:
    """Whether a BIOS cannot start it. A GUID partition table means UEFI to Windows; a Linux image with one is made for
    both where the first sector has a program."""
    with disk.open("rb") as stream:
        first = stream.read(_SECTOR)
        gpt = stream.read(8) == b"EFI PART"
    return gpt and (os == "windows" or not any(first[:_BOOT_CODE]))
