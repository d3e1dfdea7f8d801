# SPDX-License-Identifier: Apache-2.0
"""`vmrole new`."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from string import Template
from typing import Final

import click

#: Files of a kind are harness/_templates/KIND/**; ``$name`` and ``$payload`` in them are filled in.
_TEMPLATES: Final = Path(__file__).resolve().parent.parent / "_templates"
_DOCUMENT: Final = "extension.resext"
_IMAGE: Final = {"windows-batch": " --image windows-stand-in", "msi": " --image windows-stand-in"}
"""Kind to the option of ``vmrole run`` with an image of ours that can run it."""


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(["linux", "windows-batch", "windows-script", "msi"]),
              default="windows-script", show_default=True,
              help="What the extension does; windows-script is PowerShell, which a stand-in for Windows has only with "
              "one of yours.")  # fmt: skip
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="The folder; NAME unless given.")
def command(name: str, kind: str, output: Path | None) -> None:
    """Scaffold an extension called NAME, in a new folder, that passes `vmrole check` and can be packed."""
    folder = output if output is not None else Path(name)
    scaffold(name, kind, folder)
    document = json.loads((folder / f"{name}.resext").read_text("utf-8"))
    values = " ".join(f"-p {parameter['Name']}=..." for parameter in document["ResourceExtensionParameters"])
    click.echo(f"{folder}: edit {name}.resext, then")
    click.echo(f"  vmrole check {folder}")
    click.echo(f"  vmrole plan {folder} {values}")
    click.echo(f"  vmrole run {folder} {values}{_IMAGE.get(kind, '')}")
    click.echo(f"  vmrole pack {folder}")


def scaffold(name: str, kind: str, folder: Path) -> None:
    """Write the files of ``kind`` below ``folder``, which must be new or empty. Raises UsageError otherwise."""
    from harness.errors import UsageError
    from harness.files import refused
    from harness.package.names import not_on_windows

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,63}", name) or name.endswith("."):
        hint = "a letter, then letters, digits, dots, dashes and underscores, at most 64"
        if "/" in name:
            hint += "; the folder is given with -o"
        raise UsageError(f"{name[:80]!r} is no name for an extension", hint=hint)
    wrong = not_on_windows(f"{name}.resext")
    if wrong:
        raise UsageError(f"{name!r} is no name for an extension: it is {wrong}", hint="choose another one")
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, and a folder is wanted", hint="choose another one with -o")
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is there already and not empty", hint="choose another folder with -o")
        values = {"name": name, "payload": str(uuid.uuid4())}
        for source in sorted((_TEMPLATES / kind).rglob("*")):
            if not source.is_file():
                continue
            path = source.relative_to(_TEMPLATES / kind)
            target = folder / (f"{name}.resext" if path.as_posix() == _DOCUMENT else path)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = Template(source.read_text("utf-8")).substitute(values)
            if target.suffix == ".resext":
                json.loads(text)  # a template of ours that is no JSON is our own bug
            # Windows reads scripts with CRLF; a shell does not
            ending = "\r\n" if target.suffix in (".cmd", ".ps1") else "\n"
            # and Windows PowerShell takes one without a mark for the code page of its machine
            target.write_text(text, "utf-8-sig" if target.suffix == ".ps1" else "utf-8", newline=ending)
            if target.suffix == ".sh":
                target.chmod(0o755)
    except OSError as error:
        raise refused(f"{folder} cannot be written", error) from None
