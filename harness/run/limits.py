# SPDX-License-Identifier: Apache-2.0
"""The time-out of a whole run, and those of steps in a guest that is slower than what they were written for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError, HostError, TimeLimitError
from harness.plan import Step
from harness.run.result import Outcome, StepTimeout
from harness.run.system import Done

_NOT_JUDGED = (Outcome.unknown, Outcome.not_executable)


@contextlib.contextmanager
def limited(deadline: Deadline, of: str, where: Callable[[], str]) -> Iterator[None]:
    """Say of an error that came when the time of ``of`` was over that this is why; ``where`` ends the sentence.

    What was waited for last had only what was left of that time: its own number of seconds, and whom it blames, say
    nothing.
    """
    try:
        yield
    except (GuestError, HostError) as error:
        if not deadline.expired:
            raise
        at = where()
        if isinstance(error, GuestNotReadyError) and error.awaited:
            at = f": the guest reached stage {error.stage or 'power-on'}, awaited was {error.awaited}"
        raise TimeLimitError(
            f"the time-out of {of}, {deadline.seconds:g} s, was over{at}", hint="give it more with --timeout"
        ) from error


def limit_of(step: Step, slowness: float) -> StepTimeout | None:
    """The time-out of ``step`` in a guest that is ``slowness`` times slower than a machine; None where it has none."""
    if step.timeout is None:
        return None
    return StepTimeout(step.timeout, round(step.timeout * slowness, 1) if slowness > 1 else step.timeout)


def within(done: Done, limit: StepTimeout | None) -> Done:
    """``done`` with what its time says. Whoever wrote the time-out did not mean an emulated guest: a step that took
    longer than that and ended within the stretched one is a warning, and one that was stopped says both numbers.
    """
    if limit is None or limit.used <= limit.asked or done.result is None or done.outcome in _NOT_JUDGED:
        return done
    times = f"{limit.used / limit.asked:.3g} times"
    if done.result.timed_out:
        said = f"its author gave it {limit.asked:g} s, stretched {times} because this guest is emulated"
        return replace(done, finding=_joined(done.finding, said))
    if done.result.seconds <= limit.asked:
        return done
    said = f"it took {done.result.seconds:.1f} s, longer than its time-out of {limit.asked:g} s, "
    said += f"which is stretched {times} to {limit.used:g} s because this guest is emulated"
    outcome = Outcome.warned if done.outcome is Outcome.succeeded else done.outcome
    return replace(done, outcome=outcome, finding=_joined(done.finding, said))


def _joined(finding: str | None, said: str) -> str:
    return f"{finding}; {said}" if finding else said
