# SPDX-License-Identifier: Apache-2.0
"""The run directory's machine-readable part: result.json, events.jsonl, and the steps' streams."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from harness.files import replace_file, writing
from harness.report.text import Masker, masked, printable
from harness.run.events import Event, PhaseFinished, RunFinished, RunStarted, SpecializationRead, StepFinished
from harness.run.recorder import Recorder

_KEPT_CURRENT = (RunStarted, PhaseFinished, SpecializationRead, StepFinished, RunFinished)


class JsonFiles:
    """A subscriber that writes ``directory``, which must exist. result.json is whole at every moment; until the end it
    says that the run has not finished. Closes itself with the last event."""

    def __init__(self, directory: Path, masker: Masker) -> None:
        self._directory = directory
        self._masker = masker
        self._recorder = Recorder()
        self._log = directory / "events.jsonl"
        with writing(self._log):
            # New: the directory was empty, and whatever is there now somebody planted.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._log, flags, 0o666)
            self._events = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def __call__(self, event: Event) -> None:
        self._recorder(event)
        line = json.dumps(masked(event.to_json(), self._masker), ensure_ascii=False)
        with writing(self._log):
            self._events.write(f"{line}\n")
            self._events.flush()
        if isinstance(event, StepFinished):
            folder = self._directory / "steps" / step_folder(event.step.id)
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            for name, data in (("stdout", event.stdout), ("stderr", event.stderr)):
                replace_file(folder / name, self._bytes(data), mode=None)
        if isinstance(event, _KEPT_CURRENT):
            write_json(self._directory / "result.json", self._recorder.result().to_json(), self._masker)
        if isinstance(event, RunFinished):
            self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it was told when it was written
            self._events.close()

    def _bytes(self, data: bytes) -> bytes:
        """A stream masked, and otherwise byte for byte what the step wrote; without terminal sequences where they
        interrupt a secret."""
        # Where the masker knows bytes it also finds what is UTF-16 there.
        by_bytes = getattr(self._masker, "bytes", None)
        text = data.decode("utf-8", "surrogateescape")
        done = by_bytes(data) if by_bytes else self._masker.text(text).encode("utf-8", "surrogateescape")
        if b"\x1b" in done:
            clean = printable(done.decode("utf-8", "replace"))
            if (safe := self._masker.text(clean)) != clean:
                return safe.encode()
        return bytes(done)


def step_folder(step_id: str) -> str:
    """The folder below steps/ for a step: its id, or, when that could lead elsewhere, a name made from it."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", step_id):
        return step_id
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", step_id).lstrip(".")[:80]
    # Two ids must not meet in one folder.
    return f"{clean}-{hashlib.sha256(step_id.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def write_json(path: Path, document: Any, masker: Masker) -> None:
    """Replace ``path`` in one step by ``document``, masked. Raises HostError."""
    text = json.dumps(masked(document, masker), ensure_ascii=False, indent=2)
    replace_file(path, text + "\n", mode=None)
