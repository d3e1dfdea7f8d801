# SPDX-License-Identifier: Apache-2.0
"""The integration components for Windows guests: programs, their MSI, and the ISO that an image is prepared with."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path

import harness
from harness.deadline import Deadline
from harness.errors import CommandError
from harness.process import run

INSTALLER = "WaIntegrationComponents-x64.msi"
ISO = "wavmroleic.iso"
ISO_LABEL = "WAVMROLEIC"
COMPILER = "x86_64-w64-mingw32-gcc"
_FLAGS = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-D_WIN32_WINNT=0x0601")
_LIBRARIES = {"vmrole-guest": ("ws2_32", "advapi32", "crypt32", "rpcrt4"), "vmrole-run": ("advapi32",)}
_SOURCES = {"vmrole-guest": ("guest", "-municode"), "vmrole-run": ("run", "-municode")}
_PRODUCTS = uuid.UUID("0c9cf1d5-6f5d-4a7e-9d39-1e0ccf6f9a52")
"""Name space of the product codes: another version of the components is another product."""


def build_installer(source: Path, folder: Path, version: str, *, deadline: Deadline) -> None:
    """Make the MSI and the ISO with it in ``folder``, from the sources in ``source``.

    Raises CommandError when a program is missing or fails.
    """
    work = folder / "msi"
    work.mkdir()
    for program, (sources, *flags) in _SOURCES.items():
        files = sorted((source / sources).glob("*.c"))
        defines = [f'-DCOMPONENTS_VERSION="{version}"', *flags]
        compile_program(files, work / f"{program}.exe", defines, _LIBRARIES[program], deadline=deadline)
    for name in ("unattend.xml", "WaIntegrationComponents.wxs"):
        shutil.copyfile(source / name, work / name)
    product = str(uuid.uuid5(_PRODUCTS, version)).upper()
    defines = [f"ProductVersion={harness.__version__}", f"Version={version}", f"ProductCode={product}"]
    # Names of files are relative to where it runs; absolute ones it does not find.
    argv = ["wixl", "-a", "x64", *(word for define in defines for word in ("-D", define))]
    _run([*argv, "-o", str(folder / INSTALLER), "WaIntegrationComponents.wxs"], "wixl", deadline, cwd=work)
    shutil.rmtree(work)
    _write_iso(folder / ISO, folder / INSTALLER)


def compile_program(
    sources: list[Path], program: Path, flags: list[str], libraries: tuple[str, ...], *, deadline: Deadline
) -> None:
    """Compile ``program`` for Windows. Raises CommandError."""
    linked = [f"-l{library}" for library in libraries]
    argv = [COMPILER, *_FLAGS, *flags, "-o", str(program), *map(str, sources), *linked]
    _run(argv, "gcc-mingw-w64-x86-64", deadline)


def _run(argv: list[str], package: str, deadline: Deadline, cwd: Path | None = None) -> None:
    try:
        run(argv, deadline=deadline, cwd=cwd)
    except CommandError as error:
        if error.returncode != 127:
            raise
        raise CommandError(
            f"the integration components for Windows cannot be made: there is no {argv[0]}",
            argv=argv,
            returncode=127,
            hint=f"install the package {package}",
        ) from error


def _write_iso(path: Path, installer: Path) -> None:
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, vol_ident=ISO_LABEL)
    data = installer.read_bytes()
    iso.add_fp(io.BytesIO(data), len(data), "/WAINTEGR.MSI;1", joliet_path=f"/{INSTALLER}")
    with path.open("wb") as file:
        iso.write_fp(file)
    iso.close()
