# SPDX-License-Identifier: Apache-2.0
"""`vmrole pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

_MOST_NAMED: Final = 10


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="The package to write; DIR with .resextpkg or .resdefpkg, beside it, unless given.")  # fmt: skip
def command(folder: Path, output: Path | None) -> None:
    """Make a package of DIR, which has one .resext or one .resdef; byte for byte the same each time.

    Laid out as the published packages are; runs, older packages and what editors and version control leave are left
    out. Says where the package is. Exit codes: 0, or 2 when it cannot be made.
    """
    from harness.errors import UsageError
    from harness.package.definition import is_definition
    from harness.package.findings import one_line
    from harness.package.pack import pack_definition, pack_extension

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="name the folder that has the document and its payload")
    suffix = ".resdefpkg" if is_definition(folder) else ".resextpkg"
    place = folder.resolve()
    target = output if output is not None else place.with_name(place.name + suffix)
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint="-o names the package file")
    if place in target.resolve().parents:
        raise UsageError(f"{target} would be in the folder that is packed", hint="write it somewhere else with -o")
    left_out = (pack_definition if suffix == ".resdefpkg" else pack_extension)(folder, target)
    if left_out:
        more = f" and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
        click.echo(f"vmrole: left out: {one_line(', '.join(left_out[:_MOST_NAMED]))}{more}", err=True)
    click.echo(str(target if output is not None else _near(target)))


def _near(path: Path) -> Path:
    """The path as the user would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
