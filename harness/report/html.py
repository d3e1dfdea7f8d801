# SPDX-License-Identifier: Apache-2.0
"""report.html: the run for somebody who was not there, in one file without anything from elsewhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import replace_file
from harness.report.json_files import step_folder
from harness.report.text import Masker, masked, printable
from harness.run.events import Event, RunFinished

if TYPE_CHECKING:
    from markupsafe import Markup

    from harness.report.folder import RunFolder
    from harness.report.timeline import Timeline

_PROBLEM_BYTES = 256 * 1024
"""Of each stream of a step that went wrong; the rest is in the run directory."""
_STREAM_BYTES = 64 * 1024
_STREAMS_BYTES = 4 * 1024 * 1024
"""Of the streams of all steps that did not go wrong."""
_LEAST_BYTES = 2 * 1024
_FILE_BYTES = 48 * 1024
_FILES_BYTES = 1024 * 1024
_CONSOLE_BYTES = 96 * 1024
_EVIDENCE_LINES = 12
_EVIDENCE_LINE = 400
_ALL_DETAILS = 60
"""So many streams of ordinary size are shown in whole."""
_PROBLEMS = ("failed", "timed_out", "unknown", "interrupted")
"""The worst first."""


class HtmlReport:
    """A subscriber that writes ``directory/report.html`` with the last event, from what the directory holds then. It
    comes before that event is in there: what else is written says whether there is a report."""

    def __init__(self, directory: Path, masker: Masker) -> None:
        self._directory = directory
        self._masker = masker

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            # Only here: the templates' engine is nothing that the way to the first command should wait for.
            from harness.report.folder import RunFolder, read_run

            known = read_run(self._directory) or RunFolder(self._directory, {})
            last = masked(event.to_json(), self._masker)
            run = RunFolder(self._directory, masked(event.result.to_json(), self._masker), (*known.events, last))
            replace_file(self._directory / "report.html", render(run, self._masker), mode=None)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that may be long. ``html`` is safe to show; ``whole`` says whether it is all there is, ``size`` in bytes
    what there is, ``link`` where, relative to the page."""

    name: str
    html: Markup
    whole: bool
    size: int
    link: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reader should see first: of which step (its number from 1, 0 for none), and the end of what it said."""

    step: dict[str, Any] | None
    number: int
    source: str
    text: str
    more: int
    """How many other steps went the same way."""


def render(run: RunFolder, masker: Masker) -> str:
    """The page of ``run``."""
    from harness.report import page
    from harness.report.folder import moment, read_findings
    from harness.report.text import masked
    from harness.report.timeline import make_timeline

    result = masked(page.clean(run.result), masker)
    ended = moment(run.first("run-finished").get("at"))
    failed = {
        (str(event.get("instance")), str(event.get("name")))
        for event in run.all("phase-finished")
        if not event.get("ok")
    }
    streams = _streams(run, masker)
    console = _console(run.directory, masker)
    timelines: list[Timeline | None] = [
        make_timeline(item, frozenset(name for id, name in failed if id == item["id"]), ended)
        for item in result["instances"]
    ]
    facts = {
        name: masked(page.clean(list(run.all(kind))), masker)
        for name, kind in (("notices", "notice"), ("stages", "stage-reached"), ("acted", "scenario-acted"))
    }
    return page.render(
        "report.html.j2",
        result=result,
        title=masked(
            page.clean(str(run.first("run-started").get("title") or run.result.get("run") or "a run")), masker
        ),
        extension=masked(page.clean(f"{run.extension} {run.version}".strip()), masker),
        case=masked(page.clean(run.case), masker),
        scenario=masked(page.clean(run.scenario_failed), masker),
        seconds=run.seconds,
        exit_code=run.first("run-finished").get("exit_code"),
        again=masked(page.clean(run.first("run-repeatable")), masker),
        evidence=_evidence(result, run.directory, masker),
        timelines=timelines,
        streams=streams,
        findings=masked(page.clean(read_findings(run.directory)), masker),
        console=console,
        files=_files(run.directory, masker),
        counts=_counts(result),
        **facts,
    )


def _counts(result: dict[str, Any]) -> list[tuple[str, int]]:
    """Outcome and number, the worst first."""
    order = (*_PROBLEMS, "not_executable", "warned", "skipped", "succeeded", "not_applicable")
    steps = [str(step["outcome"]) for instance in result["instances"] for step in instance["steps"]]
    return [(outcome, steps.count(outcome)) for outcome in order if outcome in steps]


def _evidence(result: dict[str, Any], directory: Path, masker: Masker) -> Evidence | None:
    """The step that decided the verdict, or what the guest said last when it never came to a step."""
    verdict = result["verdict"]
    if verdict == "succeeded":
        return None
    wanted = {"warnings": ("warned",), "incomplete": ("not_executable",)}.get(verdict, _PROBLEMS)
    steps = [step for instance in result["instances"] for step in instance["steps"]]
    found = [(number, step) for number, step in enumerate(steps, 1) if step["outcome"] in wanted]
    found.sort(key=lambda pair: wanted.index(pair[1]["outcome"]))
    if found:
        number, step = found[0]
        source = "stderr" if step["stderr"].strip() else "stdout"
        return Evidence(step, number, source, _end(step[source], masker), len(found) - 1)
    with contextlib.suppress(OSError):
        if verdict == "error" and result["blame"] in ("guest", None):
            said = (directory / "console.log").read_bytes()[-_CONSOLE_BYTES:]
            return Evidence(None, 0, "console", _end(said.decode("utf-8", "replace"), masker), 0)
    return None


def _end(text: str, masker: Masker) -> str:
    """Its last lines, masked before they are cut."""
    lines = [line[:_EVIDENCE_LINE] for line in masker.text(printable(text)).split("\n") if line.strip()]
    return "\n".join(lines[-_EVIDENCE_LINES:])


def _streams(run: RunFolder, masker: Masker) -> list[list[Text]]:
    """The streams of each step, from its files; more of them where it went wrong."""
    quiet = sum(step["outcome"] not in _PROBLEMS for step in run.steps)
    share = _STREAM_BYTES if quiet <= _ALL_DETAILS else max(_LEAST_BYTES, _STREAMS_BYTES // (2 * quiet))
    found = []
    for step in run.steps:
        limit = _PROBLEM_BYTES if step["outcome"] in _PROBLEMS else min(share, _STREAM_BYTES)
        folder = f"steps/{step_folder(step['id'])}"
        streams = (
            _text(run.directory, f"{folder}/{name}", name, limit, masker, step[name]) for name in ("stdout", "stderr")
        )
        found.append([stream for stream in streams if stream])
    return found


def _text(directory: Path, path: str, name: str, limit: int, masker: Masker, otherwise: str = "") -> Text | None:
    """A file of the run directory, ``otherwise`` where it is not there; None when there is nothing in it."""
    from harness.report.ansi import to_html
    from harness.run.result import text_of

    try:
        data = (directory / path).read_bytes()
    except OSError:
        data = otherwise.encode("utf-8", "replace")
    if not data.strip():
        return None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    return Text(name, to_html(text_of(data, limit), masker), len(data) <= limit, len(data), path)


def _console(directory: Path, masker: Masker) -> Text | None:
    return _text(directory, "console.log", "console", _CONSOLE_BYTES, masker)


def _files(directory: Path, masker: Masker) -> list[tuple[Text | None, str, str, int]]:
    """What was collected from the guest: its text, its name there, its path here, its size in bytes."""
    folder = directory / "guest"
    try:
        names = json.loads((folder / "index.json").read_bytes())
    except (OSError, ValueError):
        names = {}
    return list(_collected(folder, names if isinstance(names, dict) else {}, masker))


def _collected(folder: Path, names: dict[str, Any], masker: Masker) -> Iterator[tuple[Text | None, str, str, int]]:
    room = _FILES_BYTES
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name == "index.json" or not path.is_file() or path.is_symlink():
            continue
        size = path.stat().st_size
        with path.open("rb") as file:
            binary = b"\0" in file.read(4096)
        text = None
        if not binary and room > 0:
            text = _text(folder.parent, f"guest/{path.name}", path.name, min(_FILE_BYTES, room), masker)
            room -= min(size, _FILE_BYTES)
        yield text, masker.text(printable(str(names.get(path.name, path.name)))), f"guest/{path.name}", size
