# SPDX-License-Identifier: Apache-2.0
"""Executing the steps of a plan in a guest, in order, with the platform's rules for what a failure means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from harness.deadline import Deadline
from harness.errors import GuestError, GuestGoingError, GuestLostError, VmRoleError
from harness.guest.protocol import Guest, RestartToCome
from harness.masking import Masker
from harness.plan import Plan, Step
from harness.quoting import SENTENCE, quoted
from harness.run.events import EventBus, StepFinished, StepStarted
from harness.run.limits import limit_of, within
from harness.run.result import Outcome, PretendedCall, StepResult, text_of, utc_now
from harness.run.system import Done, Executor

_MOST_RUNS = 5
"""How often a step that asks for a restart and to be run again gets that."""


_REBOOT_SECONDS = 300.0
_FINDING = 3 * SENTENCE
"""Characters of a finding: our reasons, with patterns of the author, and the first line that the step wrote."""


_RESTARTS = "it let the guest restart as it ended, which was waited for"
_RESTARTED = "the guest restarted while it ran, which was waited for"

Again = Callable[[Step, Guest], Guest | None]
"""Gives the guest as it was before a step whose answer was lost; None where that cannot be."""


def execute(
    plan: Plan,
    executor: Executor,
    guest: Guest,
    bus: EventBus,
    *,
    deadline: Deadline,
    masker: Masker,
    before: Callable[[Step], None] = lambda _step: None,
    again: Again = lambda _step, _guest: None,
    start: str | None = None,
    slowness: float = 1.0,
) -> bool:
    """Run every step of ``plan``; whether all of them may be followed by more.

    ``masker`` takes the secrets out of what a step said before anything is cut from it. ``before`` is called before
    each step that is going to be run. ``again`` is called when the answer of a step was lost, and the step is run once
    more in the guest that it gives. With ``start`` the steps before the one of that id have been run, and are
    ``skipped``. ``slowness`` is what the time-outs of steps are multiplied by. After a step that failed the deployment
    the others are ``skipped``. Steps of another operating system are ``not_applicable`` and change nothing. After one
    that cannot be executed here the run goes on, and what follows is marked as ``after_unexecuted``. Raises GuestError
    when what became of a step is not known.
    """
    execution = _Execution(executor, guest, bus, deadline, masker, again, slowness)
    over: str | None = None
    error: BaseException | None = None
    done_before = start is not None
    for step in plan.steps:
        done_before = done_before and step.id != start
        if not step.applicable:
            execution.not_started(step, Outcome.not_applicable, f"a step for {step.os}")
        elif done_before:
            execution.not_started(step, Outcome.skipped, "it ran before the checkpoint that this run goes on from")
        elif over:
            execution.not_started(step, Outcome.skipped, over)
        elif why_not := executor.why_not(step):
            execution.not_started(step, Outcome.not_executable, why_not)
            execution.unexecuted = True
        else:
            try:
                execution.current = step
                before(step)
                outcome = execution.run(step)
                if outcome in (Outcome.failed, Outcome.timed_out):
                    over = f"step {step.id} failed the deployment"
            except (Exception, KeyboardInterrupt) as caught:
                # The result still has every step: this one interrupted, those after it skipped.
                error, over = caught, f"the run ended in step {step.id}"
                execution.end(caught)
    if error:
        raise error
    return over is None


@dataclass(slots=True)
class _Execution:
    """The steps of one run. ``current`` is the one that has begun and of which no end was told yet."""

    executor: Executor
    guest: Guest
    bus: EventBus
    deadline: Deadline
    masker: Masker
    again: Again
    slowness: float
    coming: RestartToCome | None = None
    """Follows a restart that nobody of the run asked for."""
    current: Step | None = None
    unexecuted: bool = False
    """Whether a step before could not be executed here."""

    def not_started(self, step: Step, outcome: Outcome, why: str) -> None:
        unexecuted = self.unexecuted and outcome is not Outcome.not_applicable
        self._tell(step, Done(outcome, finding=why), after_unexecuted=unexecuted)

    def end(self, error: BaseException) -> None:
        """Tell of the step that ``error`` ended, if one was running."""
        if self.current is None:
            return
        if isinstance(error, KeyboardInterrupt):
            why = "the run was interrupted while it ran"
        elif self.deadline.expired:
            why = "the time of the whole run was over while it ran"
        else:
            why = error.message if isinstance(error, VmRoleError) else f"the harness failed while it ran: {error!r}"
        self._tell(self.current, Done(Outcome.interrupted, finding=why), after_unexecuted=self.unexecuted)

    def run(self, step: Step) -> Outcome:
        """One step with the restarts that it asks for."""
        for runs in range(1, _MOST_RUNS + 1):
            self.current = step
            limit = limit_of(step, self.slowness)
            self.bus.emit(StepStarted(id=step.id, name=step.name, kind=step.kind, command=step.command, timeout=limit))
            started = utc_now()
            done = self._answered(step)
            if done.rerun and runs == _MOST_RUNS:
                said = f"it asked for a restart and to be run again {_MOST_RUNS} times"
                done = Done(Outcome.failed, done.result, said)
            self._tell(step, done, started, after_unexecuted=self.unexecuted)
            self.unexecuted = self.unexecuted or done.outcome is Outcome.not_executable
            if done.outcome is Outcome.unknown:
                raise GuestError(f"what became of step {step.id} is not known: {done.finding}")
            if done.restarting:
                self._follow_restart()
            elif done.reboot:
                with self._restart() as deadline:
                    self.guest.reboot(deadline=deadline)
            if not done.rerun:
                break
        return done.outcome

    def _answered(self, step: Step) -> Done:
        """What became of ``step``: of one whose answer was lost the answer of another try from its checkpoint."""
        first, lost = self._try(step)
        if first.outcome is not Outcome.unknown:
            return first
        guest = self.again(step, self.guest)
        if guest is None:
            if lost:
                raise lost
            return first
        self.guest = guest
        second, lost = self._try(step)
        if lost:
            second = Done(Outcome.unknown, finding=lost.message)
        return _agreed(first, second)

    def _try(self, step: Step) -> tuple[Done, GuestLostError | None]:
        limit = limit_of(step, self.slowness)
        limited = replace(step, timeout=limit.used if limit else None)
        try:
            self.coming = self.guest.restart_to_come(deadline=self.deadline)
            try:
                done = self.executor.run(limited, self.guest, deadline=self.deadline)
            except GuestGoingError:
                self._follow_restart()
                self.bus.notice("warning", f"the guest restarted before step {step.id} began, which was run after that")
                self.coming = self.guest.restart_to_come(deadline=self.deadline)
                done = self.executor.run(limited, self.guest, deadline=self.deadline)
        except GuestLostError as error:
            return Done(Outcome.unknown, finding=error.message), error
        return _with_its_restart(within(done, limit)), None

    def _follow_restart(self) -> None:
        assert self.coming
        with self._restart() as limit:
            self.coming(limit)

    @contextlib.contextmanager
    def _restart(self) -> Iterator[Deadline]:
        with self.bus.phase("reboot", awaits="the guest to come back", limit=_REBOOT_SECONDS):
            yield self.deadline.within(_REBOOT_SECONDS)

    def _tell(self, step: Step, done: Done, started: datetime | None = None, *, after_unexecuted: bool) -> None:
        self.current = None
        result = done.result
        mask = self.masker.beginning if result and result.truncated else self.masker.bytes
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
            timeout=limit_of(step, self.slowness),
            finding=quoted(done.finding, _FINDING, mask=self.masker.bytes) if done.finding else None,
            pretended=tuple(self._masked(call) for call in done.pretended),
        )
        self.bus.emit(StepFinished(step=told, stdout=stdout, stderr=stderr, warm=done.warm))

    def _masked(self, call: PretendedCall) -> PretendedCall:
        def masked(value: Any) -> Any:
            if isinstance(value, str):
                return quoted(value, _FINDING, mask=self.masker.bytes)
            return [masked(part) for part in value] if isinstance(value, list) else value

        return replace(call, parameters={name: masked(value) for name, value in call.parameters.items()})


def _with_its_restart(done: Done) -> Done:
    """``done`` with what it says of a restart that it began and that nobody of the run asked for."""
    if not done.restarting or done.reboot:
        return done
    outcome = Outcome.warned if done.outcome is Outcome.succeeded else done.outcome
    return replace(done, outcome=outcome).noting(_RESTARTED if done.cut_short else _RESTARTS)


def _agreed(first: Done, second: Done) -> Done:
    """The ``second`` answer of a step whose ``first`` was lost, unless the two contradict each other."""
    if second.outcome is Outcome.unknown:
        finding = f"its answer was lost twice, the second time from the checkpoint before it: {second.finding}"
        return replace(second, finding=finding)
    known = first.result.exit_code if first.result else None
    code = second.result.exit_code if second.result else None
    if known is not None and known != code:
        ended = "it did not end" if code is None else f"exit code {code}"
        finding = f"two answers from the same checkpoint differ: exit code {known}, then {ended}"
        return replace(second, outcome=Outcome.unknown, finding=finding, reboot=False, rerun=False)
    return second.noting(
        f"this is its second answer: it was run again from the checkpoint before it, as {first.finding}"
    )
