# SPDX-License-Identifier: Apache-2.0
"""A run whose reports could not be written is not green."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.reporting import make_output, reporting
from harness.errors import HostError, UsageError
from harness.masking import Masker
from harness.run.events import Event, EventBus, RunFinished, RunStarted
from harness.run.recorder import Recorder
from harness.run.result import Verdict, conclude


def finish(bus: EventBus, recorder: Recorder) -> list[RunFinished]:
    """End a run without steps; what a report that is not required got last."""
    told: list[Event] = []
    bus.subscribe(told.append)

    def last() -> RunFinished:
        conclusion = conclude((), error=bus.lost)
        return RunFinished(result=recorder.result(conclusion), exit_code=conclusion.exit_code)

    bus.finish(last)
    return [event for event in told if isinstance(event, RunFinished)]


def test_all_reports_are_there(tmp_path: Path) -> None:
    with reporting(Masker(()), folder=tmp_path / "out", quiet=True) as (bus, recorder):
        bus.emit(RunStarted(run="r", title="t"))
        assert [event.exit_code for event in finish(bus, recorder)] == [0]
    assert bus.lost is None and recorder.result().verdict is Verdict.succeeded
    assert json.loads((tmp_path / "out/result.json").read_text())["verdict"] == "succeeded"
    assert "succeeded" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("lost", ["report.html", "result.json"])
def test_one_of_them_cannot_be_written(tmp_path: Path, lost: str) -> None:
    """What can be written says so too; what is left of the other is not green."""
    out = tmp_path / "out"
    with reporting(Masker(()), folder=out, quiet=True) as (bus, recorder):
        bus.emit(RunStarted(run="r", title="t"))
        (out / lost).unlink(missing_ok=True)
        (out / lost).mkdir()
        (out / lost / "in the way").touch()
        (finished,) = finish(bus, recorder)
    assert finished.exit_code == 3 and finished.result.blame == "host"
    assert finished.result.summary == f"{out / lost} cannot be written: Is a directory"
    assert recorder.result().verdict is Verdict.error
    if lost == "report.html":
        assert json.loads((out / "result.json").read_text())["verdict"] == "error"
        assert '"exit_code": 3' in (out / "events.jsonl").read_text().splitlines()[-1]


def test_a_report_that_breaks_is_our_own_fault(tmp_path: Path) -> None:
    def broken(_event: Event) -> None:
        raise KeyError("x")

    bus, recorder = EventBus(), Recorder()
    bus.subscribe(recorder)
    bus.subscribe(broken, required=True)
    (finished,) = finish(bus, recorder)
    assert finished.exit_code == 3 and finished.result.blame == "harness"
    assert "a report of the run broke: KeyError" in finished.result.summary


def test_a_report_that_is_not_required_may_break(tmp_path: Path) -> None:
    def broken(_event: Event) -> None:
        raise OSError(28, "No space left on device")

    bus, recorder = EventBus(), Recorder()
    bus.subscribe(recorder)
    bus.subscribe(broken)
    assert [event.exit_code for event in finish(bus, recorder)] == [0] and bus.failures


@pytest.mark.parametrize("mode", [0o777, 0o703, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    with pytest.raises(UsageError, match="belongs to somebody else, or everybody may write to it"):
        make_output(tmp_path / "out")


def test_a_planted_log_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look whether the folder is empty and the first line."""
    precious: Any = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr("harness.cli.reporting.make_output", lambda folder: folder.mkdir())
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.jsonl").symlink_to(precious)
    monkeypatch.setattr("harness.cli.reporting.make_output", lambda _folder: None)
    with pytest.raises(HostError, match=r"events\.jsonl cannot be written: File exists"):
        reporting(Masker(()), folder=out, quiet=True).__enter__()
    assert precious.read_text() == "mine"
