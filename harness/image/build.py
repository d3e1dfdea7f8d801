# SPDX-License-Identifier: Apache-2.0
"""From the name of an image to an image in the cache: found there, or built."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BaseModel, Field, StringConstraints, field_validator

from harness.deadline import Deadline
from harness.errors import HostError
from harness.image import added, catalog, modules, seal
from harness.image.builders import Build, Parts, Progress
from harness.image.cache import Cache, check_owner, disk_usage
from harness.image.catalog import Source
from harness.image.components import build_components, components_version, hash_files
from harness.image.recipe import Image

_RECORD = "image.json"
_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
_ROOM = 2 << 30
"""Bytes that a build takes at most: the tree, the disk with its content, the packages."""
_PARTS = ("disk", "kernel", "initrd")


@dataclass(frozen=True, slots=True)
class Entry:
    """A built image as ``images list`` shows it."""

    name: str
    key: str
    built: str
    """UTC ISO 8601."""
    size: int
    """Bytes on the disk."""
    current: bool
    """Whether it is what its recipe would give today, and the newest such."""
    folder: Path


def ensure_image(
    name: str,
    *,
    cache: Cache,
    deadline: Deadline,
    progress: Progress,
    rebuild: bool = False,
    folder: Path | None = None,
) -> Image:
    """The image ``name``, built first when the cache lacks it; with ``rebuild`` built anew, from today's packages.

    ``folder`` is where recipes are looked for. The network is used only when something is built. An older build of the
    same key stays, because machines may still stand on it; ``remove_image`` takes it away.
    Raises UsageError for an unknown name, HostError and CommandError when the build fails.
    """
    source = catalog.load(name, folder)
    cache.prepare()
    components = ensure_components(source, cache=cache, deadline=deadline, progress=progress)
    if source.recipe.builder == added.BUILDER:
        taken = added.key_of(cache, name)
        image = _find(cache, source, taken, components, progress) if taken else None
        if image is None:
            raise added.missing(name)
        return image
    key = image_key(source)
    found = None if rebuild else _find(cache, source, key, components, progress)
    if found:
        return found
    entry = f"{name}-{key}"
    asked = _stamp()

    def waiting() -> None:
        progress(f"waiting for another process that builds the image {name}")

    with cache.locked(entry, deadline, waiting):
        found = _find(cache, source, key, components, lambda _told: None)
        # Whoever asked for a new one is content with one that was begun after that.
        if found is None or (rebuild and found.built < asked):
            _build(cache, source, key, components, deadline, progress)
            found = _find(cache, source, key, components, progress)
    if found is None:
        raise HostError(f"the image {name} was built and is not in the cache {cache.folder}")
    return found


def ensure_components(source: Source, *, cache: Cache, deadline: Deadline, progress: Progress) -> Path:
    """The folder with VERSION and vmrole-components for the instance medium, compiled first when the cache lacks it."""
    version = components_version(source)
    target = cache.components / version
    if not target.is_dir():
        entry = f"components-{version}"

        def waiting() -> None:
            progress("waiting for another process that compiles the integration components")

        with cache.locked(entry, deadline, waiting), cache.workplace(entry) as work:
            if not target.is_dir():
                progress("compiling the integration components")
                build_components(source, work, deadline=deadline)
                _put(cache, work, target)
    for path in (target, *target.iterdir()):
        check_owner(path)
    return target


def image_key(source: Source) -> str:
    """16 hexadecimal digits of everything that goes into an image: recipe, guest sources, builder, components."""
    digest = hashlib.sha256()
    digest.update(source.recipe.model_dump_json().encode())
    digest.update(components_version(source).encode())
    for path in (
        layer / part for layer in source.layers for part in ("overlay", "customize", "tools", "cmd", "python")
    ):
        if path.is_dir():
            hash_files(path, digest)
        elif path.exists():
            digest.update(path.read_bytes())
    here = Path(__file__).parent
    if source.recipe.powershell:
        for layer in source.layers:
            if (layer / modules.FOLDER).is_dir():
                hash_files(layer / modules.FOLDER, digest)
        digest.update((here / "modules.py").read_bytes())
    for module in (
        *sorted((here / "builders").glob("*.py")),
        here / "initramfs.py",
        here / "kernel.py",
        here / "work.py",
        here / "windows.py",
    ):
        digest.update(module.read_bytes())
    return digest.hexdigest()[:16]


class _Record(BaseModel):
    """What is written of an image; another file of that name is none."""

    layout: Literal[1] = Field(alias="schema")
    name: str
    key: str
    built: str
    components_version: str
    files: dict[str, _FileName]
    packages: tuple[str, ...]
    work_seconds: float | None = None
    uefi: bool = False

    @field_validator("files")
    @classmethod
    def _has_a_disk(cls, files: dict[str, str]) -> dict[str, str]:
        if "disk" not in files:
            raise ValueError("an image has a disk")
        return files


def list_images(cache: Cache, folder: Path | None = None) -> list[Entry]:
    """Every image in the cache, by name, newest first."""
    keys = {
        source.recipe.name: added.key_of(cache, source.recipe.name)
        if source.recipe.builder == added.BUILDER
        else image_key(source)
        for source in catalog.load_all(folder)
    }
    entries: list[Entry] = []
    for path in sorted(cache.images.iterdir(), reverse=True) if cache.images.is_dir() else []:
        check_owner(path)
        record = _read(path)
        if record:
            name, key = record.name, record.key
            newest = not any((entry.name, entry.key) == (name, key) for entry in entries)
            current = newest and keys.get(name) == key
            entries.append(Entry(name, key, record.built, disk_usage(path), current, path))
    return sorted(entries, key=lambda entry: entry.name)


def remove_image(cache: Cache, entry: Entry, *, deadline: Deadline) -> None:
    """Remove ``entry``. Machines that run on it are the caller's to look after."""
    name = f"{entry.name}-{entry.key}"
    with cache.locked(name, deadline, lambda: None), cache.workplace(name) as grave:
        entry.folder.rename(grave / "image")  # out of the way first: nobody finds half an image


def sweep_cache(cache: Cache) -> list[Path]:
    """Remove what killed builds left; returns the folders removed."""
    return cache.sweep()


def _build(cache: Cache, source: Source, key: str, components: Path, deadline: Deadline, progress: Progress) -> None:
    name = source.recipe.name
    free = shutil.disk_usage(cache.building).free
    if free < _ROOM:
        raise HostError(
            f"the image cache {cache.folder} has {free >> 20} MiB of room, building {name} takes {_ROOM >> 20} MiB",
            hint="remove old images with 'vmrole images remove', or choose another folder with VMROLE_CACHE_DIR",
        )
    if supplied := source.recipe.powershell:
        from harness.image.powershell import kept

        kept(supplied)  # before minutes of work that end without it
    build = cast(Build, importlib.import_module(f"harness.image.builders.{source.recipe.builder}").build)
    with cache.workplace(f"{name}-{key}") as work:
        progress(f"building the image {name}")
        built = _stamp()
        parts = build(source, components, work, deadline=deadline, progress=progress)
        record = _record(parts, name=name, key=key, built=built, version=components_version(source))
        (work / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        target = cache.images / f"{name}-{key}-{built.replace(':', '').replace('-', '')}"
        _put(cache, work, target, sealed=cast(dict[str, str], record["files"]).values())


def _record(parts: Parts, *, name: str, key: str, built: str, version: str) -> dict[str, object]:
    files = {part: path.name for part in _PARTS if (path := getattr(parts, part)) is not None}
    return {
        "schema": 1,
        "name": name,
        "key": key,
        "built": built,
        "components_version": version,
        "files": files,
        "packages": parts.packages,
        "work_seconds": parts.work_seconds,
    }


def _put(cache: Cache, work: Path, target: Path, *, sealed: Collection[str] = ()) -> None:
    """Make ``work`` read-only, with a seal of the files ``sealed``, and give it its name, at once."""
    for path in (*work.rglob("*"), work):
        cache.grant(path)
    if sealed:
        seal.seal(work, sealed)
    work.rename(target)


def _read(folder: Path) -> _Record | None:
    """The record of an image, None when the folder has none that can be read."""
    path = folder / _RECORD
    if not path.exists():
        return None
    check_owner(path)
    try:
        return _Record.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _find(cache: Cache, source: Source, key: str, components: Path, progress: Progress) -> Image | None:
    """The newest image of ``key`` in the cache that is whole. Raises HostError for a damaged one that nobody can build
    again."""
    for folder in sorted(cache.images.glob(f"{source.recipe.name}-{key}-*"), reverse=True):
        check_owner(folder)
        record = _read(folder)
        if record is None:
            continue
        for path in (folder, *folder.iterdir()):
            check_owner(path)
            cache.grant(path)
        files = record.files
        if damaged := _damaged(folder, files.values()):
            progress(f"{damaged} of the image {record.name} is not what it was when that was made: it is not used")
            if source.recipe.builder == added.BUILDER:
                raise added.damaged(source.recipe.name)
            continue
        return Image(
            recipe=source.recipe,
            key=key,
            disk=folder / files["disk"],
            kernel=folder / files["kernel"] if "kernel" in files else None,
            initrd=folder / files["initrd"] if "initrd" in files else None,
            components_version=record.components_version,
            components=components,
            built=record.built,
            packages=record.packages,
            work_seconds=record.work_seconds,
            uefi=record.uefi,
        )
    return None


def _damaged(folder: Path, names: Collection[str]) -> str | None:
    """The first of the files ``names`` of an image that is not what it was when that was made; of one without a seal,
    when it is first used."""
    if seal.is_sealed(folder):
        return seal.broken(folder, names)
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing is None:
        with contextlib.suppress(HostError):
            seal.seal(folder, names)
    return missing


def _stamp() -> str:
    """UTC now, to the microsecond, so that builds sort in the order they were begun."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
