# SPDX-License-Identifier: Apache-2.0
"""Progress of a long program out of its log: mmdebstrap's ``I: ...`` lines are its stages, and what a hook of ours says
for the user."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.image.builders import Progress

_EVERY = 0.2
_NOTE = "vmrole-note: "
"""Begins what a hook says for the user."""
_STAGES = (
    "running apt-get update",
    "downloading packages",
    "extracting archives",
    "installing essential packages",
    "installing remaining packages",
    "running --customize-hook",
    "cleaning package lists",
)


@contextlib.contextmanager
def follow(log: Path, progress: Progress) -> Iterator[None]:
    """While the body runs, tell ``progress`` every stage that appears in ``log`` (which need not exist yet)."""
    done = threading.Event()

    def watch() -> None:
        told = 0
        while True:
            last = done.wait(_EVERY)
            lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
            stages = [said for line in lines if (said := _stage(line))]
            for stage in stages[told:]:
                progress(stage)
            told = max(told, len(stages))
            if last:
                return

    thread = threading.Thread(target=watch, name="follow-build", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _stage(line: str) -> str | None:
    if line.startswith(_NOTE):
        return line.removeprefix(_NOTE)
    stage = next((s for s in _STAGES if line.removeprefix("I: ").startswith(s)), None) if line[:3] == "I: " else None
    return "customizing the tree" if stage and "hook" in stage else stage
