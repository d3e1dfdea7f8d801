# SPDX-License-Identifier: Apache-2.0
"""The picture of where the time went, for a run with one step and for one with hundreds."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.report.timeline import LANE, NARROW, Timeline, make_timeline

BEGAN = datetime(2026, 3, 14, 9, tzinfo=UTC)


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def instance(steps: list[tuple[float, float | None, str]], phases: list[tuple[str, float, float | None]]) -> Any:
    return {
        "phases": [{"name": name, "started": at(start), "seconds": took} for name, start, took in phases],
        "steps": [
            {"id": f"run-once-{n}", "started": at(start), "seconds": took, "outcome": outcome}
            for n, (start, took, outcome) in enumerate(steps, 1)
        ],
    }


def made(count: int, outcomes: dict[int, str] | None = None) -> Timeline:
    steps = [(1 + n * 0.5, 0.1 + (n * 37 % 13) / 30, (outcomes or {}).get(n + 1, "succeeded")) for n in range(count)]
    last = 1 + count * 0.5
    picture = make_timeline(instance(steps, [("boot", 0, 1), ("steps", 1, count * 0.5)]), frozenset(), None)  # type: ignore[arg-type]
    assert picture and last
    return picture


@pytest.mark.parametrize("count", [1, 2, 29, 30, 31, 200, 1000])
def test_everything_lies_within_the_picture(count: int) -> None:
    picture = made(count)
    assert picture.steps and len(picture.steps.bars) == count
    assert picture.steps.height <= 620
    for panel in (picture.phases, picture.steps):
        assert 2 <= len(panel.ticks) <= 9
        for bar in panel.bars:
            assert 0 <= bar.left <= 100 and bar.left + bar.width <= 101
            assert 0 <= bar.top <= panel.height


@pytest.mark.parametrize("count", [1, 30, 200, 1000])
def test_no_name_lies_on_another_nor_outside_of_a_phone(count: int) -> None:
    picture = made(count, {count // 2: "failed", count // 3: "warned"})
    assert picture.steps
    middles = sorted(bar.top + bar.height / 2 for bar in picture.steps.bars if bar.label)
    assert middles and all(b - a >= 12 for a, b in itertools.pairwise(middles))
    for bar in picture.steps.bars:
        if bar.label and not bar.label.inside:
            width = len(bar.label.short or bar.label.text) * 6.2 * 100 / NARROW
            room = 100 - bar.label.x if bar.label.anchor == "start" else bar.label.x
            assert width <= room + 1, bar


def test_of_many_steps_those_that_went_wrong_are_named_and_thick() -> None:
    picture = made(200, {66: "warned", 100: "failed", 101: "failed", 180: "timed_out"})
    assert picture.steps
    named = {bar.name: bar for bar in picture.steps.bars if bar.label}
    assert {"run-once-66", "run-once-100", "run-once-180"} <= set(named)
    assert "run-once-101" not in named  # its name would lie on that of the step before
    assert named["run-once-100"].label and named["run-once-100"].label.loud
    thin = next(bar for bar in picture.steps.bars if bar.tone == "succeeded")
    assert named["run-once-100"].height >= 5 > thin.height


def test_what_never_ended_reaches_to_the_end() -> None:
    steps = [(1.0, 0.5, "succeeded"), (1.5, None, "failed")]
    picture = make_timeline(
        instance(steps, [("boot", 0, 1), ("steps", 1, None)]), frozenset(), BEGAN + timedelta(seconds=10)
    )
    assert picture and picture.steps
    phase, step = picture.phases.bars[-1], picture.steps.bars[-1]
    assert phase.open and step.open
    assert phase.left + phase.width == pytest.approx(100) and step.left + step.width == pytest.approx(100)
    assert step.took == "8.5 s"


def test_phases_that_overlap_have_lanes_of_their_own() -> None:
    phases = [("outer", 0.0, 10.0), ("inner", 2.0, 3.0), ("after", 10.001, 1.0)]
    picture = make_timeline(instance([], phases), frozenset({"inner"}), None)  # type: ignore[arg-type]
    assert picture and picture.steps is None
    assert [bar.top for bar in picture.phases.bars] == [0, LANE, 0]
    assert [bar.tone for bar in picture.phases.bars] == ["phase", "failed", "phase"]


def test_no_times_no_picture() -> None:
    assert make_timeline(instance([], []), frozenset(), None) is None
    broken = {"phases": [{"name": "x", "started": "yesterday", "seconds": 1}], "steps": []}
    assert make_timeline(broken, frozenset(), None) is None
