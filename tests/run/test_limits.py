# SPDX-License-Identifier: Apache-2.0
"""What becomes of time-outs, of a whole run and in an emulated guest: pure functions."""

from __future__ import annotations

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, HostError, TimeLimitError, UsageError
from harness.guest.protocol import GuestResult
from harness.plan import Step
from harness.run.limits import limit_of, limited, within
from harness.run.result import Outcome, StepTimeout, Verdict, conclude
from harness.run.system import Done


def step(timeout: float | None) -> Step:
    return Step(id="x", name="x", kind="script", os="windows", command="x", command_line="x", source="/x",
                applicable=True, account="SYSTEM", timeout=timeout)  # fmt: skip


def done(outcome: str, seconds: float, *, timed_out: bool = False, finding: str | None = None) -> Done:
    return Done(Outcome(outcome), GuestResult(None if timed_out else 0, b"", b"", seconds, timed_out), finding)


@pytest.mark.parametrize(
    ("asked", "slowness", "limit"),
    [
        (None, 7.3, None),
        (300.0, 1.0, StepTimeout(300, 300)),
        (300.0, 7.3, StepTimeout(300, 2190)),
        (1.0, 2.55, StepTimeout(1, 2.5)),
        (10**17, 40.0, StepTimeout(10**17, 4 * 10**18)),
    ],
)
def test_the_time_out_in_a_guest(asked: float | None, slowness: float, limit: StepTimeout | None) -> None:
    assert limit_of(step(asked), slowness) == limit


@pytest.mark.parametrize(
    ("before", "limit", "outcome", "said"),
    [
        (done("succeeded", 9.9), StepTimeout(10, 73), "succeeded", None),
        (done("succeeded", 10.1), None, "succeeded", None),
        (done("succeeded", 10.1), StepTimeout(10, 10), "succeeded", None),
        (done("succeeded", 14.2), StepTimeout(10, 73), "warned",
         "it took 14.2 s, longer than its time-out of 10 s, which is stretched 7.3 times to 73 s"),
        (done("failed", 14.2, finding="exit code 3"), StepTimeout(10, 73), "failed", "exit code 3; it took 14.2 s"),
        (done("warned", 14.2), StepTimeout(10, 73), "warned", "it took 14.2 s"),
        (done("timed_out", 73.1, timed_out=True, finding="stopped"), StepTimeout(10, 73), "timed_out",
         "stopped; its author gave it 10 s, stretched 7.3 times because this guest is emulated"),
        (done("warned", 73.1, timed_out=True, finding="stopped"), StepTimeout(10, 73), "warned",
         "stopped; its author gave it 10 s"),
        (done("timed_out", 10.1, timed_out=True, finding="stopped"), StepTimeout(10, 10), "timed_out", "stopped"),
        (done("not_executable", 14.2, finding="no such tool"), StepTimeout(10, 73), "not_executable", "no such tool"),
        (done("unknown", 14.2, finding="lost"), StepTimeout(10, 73), "unknown", "lost"),
        (Done(Outcome.failed, None, "lost"), StepTimeout(10, 73), "failed", "lost"),
    ],
)  # fmt: skip
def test_what_its_time_says_of_a_step(before: Done, limit: StepTimeout | None, outcome: str, said: str | None) -> None:
    after = within(before, limit)
    assert str(after.outcome) == outcome
    assert after.finding is None if said is None else (after.finding or "").startswith(said), after.finding


NOT_READY = GuestNotReadyError("not ready after 0 s", stage="booting", awaited="the agent")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GuestLostError("the guest did not run x within 0 s; the connection stands"), "while step a ran"),
        (HostError("apt-get did not finish within 0 s"), "while step a ran"),
        (NOT_READY, "the guest reached stage booting, awaited was the agent"),
    ],
)
def test_the_time_out_of_a_run_is_nobodys_fault_and_says_its_own_seconds(error: Exception, said: str) -> None:
    with pytest.raises(TimeLimitError) as caught, limited(Deadline(0), "the whole run", lambda: " while step a ran"):
        raise error
    conclusion = conclude((), error=caught.value)
    assert (conclusion.verdict, conclusion.blame, conclusion.exit_code) == (Verdict.error, None, 3)
    assert conclusion.summary.startswith("the time-out of the whole run, 0 s, was over")
    assert conclusion.summary.endswith(said)
    assert caught.value.hint == "give it more with --timeout"


@pytest.mark.parametrize(
    ("error", "seconds"), [(UsageError("no such option"), 0), (GuestError("panic"), None), (KeyboardInterrupt(), 0)]
)
def test_what_did_not_end_for_want_of_time_is_told_as_it_is(error: BaseException, seconds: float | None) -> None:
    with pytest.raises(type(error)) as caught, limited(Deadline(seconds), "the whole run", str):
        raise error
    assert caught.value is error
