# SPDX-License-Identifier: Apache-2.0
"""`vmrole nightly`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import HostError, PackageError, UsageError

if TYPE_CHECKING:
    from harness.nightly.matrix import Job
    from harness.nightly.night import Told
    from harness.nightly.state import Entry, Night
    from harness.tomltext import TomlDocument

_RESUMED = timedelta(hours=24)
"""How old a night may be that is gone on with; an older one is of another day."""
_MILDEST = {0: 0, 4: 1, 1: 2, 2: 3, 3: 4}
"""Exit codes of runs from the mildest to the worst: incomplete is milder than failed."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of everything it writes, instead of what FILE says.",
)
@click.option(
    "--parallel", type=click.IntRange(1, 256), metavar="N", help="Runs at once, at most, instead of what FILE says."
)
@click.option("--fresh", is_flag=True, help="Begin a new night, although the last one was cut off.")
@click.option("--resume", is_flag=True, help="Only go on with a night that was cut off, if there is one.")
@click.option("--list", "only_list", is_flag=True, help="Check FILE, say what would be run, and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of the runs as one JSON document.")
def command(
    file: Path, output: Path | None, parallel: int | None, fresh: bool, resume: bool, only_list: bool, as_json: bool
) -> None:
    """Run the matrix of packages, images and parameters that FILE declares (TOML, see `vmrole schema nightly`).

    A night that was cut off less than 24 hours ago is gone on with: what was finished is not run again. The output
    folder gets index.html, junit.xml, nightly.json and a directory for each run.

    Exit code: that of the worst run (3 guest, host or harness failed, 2 impossible package, 1 the extension failed,
    4 incomplete, 0 succeeded); 130 and 143 interrupted.
    """  # fmt: skip
    from harness.nightly.matrix import jobs as jobs_of
    from harness.nightly.model import read_nightly
    from harness.nightly.state import locked
    from harness.run.interrupt import interruptible

    if fresh and resume:
        raise UsageError("--fresh and --resume exclude each other", hint="leave one of them out")
    with interruptible():
        nightly, document = read_nightly(file)
        folder = file.absolute().parent
        jobs, memory_mb = checked(jobs_of(nightly, folder), document)
        if only_list:
            _list(jobs, as_json=as_json)
            return
        title = nightly.name or file.stem
        output = output or (
            (folder / nightly.output).resolve() if nightly.output else Path("vmrole-nightly") / file.stem
        )
        with locked(output):
            tell = _tell_aside if as_json else _tell
            night = _night(output, jobs, tell, fresh=fresh, resume=resume)
            if night is None:
                click.echo(f"vmrole: there is nothing to go on with in {output}", err=True)
                if as_json:
                    click.echo(json.dumps({"schema": 1, "runs": [], "exit_code": 0}, indent=2))
                return
            try:
                code = _carry_out(
                    night,
                    jobs,
                    tell,
                    title=title,
                    parallel=_how_many(parallel or nightly.parallel, memory_mb, len(jobs)),
                    keep_days=nightly.keep_days,
                    as_json=as_json,
                )
            except OSError as error:
                raise HostError(f"{output} cannot be written: {error.strerror}", hint="is the disk full?") from error
    sys.exit(code)


def checked(jobs: Sequence[Job], document: TomlDocument) -> tuple[list[Job], int]:
    """The jobs with their packages' own names, and the memory that the largest machine needs, in MiB.

    Raises UsageError with the place in the file for everything that can be wrong with what was asked for. A package
    that cannot be read is no fault of the file: its runs fail, and the others go on.
    """
    from harness.cli.options import MACHINE_OPTIONS, machine_request
    from harness.image import catalog
    from harness.nightly.worker import arguments

    made: list[Job] = []
    seen: dict[tuple[str, str, str], Job] = {}
    machines: dict[tuple[int, str], int] = {}
    for job in jobs:
        where = ("packages", job.entry)
        if not job.path.exists():
            raise UsageError(
                f"{document.place((*where, 'path'))}: {job.path} does not exist",
                hint="paths are relative to the folder of the file",
            )
        options = arguments(dict(job.options))
        try:
            subject = _subject(job, options, document)
            job = replace(job, package=subject.package.name) if subject else job
            if (job.entry, job.image) not in machines:
                given = {name: options[name] for name in MACHINE_OPTIONS if name in options}
                request = machine_request(**given, definition=subject.machine if subject else None)
                recipe = catalog.load(request.image).recipe
                machines[job.entry, job.image] = request.memory_mb or recipe.memory_mb
        except PackageError:
            pass
        except UsageError as error:
            place = document.blamed(error.message, where, ("images",))
            raise UsageError(f"{place}: {error.message}", hint=error.hint) from error
        same = seen.setdefault((job.package, job.case, job.image), job)
        if same is not job:
            raise UsageError(
                f"{document.place(where)}: {job.title} is there twice", hint='tell them apart with name = "..."'
            )
        made.append(job)
    return made, max(machines.values(), default=1024)


def _subject(job: Job, options: dict[str, Any], document: TomlDocument) -> Any:
    """The package with its values, None when it cannot be read."""
    from harness.cli.run import require_use
    from harness.cli.subject import read_subject

    try:
        subject = read_subject(
            job.path,
            parameters=options["parameters"],
            parameters_file=options["parameters_file"],
            extension=options["extension"],
            external_payload=options["external_payload"],
        )
        require_use(subject)
    except PackageError:
        return None
    for name in subject.exposed:
        where = ("packages", job.entry)
        places = [path for kind in ("matrix", "parameters") if (path := (*where, kind, name)) in document.places]
        raise UsageError(
            f"{document.place(places[0] if places else where)}: the value of {name} is secret and written in the open",
            hint=f'write {name} = "env:VARIABLE" or {name} = "@FILE"',
        )
    return subject


def _list(jobs: Sequence[Job], *, as_json: bool) -> None:
    if as_json:
        told = [{"package": job.package, "case": job.case, "image": job.image, "path": str(job.path)} for job in jobs]
        click.echo(json.dumps({"schema": 1, "runs": told}, indent=2))
        return
    for job in jobs:
        click.echo(job.title)


def _how_many(wanted: int | None, memory_mb: int, jobs: int) -> int:
    """How many runs at once: what was asked for, but never more than this host has memory and processors for."""
    from harness.machine.slots import how_many

    means = how_many(memory_mb)
    return max(1, min(wanted or means, means, jobs))


def _night(output: Path, jobs: Sequence[Job], tell: Told, *, fresh: bool, resume: bool) -> Night | None:
    """The night to carry out; None when only one that was cut off was asked for, and there is none."""
    from harness.nightly.night import settle
    from harness.nightly.state import new_night, read_night
    from harness.run.result import counted

    last = None if fresh else read_night(output)
    if last and last.finished is None and datetime.now(UTC) - last.started < _RESUMED:
        before = sum(entry.exit_code is not None for entry in last.entries.values())
        done = f"{counted(before, 'run')} {'was' if before == 1 else 'were'}"
        _say(f"going on with the night of {last.started:%Y-%m-%d %H:%M} UTC, in which {done} finished")
        settle(last, {job.key: job for job in jobs}, tell)
        return last
    if resume:
        return None
    if last and last.finished is None:
        left = sum(entry.exit_code is None for entry in last.entries.values())
        _say(f"the night of {last.started:%Y-%m-%d %H:%M} UTC was cut off, {left} of its runs are not made up for")
    return new_night(output, jobs)


def _carry_out(
    night: Night, jobs: Sequence[Job], tell: Told, *, title: str, parallel: int, keep_days: int, as_json: bool
) -> int:
    """Do what is left of the night, write its reports, tell, and return the exit code."""
    from harness.nightly.night import carry_out
    from harness.nightly.state import remove_old
    from harness.run.result import counted

    began = time.monotonic()
    ours = frozenset(attempt.run for entry in night.entries.values() for attempt in entry.attempts)
    if gone := remove_old(night.folder, keep_days, now=night.started, keep=ours):
        _say(f"removed {counted(len(gone), 'run')} older than {keep_days} days")
    interrupted: KeyboardInterrupt | None = None
    try:
        carry_out(night, {job.key: job for job in jobs}, parallel=parallel, told=tell)
        night.finished = datetime.now(UTC)
        night.save()
    except KeyboardInterrupt as error:
        interrupted = error
    index = _report(night, title)
    entries = list(night.entries.values())
    code = max(
        (entry.exit_code for entry in entries if entry.exit_code is not None), key=_MILDEST.__getitem__, default=0
    )
    if interrupted:
        code = 128 + getattr(interrupted, "signum", 2)
    counts = {verdict: n for verdict in _verdicts(entries) if (n := sum(_verdict(e) == verdict for e in entries))}
    if as_json:
        told = {
            "schema": 1,
            "title": title,
            "started": night.started.isoformat(),
            "finished": night.finished.isoformat() if night.finished else None,
            "exit_code": code,
            "index": str(index) if index else None,
            "junit": str(night.folder / "junit.xml"),
            "runs": [_json(night, entry) for entry in entries],
        }
        click.echo(json.dumps(told, indent=2))
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    where = f"; {index} shows them" if index else ""
    _say(
        f"{counted(len(entries), 'run')} in {time.monotonic() - began:.0f} s, at most {parallel} at once: {said}{where}"
    )
    if interrupted:
        _say("the same command goes on with this night")
    return code


def _report(night: Night, title: str) -> Path | None:
    from harness.nightly.junit import write_junit
    from harness.report.index import write_index

    write_junit(night, night.folder / "junit.xml", title=title)
    runs = [night.folder / entry.run for entry in night.entries.values() if entry.run and entry.exit_code is not None]
    return write_index(night.folder, title=title, fresh=runs)


def _verdict(entry: Entry) -> str:
    return entry.verdict or "not run"


def _verdicts(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(_verdict(entry) for entry in entries))


def _json(night: Night, entry: Entry) -> dict[str, Any]:
    return {
        "package": entry.package,
        "case": entry.case,
        "image": entry.image,
        "directory": str(night.folder / entry.run) if entry.run else None,
        "verdict": entry.verdict or None,
        "blame": entry.blame,
        "summary": entry.summary,
        "exit_code": entry.exit_code,
        "seconds": entry.seconds,
        "cut_off": [{"directory": str(night.folder / one.run), "why": one.ended} for one in entry.cut_off],
    }


def _line(entry: Entry, why: str) -> str:
    from harness.package.findings import one_line

    seconds = f"{entry.seconds:.1f} s" if entry.seconds is not None else ""
    if entry.exit_code is None:
        return one_line(f"{'cut off':<12}{seconds:>8}  {entry.title}: {why} ({entry.run})")
    return one_line(f"{entry.verdict:<12}{seconds:>8}  {entry.title}: {entry.summary} ({entry.run})")


def _tell(entry: Entry, why: str) -> None:
    click.echo(_line(entry, why))


def _tell_aside(entry: Entry, why: str) -> None:
    click.echo(_line(entry, why), err=True)


def _say(text: str) -> None:
    click.echo(f"vmrole: {text}", err=True)
