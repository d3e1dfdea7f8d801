# SPDX-License-Identifier: Apache-2.0
"""The file of a nightly, as people write it. Its words are those of `vmrole run`'s options."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UsageError
from harness.tomltext import TomlDocument, Where, read_toml

Value = str | bool | int | float
"""Of a parameter; a text may be @FILE or env:VAR, as with -p."""

KEEP_DAYS = 14
TIMEOUT = 3600.0
_MOST_ERRORS = 20

_FIX = "'vmrole schema nightly' says what may be written there, docs/nightly.md tells of it"


def _written(name: str) -> str:
    return name.replace("_", "-")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=_written)


class _Options(_Model):
    """What may stand at the top, for every package, and in a package, for that one."""

    images: list[str] | None = Field(None, min_length=1, description="Guest images, NAME or NAME@KEY.")
    strict: bool | None = Field(None, description="Warnings make exit code 1.")
    allow_unexecuted: bool | None = Field(None, description="Steps that cannot be executed are no reason for exit 4.")
    timeout: float | None = Field(None, ge=1, description="Seconds that one run may take; 3600 unless given.")
    exact_timeouts: bool | None = Field(
        None, description="Time-outs of steps as their author wrote them, in an emulated guest too."
    )
    pretend: list[str] | None = Field(
        None,
        min_length=1,
        description="Cmdlets that a stand-in with PowerShell pretends; common for all known.",
    )
    pretend_modules: str | None = Field(None, description="A folder with PowerShell modules of your own for that.")
    cold_engines: bool | None = Field(
        None, description="Each step of PowerShell starts an engine of its own on a stand-in."
    )
    cold: bool | None = Field(None, description="Boot from power-on instead of forking.")
    checkpoints: bool | None = Field(
        None, description="Keep a failed run's checkpoints for replays; true unless given."
    )
    memory: int | None = Field(None, ge=128, description="Memory of the machine in MB.")
    cpus: int | None = Field(None, ge=1, le=64, description="Processors of the machine.")
    network: Literal["none", "nat"] | None = Field(
        None, description="none: no way out; nat: whatever this host reaches."
    )
    connect: str | None = Field(None, description="Another libvirt than the in-process one.")


class PackageEntry(_Options):
    """A package to run: on each image, with each combination of the values in ``matrix``."""

    path: str = Field(min_length=1, description="The extension or definition, relative to this file.")
    name: str | None = Field(None, min_length=1, max_length=60, description="Tells entries of one package apart.")
    extension: str | None = Field(None, description="The extension that a definition references.")
    parameters: dict[str, Value] = Field(default={}, description="Values; texts may be @FILE or env:VAR.")
    parameters_file: str | None = Field(None, description="Values as JSON; those of parameters and matrix win.")
    matrix: dict[str, list[Value]] = Field(
        default={}, description="Lists of values; the package is run with each combination."
    )
    external_payload: list[str] = Field(default=[], description="Folders or addresses of missing payload.")
    certificates: list[str] = Field(default=[], description="FILE[:STORE]")
    certificate_password_file: str | None = Field(None, description="Password of PFX files.")
    local_resources: list[str] = Field(default=[], description="NAME[=MB][:keep]")
    service_definition: str | None = Field(None, description="X.csdef")
    service_configuration: str | None = Field(None, description="X.cscfg")
    service_role: str | None = Field(None, description="The VirtualMachineRole, where there are several.")
    computer_name: str | None = Field(None, description="Name of the machine; # is its number, * random.")
    admin_password_file: str | None = Field(None, description="Administrator password; random otherwise.")
    instance: int = Field(1, ge=1, description="Number of the instance.")
    events: list[Literal["deploy", "update", "scale-out", "delete"]] = Field(
        default=["deploy"], min_length=1, description="What happens to the instance, in that order."
    )
    pattern_defaults: Literal["recorded", "console"] = Field(
        "recorded", description="Failure patterns that stand for missing ones."
    )


class Nightly(_Options):
    """A matrix of runs: packages x images x parameters."""

    name: str | None = Field(None, min_length=1, max_length=100, description="Title of the reports.")
    output: str | None = Field(None, min_length=1, description="Folder of everything it writes, relative to this file.")
    keep_days: int = Field(KEEP_DAYS, ge=1, le=3650, description="Days that run directories stay.")
    parallel: int | None = Field(
        None, ge=1, le=256, description="Runs at once, at most; as many as memory and processors are for unless given."
    )
    packages: list[PackageEntry] = Field(min_length=1, description="What is run.")


def read_nightly(path: Path) -> tuple[Nightly, TomlDocument]:
    """Raises UsageError, one sentence with file, line and column, for anything that cannot be what was meant."""
    document = read_toml(path)
    try:
        return Nightly.model_validate(dict(document.values)), document
    except ValidationError as error:
        told = [
            _explained(document, one) for one in error.errors(include_url=False, include_context=True)[:_MOST_ERRORS]
        ]
        raise UsageError("; ".join(dict.fromkeys(one.message for one in told)), hint=told[0].hint) from None


def _explained(document: TomlDocument, error: Mapping[str, Any]) -> UsageError:
    where: Where = error["loc"]
    name = str(where[-1]) if where else ""
    place = document.place(where)
    kind = PackageEntry if where[:1] == ("packages",) else Nightly
    if error["type"] == "extra_forbidden":
        near = get_close_matches(name, [_written(known) for known in kind.model_fields], n=1)
        hint = f"did you mean {near[0]}?" if near else _FIX
        return UsageError(f"{place}: there is nothing called {name[:60]!r} here", hint=hint)
    if error["type"] == "missing":
        what = "a package" if len(where) > 1 else "the file"
        example = {"packages": "add [[packages]] and a path below it", "path": 'add path = "FOLDER"'}
        return UsageError(f"{place}: {what} has no {name}", hint=example.get(name, _FIX))
    # what a union or an element was tried as is no name that anybody wrote
    names = [part for part in where if isinstance(part, str) and _known(part, document)]
    said = str(error["msg"])
    return UsageError(f"{place}: {names[-1] if names else 'this'}: {said[:1].lower()}{said[1:]}", hint=_FIX)


def _known(part: str, document: TomlDocument) -> bool:
    return any(part in path for path in document.places)
