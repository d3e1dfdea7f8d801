# SPDX-License-Identifier: Apache-2.0
"""Which reports a command's user gets."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError, VmRoleError
from harness.files import is_of_host, refused
from harness.masking import Masker
from harness.run.events import EventBus
from harness.run.recorder import Recorder


@contextlib.contextmanager
def reporting(masker: Masker, *, folder: Path | None, quiet: bool = False) -> Iterator[tuple[EventBus, Recorder]]:
    """An event bus with its recorder, the run directory's files, and progress on standard error.

    A terminal gets a live display, everything else plain lines; ``quiet`` neither. An error that leaves the context is
    masked: it may quote a guest.
    """
    if folder:
        make_output(folder)
    bus, recorder = EventBus(), Recorder()
    bus.subscribe(recorder)
    with contextlib.ExitStack() as stack:
        if folder:
            from harness.report.html import HtmlReport
            from harness.report.json_files import JsonFiles

            files = JsonFiles(folder, masker)
            stack.callback(files.close)
            bus.subscribe(HtmlReport(folder, masker), required=True)
            bus.subscribe(files, required=True)
        if quiet:
            pass
        elif sys.stderr.isatty():
            from harness.report.terminal import TerminalReport

            bus.subscribe(stack.enter_context(TerminalReport(sys.stderr, masker)))
        else:
            from harness.report.plain import PlainReport

            bus.subscribe(PlainReport(sys.stderr, masker))
        try:
            yield bus, recorder
        except VmRoleError as error:
            error.message = masker.text(error.message)
            error.hint = masker.text(error.hint) if error.hint else None
            raise


def make_output(folder: Path) -> None:
    """The run directory itself, new or empty, and ours: whoever owns it could put links where files are written.

    Raises UsageError when it is not, HostError when this computer is full or read-only.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for status in (folder.lstat(), folder.stat()):  # the link, if it is one, and what it leads to
            if status.st_uid != os.geteuid() or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH):
                raise UsageError(
                    f"the output folder {folder} belongs to somebody else, or everybody may write to it",
                    hint="name a new one with --output",
                )
        if any(folder.iterdir()):
            raise UsageError(f"the output folder {folder} is not empty", hint="name a new one with --output")
    except OSError as error:
        if is_of_host(error):
            raise refused(f"the output folder {folder} cannot be made", error) from error
        raise UsageError(
            f"the output folder {folder} cannot be made: {error.strerror}", hint="name another one with --output"
        ) from error
