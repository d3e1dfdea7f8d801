# SPDX-License-Identifier: Apache-2.0
"""The shape of result.json, the verdicts and the events."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.errors import ExtensionError, GuestError, HarnessError, HostError, PackageError, UsageError
from harness.image import catalog
from harness.image.recipe import Image
from harness.machine.protocol import Accelerator
from harness.run import events
from harness.run.events import EventBus
from harness.run.readback import Observation
from harness.run.recorder import Recorder
from harness.run.result import (
    CertificateResult,
    Engine,
    ImageFacts,
    InstanceResult,
    LocalResourceResult,
    Outcome,
    PhaseResult,
    RunResult,
    StepResult,
    Verdict,
    conclude,
    text_of,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
STEP = StepResult("run-once-1", "RunOnce 1", "run-once", Outcome.succeeded, "echo hi", 0, "hi\n", "", AT, 0.25)


def step(outcome: str, exit_code: int | None = 0, **more: object) -> StepResult:
    return dataclasses.replace(STEP, outcome=Outcome(outcome), exit_code=exit_code, **more)  # type: ignore[arg-type]


def instance(*steps: StepResult, ok: bool = True) -> InstanceResult:
    return InstanceResult("0", (Observation("clock", "a", "b", ok),), steps=steps)


def test_shape_of_the_result() -> None:
    result = RunResult(
        run="r",
        started=AT,
        image=ImageFacts("debian-12", "abc", False),
        accelerator=Accelerator("tcg", "no /dev/kvm"),
        verdict=Verdict.warnings,
        blame=None,
        summary="s",
        instances=(
            InstanceResult(
                "0",
                (Observation("computer-name", "A", "B", False),),
                (CertificateResult("00", "My", "/c"),),
                (LocalResourceResult("Work", "/resources/Work", 100),),
                (PhaseResult("boot", AT, 1.23456), PhaseResult("steps", AT, None)),
                (STEP,),
            ),
        ),
    )
    assert json.loads(json.dumps(result.to_json())) == {
        "schema": 1,
        "run": "r",
        "started": "2026-01-02T03:04:05.678Z",
        "image": {"name": "debian-12", "key": "abc", "stand_in": False},
        "accelerator": {"kind": "tcg", "reason": "no /dev/kvm"},
        "forked": False,
        "fork_reason": None,
        "verdict": "warnings",
        "blame": None,
        "summary": "s",
        "instances": [
            {
                "id": "0",
                "engine": None,
                "specialization": [
                    {"name": "computer-name", "wanted": "A", "observed": "B", "ok": False, "provable": True}
                ],
                "certificates": [{"thumbprint": "00", "store": "My", "path": "/c"}],
                "local_resources": [{"name": "Work", "path": "/resources/Work", "size_mb": 100}],
                "phases": [
                    {"name": "boot", "started": "2026-01-02T03:04:05.678Z", "seconds": 1.235},
                    {"name": "steps", "started": "2026-01-02T03:04:05.678Z", "seconds": None},
                ],
                "steps": [
                    {
                        "id": "run-once-1",
                        "name": "RunOnce 1",
                        "kind": "run-once",
                        "outcome": "succeeded",
                        "command": "echo hi",
                        "exit_code": 0,
                        "stdout": "hi\n",
                        "stderr": "",
                        "started": "2026-01-02T03:04:05.678Z",
                        "seconds": 0.25,
                        "after_unexecuted": False,
                        "timeout": None,
                        "finding": None,
                        "pretended": [],
                    }
                ],
            }
        ],
    }


def test_a_run_that_never_got_anywhere_has_every_key() -> None:
    document = Recorder().result().to_json()
    assert document["image"] == {"name": None, "key": None, "stand_in": False}
    assert document["accelerator"] == {"kind": None, "reason": None}
    assert (document["verdict"], document["summary"]) == ("interrupted", "the run has not finished")


OK, WARNED, FAILED = step("succeeded"), step("warned", 3), step("failed", 5)
UNEXECUTED, CUT, UNKNOWN = step("not_executable", None), step("interrupted", None), step("unknown", None)


@pytest.mark.parametrize(
    ("steps", "options", "verdict", "blame", "code"),
    [
        ([OK], {}, "succeeded", None, 0),
        ([OK, step("not_applicable", None)], {"strict": True}, "succeeded", None, 0),
        ([OK, WARNED], {}, "warnings", None, 0),
        ([OK, WARNED], {"strict": True}, "warnings", "extension", 1),
        ([OK], {"warnings": ("w",)}, "warnings", None, 0),
        ([OK], {"warnings": ("w",), "strict": True}, "warnings", None, 1),
        ([OK, UNEXECUTED], {}, "incomplete", None, 4),
        ([OK, UNEXECUTED], {"strict": True}, "incomplete", None, 4),
        ([OK, UNEXECUTED], {"allow_unexecuted": True}, "incomplete", None, 0),
        ([UNEXECUTED, WARNED], {"allow_unexecuted": True}, "incomplete", None, 0),
        ([UNEXECUTED, WARNED], {"allow_unexecuted": True, "strict": True}, "incomplete", None, 1),
        ([OK, FAILED, UNEXECUTED], {"allow_unexecuted": True}, "failed", "extension", 1),
        ([step("timed_out", None)], {}, "failed", "extension", 1),
        ([step("failed", None)], {}, "failed", "extension", 1),
        ([step("failed", None)], {"error": GuestError("g")}, "failed", "extension", 1),
        ([CUT], {}, "error", "guest", 3),
        ([UNKNOWN, WARNED], {"allow_unexecuted": True}, "error", "guest", 3),
        ([OK, UNKNOWN], {"error": HarnessError("h")}, "error", "harness", 3),
        ([OK], {"error": GuestError("g")}, "error", "guest", 3),
        ([CUT], {"error": GuestError("g")}, "error", "guest", 3),
        ([FAILED, CUT], {"error": GuestError("g")}, "failed", "extension", 1),
        ([WARNED], {"error": HostError("h")}, "error", "host", 3),
        ([], {"error": PackageError("p")}, "error", "package", 2),
        ([], {"error": UsageError("u")}, "error", None, 2),
        ([], {"error": ExtensionError("e")}, "failed", "extension", 1),
        ([], {"error": RuntimeError("bug")}, "error", "harness", 3),
        ([FAILED], {"error": KeyboardInterrupt()}, "interrupted", None, 130),
        ([OK], {"signum": signal.SIGTERM}, "interrupted", None, 143),
    ],
)
def test_verdicts(
    steps: list[StepResult], options: dict[str, object], verdict: str, blame: str | None, code: int
) -> None:
    found = conclude([instance(*steps)], **options)  # type: ignore[arg-type]
    assert (found.verdict, found.blame, found.exit_code) == (verdict, blame, code)
    assert found.summary
    assert "\n" not in found.summary


def test_summaries() -> None:
    assert conclude([instance(OK, OK)]).summary == "2 steps succeeded"
    assert conclude([instance(step("failed", 5, finding="no such file"))]).summary == (
        "step run-once-1 failed with exit code 5: no such file"
    )
    assert conclude([instance(OK, WARNED)]).summary == (
        "2 steps ran with 1 warning: step run-once-1 warned with exit code 3"
    )
    assert conclude([instance(OK)], warnings=("the image lacks the tag R2", "no key")).summary == (
        "1 step succeeded, with 2 warnings: the image lacks the tag R2"
    )
    assert conclude([instance(UNEXECUTED)]).summary == "nothing failed, but 1 step could not be executed here"


def test_a_setting_that_is_not_as_wanted_is_a_warning() -> None:
    found = conclude([instance(OK, ok=False)])
    assert (found.verdict, found.summary) == ("warnings", "1 step succeeded, with 1 warning: clock is b, not a")


def test_long_streams_are_shortened_between_words() -> None:
    assert text_of(b"a\xffb") == "a\ufffdb"
    lines = b"".join(b"line %d\n" % n for n in range(10_000))
    short = text_of(lines, 1000)
    assert len(short) < 1100
    assert short.startswith("line 0\nline 1\n")
    assert short.endswith("line 9999\n")
    assert all(line.startswith(("line ", "[... ")) for line in short.splitlines())
    assert text_of(b"x" * 5000, 1000) == "x" * 500 + "\n[... 4000 bytes left out ...]\n" + "x" * 500


def test_a_result_names_what_a_stand_in_is_made_of() -> None:
    recipe = catalog.load("windows-stand-in").recipe
    none, at = Path("/none"), "2026-01-01T00:00:00Z"
    packages = ("libwine=11.2~rc1+deb14u1", "powershell=7.4.6", "powershell.zip=ab", "wine64=9.9")
    image = Image(recipe, "k", none, None, None, "1", none, at, packages)
    recorder, bus = Recorder(), EventBus()
    bus.subscribe(recorder)
    with bus.phase("image"):
        bus.emit(events.MachineChosen(image=ImageFacts.of(image)))
    [only] = recorder.result().to_json()["instances"]
    assert only["engine"] == {"wine": "11.2", "powershell": "7.4.6", "warm": False}
    bare = dataclasses.replace(image, packages=packages[:1])
    assert ImageFacts.of(bare).engine == Engine("11.2")
    assert str(Engine("11.2", "7.4.6")) == "Wine 11.2, PowerShell 7.4.6"
    assert ImageFacts.of(dataclasses.replace(image, recipe=catalog.load("debian-12").recipe)).engine is None


def test_recorder() -> None:
    recorder, bus = Recorder(), EventBus()
    bus.subscribe(recorder)
    bus.emit(events.RunStarted(run="r", title="t", at=AT))
    bus.emit(events.MachineChosen(image=ImageFacts("i", "k")))
    bus.emit(events.MachineChosen(accelerator=Accelerator("kvm", "probed"), forked=True))
    bus.notice("warning", "careful")
    with bus.phase("boot"), bus.phase("inner"):
        bus.emit(events.StageReached(stage="booting"))
    bus.emit(events.SpecializationRead(observations=(Observation("a", "b", "c", True),)))
    bus.emit(events.StepStarted(id="s", name="n", kind="k", command="c", at=AT))
    assert conclude(recorder.instances, error=GuestError("gone")).blame == "guest"
    bus.emit(events.StepFinished(step=dataclasses.replace(STEP, id="s")))
    with pytest.raises(RuntimeError), bus.phase("steps"):
        raise RuntimeError
    conclusion = conclude(recorder.instances, warnings=recorder.warnings)
    result = recorder.result(conclusion)
    assert (result.run, result.started, result.forked, result.verdict) == ("r", AT, True, "warnings")
    [only] = result.instances
    assert [(p.name, p.seconds is not None) for p in only.phases] == [("boot", True), ("inner", True), ("steps", True)]
    assert [s.outcome for s in only.steps] == ["succeeded"]
    bus.emit(events.RunFinished(result=result, exit_code=0))
    assert recorder.result() is result


def test_events_as_json() -> None:
    started = events.StepStarted(id="s", name="n", kind="k", at=AT).to_json()
    assert started == {
        "event": "step-started",
        "at": "2026-01-02T03:04:05.678Z",
        "id": "s",
        "name": "n",
        "kind": "k",
        "command": "",
        "timeout": None,
        "instance": "0",
    }
    finished = events.StepFinished(step=STEP, stdout=b"hi\n").to_json()
    assert finished["step"]["id"] == "run-once-1"
    assert set(finished) == {"event", "at", "step", "instance"}
    ended = events.RunFinished(result=Recorder().result(), exit_code=3).to_json()
    assert (ended["event"], ended["verdict"], ended["exit_code"]) == ("run-finished", "interrupted", 3)
    assert "result" not in ended
    seen = events.SpecializationRead(observations=(Observation("a", "b", "c", True),)).to_json()
    assert seen["observations"] == [{"name": "a", "wanted": "b", "observed": "c", "ok": True, "provable": True}]
    json.dumps([started, finished, ended, seen])


def test_a_report_that_breaks_is_dropped_and_told_of() -> None:
    bus = EventBus()
    seen: list[events.Event] = []
    calls = 0

    def broken(event: events.Event) -> None:
        nonlocal calls
        calls += 1
        raise OSError("disk full")

    bus.subscribe(broken)
    bus.subscribe(seen.append)
    bus.emit(events.RunStarted(run="r", title="t"))
    bus.emit(events.StageReached(stage="booting"))
    assert calls == 1
    assert [type(event).__name__ for event in seen] == ["RunStarted", "Notice", "StageReached"]
    [failure] = bus.failures
    assert (failure.subscriber, str(failure.error)) == ("broken", "disk full")
    assert isinstance(seen[1], events.Notice)
    assert "disk full" in seen[1].text


def test_an_interruption_goes_through_a_report() -> None:
    def interrupted(event: events.Event) -> None:
        raise KeyboardInterrupt

    bus = EventBus()
    bus.subscribe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.emit(events.StageReached(stage="booting"))
    assert bus.failures == ()


def test_events_from_many_threads() -> None:
    bus = EventBus()
    seen: list[events.Event] = []
    bus.subscribe(seen.append)

    def tell() -> None:
        for number in range(100):
            bus.notice("note", str(number))

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
