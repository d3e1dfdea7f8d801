# SPDX-License-Identifier: Apache-2.0
"""A test that fails says what its runs came to, and leaves their directories in build/failed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.machine.protocol import MachineState
from harness.machine.qemu.machine import LibvirtMachine
from harness.run.deploy import Deployed

KEPT = Path(__file__).parent.parent / "build/failed"
TEMPORARY = pytest.StashKey[Path]()
"""Of the session's configuration: where its tests have their temporary folders."""
COMMANDS: deque[str] = deque(maxlen=3)
"""What the last processes of `vmrole` were and said."""

_MOST_KEPT = 30
"""Failed tests whose directories stay; the oldest go."""
_MOST_RUNS = 5
"""Of one test."""
_MOST_BYTES = 16 << 20
"""Of a file that is kept."""
_TAIL = 20
"""Lines of a stream that are shown."""
_WELL = ("succeeded", "skipped", "not_applicable")


class Failures:
    """Plugin of a session. The runs of a test are in its own temporary folder, and in those of the fixtures that it
    shares with the file's tests before it."""

    def __init__(self, kept: Path = KEPT) -> None:
        self._kept = kept
        self._module: object = None
        self._began = 0.0
        self._others: list[Path] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.path != self._module:
            self._module, self._began = item.path, time.time()
            self._others.clear()
            COMMANDS.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            shown: Any = report.longrepr
            for title, text in self._told(item):
                if hasattr(shown, "addsection"):  # with the traceback, so that JUnit has it as well
                    shown.addsection(title, text)
                else:
                    report.sections.append((title, text))
        if report.when == "teardown" and "tmp_path" in getattr(item, "funcargs", ()):
            self._others.append(item.funcargs["tmp_path"])  # type: ignore[attr-defined]
        return report

    def _told(self, item: pytest.Item) -> Iterator[tuple[str, str]]:
        yield from _machines(item)
        for command in COMMANDS:
            yield "command", command
        temporary = item.config.stash.get(TEMPORARY, None)
        if temporary is None:
            return
        place = self._kept / re.sub(r"[^A-Za-z0-9._-]+", "-", item.nodeid).strip("-")[-120:]
        shutil.rmtree(place, ignore_errors=True)
        runs = [run for run in runs_in(temporary, since=self._began) if not set(run.parents) & set(self._others)]
        for number, run in enumerate(runs[-_MOST_RUNS:], 1):
            copy = place / f"{number}-{run.name}"
            keep(run, copy)
            yield f"run {run.name}", f"{told(run)}\nkept: {copy}"
        _thin_out(self._kept)


def _machines(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """What the test's machines are at."""
    values = item.funcargs.values() if isinstance(item, pytest.Function) else ()
    for machine in (value.machine for value in values if isinstance(value, Deployed)):
        said = [f"{machine.state().name}, {machine.why_paused() or 'not paused'}"]
        if machine.state() is MachineState.running and isinstance(machine, LibvirtMachine):
            said += [line for line in machine.monitor("info registers -a").splitlines() if "RIP" in line]
        yield f"machine {machine.name}", "\n".join([*said, *machine.console.lines()[-40:]])


def runs_in(folder: Path, *, since: float) -> list[Path]:
    """The run directories in ``folder`` that were written after ``since``, the newest last."""
    found = []
    for path in folder.rglob("events.jsonl"):
        with contextlib.suppress(OSError):  # another test may be removing it
            found.append((path.stat().st_mtime, path.parent))
    return [run for written, run in sorted(found) if written >= since - 1]


def told(run: Path) -> str:
    """What a run came to, with its steps that did not go well and the ends of their streams."""
    try:
        result = json.loads((run / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "\n".join(["it has no result; its last events were", *_tail(_text(run / "events.jsonl"), 5)])
    blame = f" (blame: {result['blame']})" if result["blame"] else ""
    lines = [f"{result['verdict']}{blame}: {result['summary']}"]
    for instance in result["instances"]:
        for step in instance["steps"]:
            if step["outcome"] not in _WELL:
                lines += _step(step)
    lines += [f"console: {line}" for line in _tail(_text(run / "console.log"), _TAIL) if result["verdict"] == "error"]
    return "\n".join(lines)


def _step(step: dict[str, Any]) -> list[str]:
    code = "" if step["exit_code"] is None else f", exit code {step['exit_code']}"
    finding = f": {step['finding']}" if step["finding"] else ""
    lines = [f"step {step['id']} {step['outcome']}{code}{finding}", f"  $ {step['command']}"]
    for stream in ("stdout", "stderr"):
        lines += [f"  {stream}: {line}" for line in _tail(step[stream] or "", _TAIL)]
    return lines


def _tail(text: str, count: int) -> list[str]:
    lines = text.splitlines()
    left = len(lines) - count
    return [*([f"({left} lines before)"] if left > 0 else []), *lines[-count:]]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def keep(run: Path, copy: Path) -> None:
    """Copy a run directory, without what is too large; what cannot be copied is left out."""

    def too_large(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name).lstat().st_size > _MOST_BYTES]

    with contextlib.suppress(OSError):  # shutil.Error is one
        shutil.copytree(run, copy, symlinks=True, ignore=too_large)


def _thin_out(kept: Path) -> None:
    """Other workers may be at it too."""
    ages = []
    for folder in kept.glob("*"):
        with contextlib.suppress(OSError):
            ages.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(ages)[:-_MOST_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
