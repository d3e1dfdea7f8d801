# SPDX-License-Identifier: Apache-2.0
"""One line for everything that happens, for logs and for whoever reads them later."""

from __future__ import annotations

from datetime import UTC
from typing import TextIO

from harness.report.text import Masker, Shown, duration
from harness.run import events
from harness.run.result import Outcome, StepResult
from harness.wincmd import starts_powershell

_SHOWN_OUTPUT = 20
"""Lines of a stream shown of a step that did not succeed."""


class PlainReport:
    """A subscriber that writes lines ``HH:MM:SS what`` (UTC) to ``stream``."""

    def __init__(self, stream: TextIO, masker: Masker) -> None:
        self._stream = stream
        self._shown = Shown(masker)

    def __call__(self, event: events.Event) -> None:
        for line in self._lines(event):
            self._stream.write(f"{event.at.astimezone(UTC):%H:%M:%S} {line}\n")
        self._stream.flush()

    def _lines(self, event: events.Event) -> list[str]:
        line = self._shown.line
        match event:
            case events.RunStarted():
                return [f"run {line(event.run)}: {line(event.title)}"]
            case events.MachineChosen(image=image, accelerator=accelerator):
                image_said = f"image {image.name} ({image.key[:12]})" if image else ""
                engine_said = f"engine {image.engine}" if image and image.engine else ""
                accelerated = f"accelerator {accelerator.kind}: {line(accelerator.reason)}" if accelerator else ""
                return [said for said in (image_said, engine_said, accelerated) if said]
            case events.PhaseStarted():
                awaited = f", waiting for {line(event.awaits)}" if event.awaits else ""
                limit = f" (at most {duration(event.limit)})" if event.limit else ""
                return [f"{line(event.name)}{awaited}{limit}"]
            case events.PhaseFinished():
                return [f"{line(event.name)} {'done' if event.ok else 'failed'} after {duration(event.seconds)}"]
            case events.StageReached():
                return [f"the guest is at stage {line(event.stage)}"]
            case events.Notice():
                hint = f" ({line(event.hint, 400)})" if event.hint else ""
                return [f"{event.severity}: {line(event.text, 600)}{hint}"]
            case events.SpecializationRead():
                wrong = [seen for seen in event.observations if not seen.ok]
                right = f"{len(event.observations) - len(wrong)} of {len(event.observations)} settings are as wanted"
                return [f"specialization read back: {right}"] + [
                    f"warning: {line(seen.name)} is {line(seen.observed)}, wanted was {line(seen.wanted)}"
                    for seen in wrong
                ]
            case events.StepStarted():
                starts = ", PowerShell starts" if starts_powershell(event.command) else ""
                return [f"step {line(event.id)} begins{starts}: {line(event.command or event.name, 400)}"]
            case events.StepFinished():
                return step_lines(event.step, self._shown)
            case events.RunRepeatable():
                return [f"again: {self._shown.text(event.command)}"] + (
                    [f"from that step: {self._shown.text(event.replay)}"] if event.replay else []
                )
            case events.RunFinished(result=result):
                blame = f", blame: {result.blame}" if result.blame else ""
                took = f" after {duration(event.seconds)}" if event.seconds is not None else ""
                ours = f"; vmrole itself ends with exit code {event.exit_code}"  # the summary may name a step's
                return [f"{result.verdict}{took}: {line(result.summary, 600)}{blame}{ours}"]
            case _:
                return []


def step_lines(step: StepResult, shown: Shown) -> list[str]:
    """A finished step: its outcome, and the end of what it wrote when it did not succeed."""
    code = "" if step.exit_code is None else f", exit code {step.exit_code}"
    took = f" after {duration(step.seconds)}" if step.seconds is not None else ""
    why = f": {shown.line(step.finding, 400)}" if step.finding else ""
    lines = [f"step {shown.line(step.id)} {str(step.outcome).replace('_', ' ')}{took}{code}{why}"]
    if step.outcome in (Outcome.failed, Outcome.timed_out, Outcome.warned, Outcome.unknown):
        for name, text in (("stdout", step.stdout), ("stderr", step.stderr)):
            end = shown.text(text).rstrip("\n").split("\n")[-_SHOWN_OUTPUT:]
            lines += [f"  {name}: {line}" for line in end if line]
    return lines
