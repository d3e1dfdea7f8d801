# SPDX-License-Identifier: Apache-2.0
"""What happens in a run, as events; reports subscribe to them and nobody who emits knows a report."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal

from harness.errors import HarnessError, VmRoleError
from harness.machine.protocol import Accelerator
from harness.run.readback import Observation
from harness.run.result import (
    CertificateResult,
    ImageFacts,
    InstanceResult,
    LocalResourceResult,
    RunResult,
    StepResult,
    StepTimeout,
    iso,
    utc_now,
)

Severity = Literal["note", "warning", "error"]
Subscriber = Callable[["Event"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, when (UTC)."""

    at: datetime = field(default_factory=utc_now)

    def to_json(self) -> dict[str, Any]:
        """A line of events.jsonl: ``event`` (the class, in kebab case), ``at``, and the fields. Not masked."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()
        fields = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "at" and f.metadata.get("wire", True)
        }
        return {"event": name, "at": iso(self.at)} | fields


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """``run`` is the run's name, ``title`` what is being run, in a few words.

    ``extension`` and ``version`` are the package's; ``case`` tells apart runs of one extension, e.g. the scenario that
    started it.
    """

    run: str
    title: str
    extension: str = ""
    version: str = ""
    case: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlanned(Event):
    """What is going to happen, in order, as far as it is known: phases, and (id, name) of the steps."""

    phases: tuple[str, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChosen(Event):
    """Facts of the run that became known; None is "still as it was"."""

    image: ImageFacts | None = None
    accelerator: Accelerator | None = None
    forked: bool | None = None
    fork_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(Event):
    """``awaits`` says what is being waited for, e.g. "the guest's SSH server"; ``limit`` how long, in seconds."""

    name: str
    awaits: str = ""
    limit: float | None = None
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished(Event):
    name: str
    seconds: float
    ok: bool = True
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReached(Event):
    """The guest announced a stage of docs/instance-medium.md."""

    stage: str
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A sentence for the user. Warnings count in the verdict; errors are told, the verdict has its own way."""

    severity: Severity
    text: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecializationRead(Event):
    """What the guest became, read back from it."""

    observations: tuple[Observation, ...]
    certificates: tuple[CertificateResult, ...] = ()
    local_resources: tuple[LocalResourceResult, ...] = ()
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken(Event):
    """The machine was saved before a step; ``bytes`` is what all checkpoints of the run take, ``seconds`` what it took,
    for ``paused`` of which the guest stood still."""

    step: str
    bytes: int
    seconds: float
    paused: float
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """``timeout`` is None where the step has none."""

    id: str
    name: str
    kind: str
    command: str = ""
    timeout: StepTimeout | None = None
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """A step's result. The streams as they were (capped by the guest's side) go to files, not into this event's JSON.

    Steps that never start (skipped, not applicable, not executable) have this event alone.
    """

    step: StepResult
    stdout: bytes = field(default=b"", repr=False, metadata={"wire": False})
    stderr: bytes = field(default=b"", repr=False, metadata={"wire": False})
    warm: bool = field(default=False, metadata={"wire": False})
    """Whether an engine of PowerShell that stood by ran it."""
    instance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioActed(Event):
    """What a scenario did with the guest or waited for, in words; ``told`` is what it saw when that went wrong."""

    what: str
    seconds: float
    ok: bool = True
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioEnded(Event):
    """The test that asked for the run is over; ``told`` is why it failed."""

    ok: bool
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRepeatable(Event):
    """How to do it again: the command that does exactly the same, and the one that goes on before the step that went
    wrong. Both are to be pasted into a shell; where a secret stood, they name a file that does not exist yet."""

    command: str
    replay: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The last event; its JSON has the verdict only, result.json has the rest."""

    result: RunResult = field(metadata={"wire": False})
    exit_code: int
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        ended = {"verdict": str(self.result.verdict), "blame": self.result.blame, "summary": self.result.summary}
        # Not super(): a dataclass with slots is another class than the one the compiler knows.
        return Event.to_json(self) | ended


@dataclass(frozen=True, slots=True)
class SubscriberFailure:
    """A report that broke: it gets no further events. ``required`` whether the run is nothing without it."""

    subscriber: str
    error: Exception
    required: bool = False


class EventBus:
    """Hands every event to every subscriber, in order, from any thread.

    A subscriber that raises is dropped, kept in ``failures``, and a Notice tells the others: a report must not end
    a run, and must not be lost silently either.
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._required: list[Subscriber] = []
        self._failures: list[SubscriberFailure] = []
        self._lock = threading.RLock()

    @property
    def failures(self) -> tuple[SubscriberFailure, ...]:
        return tuple(self._failures)

    @property
    def lost(self) -> VmRoleError | None:
        """Why the run has not all the reports that are required of it."""
        error = next((failure.error for failure in self._failures if failure.required), None)
        if error is None or isinstance(error, VmRoleError):
            return error
        return HarnessError(f"a report of the run broke: {type(error).__name__}: {error}")

    def subscribe(self, subscriber: Subscriber, *, required: bool = False) -> None:
        """``required``: a run whose report it is did not succeed without it."""
        with self._lock:
            self._subscribers.append(subscriber)
            if required:
                self._required.append(subscriber)

    def emit(self, event: Event) -> None:
        with self._lock:
            self._deliver(tuple(self._subscribers), event)

    def finish(self, make: Callable[[], Event]) -> None:
        """The last event: first for each of the required reports, then for all others. It is made anew after each, as
        one that broke changes how the run ended."""
        with self._lock:
            for subscriber in tuple(self._required):
                self._deliver((subscriber,), make())
            self._deliver(tuple(one for one in self._subscribers if one not in self._required), make())

    def _deliver(self, subscribers: tuple[Subscriber, ...], event: Event) -> None:
        broken: list[SubscriberFailure] = []
        for subscriber in subscribers:
            if subscriber not in self._subscribers:
                continue
            try:
                subscriber(event)
            except Exception as error:
                self._subscribers.remove(subscriber)
                broken.append(SubscriberFailure(_name(subscriber), error, subscriber in self._required))
        self._failures += broken
        for failure in broken:
            said = f"the report {failure.subscriber} failed and is not continued: {failure.error}"
            self.emit(Notice(severity="error", text=said))

    def notice(self, severity: Severity, text: str, hint: str | None = None) -> None:
        self.emit(Notice(severity=severity, text=text, hint=hint))

    @contextlib.contextmanager
    def phase(self, name: str, *, awaits: str = "", limit: float | None = None, instance: str = "0") -> Iterator[None]:
        """Emit the start and the end of a phase around a block, the end also when the block raises."""
        self.emit(PhaseStarted(name=name, awaits=awaits, limit=limit, instance=instance))
        began, ok = time.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.emit(PhaseFinished(name=name, seconds=time.monotonic() - began, ok=ok, instance=instance))


def _name(subscriber: Subscriber) -> str:
    return getattr(subscriber, "__name__", None) or type(subscriber).__name__


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, StepResult | InstanceResult | RunResult):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
