# SPDX-License-Identifier: Apache-2.0
"""A PowerShell for the stand-in guest, which the user brings: no package of any Debian has one, nor is it ours to give.

The zip as its publisher packs it for Windows is kept as CACHE/media/<SHA-256>.zip, and an image of its own is made with
it: NAME-powershell, whose recipe is that of NAME with the hash of the zip in it, so that the hash is part of the
image's key. Nothing is unpacked by a name that was not looked at before (harness.package.archive).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from pydantic import ValidationError

from harness import winprogram
from harness.deadline import Deadline
from harness.errors import HostError, PackageError, UsageError
from harness.image import catalog
from harness.image.added import keep, keep_recipe, media_folder, verified
from harness.image.cache import Cache, check_owner
from harness.package.archive import Archive
from harness.package.findings import Findings

SUFFIX: Final = "-powershell"
ENGINE: Final = "pwsh.exe"
_LIBRARY: Final = "pwsh.dll"
"""What the engine starts; its version is that of PowerShell, whoever packed it."""
_MOST_BYTES: Final = 1 << 30
"""Unpacked; those of PowerShell 7 have about 300 MB."""
_MOST_ENGINE: Final = 4 << 20
_RUNTIME: Final = "coreclr.dll"
_PATIENCE: Final = 6
"""Times what a boot may take: engines are warmed up before a guest is frozen."""
_OLDEST: Final = 7
_HINT: Final = "it is the zip for Windows, x64, as published"
_VERSION: Final = re.compile("ProductVersion".encode("utf-16-le") + rb"(?:\0\0)+((?:[0-9A-Za-z.-]\0){1,60})")
"""In a program's version resource (VS_VERSIONINFO): the name, padding, the value, which may go on after a blank."""


def variant(name: str, file: Path, *, sha256: str | None = None, cache: Cache, deadline: Deadline) -> str:
    """The name of the image that is ``name`` with the PowerShell in the zip ``file``; its recipe and the zip are kept.

    Raises UsageError for a file that has none or another SHA-256 than ``sha256``, and for an image that takes none.
    """
    source = catalog.load(name)
    if not source.recipe.stand_in or source.recipe.powershell:
        raise UsageError(
            f"only a stand-in for Windows takes a PowerShell, and the image {name} is none without one",
            hint="'vmrole images build windows-stand-in --powershell ZIP'",
        )
    _look(file)
    digest = verified(file, sha256, deadline, lambda _line: None)
    text = f'like = "{name}"\nname = "{name}{SUFFIX}"\npowershell = "{digest}"\npatience = {_PATIENCE}\n'
    try:
        catalog.recipe_of(tomllib.loads(text), source.folder)
    except ValidationError as error:
        raise UsageError(f"the name {name}{SUFFIX} is too long for an image") from error
    keep(file, f"{digest}.zip", cache=cache, deadline=deadline)
    keep_recipe(f"{name}{SUFFIX}", text)
    return f"{name}{SUFFIX}"


def kept(digest: str) -> Path:
    """The zip that was kept. Raises HostError when it is not there any more."""
    file = media_folder(Cache.of_user()) / f"{digest}.zip"
    try:
        check_owner(file)
    except FileNotFoundError:
        raise HostError(
            "the PowerShell of the image is not in the cache any more",
            hint="build it again with 'vmrole images build windows-stand-in --powershell ZIP'",
        ) from None
    return file


def unpack(digest: str, folder: Path) -> None:
    """The zip that was kept, in the new ``folder``. Raises HostError when it is not there any more."""
    file = kept(digest)
    folder.mkdir()
    with _open(file) as archive:
        for name in archive.entries:
            path = folder / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, path.open("xb") as target:
                _copy(source, target)


def version_of(folder: Path) -> str | None:
    """The version that the PowerShell in ``folder`` says it is, such as "7.4.6"; None when it says none."""
    library = folder / _LIBRARY
    return _version((library if library.exists() else folder / ENGINE).read_bytes())


def _version(program: bytes) -> str | None:
    found = _VERSION.search(program)
    return found[1].decode("utf-16-le") if found else None


def _look(file: Path) -> None:
    """Raise UsageError for anything but a zip with a 64-bit pwsh.exe of PowerShell 7 and its runtime at its top."""
    with _open(file) as archive:
        entry = archive.entries.get(ENGINE)
        if entry is None:
            raise UsageError(f"the PowerShell zip {file} has no {ENGINE} at its top", hint=_HINT)
        if sum(each.size for each in archive.entries.values()) > _MOST_BYTES:
            raise UsageError(f"the PowerShell zip {file} unpacks to more than {_MOST_BYTES >> 20} MiB")
        try:
            with archive.open(ENGINE) as stream:
                program = stream.read(_MOST_ENGINE)
            if _LIBRARY in archive.entries:
                with archive.open(_LIBRARY) as stream:
                    library = stream.read(_MOST_ENGINE)
            else:
                library = program
        except PackageError as error:
            raise UsageError(error.message, hint=_HINT) from None
        lacks = _RUNTIME not in archive.entries
    if winprogram.machine(program[: winprogram.HEAD]) != winprogram.AMD64:
        raise UsageError(f"{ENGINE} in the PowerShell zip {file} is no program for 64-bit Windows (x64)", hint=_HINT)
    version = _version(library)
    if version and int(re.split(r"\D", version)[0] or 0) < _OLDEST:
        raise UsageError(
            f"the PowerShell zip {file} has PowerShell {version}, and {_OLDEST} or later is needed", hint=_HINT
        )
    if lacks:
        raise UsageError(
            f"the PowerShell zip {file} has no {_RUNTIME}, the runtime that its engine needs",
            hint=f"{_HINT}, and not the one that depends on a .NET that is installed",
        )


def _open(file: Path) -> Archive:
    try:
        return Archive(file, Findings(), called=f"the PowerShell zip {file}")
    except PackageError as error:
        raise UsageError(error.message, hint=_HINT) from None


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while part := source.read(1 << 20):
        target.write(part)
