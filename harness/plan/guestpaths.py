# SPDX-License-Identifier: Apache-2.0
"""Paths and variables of a Windows guest, as text: nothing of it is looked up on this computer."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from harness.package.names import folded
from harness.package.payload import WINDOWS_FOLDER

if TYPE_CHECKING:
    from harness.package.reader import Package

PAYLOAD_FOLDER: Final = WINDOWS_FOLDER

_VARIABLE: Final = re.compile(r"%([^%]+)%")


def expand_environment(text: str, environment: Mapping[str, str]) -> str:
    """``%NAME%`` filled in, names without case, unknown ones left as they are [DOC ExpandEnvironmentStrings].

    Real packages write ``%WINDIR%\\System32\\...`` in Executable [PKG].
    """
    known = {name.lower(): value for name, value in environment.items()}
    return _VARIABLE.sub(lambda match: known.get(match[1].lower(), match.group()), text)


def payload_path(package: Package, payload_id: str | None) -> tuple[str, bool] | None:
    """Where an application payload is in the guest, and whether it is a file. None when no payload has this ID.

    IDs are compared without case, braces and blanks [PKG, GUESS]; a payload is a folder or a file [DOC dn249753].
    """
    if not payload_id:
        return None
    wanted = _identifier(payload_id)
    for payload in package.extension.profile.application_payload:
        if payload.id and _identifier(payload.id) == wanted:
            parts = [part for part in re.split(r"[\\/]+", payload.relative_path or "") if part not in ("", ".")]
            name = folded("/".join(parts))
            is_file = any(folded(entry.path) == name for entry in package.payload.files)
            return "\\".join((PAYLOAD_FOLDER, *parts)), is_file
    return None


def working_directory(folder: str | None, written: str | None) -> str | None:
    """The payload folder, unless the author wrote another [PKG: every real script starts ``.\\x.ps1`` in it].

    A relative one starts at the payload folder [GUESS].
    """
    if not written:
        return folder
    if folder and not ntpath.splitdrive(written)[0] and not written.startswith(("\\", "/", "%")):
        return ntpath.normpath(ntpath.join(folder, written))
    return written


def parent_folders(paths: Iterable[str | None]) -> tuple[str, ...]:
    """Folders that have to be created for these files, each once [INFER: packages log to folders that nobody makes]."""
    found: dict[str, str] = {}
    for path in paths:
        folder = ntpath.dirname(path) if path else ""
        if folder.rstrip("\\/") and ntpath.splitdrive(folder)[1].strip("\\/"):
            found.setdefault(folder.lower(), folder)
    return tuple(found.values())


def _identifier(text: str) -> str:
    return re.sub(r"[\s{}]", "", text).lower()
