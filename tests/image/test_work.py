# SPDX-License-Identifier: Apache-2.0
"""How slow a guest is: measured natively, in a tree that is this computer's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image import catalog
from harness.image.recipe import Recipe
from harness.image.work import native_seconds, slowness

ROOT = Path("/")
COUNT = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"


def recipe(work: str) -> Recipe:
    return catalog.load("debian-12").recipe.model_copy(update={"work": work})


def test_the_processor_time_of_work_in_a_tree() -> None:
    """Also of processes that the shell does not wait for, and of those that stay."""
    own = native_seconds(recipe(COUNT), ROOT, deadline=Deadline(120))
    assert own is not None and own > 0
    for stays in (":", "exec sleep 100 >/dev/null"):
        left = native_seconds(recipe(f"( ({COUNT}; {stays}) & ) | cat"), ROOT, deadline=Deadline(120))
        assert left is not None and left > own / 4


def test_what_the_first_time_alone_costs_does_not_count(tmp_path: Path) -> None:
    own = native_seconds(recipe(COUNT), ROOT, deadline=Deadline(120))
    first = f"[ -e {tmp_path}/done ] || {{ {COUNT}; : >{tmp_path}/done; }}"
    later = native_seconds(recipe(first), ROOT, deadline=Deadline(120))
    assert own and later and later < own / 2


@pytest.mark.parametrize("work", ["", "exit 3", "/no/such/program || exit 1"])
def test_work_that_cannot_be_done_is_not_measured(work: str) -> None:
    assert native_seconds(recipe(work), ROOT, deadline=Deadline(60)) is None


@pytest.mark.parametrize(
    ("emulated", "native", "times"),
    [(7.34, 1.0, 7.3), (0.5, 1.0, 1.0), (99.0, 1.0, 40.0), (-0.1, 1.0, None), (5.0, None, None), (5.0, 0.0, None)],
)
def test_how_many_times_slower(emulated: float, native: float | None, times: float | None) -> None:
    assert slowness(emulated, native) == times
