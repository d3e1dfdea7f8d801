# SPDX-License-Identifier: Apache-2.0
"""Collecting logs from a Windows guest: the diagnostics store, what steps wrote, and what setup left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.files import writing
from harness.guest.protocol import Guest
from harness.guest.wintext import HELPER, decode
from harness.plan.guestpaths import expand_environment, working_directory
from harness.quoting import quoted
from harness.run.collect import MAX_ALL, MAX_FILE, SECONDS, take_archive, write_index

if TYPE_CHECKING:
    from harness.plan import Plan, Step
    from harness.quoting import Mask

_FOLDERS = (
    "C:\\Resources\\DiagnosticStore",
    "C:\\VMRole",  # where published packages log to
    "C:\\ProgramData\\VMRole\\Log",
    "C:\\Windows\\vmrole-unavailable.log",
    "C:\\Windows\\Panther\\setupact.log",
    "C:\\Windows\\Panther\\UnattendGC",
    "Z:\\run\\vmrole\\standin.log",  # what Wine says of itself, and its kernel
    "Z:\\run\\vmrole\\kernel.log",
)
_TOLD = 5

_DRIVE = {"SystemDrive": "C:"}
OFFLINE = (
    "/var/lib/standin/unavailable.log",
    "/var/lib/vmrole/agent.log",
)
"""What a stand-in guest that does not answer may have left; the disks of real Windows are not read."""


def _in_folders(path: str) -> bool:
    """Whether it is collected anyway."""
    return expand_environment(path, _DRIVE).lower().startswith("c:\\vmrole\\")


def _written(step: Step) -> Iterator[str]:
    """The files of a step's streams, as the helper finds them without the step's own folder and environment. What is
    not the step's own it fills in."""
    own = dict(step.environment)
    folder = expand_environment(step.working_directory or "", own)
    for path in (step.stdout_path, step.stderr_path):
        if path:
            yield working_directory(folder, expand_environment(path, own)) or path


def collect(guest: Guest, plan: Plan, folder: Path, *, mask: Mask, deadline: Deadline) -> list[str]:
    """Write the guest's logs to ``folder``; returns sentences about what could not be had."""
    limit = deadline.within(SECONDS)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    own = [path for step in plan.applicable for path in _written(step)]
    mine = [path for path in dict.fromkeys(own) if not _in_folders(path)]
    argv = [HELPER, "collect", str(MAX_ALL), str(MAX_FILE), *_FOLDERS, *mine[:50]]
    try:
        done = guest.run(argv, deadline=limit, max_output=MAX_ALL + MAX_FILE)
    except GuestError as error:
        return [f"the guest's logs could not be collected: {error.message}"]
    index: dict[str, str] = {}
    left, cut = take_archive(done.stdout, lambda name: name.replace("/", "\\"), folder, index, mask, deadline=limit)
    left += [line.strip() for line in decode(done.stderr).splitlines() if line.strip()]
    if cut or done.exit_code != 0:
        left.append(f"what is beyond {MAX_ALL >> 20} MiB")
    write_index(folder, index)
    told = [f"not collected: {quoted(what, mask=mask)}" for what in left[:_TOLD]]
    return told + ([f"not collected: {len(left) - _TOLD} more files"] if len(left) > _TOLD else [])
