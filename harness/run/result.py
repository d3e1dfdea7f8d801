# SPDX-License-Identifier: Apache-2.0
"""The result of a run as result.json has it, field for field, and the verdict that follows from it."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.errors import Blame, HarnessError, VmRoleError
from harness.files import refusal
from harness.guest.wintext import whole_characters
from harness.machine.protocol import Accelerator
from harness.run.readback import Observation

if TYPE_CHECKING:
    from harness.image.recipe import Image

SCHEMA = 1
MAX_TEXT = 64 * 1024
"""Bytes of a stream that go into result.json; the run directory has the whole stream."""


_NEARBY = 500
_INNER = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that no character begins with."""


class Outcome(StrEnum):
    """What became of one step."""

    succeeded = "succeeded"
    warned = "warned"
    failed = "failed"
    timed_out = "timed_out"
    skipped = "skipped"
    not_applicable = "not_applicable"
    not_executable = "not_executable"
    interrupted = "interrupted"
    """Guest, host, harness or the user ended it."""
    unknown = "unknown"
    """What became of it was not learnt: its answer was lost, or two answers from the same checkpoint differ."""


class Verdict(StrEnum):
    """What became of the run."""

    succeeded = "succeeded"
    warnings = "warnings"
    incomplete = "incomplete"
    failed = "failed"
    error = "error"
    interrupted = "interrupted"


def utc_now() -> datetime:
    return datetime.now(UTC)


def iso(moment: datetime | None) -> str | None:
    """UTC ISO 8601 with milliseconds and Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_of(data: bytes, limit: int = MAX_TEXT) -> str:
    """A guest's stream as text: UTF-8 read leniently, the middle left out past ``limit`` bytes, and saying so.

    ``data`` is masked already: half a secret would escape the mask. The cut is between lines where one
    ends nearby.
    """
    if len(data) <= limit:
        return data.decode("utf-8", "replace")
    half = limit // 2
    head, tail = whole_characters(data[:half]), data[-half:]
    tail = tail[:3].lstrip(_INNER) + tail[3:]
    if b"\n" in head[-_NEARBY:]:
        head = head.rpartition(b"\n")[0]
    if b"\n" in tail[:_NEARBY]:
        tail = tail.partition(b"\n")[2]
    out = len(data) - len(head) - len(tail)
    return f"{head.decode('utf-8', 'replace')}\n[... {out} bytes left out ...]\n{tail.decode('utf-8', 'replace')}"


@dataclass(frozen=True, slots=True)
class Engine:
    """What a stand-in for Windows runs its steps with: versions as its packages have them."""

    wine: str
    powershell: str | None = None
    """None when no PowerShell was supplied, or its version cannot be told."""
    warm: bool = False
    """Whether an engine of PowerShell that stood by ran a step."""

    def __str__(self) -> str:
        return f"Wine {self.wine}" + (f", PowerShell {self.powershell}" if self.powershell else "")

    def to_json(self) -> dict[str, Any]:
        return {"wine": self.wine, "powershell": self.powershell, "warm": self.warm}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image a run used."""

    name: str
    key: str
    stand_in: bool = False
    engine: Engine | None = None
    """None but for a stand-in."""

    @classmethod
    def of(cls, image: Image) -> ImageFacts:
        """What the image's own record says; no guest is asked."""
        versions = dict(package.split("=", 1) for package in image.packages)
        wine, stand_in = versions.get("libwine"), image.recipe.stand_in
        # Of Debian's 10.0~repack-6 what Wine itself calls its version.
        engine = Engine(re.split("[~+-]", wine)[0], versions.get("powershell")) if stand_in and wine else None
        return cls(image.recipe.name, image.key, stand_in, engine)


@dataclass(frozen=True, slots=True)
class CertificateResult:
    """A certificate in the machine; ``path`` is a path of the guest."""

    thumbprint: str
    store: str
    path: str


@dataclass(frozen=True, slots=True)
class LocalResourceResult:
    """A local resource in the machine; ``path`` is a path of the guest."""

    name: str
    path: str
    size_mb: int


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A phase of one instance; ``seconds`` is None while it lasts."""

    name: str
    started: datetime
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "started": iso(self.started), "seconds": _seconds(self.seconds)}


@dataclass(frozen=True, slots=True)
class StepTimeout:
    """The time-out of a step in seconds: what its author ``asked`` for, and what was ``used`` in this guest."""

    asked: float
    used: float

    def to_json(self) -> dict[str, Any]:
        return {"asked": _seconds(self.asked), "used": _seconds(self.used)}


@dataclass(frozen=True, slots=True)
class PretendedCall:
    """A call of a command that the stand-in guest only pretends to have; ``parameters`` are JSON values by name."""

    command: str
    parameters: Mapping[str, Any]

    def __str__(self) -> str:
        first = next((value for value in self.parameters.values() if isinstance(value, str | list) and value), "")
        words = first if isinstance(first, str) else ",".join(str(part) for part in first)
        return " ".join([self.command, *words.split()])

    def to_json(self) -> dict[str, Any]:
        return {"command": self.command, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step; what did not run has no exit code, start or duration. Streams are text, shortened by ``text_of``.
    ``timeout`` is None where the step has none."""

    id: str
    name: str
    kind: str
    outcome: Outcome
    command: str = ""
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    started: datetime | None = None
    seconds: float | None = None
    after_unexecuted: bool = False
    timeout: StepTimeout | None = None
    finding: str | None = None
    """Why the outcome is what it is, one sentence; None for plain success."""
    pretended: tuple[PretendedCall, ...] = ()
    """What it called that was only pretended: it proves nothing then."""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "outcome": str(self.outcome),
            "command": self.command,
            "exit_code": self.exit_code,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "started": iso(self.started),
            "seconds": _seconds(self.seconds),
            "after_unexecuted": self.after_unexecuted,
            "timeout": self.timeout.to_json() if self.timeout else None,
            "finding": self.finding,
            "pretended": [call.to_json() for call in self.pretended],
        }


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """One machine of the run."""

    id: str
    specialization: tuple[Observation, ...] = ()
    certificates: tuple[CertificateResult, ...] = ()
    local_resources: tuple[LocalResourceResult, ...] = ()
    phases: tuple[PhaseResult, ...] = ()
    steps: tuple[StepResult, ...] = ()
    engine: Engine | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "engine": self.engine.to_json() if self.engine else None,
            "specialization": [
                {"name": o.name, "wanted": o.wanted, "observed": o.observed, "ok": o.ok, "provable": o.provable}
                for o in self.specialization
            ],
            "certificates": [{"thumbprint": c.thumbprint, "store": c.store, "path": c.path} for c in self.certificates],
            "local_resources": [{"name": r.name, "path": r.path, "size_mb": r.size_mb} for r in self.local_resources],
            "phases": [phase.to_json() for phase in self.phases],
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """The whole run. ``image`` and ``accelerator`` are None when it ended before they were known."""

    run: str
    started: datetime
    image: ImageFacts | None
    accelerator: Accelerator | None
    verdict: Verdict
    blame: Blame | None
    summary: str
    instances: tuple[InstanceResult, ...] = field(default=())
    forked: bool = False
    fork_reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """result.json, not masked. Every key is always there."""
        image, accelerator = self.image, self.accelerator
        return {
            "schema": SCHEMA,
            "run": self.run,
            "started": iso(self.started),
            "image": {
                "name": image.name if image else None,
                "key": image.key if image else None,
                "stand_in": image.stand_in if image else False,
            },
            "accelerator": {
                "kind": accelerator.kind if accelerator else None,
                "reason": accelerator.reason if accelerator else None,
            },
            "forked": self.forked,
            "fork_reason": self.fork_reason,
            "verdict": str(self.verdict),
            "blame": self.blame,
            "summary": self.summary,
            "instances": [instance.to_json() for instance in self.instances],
        }


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a run ended, and what the command returns for it."""

    verdict: Verdict
    blame: Blame | None
    summary: str
    exit_code: int


def conclude(
    instances: Sequence[InstanceResult],
    *,
    error: BaseException | None = None,
    warnings: Sequence[str] = (),
    strict: bool = False,
    allow_unexecuted: bool = False,
    signum: int | None = None,
) -> Conclusion:
    """The verdict of a run, its blame, one sentence, and the exit code that belongs to it.

    ``error`` is what ended it early, ``warnings`` are those that are not of steps, ``signum`` is the signal that
    interrupted it. Interrupted goes before failed, then error, incomplete, warnings, succeeded.
    """
    if signum is not None or isinstance(error, KeyboardInterrupt):
        number = signum or signal.SIGINT
        return Conclusion(
            Verdict.interrupted, None, f"the run was interrupted by {signal.Signals(number).name}", 128 + number
        )
    steps = [step for instance in instances for step in instance.steps]
    broken = [step for step in steps if step.outcome in (Outcome.failed, Outcome.timed_out)]
    if broken:
        return Conclusion(Verdict.failed, "extension", _what_failed(broken[0]), 1)
    if error is not None:
        return _from_error(error)
    if lost := [step for step in steps if step.outcome in (Outcome.interrupted, Outcome.unknown)]:
        return Conclusion(Verdict.error, "guest", _what_failed(lost[0]), 3)
    unexecuted = [step for step in steps if step.outcome is Outcome.not_executable]
    warned = [step for step in steps if step.outcome is Outcome.warned]
    unlike = [seen for instance in instances for seen in instance.specialization if not seen.ok and seen.provable]
    count = len(warnings) + len(warned) + len(unlike)
    pretended = [step for step in steps if step.pretended and step.outcome is not Outcome.not_executable]
    if unexecuted or pretended:
        code = 1 if strict and count else 0 if allow_unexecuted else 4
        told = [f"{counted(len(unexecuted), 'step')} could not be executed here"] if unexecuted else []
        told += [f"{counted(len(pretended), 'step')} called what is only pretended"] if pretended else []
        said = f"nothing failed, but {' and '.join(told)}"
        return Conclusion(Verdict.incomplete, None, said, code)
    ran = counted(sum(step.outcome in (Outcome.succeeded, Outcome.warned) for step in steps), "step")
    if count:
        if warned:
            said = f"{ran} ran with {counted(count, 'warning')}: {_what_failed(warned[0])}"
        else:
            why = warnings[0] if warnings else f"{unlike[0].name} is {unlike[0].observed}, not {unlike[0].wanted}"
            said = f"{ran} succeeded, with {counted(count, 'warning')}: {' '.join(why.split())}"
        return Conclusion(Verdict.warnings, "extension" if strict and warned else None, said, 1 if strict else 0)
    return Conclusion(Verdict.succeeded, None, f"{ran} succeeded", 0)


def _from_error(error: BaseException) -> Conclusion:
    if isinstance(error, OSError):
        error = refusal(error)
    if not isinstance(error, VmRoleError):
        # Only errors of our own are raised on purpose; anything else is a bug.
        error = HarnessError(f"unexpected {type(error).__name__}: {error}")
    verdict = Verdict.failed if error.blame == "extension" else Verdict.error
    return Conclusion(verdict, error.blame, error.message, error.exit_code)


def _what_failed(step: StepResult) -> str:
    if step.outcome is Outcome.timed_out:
        what = f"step {step.id} was stopped at its time-out"
    elif step.outcome is Outcome.interrupted:
        what = f"step {step.id} was interrupted"
    elif step.outcome is Outcome.unknown:
        what = f"what became of step {step.id} is not known"
    elif step.exit_code is None:
        what = f"step {step.id} failed"
    else:
        what = f"step {step.id} {'warned' if step.outcome is Outcome.warned else 'failed'} with exit code "
        what += str(step.exit_code)
    return f"{what}: {step.finding}" if step.finding else what


def counted(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
