# SPDX-License-Identifier: Apache-2.0
"""The PowerShell modules of the stand-in guest: commands of Windows that it lacks, under the names of their modules.

A command that is missing ends its process with a line in the log of what is unavailable, which neither ``try`` nor an
error action can hide. images/NAME/powershell has the tables: missing.txt names the commands, pretended.toml what those
of them take and give that a user may have pretended (``--pretend``), StandIn/ what all of them share.
"""

from __future__ import annotations

import functools
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from harness.image.catalog import images_folder

FOLDER: Final = "powershell"
_SHARED: Final = "StandIn"
_STANDBY: Final = "StandBy"
"""What makes an engine stand by (tools/standby.c)."""
_SHARED_PLACE: Final = r"C:\Program Files\PowerShell\StandIn"
_INPUT: Final = "[Parameter(ValueFromPipeline, DontShow)] $InputObject"


class Pretended(BaseModel):
    """A command of pretended.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = ""
    """The page that describes it."""
    parameters: str = ""
    """As between the brackets of PowerShell's param()."""
    result: str = ""
    """PowerShell that gives its result; "" for none."""
    like: str = ""
    """Another command that it is the same as."""


def missing(folder: Path) -> dict[str, dict[str, str]]:
    """Module to its commands and aliases, of the file missing.txt in ``folder``: name to "" or what an alias is of."""
    lines = (folder / "missing.txt").read_text("utf-8").splitlines()
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return {module: dict(word.partition("=")[::2] for word in words.split()) for module, _, words in pairs}


def pretended(folder: Path) -> dict[str, Pretended]:
    """Command to what is known of it, of the file pretended.toml in ``folder``."""
    table = tomllib.loads((folder / "pretended.toml").read_text("utf-8"))
    entries = {name: Pretended.model_validate(entry) for name, entry in table.items()}
    return {name: entries[entry.like] if entry.like else entry for name, entry in entries.items()}


def tables() -> Path:
    """The folder with the tables of the stand-in."""
    return images_folder() / "windows-stand-in" / FOLDER


@functools.cache
def can_be_pretended() -> tuple[str, ...]:
    """The commands that --pretend can name, sorted."""
    return tuple(sorted(pretended(tables())))


def write(folder: Path, target: Path) -> None:
    """The modules of the tables in ``folder``, as ``target``/Modules, and beside them what they share and what makes
    an engine stand by."""
    for name in (_SHARED, _STANDBY):
        shutil.copytree(folder / name, target / name)
    answers = target / _SHARED / "pretended"
    answers.mkdir()
    for name, entry in pretended(folder).items():
        (answers / f"{name}.ps1").write_text(_function(name, entry), "utf-8")
    for name, words in missing(folder).items():
        place = target / "Modules" / name
        place.mkdir(parents=True)
        commands = [word for word, command in words.items() if not command]
        for file, text in module(name, commands, {word: of for word, of in words.items() if of}).items():
            (place / file).write_text(text, "utf-8")


def module(name: str, commands: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """The files of a module whose ``commands`` are missing, unless they have an answer in the guest."""
    exported = _list(commands)
    manifest = [
        "@{",
        f"    RootModule = '{name}.psm1'",
        "    ModuleVersion = '1.0'",
        f"    FunctionsToExport = {exported}",
        "    CmdletsToExport = @()",
        "    VariablesToExport = @()",
        f"    AliasesToExport = {_list(aliases)}",
        "}",
    ]
    script = [
        f". '{_SHARED_PLACE}\\missing.ps1'",
        *(f"function {command} {{ Stop-Unavailable $MyInvocation }}" for command in commands),
        *(f"Set-Alias {alias} {command}" for alias, command in aliases.items()),
        f"foreach ($file in Get-Answers {exported}) {{ . $file }}",
        *(["Export-ModuleMember -Function * -Alias *"] if aliases else []),
    ]
    return {f"{name}.psd1": "\n".join(manifest) + "\n", f"{name}.psm1": "\n".join(script) + "\n"}


def _list(names: Iterable[str]) -> str:
    return "@(" + ", ".join(f"'{name}'" for name in names) + ")"


def _function(name: str, entry: Pretended) -> str:
    own = [entry.parameters] if entry.parameters else []
    parameters = own if re.search(r"\$InputObject\b", entry.parameters) else [*own, _INPUT]
    return (
        f"# {entry.source}\n"
        f"function {name} {{\n"
        "    [CmdletBinding(SupportsShouldProcess)]\n"
        f"    param({', '.join(parameters)})\n"
        "    process {\n"
        "        Write-Pretended $MyInvocation $PSBoundParameters\n"
        f"        {entry.result}\n"
        "    }\n"
        "}\n"
    )
