# SPDX-License-Identifier: Apache-2.0
"""Images that are not built here: a disk becomes one.

A user's own disk with a generalized Windows (sysprep), as evaluation disks are, which nobody else has the media for;
and cloud images, as distributions publish them, with a boot loader of their own and cloud-init (docs/images.md). The
disk is copied: the user's file stays as it is, and machines stand on overlays of the copy.

From an installation medium Windows Setup makes such a disk once (harness.run.windows.install); the medium is kept as
CACHE/media/<SHA-256>.iso for as long as there is an image of it.

Names are the user's; the recipe of a new one is that of ``windows-server``, or the one for cloud images below.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from harness.deadline import Deadline
from harness.errors import CommandError, HostError, UsageError
from harness.files import replace_file
from harness.image import catalog, seal
from harness.image.builders import Progress
from harness.image.cache import Cache, check_owner
from harness.image.catalog import Source
from harness.image.contents import SECTOR, Os, has_gpt, system_on
from harness.image.disks import checked_format
from harness.package.download import check_url, download
from harness.process import run

BUILDER = "added"
_CHUNK = 4 << 20
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
WINDOWS = "windows-server"
"""The recipe that those of other Windows images are made of."""
MOST_BYTES = 32 << 30
"""Of a disk that is downloaded."""
_ISO = (32769, b"CD001")
"""Where an ISO 9660 file system says that it is one; a UDF one has this, too."""
_STARTS = (17 * 2048, b"\0CD001\1EL TORITO SPECIFICATION")
_MEDIA = "media"


def new_source(name: str, os: Os) -> Source:
    """The recipe of a disk with ``os`` that is called ``name``. Raises UsageError for what cannot be a name."""
    try:
        recipe, folder = catalog.recipe_of(tomllib.loads(_text(name, os)), catalog.added_folder() / name)
    except (ValidationError, tomllib.TOMLDecodeError):
        raise UsageError(
            f"{name[:60]!r} cannot be the name of an image", hint="small letters, digits, . and -, at most 41"
        ) from None
    return Source(recipe, folder)


def _text(name: str, os: Os) -> str:
    return _CLOUD.format(name=name) if os == "linux" else f'like = "{WINDOWS}"\nname = "{name}"\n'


def keep_recipe(name: str, text: str) -> None:
    """Make an image of the user's known under its name."""
    home = catalog.added_folder()
    for folder in (home, home / name):
        folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(folder)
    replace_file(home / name / "recipe.toml", text)


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
    name: str,
    file: Path,
    *,
    os: Os | None = None,
    sha256: str | None,
    cache: Cache,
    deadline: Deadline,
    progress: Progress,
) -> str:
    """Take ``file`` as the disk of the image ``name``; its key, 16 digits of the file's SHA-256.

    ``os`` is what the user says of it; None is to be seen from the disk. Raises UsageError for a file that is none,
    another one than ``sha256`` says, no disk, or one of which nobody knows the system; HostError without room.
    """
    source = known(name, os)
    digest = verified(file, sha256, deadline, progress)
    facts = _facts(file, deadline)
    size = int(facts["virtual-size"])
    check_room(cache, int(facts.get("actual-size") or size), file.name)
    key = digest[:16]
    with cache.locked(f"{name}-{key}", deadline, lambda: None), cache.workplace(f"{name}-{key}") as work:
        progress(f"copying {file.name}, {size >> 20} MiB")
        disk = work / DISK
        argv = ["qemu-img", "convert", "-q", "-f", facts["format"], "-O", "raw", str(file.absolute()), str(disk)]
        try:
            run(argv, deadline=deadline)
        except CommandError as error:
            raise UsageError(f"{file} cannot be read as a disk: {error.stderr[:200]}") from error
        source = source or new_source(name, os or _seen(disk, file.name, progress))
        if os is None:
            _check_known(source, disk, file.name)
        put(cache, source, work, key, media=f"{file.name}={digest}")
    return key


DISK = "disk.raw"


def put(cache: Cache, source: Source, work: Path, key: str, *, media: str, components: str = "") -> None:
    """Make the workplace ``work`` with the disk the image ``source``; ``media`` is what it was made from, and
    ``components`` the version of the integration components in it."""
    name, built = source.recipe.name, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record = {
        "schema": 1,
        "name": name,
        "key": key,
        "built": built,
        "components_version": components,
        "files": {"disk": DISK},
        "packages": [media],
        "uefi": _needs_uefi(work / DISK, source.recipe.os),
    }
    (work / "image.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for path in (*work.iterdir(), work):
        cache.grant(path)
    seal.seal(work, [DISK])
    work.rename(cache.images / f"{name}-{key}-{built.replace(':', '').replace('-', '')}")
    if name not in catalog.names(catalog.images_folder()):
        keep_recipe(name, _text(name, source.recipe.os))


def check_room(cache: Cache, size: int, what: str) -> None:
    """Raise HostError unless the cache has room for ``size`` bytes and a little more."""
    free = shutil.disk_usage(cache.building).free
    if free < size + (1 << 30):
        raise HostError(
            f"the image cache {cache.folder} has {free >> 20} MiB of room, which is not enough for {what}",
            hint="remove old images with 'vmrole images remove', or choose another folder with VMROLE_CACHE_DIR",
        )


def known(name: str, os: Os | None) -> Source | None:
    """The recipe of ``name``, None for a name that is new. Raises UsageError for one that takes no disk, or not one of
    ``os``."""
    if name not in catalog.names():
        new_source(name, os or "linux")
        return None
    source = catalog.load(name)
    if source.recipe.builder != BUILDER:
        raise UsageError(
            f"the image {name} is built from its recipe, no file is added to it",
            hint=f"'vmrole images build {name}', or choose a new name for the file",
        )
    if os and os != source.recipe.os:
        raise _other_system(source, os, "the disk")
    return source


def _seen(disk: Path, file: str, progress: Progress) -> Os:
    seen = system_on(disk)
    if seen is None:
        raise UsageError(
            f"{file} does not tell whether it is a Windows or a Linux: no file system of either is on it, or of both",
            hint="say it with --os windows or --os linux",
        )
    system, told = seen
    progress(f"it is taken for {system.capitalize()}: it has a file system of the kind {told}")
    return system


def _check_known(source: Source, disk: Path, file: str) -> None:
    """A disk that tells nothing is what its name says."""
    seen = system_on(disk)
    if seen and seen[0] != source.recipe.os:
        raise _other_system(source, seen[0], file)


def _other_system(source: Source, os: Os, file: str) -> UsageError:
    return UsageError(
        f"the image {source.recipe.name} is a {source.recipe.os.capitalize()}, and {file} is a {os.capitalize()}",
        hint="choose another name",
    )


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
        hint=f"'vmrole images add {name} FILE' takes a generalized disk of that system, e.g. a published one",
    )


def damaged(name: str) -> HostError:
    """What is said of an image whose files are not what they were when it was added."""
    return HostError(
        f"the image {name} is not what it was when it was added to the cache",
        hint=f"'vmrole images remove {name}', and add it again",
    )


def is_medium(file: Path) -> bool:
    """Whether ``file`` is an ISO. Raises UsageError when it cannot be read."""
    return _at(file, *_ISO)


def _at(file: Path, offset: int, text: bytes) -> bool:
    try:
        if file.exists() and not file.is_file():
            raise UsageError(
                f"{file} is a {'folder' if file.is_dir() else 'device'} and no file", hint="give a disk file"
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(len(text)) == text
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def keep_medium(
    file: Path, *, sha256: str | None, cache: Cache, deadline: Deadline, progress: Progress
) -> tuple[Path, str]:
    """The installation medium ``file`` in the cache, copied unless it is there, and its SHA-256.

    Raises UsageError for one that no machine starts from, or another one than ``sha256`` says; HostError without room.
    """
    if not _at(file, *_STARTS):
        raise UsageError(f"{file} is no medium that a machine starts from")
    digest = verified(file, sha256, deadline, progress)
    progress(f"copying {file.name}, {file.stat().st_size >> 20} MiB")
    return keep(file, f"{digest}.iso", cache=cache, deadline=deadline), digest


def keep(file: Path, name: str, *, cache: Cache, deadline: Deadline) -> Path:
    """``file`` in the cache as ``name``, which begins with its SHA-256; copied unless it is there.

    Raises HostError without room.
    """
    kept = media_folder(cache) / name
    entry = f"media-{name[:16]}"
    with cache.locked(entry, deadline, lambda: None):
        if not kept.exists():
            check_room(cache, file.stat().st_size, file.name)
            with cache.workplace(entry) as work:
                shutil.copyfile(file, work / name)
                cache.grant(work / name)
                (work / name).rename(kept)
        check_owner(kept)
    return kept


def media_folder(cache: Cache) -> Path:
    """Where what images were made from is kept."""
    folder = cache.folder / _MEDIA
    folder.mkdir(mode=0o700, exist_ok=True)
    check_owner(folder)
    cache.grant(folder)
    return folder


def forget_media(cache: Cache) -> None:
    """Remove what was kept for images that are not there any more, nor their recipes."""
    records = [*cache.images.glob("*/image.json"), *catalog.added_folder().glob("*/recipe.toml")]
    texts = [path.read_text("utf-8", "replace") for path in records]
    for medium in media_folder(cache).iterdir():
        if not any(medium.stem in text for text in texts):
            medium.unlink(missing_ok=True)


def verified(file: Path, sha256: str | None, deadline: Deadline, progress: Progress) -> str:
    """The SHA-256 of ``file``. Raises UsageError when it is another one than ``sha256``."""
    progress(f"reading {file.name}")
    digest = _digest(file, deadline)
    if sha256 and digest != sha256.strip().lower():
        raise UsageError(f"{file} has the SHA-256 {digest}, expected was {sha256}", hint="download it again")
    return digest


def _digest(file: Path, deadline: Deadline) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
            if deadline.expired:
                raise HostError(f"{file} could not be read within {deadline.seconds:.0f} s")
    return digest.hexdigest()


def _facts(file: Path, deadline: Deadline) -> dict[str, Any]:
    """What qemu-img says of the file, which is a whole disk in itself. Raises UsageError for all others."""
    argv = ["qemu-img", "info", "--output=json", "-f", checked_format(file), str(file.absolute())]
    try:
        facts: dict[str, Any] = json.loads(run(argv, deadline=deadline).stdout)
    except CommandError as error:
        if error.returncode == 127:
            raise
        raise UsageError(f"{file} is no disk that can be read: {error.stderr.strip()[:200]}") from None
    if int(facts["virtual-size"]) < 1 << 20:
        raise UsageError(f"{file} is too small to be the disk of a system")
    return facts


def _needs_uefi(disk: Path, os: Os) -> bool:
    """Whether a BIOS cannot start it. A GUID partition table means UEFI to Windows; a Linux image with one is made for
    both where the first sector has a program."""
    with disk.open("rb") as stream:
        first = stream.read(SECTOR)
    return has_gpt(disk) and (os == "windows" or not any(first[:_BOOT_CODE]))
