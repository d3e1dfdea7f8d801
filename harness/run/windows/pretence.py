# SPDX-License-Identifier: Apache-2.0
"""Commands that the stand-in guest only pretends to have: what is asked for, how the guest gets it, what was called.

The functions are in the image (harness.image.modules) or come from modules of the user; a guest file says which of
them are wanted. Each call leaves a line of JSON in the guest, and makes its step one that proves nothing.
"""

from __future__ import annotations

import json
import ntpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, UsageError
from harness.guest.protocol import Guest
from harness.guest.wintext import decode
from harness.image import modules
from harness.quoting import quoted
from harness.run.request import Pretence
from harness.run.result import PretendedCall

COMMON: Final = "common"
WANTED: Final = r"C:\windows\vmrole-pretend.txt"
CALLS: Final = r"C:\windows\vmrole-pretended.log"
_OWN: Final = r"C:\windows\vmrole-modules"
_MODULES: Final = r"C:\Program Files\PowerShell\Modules"
_MORE: Final = "VMRole.Pretended"
_NAME: Final = re.compile(r"[A-Za-z]+-[A-Za-z][A-Za-z0-9]*")
_FUNCTION: Final = re.compile(
    r"^[ \t]*function[ \t]+(?:global:)?([A-Za-z]+-[A-Za-z][A-Za-z0-9]*)\b", re.IGNORECASE | re.MULTILINE
)
_MOST_LOG: Final = 4 << 20
_MOST_CALLS: Final = 200
"""Calls of one step that are told."""
_MOST_BYTES: Final = 64 << 20
"""Of all modules of the user."""


def pretence(names: Sequence[str], folder: Path | None) -> Pretence:
    """What ``--pretend`` (lists with commas, or "common") and ``--pretend-modules`` ask for. Raises UsageError."""
    known = {name.lower(): name for name in modules.can_be_pretended()}
    wanted: dict[str, None] = {}
    for word in (word.strip() for given in names for word in given.split(",")):
        if word.lower() == COMMON:
            wanted |= dict.fromkeys(known.values())
        elif word.lower() in known:
            wanted[known[word.lower()]] = None
        else:
            raise UsageError(
                f"{quoted(word, 60)!r} is no command that can be pretended",
                hint=f"those are {', '.join(modules.can_be_pretended())}, and {COMMON} for all; --pretend-modules "
                "takes your own",
            )
    return Pretence(tuple(wanted), _modules(folder) if folder else {})


def _modules(folder: Path) -> dict[str, Path]:
    try:
        found = {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_dir() and _functions(entry)}
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise UsageError(
            f"{folder} has no PowerShell module with a function",
            hint="a module is a folder NAME with NAME.psm1 in it, and its functions are called Verb-Noun",
        )
    size = sum(file.stat().st_size for module in found.values() for file in _files(module))
    if size > _MOST_BYTES:
        raise UsageError(f"the modules in {folder} have more than {_MOST_BYTES >> 20} MiB")
    return found


def _functions(module: Path) -> list[str]:
    script = module / f"{module.name}.psm1"
    return _FUNCTION.findall(decode(script.read_bytes())) if script.is_file() else []


def _files(module: Path) -> list[Path]:
    return sorted(path for path in module.rglob("*") if path.is_file() and not path.is_symlink())


def files(wanted: Pretence) -> dict[str, bytes]:
    """What a guest needs to pretend what is ``wanted``: contents by their paths in the guest."""
    own = {name: module for module, folder in wanted.folders.items() for name in _functions(folder)}
    everything = [*wanted.names, *(name for name in own if name not in wanted.names)]
    made = {WANTED: "".join(f"{name}\r\n" for name in everything).encode(), CALLS: b""}
    return made | dict(_own_files(wanted.folders, own))


def install(wanted: Pretence, guest: Guest, *, deadline: Deadline) -> None:
    """Have the guest pretend what is ``wanted``. Raises GuestError."""
    written = files(wanted)
    folders = sorted({ntpath.dirname(path) for path in written})
    made = "&".join(f'if not exist "{folder}" mkdir "{folder}"' for folder in folders)
    done = guest.run(["cmd.exe", "/d", "/c", made], deadline=deadline)
    if done.exit_code != 0:
        raise GuestError(f"the guest takes no pretended modules: {done.said}")
    for path, data in written.items():
        guest.put(data, path, deadline=deadline)


def _own_files(folders: Mapping[str, Path], own: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The user's modules where no name leads to them, and for each function one that tells of its calls."""
    for module, folder in folders.items():
        for file in _files(folder):
            inside = file.relative_to(folder).as_posix().replace("/", "\\")
            yield f"{_OWN}\\{module}\\{inside}", file.read_bytes()
    for name, module in own.items():
        answer = f"Set-Item 'function:script:{name}' (Get-Proxy '{name}' '{_OWN}\\{module}\\{module}.psm1')\n"
        yield f"{_OWN}\\answers\\{name}.ps1", answer.encode()
    lacked = modules.missing(modules.tables())
    theirs = {name.lower() for names in lacked.values() for name in names}
    more: dict[str, list[str]] = {}
    for name, module in own.items():
        if name.lower() not in theirs:
            more.setdefault(_MORE if module in lacked else module, []).append(name)
    for module, names in more.items():
        for file_name, text in modules.module(module, names, {}).items():
            yield f"{_MODULES}\\{module}\\{file_name}", text.encode()


class Calls:
    """The calls that the guest has told of so far; each is given out once."""

    def __init__(self) -> None:
        self._seen = 0

    def new(self, guest: Guest, *, deadline: Deadline) -> tuple[PretendedCall, ...]:
        """Those since the last time; none where the guest does not tell: a step is not judged by its log."""
        try:
            text = decode(guest.get(CALLS, deadline=deadline, limit=_MOST_LOG))
        except GuestLostError:
            raise
        except GuestError:
            return ()
        lines = text.splitlines()
        fresh, self._seen = lines[self._seen :], len(lines)
        calls = [call for line in fresh[:_MOST_CALLS] if (call := _call(line))]
        return tuple(calls)


def _call(line: str) -> PretendedCall | None:
    try:
        told: Any = json.loads(line)
        command, parameters = str(told["command"]), dict(told["parameters"])
    except (ValueError, KeyError, TypeError):
        return None
    return (
        PretendedCall(command, {str(name): value for name, value in parameters.items()})
        if _NAME.fullmatch(command)
        else None
    )
