# SPDX-License-Identifier: Apache-2.0
"""Executing the steps of a plan in a guest, in order, with the platform's rules for what a failure means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from harness.deadline import Deadline
from harness.errors import VmRoleError
from harness.guest.protocol import Guest
from harness.plan import Plan, Step
from harness.run.events import EventBus, StepFinished, StepStarted
from harness.run.result import Outcome, StepResult, text_of, utc_now
from harness.run.system import Done, Executor, Mask

_MOST_RUNS = 5
"""How often a step that asks for a restart and to be run again gets that."""


_REBOOT_SECONDS = 300.0


def execute(
    plan: Plan,
    executor: Executor,
    guest: Guest,
    bus: EventBus,
    *,
    deadline: Deadline,
    mask: Mask,
    before: Callable[[Step], None] = lambda _step: None,
    start: str | None = None,
) -> bool:
    """Run every step of ``plan``; whether all of them may be followed by more.

    ``mask`` takes the secrets out of a stream before anything is cut from it. ``before`` is called before each step
    that is going to be run. With ``start`` the steps before the one of that id have been run, and are ``skipped``.
    After a step that failed the deployment the others are ``skipped``. Steps of another operating system are
    ``not_applicable`` and change nothing. After one that cannot be executed here the run goes on, and what follows is
    marked as ``after_unexecuted``.
    """
    over: str | None = None
    error: BaseException | None = None
    unexecuted = False
    done_before = start is not None
    for step in plan.steps:
        done_before = done_before and step.id != start
        if not step.applicable:
            _never_started(step, Outcome.not_applicable, f"a step for {step.os}", bus)
        elif done_before:
            _never_started(step, Outcome.skipped, "it ran before the checkpoint that this run goes on from", bus)
        elif over:
            _never_started(step, Outcome.skipped, over, bus, after_unexecuted=unexecuted)
        elif why_not := executor.why_not(step):
            _never_started(step, Outcome.not_executable, why_not, bus, after_unexecuted=unexecuted)
            unexecuted = True
        else:
            try:
                before(step)
                outcome = _run(step, executor, guest, bus, deadline, mask, after_unexecuted=unexecuted)
                unexecuted = unexecuted or outcome is Outcome.not_executable
                if outcome in (Outcome.failed, Outcome.timed_out):
                    over = f"step {step.id} failed the deployment"
            except (VmRoleError, KeyboardInterrupt) as caught:
                # The result still has every step: this one cut off, those after it skipped.
                error, over = caught, f"the run ended in step {step.id}"
                why = caught.message if isinstance(caught, VmRoleError) else "the run was interrupted while it ran"
                _never_started(step, Outcome.failed, why, bus, after_unexecuted=unexecuted)
    if error:
        raise error
    return over is None


def _never_started(step: Step, outcome: Outcome, why: str, bus: EventBus, *, after_unexecuted: bool = False) -> None:
    result = StepResult(
        step.id, step.name, step.kind, outcome, step.command, after_unexecuted=after_unexecuted, finding=why
    )
    bus.emit(StepFinished(step=result))


def _run(
    step: Step,
    executor: Executor,
    guest: Guest,
    bus: EventBus,
    deadline: Deadline,
    mask: Mask,
    *,
    after_unexecuted: bool,
) -> Outcome:
    """One step with the restarts that it asks for."""
    for runs in range(1, _MOST_RUNS + 1):
        bus.emit(StepStarted(id=step.id, name=step.name, kind=step.kind, command=step.command, limit=step.timeout))
        started = utc_now()
        done = executor.run(step, guest, deadline=deadline)
        if done.rerun and runs == _MOST_RUNS:
            said = f"it asked for a restart and to be run again {_MOST_RUNS} times"
            done = Done(Outcome.failed, done.result, said)
        _finished(step, done, started, bus, mask, after_unexecuted=after_unexecuted)
        if done.reboot:
            with bus.phase("reboot", awaits="the guest to come back", limit=_REBOOT_SECONDS):
                guest.reboot(deadline=deadline.within(_REBOOT_SECONDS))
        if not done.rerun:
            break
    return done.outcome


def _finished(step: Step, done: Done, started: datetime, bus: EventBus, mask: Mask, *, after_unexecuted: bool) -> None:
    result = done.result
    stdout, stderr = (mask(result.stdout), mask(result.stderr)) if result else (b"", b"")
    told = StepResult(
        id=step.id,
        name=step.name,
        kind=step.kind,
        outcome=done.outcome,
        command=step.command,
        exit_code=result.exit_code if result else None,
        stdout=text_of(stdout),
        stderr=text_of(stderr),
        started=started,
        seconds=result.seconds if result else None,
        after_unexecuted=after_unexecuted,
        finding=done.finding,
    )
    bus.emit(StepFinished(step=told, stdout=stdout, stderr=stderr))
