# SPDX-License-Identifier: Apache-2.0
"""index.html: many runs on one page, a row for each extension and case, a column for each image, and how each of them
went before."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.files import replace_file
from harness.report.folder import RunFolder, find_runs
from harness.report.text import duration, printable

HISTORY = 12
"""Runs of one cell that are drawn."""
_COMPARED = 5
"""Runs before the last one whose durations it is held against."""
_SLOWER = 1.5
_SLOWER_SECONDS = 2.0
"""A run is called slower that took so much longer than what was usual, and at least so many seconds."""
_LEAST = 3
"""Runs that must have been before something is called usual: one alone may have had a quiet host."""
_GOOD = ("succeeded", "warnings")


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as a row of the list. ``link`` leads to its report, relative to the index; "" when it has none."""

    run: str
    extension: str
    version: str
    case: str
    image: str
    image_key: str
    verdict: str
    blame: str
    summary: str
    started: str
    seconds: float | None
    link: str
    fresh: bool
    """Whether it belongs to the set that the page is about, not to those before."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A run in the picture of a cell's history: places in percent, height in pixels of 28."""

    left: float
    width: float
    height: float
    tone: str
    told: str
    now: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """The last run of an extension and case on an image. ``news`` says what became worse since the run before,
    ``better`` what became right, ``slower`` how much longer it took than usual; "" for nothing of the kind."""

    last: Shown
    marks: tuple[Mark, ...]
    news: str
    better: str
    slower: str
    usual: float | None
    """Median of the durations before, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    extension: str
    case: str
    cells: tuple[Cell | None, ...]


def write_index(folder: Path, *, title: str, fresh: Iterable[Path] | None = None) -> Path | None:
    """Write ``folder``/index.html about the runs whose directories lie in ``folder``.

    ``fresh`` are the run directories, wherever they lie, that the page is about; the others in the folder are their
    history. None is all of them. Returns the page, or None when there is no run.
    """
    runs = {run.directory.absolute(): run for run in find_runs(folder)}
    wanted = None if fresh is None else {path.absolute() for path in fresh}
    for path in (wanted or set()) - set(runs):
        from harness.report.folder import read_run

        if run := read_run(path):
            runs[path] = run
    shown = [_shown(run, folder, wanted is None or path in wanted) for path, run in runs.items()]
    if not any(item.fresh for item in shown):
        return None
    page = folder / "index.html"
    replace_file(page, render(sorted(shown, key=lambda item: item.started), title=title), mode=None)
    return page


def render(runs: Sequence[Shown], *, title: str) -> str:
    """The page about ``runs``, oldest first."""
    from harness.report import page

    fresh = [run for run in runs if run.fresh]
    images = sorted({run.image for run in fresh})
    rows = [
        Row(extension, case, tuple(_cell([r for r in runs if _key(r) == (extension, case, image)]) for image in images))
        for extension, case in sorted({(run.extension, run.case) for run in fresh})
    ]
    cells = [cell for row in rows for cell in row.cells if cell]
    bad = [cell for cell in cells if cell.last.verdict not in _GOOD]
    # What went wrong comes first; within that, the newest.
    listed = sorted(reversed(fresh), key=lambda run: run.verdict in _GOOD)
    return page.render(
        "index.html.j2",
        title=title,
        said=_said(cells, bad),
        tone="good"
        if not bad
        else "bad"
        if any(c.last.verdict in ("failed", "error", "scenario") for c in bad)
        else "open",
        images=images,
        rows=rows,
        runs=listed,
        older=len(runs) - len(fresh),
        counts=[
            (name, _counted(name, words, n))
            for name, (_, words) in page.VERDICTS.items()
            if (n := sum(c.last.verdict == name for c in cells))
        ],
        seconds=sum(run.seconds or 0 for run in fresh),
    )


def _counted(verdict: str, words: str, number: int) -> str:
    if verdict == "scenario":
        return f"{number} scenario{'s' * (number != 1)} failed"
    return f"{number} {words.lower()}"


def _said(cells: Sequence[Cell], bad: Sequence[Cell]) -> str:
    """The whole in a sentence."""
    slower = sum(bool(cell.slower) for cell in cells)
    new = sum(bool(cell.news) and cell in bad for cell in cells)
    what = "run" if len(cells) == 1 else "runs"
    said = f"{len(bad)} of {len(cells)} {what} did not succeed" if bad else f"all {len(cells)} {what} succeeded"
    if len(cells) == 1 and not bad:
        said = "the run succeeded"
    said += f" ({new} of them did the last time)" if new else ""
    return said + (f"; {slower} took longer than usual" if slower else "")


def _key(run: Shown) -> tuple[str, str, str]:
    return run.extension, run.case, run.image


def _shown(run: RunFolder, folder: Path, fresh: bool) -> Shown:
    result = run.result
    image = result.get("image") or {}
    report = run.directory / "report.html"
    link = quote(os.path.relpath(report, folder)) if report.is_file() else ""
    return Shown(
        run=printable(str(result.get("run") or run.directory.name)),
        extension=printable(run.extension),
        version=printable(run.version),
        case=printable(run.case),
        image=printable(str(image.get("name") or "no image")),
        image_key=printable(str(image.get("key") or "")),
        verdict=_verdict(run),
        blame=printable(str(result.get("blame") or "")),
        summary=printable(run.scenario_failed or str(result.get("summary") or "")),
        started=printable(str(result.get("started") or "")),
        seconds=run.seconds,
        link=link,
        fresh=fresh,
    )


def _verdict(run: RunFolder) -> str:
    if run.verdict in _GOOD:
        return "scenario" if run.scenario_failed else run.verdict
    return run.verdict if run.verdict in ("incomplete", "failed", "error") else "interrupted"


def _cell(runs: Sequence[Shown]) -> Cell | None:
    """``runs`` of one extension and case on one image, oldest first."""
    current = [run for run in runs if run.fresh]
    if not current:
        return None
    last = current[-1]
    before = runs[: runs.index(last)]
    usual = [run.seconds for run in before if run.seconds is not None and run.verdict in _GOOD][-_COMPARED:]
    median = statistics.median(usual) if len(usual) >= _LEAST else None
    news = better = slower = ""
    if before and before[-1].verdict in _GOOD and last.verdict not in _GOOD:
        streak = next((n for n, run in enumerate(reversed(before)) if run.verdict not in _GOOD), len(before))
        news = f"succeeded {streak} time{'s' * (streak != 1)} before"
    elif before and before[-1].verdict not in _GOOD and last.verdict in _GOOD:
        better = f"{before[-1].verdict} the last time"
    if not news and median and last.verdict in _GOOD and _slower(last.seconds or 0, median):
        slower = f"{(last.seconds or 0) / median:.1f} times slower than usual"
    return Cell(last, _marks([*before, last][-HISTORY:], last), news, better, slower, median)


def _slower(seconds: float, median: float) -> bool:
    return seconds > _SLOWER * median and seconds - median > _SLOWER_SECONDS


def _marks(runs: Sequence[Shown], last: Shown) -> tuple[Mark, ...]:
    from harness.report.page import TONES

    most = max((run.seconds or 0 for run in runs), default=0) or 1
    width = 100 / HISTORY
    marks = []
    for number, run in enumerate(runs, HISTORY - len(runs)):
        height = 4 + 22 * (run.seconds or most) / most
        told = f"{run.started[:16].replace('T', ' ')}: {run.verdict}" + (
            f", {duration(run.seconds)}" if run.seconds else ""
        )
        marks.append(Mark(number * width + 0.8, width - 1.6, height, TONES.get(run.verdict, "mute"), told, run is last))
    return tuple(marks)
