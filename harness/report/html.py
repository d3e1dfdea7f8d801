# SPDX-License-Identifier: Apache-2.0
"""report.html: the run for somebody who was not there, in one file without anything from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from harness.report.json_files import step_folder, write_whole
from harness.report.text import Masker, duration, masked, printable
from harness.run.events import Event, Notice, RunFinished, RunStarted
from harness.run.result import RunResult

_CONSOLE_BYTES = 64 * 1024
_CONSOLE_LINES = 200


@dataclass(frozen=True, slots=True)
class _Said:
    severity: str
    text: str
    hint: str | None


class HtmlReport:
    """A subscriber that writes ``directory/report.html`` with the last event; takes the console from
    ``directory/console.log`` when that is there by then."""

    def __init__(self, directory: Path, masker: Masker) -> None:
        self._directory = directory
        self._masker = masker
        self._title = ""
        self._said: list[_Said] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._title = event.title
        elif isinstance(event, Notice):
            self._said.append(_Said(event.severity, event.text, event.hint))
        elif isinstance(event, RunFinished):
            text = render(
                event.result,
                self._masker,
                title=self._title,
                notices=[(said.severity, said.text, said.hint) for said in self._said],
                console=self._console(),
                seconds=event.seconds,
                exit_code=event.exit_code,
            )
            write_whole(self._directory / "report.html", text)

    def _console(self) -> str:
        try:
            with (self._directory / "console.log").open("rb") as file:
                file.seek(0, 2)
                start = max(0, file.tell() - _CONSOLE_BYTES)
                file.seek(start)
                if start:
                    file.readline(_CONSOLE_BYTES)  # the rest of a line that was cut
                data = file.read(_CONSOLE_BYTES)
        except OSError:
            return ""
        return "\n".join(data.decode("utf-8", "replace").split("\n")[-_CONSOLE_LINES:])


def render(
    result: RunResult,
    masker: Masker,
    *,
    title: str = "",
    notices: list[tuple[str, str, str | None]] | None = None,
    console: str = "",
    seconds: float | None = None,
    exit_code: int | None = None,
) -> str:
    """The page. ``notices`` are (severity, text, hint)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["folder"] = step_folder
    context = {
        "result": result.to_json(),
        "title": title or result.run,
        "notices": [{"severity": s, "text": t, "hint": h} for s, t, h in notices or []],
        "console": console,
        "seconds": seconds,
        "exit_code": exit_code,
    }
    # Masked after it is made printable: a sequence inside of a secret must not hide it.
    return environment.get_template("report.html.j2").render(masked(_clean(context), masker))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
