# SPDX-License-Identifier: Apache-2.0
"""Progress on a terminal: what is happening, for how long, what comes next; and the result as a table."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.console import Group as Stack
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harness.report.plain import step_lines
from harness.report.text import Masker, Shown, duration
from harness.run import events
from harness.run.result import InstanceResult, Outcome, RunResult, Verdict
from harness.wincmd import starts_powershell

_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    Outcome.succeeded: ("\u2713", "green"),
    Outcome.warned: ("!", "yellow"),
    Outcome.failed: ("\u2717", "red"),
    Outcome.timed_out: ("\u2717", "red"),
    Outcome.skipped: ("-", "dim"),
    Outcome.not_applicable: ("-", "dim"),
    Outcome.not_executable: ("?", "magenta"),
    Outcome.interrupted: ("\u2717", "yellow"),
    Outcome.unknown: ("?", "red"),
}
_VERDICTS: dict[Verdict, str] = {
    Verdict.succeeded: "bold green",
    Verdict.warnings: "bold yellow",
    Verdict.incomplete: "bold magenta",
    Verdict.failed: "bold red",
    Verdict.error: "bold red",
    Verdict.interrupted: "bold yellow",
}
_SEVERITIES = {"note": "dim", "warning": "yellow", "error": "red"}


class TerminalReport:
    """A subscriber for ``stream``, a terminal. A context manager: leaving it gives the terminal back."""

    def __init__(self, stream: TextIO, masker: Masker, *, console: Console | None = None) -> None:
        self._shown = Shown(masker)
        self._console = console or Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._doing = ""
        self._awaits = ""
        self._limit: float | None = None
        self._since = time.monotonic()
        self._phases: list[str] = []
        self._steps: list[tuple[str, str]] = []

    def __enter__(self) -> TerminalReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live line away; the next event brings it back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._line(self._shown.line(event.title), "bold")
                self._begin("preparing", "")
            case events.RunPlanned():
                self._phases, self._steps = list(event.phases), list(event.steps)
            case events.MachineChosen(image=image, accelerator=accelerator):
                said = [f"image {image.name}"] if image else []
                said += [f"{accelerator.kind} ({self._shown.line(accelerator.reason)})"] if accelerator else []
                if said:
                    self._line("  " + ", ".join(said), "dim")
            case events.PhaseStarted():
                self._phases = _after(self._phases, event.name)
                self._begin(event.name, event.awaits, event.limit)
            case events.PhaseFinished():
                mark, style = ("\u2713", "green") if event.ok else ("\u2717", "red")
                self._line(f"{mark} {event.name}  {duration(event.seconds)}", style)
                self._begin("", "")
            case events.StageReached():
                self._awaits = f"the guest is at stage {self._shown.line(event.stage)}"
            case events.Notice():
                hint = f" ({self._shown.line(event.hint, 400)})" if event.hint else ""
                self._line(f"{event.severity}: {self._shown.line(event.text, 600)}{hint}", _SEVERITIES[event.severity])
            case events.SpecializationRead():
                for seen in event.observations:
                    if not seen.ok:
                        said_wrong = f"{self._shown.line(seen.name)} is {self._shown.line(seen.observed)}"
                        self._line(f"! {said_wrong}, wanted was {self._shown.line(seen.wanted)}", "yellow")
            case events.StepStarted():
                self._steps = [step for step in self._steps if step[0] != event.id]
                starts = "PowerShell starts: " if starts_powershell(event.command) else ""
                self._begin(
                    f"step {self._shown.line(event.id)}",
                    starts + self._shown.line(event.command or event.name, 100),
                    event.timeout.used if event.timeout else None,
                )
            case events.StepFinished(step=step):
                self._steps = [known for known in self._steps if known[0] != step.id]
                mark, style = _OUTCOMES[step.outcome]
                first, *rest = step_lines(step, self._shown)
                self._line(f"{mark} {first}", style)
                for line in rest:
                    self._line(f"  {line}", "dim")
                self._begin("", "")
            case events.RunRepeatable():
                self._line(f"again: {self._shown.text(event.command)}", "dim")
                if event.replay:
                    self._line(f"from that step: {self._shown.text(event.replay)}", "dim")
            case events.RunFinished():
                self.stop()
                self._finish(event)
            case _:
                pass

    def _line(self, text: str, style: str) -> None:
        """A line that stays, above the live one."""
        self._console.print(Text(text, style=style, overflow="fold"))

    def _begin(self, doing: str, awaits: str, limit: float | None = None) -> None:
        self._doing, self._awaits, self._limit, self._since = doing, awaits, limit, time.monotonic()
        if self._live is None:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=8,
                transient=True,
                # Standard output belongs to others, e.g. to the one JSON document.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _render(self) -> Stack:
        took = duration(time.monotonic() - self._since)
        limit = f" of at most {duration(self._limit)}" if self._limit else ""
        line = f"{self._doing or 'going on'}  {took}{limit}"
        if self._awaits:
            line += f"  {self._awaits}"
        spinner = Spinner("dots", text=Text(line, no_wrap=True, overflow="ellipsis"))
        following = self._next()
        if following is None:
            return Stack(spinner)
        return Stack(spinner, Text(f"  next: {following}", style="dim", no_wrap=True, overflow="ellipsis"))

    def _next(self) -> str | None:
        if self._phases:
            return self._shown.line(self._phases[0])
        if self._steps:
            more = f" and {len(self._steps) - 1} more" if len(self._steps) > 1 else ""
            return f"step {self._shown.line(self._steps[0][0])}{more}"
        return None

    def _finish(self, event: events.RunFinished) -> None:
        result = event.result
        for instance in result.instances:
            if instance.steps:
                self._console.print(self._table(instance))
        self._verdict(result, event.seconds)

    def _table(self, instance: InstanceResult) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading, options in (
            ("", {}),
            ("step", {"overflow": "fold"}),
            ("outcome", {}),
            ("exit code", {}),
            ("took", {}),
        ):
            right = heading in ("exit code", "took")
            table.add_column(heading, justify="right" if right else "left", **options)  # type: ignore[arg-type]
        for step in instance.steps:
            mark, style = _OUTCOMES[step.outcome]
            cells = [
                mark,
                self._shown.line(step.id),
                str(step.outcome).replace("_", " "),
                "" if step.exit_code is None else str(step.exit_code),
                duration(step.seconds),
            ]
            table.add_row(*(Text(cell, style=style) for cell in cells))
        return table

    def _verdict(self, result: RunResult, seconds: float | None) -> None:
        took = f" in {duration(seconds)}" if seconds is not None else ""
        blame = f"  blame: {result.blame}" if result.blame else ""
        said = Text(f"{result.verdict}{took}", style=_VERDICTS[result.verdict])
        said.append(f"  {self._shown.line(result.summary, 600)}{blame}", style="not bold default")
        self._console.print(said)


def _after(phases: list[str], name: str) -> list[str]:
    """What is still to come once ``name`` has begun."""
    return phases[phases.index(name) + 1 :] if name in phases else phases
