# SPDX-License-Identifier: Apache-2.0
"""Folds the events of a run into its result."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from harness.machine.protocol import Accelerator
from harness.run import events
from harness.run.result import (
    Conclusion,
    ImageFacts,
    InstanceResult,
    Outcome,
    PhaseResult,
    RunResult,
    StepResult,
    Verdict,
    utc_now,
)


class Recorder:
    """A subscriber that always knows the result so far."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        """What the notices of severity warning said so far."""
        self._run = ""
        self._started: datetime = utc_now()
        self._image: ImageFacts | None = None
        self._accelerator: Accelerator | None = None
        self._forked = False
        self._fork_reason: str | None = None
        self._instances: dict[str, InstanceResult] = {}
        self._warm: set[str] = set()
        """Instances of which an engine that stood by ran a step."""
        self._final: RunResult | None = None

    @property
    def instances(self) -> tuple[InstanceResult, ...]:
        engine = self._image.engine if self._image else None

        def of(instance: InstanceResult) -> InstanceResult:
            own = dataclasses.replace(engine, warm=instance.id in self._warm) if engine else None
            return dataclasses.replace(instance, engine=own)

        return tuple(of(instance) for instance in self._instances.values())

    def result(self, conclusion: Conclusion | None = None) -> RunResult:
        """The result as far as it is known; before the end it says "interrupted", which is what a reader who finds
        it after a crash has to know."""
        if self._final is not None:
            return self._final
        return RunResult(
            run=self._run,
            started=self._started,
            image=self._image,
            accelerator=self._accelerator,
            forked=self._forked,
            fork_reason=self._fork_reason,
            verdict=conclusion.verdict if conclusion else Verdict.interrupted,
            blame=conclusion.blame if conclusion else None,
            summary=conclusion.summary if conclusion else "the run has not finished",
            instances=self.instances,
        )

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._run, self._started = event.run, event.at
            case events.MachineChosen():
                self._image = event.image or self._image
                self._accelerator = event.accelerator or self._accelerator
                self._forked = self._forked if event.forked is None else event.forked
                self._fork_reason = event.fork_reason or self._fork_reason
            case events.Notice(severity="warning"):
                self.warnings.append(event.text)
            case events.PhaseStarted():
                before = self._of(event.instance)
                phases = (*before.phases, PhaseResult(event.name, event.at, None))
                self._set(dataclasses.replace(before, phases=phases))
            case events.PhaseFinished():
                before = self._of(event.instance)
                self._set(dataclasses.replace(before, phases=_finish(before.phases, event)))
            case events.SpecializationRead():
                self._set(
                    dataclasses.replace(
                        self._of(event.instance),
                        specialization=event.observations,
                        certificates=event.certificates,
                        local_resources=event.local_resources,
                    )
                )
            case events.StepStarted():
                # Until it has finished: whatever ends the run now, a crash of this process too, interrupts it.
                outcome = Outcome.interrupted
                self._step(
                    event.instance,
                    StepResult(
                        event.id,
                        event.name,
                        event.kind,
                        outcome,
                        event.command,
                        started=event.at,
                        timeout=event.timeout,
                    ),
                )
            case events.StepFinished():
                if event.warm:
                    self._warm.add(event.instance)
                self._step(event.instance, event.step)
            case events.RunFinished():
                self._final = event.result
            case _:
                pass

    def _of(self, instance: str) -> InstanceResult:
        return self._instances.get(instance) or InstanceResult(instance)

    def _set(self, instance: InstanceResult) -> None:
        self._instances[instance.id] = instance

    def _step(self, instance: str, step: StepResult) -> None:
        before = self._of(instance)
        steps = {known.id: known for known in before.steps} | {step.id: step}
        self._set(dataclasses.replace(before, steps=tuple(steps.values())))


def _finish(phases: tuple[PhaseResult, ...], event: events.PhaseFinished) -> tuple[PhaseResult, ...]:
    """The phases with the last open one of that name closed; phases may be nested."""
    done = list(phases)
    for index in reversed(range(len(done))):
        if done[index].name == event.name and done[index].seconds is None:
            done[index] = dataclasses.replace(done[index], seconds=event.seconds)
            return tuple(done)
    return (*phases, PhaseResult(event.name, event.at, event.seconds))
