# SPDX-License-Identifier: Apache-2.0
"""Where the time of a run went, as the geometry of a picture: phases to scale, and the steps within them larger.

Places along the time are percentages, so that the picture fits every width while its text stays readable; places across
it are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from harness.report.folder import moment
from harness.report.page import OUTCOMES
from harness.report.text import duration

WIDE, NARROW = 1000, 330
"""Pixels that the picture has on a desktop and on a phone, for judging what text fits where."""
LANE = 26
_LETTER = 6.9
"""Pixels of a letter at the picture's size of text, the widest common ones aside."""
_ROW = 20.0
_ROWS_NAMED = 30
"""So many steps have a row with their name each; of more only those that matter are named."""
_STAIRS = 420.0
"""Height of the picture of many steps."""
_NAMED_MOST = 12
_SLOWEST = 5
"""So many of the steps that went well are named among many."""
_LOUD = ("failed", "timed_out", "warned", "interrupted", "unknown")
_NAME_LINE = 15.0
_LONGEST_NAME = 48
_SMALLEST = 0.3
_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Label:
    """Text beside or in a bar. ``anchor`` is SVG's text-anchor, ``dx`` pixels from ``x`` percent; ``wide`` is one that
    fits on wide screens only."""

    text: str
    x: float
    dx: int
    anchor: str
    inside: bool = False
    wide: bool = False
    loud: bool = False
    """Whether it names something that went wrong."""
    short: str = ""
    """What stands there instead on narrow screens."""


@dataclass(frozen=True, slots=True)
class Bar:
    """``left`` and ``width`` in percent, ``top`` and ``height`` in pixels; ``tone`` is a class of the page."""

    name: str
    took: str
    tone: str
    left: float
    width: float
    top: float
    height: float
    label: Label | None = None
    link: str | None = None
    open: bool = False
    """Whether it never came to its end."""


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    text: str
    wide: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale of time; ``height`` in pixels without the axis."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    height: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """``zoom`` is the part of ``phases``, from and to in percent, that ``steps`` shows larger."""

    phases: Panel
    steps: Panel | None
    zoom: tuple[float, float]
    said: str
    """The same in a sentence."""


@dataclass(frozen=True, slots=True)
class _Span:
    name: str
    tone: str
    start: float
    end: float
    open: bool = False
    link: str | None = None


def make_timeline(instance: dict[str, Any], failed_phases: frozenset[str], ended: datetime | None) -> Timeline | None:
    """The picture of one instance of result.json; None when nothing of it has a time.

    ``failed_phases`` are those that ended in an error, ``ended`` when the run did.
    """
    starts = [at for item in (*instance["phases"], *instance["steps"]) if (at := moment(item["started"]))]
    if not starts:
        return None
    origin = min(starts)
    last = max(
        (at + timedelta(seconds=item["seconds"] or 0))
        for item in (*instance["phases"], *instance["steps"])
        if (at := moment(item["started"]))
    )
    end = max((ended or last, last), key=lambda at: at.timestamp())

    def span(item: dict[str, Any], tone: str, link: str | None = None, name: str = "name") -> _Span | None:
        at = moment(item["started"])
        if at is None:
            return None
        start = (at - origin).total_seconds()
        running = item["seconds"] is None
        stop = (end - origin).total_seconds() if running else start + item["seconds"]
        return _Span(str(item[name]), tone, start, max(stop, start), running, link)

    tones = {"steps": "phase-steps", "scenario": "phase-scenario"}
    phases = [
        span(phase, "failed" if phase["name"] in failed_phases else tones.get(phase["name"], "phase"))
        for phase in instance["phases"]
    ]
    steps = [span(step, step["outcome"], f"step-{number}", "id") for number, step in enumerate(instance["steps"], 1)]
    started = [step for step in steps if step]
    shown = [phase for phase in phases if phase]
    total = max((end - origin).total_seconds(), 0.001)
    first, final = _window(started, shown, total)
    return Timeline(
        phases=Panel(_lanes(shown, total), _ticks(0, total), LANE * max(1, _depth(shown))),
        steps=_steps(started, first, final) if started else None,
        zoom=(100 * first / total, min(100.0, 100 * final / total)),
        said=_said(shown, started, total),
    )


def _window(steps: Sequence[_Span], phases: Sequence[_Span], total: float) -> tuple[float, float]:
    """The time that the picture of the steps covers: theirs, a little at least."""
    if not steps:
        return 0.0, total
    first, final = min(step.start for step in steps), max(step.end for step in steps)
    return first, max(final, first + 0.001)


def _lanes(spans: Sequence[_Span], total: float) -> tuple[Bar, ...]:
    """Phases one after the other in a lane; one that overlaps those before it in the next."""
    bars = []
    for span, lane in zip(spans, _lane_of(spans), strict=True):
        left, width = 100 * span.start / total, max(_SMALLEST, 100 * (span.end - span.start) / total)
        took = duration(span.end - span.start)
        label = None
        for text in (f"{span.name} {took}", span.name):
            if _fits(text, width, WIDE):
                narrow = _fits(text, width, NARROW)
                label = Label(text, left + width / 2, 0, "middle", inside=True, wide=not narrow)
                break
        bars.append(Bar(span.name, took, span.tone, left, width, lane * LANE, LANE - 2, label, None, span.open))
    return tuple(bars)


def _lane_of(spans: Sequence[_Span]) -> list[int]:
    ends: list[float] = []
    lanes = []
    for span in spans:
        # A hundredth: ends are rounded to milliseconds.
        lane = next((number for number, end in enumerate(ends) if end <= span.start + 0.01), len(ends))
        ends[lane : lane + 1] = [span.end]
        lanes.append(lane)
    return lanes


def _depth(spans: Sequence[_Span]) -> int:
    return max(_lane_of(spans), default=0) + 1


def _steps(steps: Sequence[_Span], first: float, final: float) -> Panel:
    """A row for each step, downwards in the order of their start; thin ones when there are many."""
    total = final - first
    named = len(steps) <= _ROWS_NAMED
    row = _ROW if named else _STAIRS / len(steps)
    chosen = range(len(steps)) if named else _telling(steps, row)
    bars = []
    for number, step in enumerate(steps):
        left = min(100 * (step.start - first) / total, 100 - _SMALLEST)
        width = max(_SMALLEST, 100 * (step.end - step.start) / total)
        took = duration(step.end - step.start)
        loud = not named and step.tone in _LOUD
        # Among many thin bars one that went wrong is seen only when it is thicker than the others.
        height = row - 4 if named else max(row, 5.0) if loud else row
        label = None
        if number in chosen:
            sign = OUTCOMES[step.tone][0] + " " if loud else ""
            label = _beside(sign + step.name, took, left, width, inside=named, loud=loud)
        bars.append(Bar(step.name, took, step.tone, left, width, number * row, height, label, step.link, step.open))
    return Panel(tuple(bars), _ticks(first, final), max(row * len(steps), _ROW))


def _telling(steps: Sequence[_Span], row: float) -> set[int]:
    """Of many steps those to name: what went wrong, then what took longest, no two names on one another."""
    order = {tone: rank for rank, tone in enumerate(_LOUD)}
    by_weight = sorted(
        range(len(steps)), key=lambda n: (order.get(steps[n].tone, len(_LOUD)), steps[n].start - steps[n].end)
    )
    chosen: set[int] = set()
    quiet = 0
    for number in by_weight:
        fine = steps[number].tone not in _LOUD
        if len(chosen) == _NAMED_MOST or (fine and quiet == _SLOWEST):
            break
        if all(abs(number - other) * row >= _NAME_LINE for other in chosen):
            chosen.add(number)
            quiet += fine
    return chosen


def _beside(name: str, took: str, left: float, width: float, *, inside: bool, loud: bool) -> Label:
    """The name of a step's bar: in it where it fits, else on the side that has more room, shortened to that."""
    text = f"{name} {took}"
    after = 100 - left - width
    if inside and _fits(text, width, NARROW):
        return Label(text, left, 6, "start", inside=True)
    if _fits(text, after, NARROW) or after >= max(left, width if inside else 0):
        return _shortened(name, took, after, Label("", left + width, 6, "start", loud=loud))
    if not inside or _fits(text, left, NARROW) or left >= width:
        return _shortened(name, took, left, Label("", left, -6, "end", loud=loud))
    return _shortened(name, took, width, Label("", left, 6, "start", inside=True))


def _shortened(name: str, took: str, room: float, label: Label) -> Label:
    """Name and duration in ``room`` percent of the width, the name without its end where that has to be."""
    texts = []
    for screen in (WIDE, NARROW):
        letters = max(6, int((room * screen / 100 - 10) / _LETTER) - len(took) - 1)
        texts.append(f"{_cut(name, min(letters, _LONGEST_NAME))} {took}")
    return replace(label, text=texts[0], short=texts[1] if texts[1] != texts[0] else "")


def _fits(text: str, width: float, screen: int) -> bool:
    return len(text) * _LETTER + 10 <= width * screen / 100


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def _ticks(first: float, final: float) -> tuple[Tick, ...]:
    total = final - first
    every = next((step for step in _TICKS if total / step <= _MOST_TICKS), _TICKS[-1])
    count = min(int(total / every), _MOST_TICKS)
    narrow = 2 if count > 4 else 1
    ticks = (Tick(100 * n * every / total, _time(n * every), bool(n % narrow)) for n in range(count + 1))
    # One at the very end would be cut.
    return tuple(tick for tick in ticks if tick.x <= 96)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes % 60 else f"{minutes // 60} h"


def _said(phases: Sequence[_Span], steps: Sequence[_Span], total: float) -> str:
    longest = max(phases, key=lambda span: span.end - span.start, default=None)
    said = f"The run took {duration(total)}"
    if longest:
        said += f", most of it in the phase {longest.name} ({duration(longest.end - longest.start)})"
    if steps:
        slow = max(steps, key=lambda span: span.end - span.start)
        took = duration(slow.end - slow.start)
        said += f". {len(steps)} step{'s' * (len(steps) != 1)} ran; the longest was {slow.name} ({took})"
    return said + "."
