# SPDX-License-Identifier: Apache-2.0
"""`vmrole pack`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="The package to write; DIR with .resextpkg or .resdefpkg, beside it, unless given.")  # fmt: skip
def command(folder: Path, output: Path | None) -> None:
    """Make a package of DIR, which has one .resext or one .resdef; byte for byte the same each time.

    Laid out as the published packages are. Says where the package is. Exit codes: 0, or 2 when it cannot be made.
    """
    from harness.errors import UsageError
    from harness.package.definition import is_definition

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="name the folder that has the document and its payload")
    suffix = ".resdefpkg" if is_definition(folder) else ".resextpkg"
    place = folder.resolve()
    target = output if output is not None else place.with_name(place.name + suffix)
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint="-o names the package file")
    if place in target.resolve().parents:
        raise UsageError(f"{target} would be in the folder that is packed", hint="write it somewhere else with -o")
    if suffix == ".resdefpkg":
        from harness.package.pack import pack_definition

        pack_definition(folder, target)
    else:
        from harness.package.archive import pack_extension

        pack_extension(folder, target)
    click.echo(str(target if output is not None else _near(target)))


def _near(path: Path) -> Path:
    """The path as the user would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
