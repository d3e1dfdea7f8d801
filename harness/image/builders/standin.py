# SPDX-License-Identifier: Apache-2.0
"""Builds the stand-in Windows guest: a Debian with Wine, its prefix and the integration components in it.

What runs in Wine is compiled here, and Wine runs at the build, on this computer's processor: nothing is emulated.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError, HostError
from harness.image import modules
from harness.image.builders import Parts, Progress, debian
from harness.image.catalog import Source
from harness.image.kernel import check_zstd
from harness.image.powershell import unpack, version_of
from harness.image.windows import INSTALLER, ISO, compile_program
from harness.process import run

_PYTHON = "overlay/usr/lib/vmrole/python"
_PROGRAMS = "overlay/usr/lib/vmrole/standin"
CMD = "programs/cmd"
"""Where the sources of cmd are in those of Wine."""
_HELPER = "/usr/lib/apt/apt-helper"
_MIRROR = "http://deb.debian.org/debian"
_WINE = "libwine"
_TARGET_32 = "i686-w64-mingw32"
_LIBRARIES = ("ws2_32", "advapi32", "crypt32")


def build(source: Source, components: Path, folder: Path, *, deadline: Deadline, progress: Progress) -> Parts:
    """See ``harness.image.builders.Build``."""
    check_zstd()  # before minutes of work whose end needs it
    if not source.recipe.lacks_programs_32:
        _check_compiler()
    wheels, sources = folder / "wheels", folder / "sources"
    _download(source, wheels, deadline)
    _fetch(source, sources, deadline)
    supplied: list[str] = []

    def prepare(work: Path) -> None:
        progress("compiling the programs of the stand-in guest")
        programs = work / _PROGRAMS
        programs.mkdir(parents=True)
        for file in sorted((source.folder / "tools").glob("*.c")):
            flags = ["-municode"] if b" wmain(" in file.read_bytes() else []
            compile_program([file], programs / f"{file.stem}.exe", flags, _LIBRARIES, deadline=deadline)
        progress("compiling cmd")
        argv = ["sh", str(source.folder / "cmd/build"), str(sources / CMD), str(programs / "cmd.exe")]
        run(argv, deadline=deadline)
        if not source.recipe.lacks_programs_32:
            run([*argv[:3], str(work / "cmd-32.exe"), _TARGET_32], deadline=deadline)
        shutil.rmtree(sources)
        shutil.copyfile(source.folder / "tools/unavailable.txt", work / "unavailable.txt")
        shutil.copytree(source.folder / "python", work / _PYTHON, ignore=shutil.ignore_patterns("__pycache__"))
        for wheel in sorted(wheels.iterdir()):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(work / _PYTHON)
        shutil.rmtree(wheels)
        # The drive that the integration components are installed from.
        drive = work / "drive"
        drive.mkdir()
        (drive / INSTALLER).write_bytes(_read_iso(components / ISO, INSTALLER))
        if powershell := source.recipe.powershell:
            progress("unpacking the PowerShell that was supplied")
            unpack(powershell, work / "powershell")
            modules.write(source.folder / modules.FOLDER, work / "modules")
            supplied.append(f"powershell.zip={powershell}")
            if version := version_of(work / "powershell"):
                supplied.append(f"powershell={version}")

    parts = debian.build(source, components, folder, deadline=deadline, progress=progress, prepare=prepare)
    if not source.recipe.lacks_programs_32:
        # customize takes the same version, and dpkg does not know of it
        supplied += [
            f"{_WINE}:i386={each[len(_WINE) + 1 :]}" for each in parts.packages if each.startswith(f"{_WINE}=")
        ]
    return replace(parts, packages=(*parts.packages, *supplied))


def _check_compiler() -> None:
    if shutil.which(f"{_TARGET_32}-gcc") is None:
        raise HostError(
            f"an image with 32-bit programs has a cmd that is one, and there is no {_TARGET_32}-gcc to compile it",
            hint="install the package gcc-mingw-w64-i686-win32",
        )


def _download(source: Source, folder: Path, deadline: Deadline) -> None:
    """The wheels of the recipe, by their hashes."""
    folder.mkdir()
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{line}\n" for line in source.recipe.wheels), "utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    argv = [sys.executable, "-P", "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(wanted)]
    try:
        run(argv, deadline=deadline)
    except CommandError as error:
        raise HostError(
            f"the Python packages of the image {source.recipe.name} cannot be downloaded: {error}",
            hint="pip is needed, and the package index that it is set up for",
        ) from error
    wanted.unlink()


def _fetch(source: Source, folder: Path, deadline: Deadline) -> None:
    """The sources of the recipe, from the mirror and by their hashes; of Wine's only those of cmd are unpacked."""
    folder.mkdir()
    mirror = os.environ.get(debian.MIRROR, _MIRROR).rstrip("/")
    for line in source.recipe.sources:
        path, _, digest = line.partition(" --hash=sha256:")
        archive = folder / path.rpartition("/")[2]
        try:
            # In our own folder, where apt's own user may not write.
            run([_HELPER, "-oAPT::Sandbox::User=root", "download-file", f"{mirror}/{path}", str(archive),
                 f"SHA256:{digest}"], deadline=deadline)  # fmt: skip
            run(["tar", "-C", str(folder), "-xJf", str(archive), "--strip-components=1", "--wildcards", f"*/{CMD}/*"],
                deadline=deadline)  # fmt: skip
        except CommandError as error:
            raise HostError(
                f"the sources of the image {source.recipe.name} cannot be downloaded: {error}",
                hint=f"apt and the mirror {mirror} are needed; {debian.MIRROR} names another",
            ) from error
        archive.unlink()


def _read_iso(path: Path, name: str) -> bytes:
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    data = io.BytesIO()
    iso.get_file_from_iso_fp(data, joliet_path=f"/{name}")
    iso.close()
    return data.getvalue()
