# SPDX-License-Identifier: Apache-2.0
"""Carries out the runs of a night, several at once, each in a worker process, and notes what becomes of each.

What a worker's death leaves is removed, and the run is begun again; that is told, and so is everything else that
happens to a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HostError
from harness.nightly.matrix import Job
from harness.nightly.state import ATTEMPTS, Entry, Night
from harness.report.folder import read_run

_GRACE = 300.0
"""Seconds beyond its own limit after which a run is told to stop: it may collect and remove things first."""
_PATIENCE = 120.0
"""Seconds that a run gets to end in order before its process is killed."""

Told = Callable[[Entry, str], None]
"""Called with a run and, when it was cut off, why."""


@dataclass(slots=True)
class _Worker:
    """A run that is at work; ``until`` is when it has to be over, on the monotonic clock."""

    job: Job
    process: subprocess.Popen[bytes]
    handle: int
    until: float
    late: bool = False


def settle(night: Night, jobs: Mapping[str, Job], told: Told) -> None:
    """Bring a night that somebody left in the middle up to date: runs that had come to their end are finished, runs
    that were begun were cut off, and runs that the file has no more are forgotten."""
    entries = {key: night.entries.get(key) or Entry(key, job.package, job.case, job.image) for key, job in jobs.items()}
    night.entries = entries
    night.finished = None
    for entry in list(entries.values()):
        if entry.exit_code is None and entry.attempts and entry.attempts[-1].ended is None:
            _ended(night, entry, "the nightly ended in the middle of it", told)
    night.save()


def carry_out(night: Night, jobs: Mapping[str, Job], *, parallel: int, told: Told) -> None:
    """Do every run of ``night`` that is not finished, ``parallel`` at once. However it ends, no worker is left."""
    left = [entry for entry in night.entries.values() if entry.exit_code is None]
    waiting = deque(entry.key for entry in left if not _given_up(night, entry, told))
    running: list[_Worker] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(_begin(night, jobs[waiting.popleft()]))
            for worker in _wait(running):
                running.remove(worker)
                entry = _finish(night, worker, told)
                if entry.exit_code is None and not _given_up(night, entry, told):
                    waiting.append(entry.key)
    except BaseException as error:
        _stop(running)
        why = f"the nightly was {error}" if isinstance(error, KeyboardInterrupt) else "the nightly failed"
        with contextlib.suppress(HostError):
            for worker in running:
                _finish(night, worker, told, stopped=why)
        raise


def _begin(night: Night, job: Job) -> _Worker:
    folder = night.begin(job.key, job.package)
    options = {**job.options, "output": str(folder), "case": job.case}
    message = json.dumps({"path": str(job.path), "package": job.package, "options": options})
    try:
        with os.fdopen(os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as log:
            # A session of its own: Ctrl-C is for the nightly, which ends its runs in order.
            process = subprocess.Popen(
                # -P: a file of the user's here that is called as a module is, html.py say, is no module of ours.
                [sys.executable, "-P", "-m", "harness.nightly.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        handle = os.pidfd_open(process.pid)
    except OSError as error:
        raise HostError(f"the run of {job.title} cannot be started: {error.strerror}") from error
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{message}\n".encode())
        process.stdin.flush()
    return _Worker(job, process, handle, time.monotonic() + job.timeout + _GRACE)


def _wait(running: list[_Worker]) -> Iterator[_Worker]:
    """The workers that have ended, at least one; those that take too long are stopped."""
    while True:
        timeout = max(0.0, min(worker.until for worker in running) - time.monotonic())
        ended, _, _ = select.select([worker.handle for worker in running], [], [], timeout)
        if ended:
            yield from [worker for worker in running if worker.handle in ended]
            return
        for worker in running:
            if worker.until <= time.monotonic():
                worker.process.send_signal(signal.SIGKILL if worker.late else signal.SIGTERM)
                worker.late, worker.until = True, time.monotonic() + _PATIENCE


def _stop(running: list[_Worker]) -> None:
    """End the workers in order, and by force where that takes too long."""
    for worker in running:
        worker.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    for worker in running:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def _finish(night: Night, worker: _Worker, told: Told, *, stopped: str = "") -> Entry:
    """Note what became of a worker that has ended."""
    process = worker.process
    code = process.wait()
    os.close(worker.handle)
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    entry = night.entries[worker.job.key]
    if worker.late:
        over = f"it took more than {worker.job.timeout + _GRACE:.0f} s and had to be stopped"
        _clean()
        return _give_up(night, entry.with_last(over), over, told)
    if code < 0:
        why = f"its process was killed by {_signal(-code)}"
    elif code > 128:
        why = f"it was interrupted by {_signal(code - 128)}"
    else:
        log = _log(night.folder / entry.attempts[-1].run)
        why = f"its process ended with exit code {code} and no result, {log} says why"
    return _ended(night, entry, stopped or why, told, counts=not stopped)


def _ended(night: Night, entry: Entry, why: str, told: Told, *, counts: bool = True) -> Entry:
    """Note a run whose process is gone: its result when it has one, else that it was cut off, and ``why``."""
    folder = night.folder / entry.attempts[-1].run
    found = read_run(folder)
    finished = found.first("run-finished") if found else {}
    if found is None or not finished or found.verdict == "interrupted":
        entry = entry.with_last(why, counts=counts)
        night.put(entry)
        _clean()
        told(entry, why)
        return entry
    entry = replace(
        entry.with_last(""),
        exit_code=int(finished["exit_code"]),
        verdict=found.verdict,
        blame=found.result.get("blame"),
        summary=str(found.result.get("summary") or ""),
        seconds=found.seconds,
    )
    night.put(entry)
    # It says what the run directory says.
    _log(folder).unlink(missing_ok=True)
    told(entry, "")
    return entry


def _given_up(night: Night, entry: Entry, told: Told) -> bool:
    """Whether a run was cut off too often; then it is finished that way."""
    if not entry.hopeless:
        return False
    _give_up(night, entry, f"it was cut off {ATTEMPTS} times, the last time because {entry.attempts[-1].ended}", told)
    return True


def _give_up(night: Night, entry: Entry, why: str, told: Told) -> Entry:
    """Finish a run without a result of its own."""
    entry = replace(entry, exit_code=3, verdict="error", blame="host", summary=why)
    night.put(entry)
    told(entry, "")
    return entry


def _clean() -> None:
    """Remove what dead processes left, now and not with the next run: nobody knows when that is."""
    from harness.machine.sweep import sweep

    sweep()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log(folder: Path) -> Path:
    """What the process of a run said; it stays where the process did not come to its end."""
    return folder.with_name(f"{folder.name}.log")
