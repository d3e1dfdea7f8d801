# SPDX-License-Identifier: Apache-2.0
"""A run directory read back: what pages about runs are made of. Everything in it was masked when it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_STREAMS = b'{"event": "step-finished"'
"""How the lines of events.jsonl begin that hold whole streams: result.json has what is wanted of them."""
_LONGEST = 1 << 20
"""Bytes of a line of events.jsonl that are read; a longer one is of no event that is looked for."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run. ``result`` is result.json; ``events`` are the lines of events.jsonl but for finished steps."""

    directory: Path
    result: Json
    events: tuple[Json, ...] = field(default=(), repr=False)

    def first(self, kind: str) -> Json:
        """The first event of ``kind``, {} when there is none."""
        return next(self.all(kind), {})

    def all(self, kind: str) -> Iterator[Json]:
        return (event for event in self.events if event.get("event") == kind)

    @property
    def instances(self) -> list[Json]:
        found = self.result.get("instances")
        return found if isinstance(found, list) else []

    @property
    def steps(self) -> list[Json]:
        return [step for instance in self.instances for step in instance["steps"]]

    @property
    def extension(self) -> str:
        """The extension's name; runs of older harnesses have it in the title only."""
        started = self.first("run-started")
        return str(started.get("extension") or str(started.get("title", "")).rpartition(" on ")[0] or "unknown")

    @property
    def case(self) -> str:
        return str(self.first("run-started").get("case") or "")

    @property
    def version(self) -> str:
        return str(self.first("run-started").get("version") or "")

    @property
    def started(self) -> datetime | None:
        return moment(self.result.get("started"))

    @property
    def seconds(self) -> float | None:
        """How long it took; None when it did not come to its end."""
        seconds = self.first("run-finished").get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    @property
    def verdict(self) -> str:
        return str(self.result["verdict"])

    @property
    def scenario_failed(self) -> str:
        """Why the test that asked for the run failed, "" when it did not."""
        ended = self.first("scenario-ended")
        return "" if ended.get("ok", True) else str(ended.get("told") or "it does not say why")


def read_run(directory: Path) -> RunFolder | None:
    """The run in ``directory``, None when there is none that can be read."""
    try:
        result = json.loads((directory / "result.json").read_bytes())
        if not isinstance(result, dict) or result.get("schema") != 1 or not isinstance(result.get("verdict"), str):
            return None
        return RunFolder(directory, result, tuple(_events(directory / "events.jsonl")))
    except (OSError, ValueError):
        return None


def find_runs(folder: Path) -> list[RunFolder]:
    """Every run whose directory lies directly in ``folder``, oldest first."""
    try:
        directories = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
    found = (read_run(directory) for directory in directories)
    return sorted((run for run in found if run), key=lambda run: str(run.result.get("started") or ""))


def read_findings(directory: Path) -> list[Json]:
    """The findings of `check` that the run wrote down."""
    try:
        document = json.loads((directory / "findings.json").read_bytes())
    except (OSError, ValueError):
        return []
    findings = document.get("findings") if isinstance(document, dict) else None
    return [item for item in findings if isinstance(item, dict)] if isinstance(findings, list) else []


def moment(text: object) -> datetime | None:
    """A time of result.json."""
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def _events(path: Path) -> Iterator[Json]:
    """A run that was killed leaves half a line at the end."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        while line := file.readline(_LONGEST):
            if line.startswith(_STREAMS) or not line.endswith(b"\n"):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
