# SPDX-License-Identifier: Apache-2.0
"""Executing the steps of a plan in a guest, in order, with the platform's rules for what a failure means."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from harness.deadline import Deadline
from harness.errors import VmRoleError
from harness.guest.protocol import Guest, GuestResult
from harness.plan import Plan, Step
from harness.plan.linux import EMPTY_EXIT_CODE, EMPTY_STDERR
from harness.run.events import EventBus, StepFinished, StepStarted
from harness.run.result import Outcome, StepResult, text_of, utc_now

_UNSTARTABLE = re.compile(r"\A(?:timeout|env): (?:failed to run command )?[\u2018'](.*)[\u2019']: (.+)\n?\Z", re.DOTALL)
_ERRNO = {"No such file or directory": 2, "Permission denied": 13, "Exec format error": 8}


Mask = Callable[[bytes], bytes]


def execute(
    plan: Plan,
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
    ``not_applicable`` and change nothing.
    """
    over: str | None = None
    error: BaseException | None = None
    done_before = start is not None
    for step in plan.steps:
        done_before = done_before and step.id != start
        if not step.applicable:
            _never_started(step, Outcome.not_applicable, f"a step for {step.os}", bus)
        elif done_before:
            _never_started(step, Outcome.skipped, "it ran before the checkpoint that this run goes on from", bus)
        elif over:
            _never_started(step, Outcome.skipped, over, bus)
        else:
            try:
                before(step)
                if not _run(step, guest, bus, deadline, mask):
                    over = f"step {step.id} failed the deployment"
            except (VmRoleError, KeyboardInterrupt) as caught:
                # The result still has every step: this one cut off, those after it skipped.
                error, over = caught, f"the run ended in step {step.id}"
                why = caught.message if isinstance(caught, VmRoleError) else "the run was interrupted while it ran"
                _never_started(step, Outcome.failed, why, bus)
    if error:
        raise error
    return over is None


def _never_started(step: Step, outcome: Outcome, why: str, bus: EventBus) -> None:
    bus.emit(StepFinished(step=StepResult(step.id, step.name, step.kind, outcome, step.command, finding=why)))


def _run(step: Step, guest: Guest, bus: EventBus, deadline: Deadline, mask: Mask) -> bool:
    """One step; False when it failed the deployment."""
    bus.emit(StepStarted(id=step.id, name=step.name, kind=step.kind, command=step.command, limit=step.timeout))
    started, began = utc_now(), time.monotonic()
    if step.argv:
        done = guest.run(
            step.argv,
            deadline=deadline,
            timeout=step.timeout,
            stdin=step.stdin,
            env=dict(step.environment),
            cwd=step.working_directory,
        )
        done = _as_the_agent_says(step, done)
    else:
        done = GuestResult(EMPTY_EXIT_CODE, b"", EMPTY_STDERR.encode(), time.monotonic() - began)
    outcome, finding = _judge(step, done)
    stdout, stderr = mask(done.stdout), mask(done.stderr)
    result = StepResult(
        id=step.id,
        name=step.name,
        kind=step.kind,
        outcome=outcome,
        command=step.command,
        exit_code=done.exit_code,
        stdout=text_of(stdout),
        stderr=text_of(stderr),
        started=started,
        seconds=done.seconds,
        finding=finding,
    )
    bus.emit(StepFinished(step=result, stdout=stdout, stderr=stderr))
    return outcome in (Outcome.succeeded, Outcome.warned)


def _as_the_agent_says(step: Step, done: GuestResult) -> GuestResult:
    """A program that cannot be started: exit code 1 and the words of the real Linux agent (vmrole-spec section 8)
    instead of what our way of starting it says."""
    said = done.stderr.decode("utf-8", "replace")
    unstartable = _UNSTARTABLE.match(said) if done.exit_code in (126, 127) else None
    if unstartable is None or not step.argv or unstartable[1] != step.argv[0]:
        return done
    number = _ERRNO.get(unstartable[2].strip(), 2)
    said = f"Failed to start child process '{step.argv[0]}' errno={number}  "
    return GuestResult(1, done.stdout, said.encode(), done.seconds)


def _judge(step: Step, done: GuestResult) -> tuple[Outcome, str | None]:
    """The outcome and why. A Linux command never fails a deployment: the real agent logs a warning and goes on, also
    at its time-out."""
    warns = step.on_failure == "warn"
    said: str | None
    if done.timed_out:
        said = f"it was stopped at its time-out of {step.timeout:g} s"
        return (Outcome.warned if warns else Outcome.timed_out), said
    if done.exit_code == 0:
        return Outcome.succeeded, "its output was longer than is kept" if done.truncated else None
    first = next((line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()), "")
    said = first.strip() or None  # reports shorten, after they have masked
    return (Outcome.warned if warns else Outcome.failed), said
