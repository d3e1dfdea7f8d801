# SPDX-License-Identifier: Apache-2.0
"""The integration components: compiled from the guest sources of an image, one static program (and an installer)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import harness
from harness.deadline import Deadline
from harness.errors import CommandError
from harness.image.catalog import Source
from harness.process import run

PROGRAM = "vmrole-components"
_FLAGS = ("-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s")


def hash_files(folder: Path, digest: hashlib._Hash) -> None:
    """Feed every file below ``folder`` to ``digest``: relative path, whether it is executable, content."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)


def components_version(source: Source) -> str:
    """``<version of the harness>+<8 hexadecimal digits of the guest sources>``."""
    digest = hashlib.sha256()
    digest.update(" ".join(_FLAGS).encode())
    hash_files(source.agent, digest)
    if source.windows_components:
        hash_files(source.windows_components, digest)
    return f"{harness.__version__}+{digest.hexdigest()[:8]}"


def build_components(source: Source, folder: Path, *, deadline: Deadline) -> None:
    """Compile the components into ``folder`` (exists, empty): VERSION and vmrole-components; for Windows guests also
    their installer and the ISO with it (windows.py).

    Raises CommandError when there is no C compiler or it fails.
    """
    version = components_version(source)
    sources = sorted(str(path) for path in source.agent.glob("*.c"))
    program = folder / PROGRAM
    argv = ["gcc", *_FLAGS, f'-DCOMPONENTS_VERSION="{version}"', "-o", str(program), *sources]
    try:
        run(argv, deadline=deadline)
    except CommandError as error:
        if error.returncode != 127:
            raise
        raise CommandError(
            "the integration components cannot be compiled: there is no C compiler",
            argv=argv,
            returncode=127,
            hint="install the packages gcc and libc6-dev",
        ) from error
    program.chmod(0o755)
    if source.windows_components:
        from harness.image.windows import build_installer

        build_installer(source.windows_components, folder, version, deadline=deadline)
    (folder / "VERSION").write_text(f"{version}\n", "utf-8")
