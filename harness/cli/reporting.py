# SPDX-License-Identifier: Apache-2.0
"""Which reports a command's user gets."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.masking import Masker
from harness.run.events import EventBus
from harness.run.recorder import Recorder


@contextlib.contextmanager
def reporting(masker: Masker, *, folder: Path | None, quiet: bool = False) -> Iterator[tuple[EventBus, Recorder]]:
    """An event bus with its recorder, the run directory's files, and progress on standard error.

    A terminal gets a live display, everything else plain lines; ``quiet`` neither.
    """
    from harness.report.html import HtmlReport
    from harness.report.json_files import JsonFiles
    from harness.report.plain import PlainReport

    bus, recorder = EventBus(), Recorder()
    bus.subscribe(recorder)
    with contextlib.ExitStack() as stack:
        if folder:
            bus.subscribe(JsonFiles(folder, masker))
            bus.subscribe(HtmlReport(folder, masker))
        if quiet:
            pass
        elif sys.stderr.isatty():
            from harness.report.terminal import TerminalReport

            bus.subscribe(stack.enter_context(TerminalReport(sys.stderr, masker)))
        else:
            bus.subscribe(PlainReport(sys.stderr, masker))
        yield bus, recorder
