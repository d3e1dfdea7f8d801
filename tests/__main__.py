# SPDX-License-Identifier: Apache-2.0
"""``python -m tests test|quick``: the parts of the suite in turn, and what came of all of them (docs/testing.md)."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.results import Case, read

RESULTS = REPOSITORY / "build/tests"
COMPLETE = "VMROLE_TESTS_COMPLETE"
"""Set where nothing may be missing: a skip that is not among those foreseen is a failure."""
UNTIL = "VMROLE_TESTS_UNTIL"
"""Seconds since 1970 at which everything ends, with what there is by then."""
FORESEEN = (
    re.compile(r"^the image windows-server cannot be had: "),
    re.compile(r"^KVM cannot be used here: "),
)
"""Skips of a complete environment."""
_SLOWEST = 30
_NOTHING_COLLECTED = 5
_EVERY = 0.2
_GRACE = 60.0
"""Seconds that a part has to end in, with its machines, once it was told to."""


@dataclass(frozen=True)
class Part:
    """A part of the suite: a command, which writes to ``results`` what becomes of its tests where it is pytest."""

    name: str
    argv: tuple[str | Path, ...]
    results: Path | None = None


@dataclass
class Ended:
    """A part that is over."""

    part: Part
    code: int
    seconds: float
    cases: list[Case] = field(default_factory=list)
    trouble: str = ""
    """Why it failed, if not by its tests."""

    @property
    def failed(self) -> bool:
        return self.code != 0

    def count(self, outcome: str) -> int:
        found = sum(case.outcome == outcome for case in self.cases)
        # A part that failed without a test that did must not look well in the sum.
        return 1 if outcome == "failed" and self.failed and not found else found


def pytest_part(name: str, *arguments: str | Path) -> Part:
    path = RESULTS / f"{name}.jsonl"
    return Part(name, (sys.executable, "-m", "pytest", "-p", "tests.results", f"--results={path}", *arguments), path)


def parts(which: str, more: Sequence[str], workers: str) -> list[Part]:
    """The parts of ``quick`` or of everything. ``more`` are arguments for each pytest."""
    # A file's tests stay together: they share machines.
    several = ("-n", workers, "--dist", "loadfile", "--no-loadscope-reorder")
    check = Part("check", ("make", "--no-print-directory", "check"))
    quick = pytest_part("quick", *several, "--no-machines", *more, "tests")
    if which == "quick":
        return [quick]
    return [
        check,
        quick,
        pytest_part("machines", *several, "-m", "vm and not alone", *more, "tests"),
        pytest_part("alone", "-m", "vm and alone", *more, "tests"),
        pytest_part("scenarios", *several, f"--vmrole-output={RESULTS / 'scenarios'}", *more, "scenarios"),
    ]


def run_part(part: Part, *, over: Callable[[], bool], may_be_empty: bool) -> Ended:
    """Run ``part`` with our own streams, until it ends or the time for it is ``over``."""
    if part.results:
        part.results.unlink(missing_ok=True)
    began, trouble = time.monotonic(), ""
    # Whoever started us may ignore SIGINT, which is inherited; a part has to end by it.
    argv = ("env", "--default-signal=INT", *part.argv)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd=REPOSITORY, start_new_session=True)
    try:
        while process.poll() is None and not trouble:
            if over():
                trouble = f"it was ended: {UNTIL} had come"
                _end(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EVERY)
    except BaseException:
        _end(process)
        raise
    code = process.returncode
    if code == _NOTHING_COLLECTED and may_be_empty:
        code = 0
    cases = read(part.results) if part.results else []
    if trouble or (part.results and not code and not part.results.exists()):
        code, trouble = code or 1, trouble or "it left no results"
    return Ended(part, 128 - code if code < 0 else code, time.monotonic() - began, cases, trouble)


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, so that machines are taken down and results are written; by force when that takes too long."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            return


def lacking(ended: Ended) -> Ended:
    """``ended`` as it counts where nothing may be missing: with skips that were not foreseen as failures."""
    cases = [
        Case(case.id, "failed", case.seconds, f"skipped, and {COMPLETE} is set: {case.said}")
        if case.outcome == "skipped" and not any(pattern.search(case.said) for pattern in FORESEEN)
        else case
        for case in ended.cases
    ]
    changed = cases != ended.cases
    return Ended(ended.part, ended.code or int(changed), ended.seconds, cases, ended.trouble)


def summary(all_ended: Sequence[Ended], not_run: Sequence[Part]) -> list[str]:
    """What is printed at the end; its last line has the counts of everything."""
    cases = [case for ended in all_ended for case in ended.cases]
    slowest = sorted(cases, key=lambda case: -case.seconds)[:_SLOWEST]
    lines = ["", f"The {len(slowest)} slowest tests (seconds)"] if slowest else [""]
    lines += [f"{case.seconds:8.1f}  {case.id}" for case in slowest]
    if skipped := Counter(case.said for case in cases if case.outcome == "skipped"):
        lines += ["", "Skipped"]
        lines += [f"{count:8}  {said}" for said, count in skipped.items()]
    if failed := [case for case in cases if case.outcome == "failed"]:
        lines += ["", "Failed"]
        lines += [f"          {case.id}: {' '.join(case.said.split())[:200]}" for case in failed]
    lines += ["", "Part        minutes"]
    for ended in all_ended:
        how = f"FAILED with exit code {ended.code}" if ended.failed else "passed"
        how += f": {ended.trouble}" if ended.trouble else ""
        lines.append(f"{ended.part.name:11} {ended.seconds / 60:7.1f}  {how}")
    lines += [f"{part.name:11} {'':7}  NOT RUN" for part in not_run]
    total = {name: sum(ended.count(name) for ended in all_ended) for name in ("passed", "failed", "skipped")}
    total["failed"] += len(not_run)
    lines += ["", ", ".join(f"{count} {name}" for name, count in total.items())]
    return lines


def by_file(all_ended: Sequence[Ended]) -> str:
    """Where the time went: part, seconds, tests, file."""
    lines = ["part        seconds  tests  file"]
    for ended in all_ended:
        took: dict[str, list[float]] = {}
        for case in ended.cases:
            took.setdefault(case.file, []).append(case.seconds)
        longest = sorted(took.items(), key=lambda item: -sum(item[1]))
        lines += [f"{ended.part.name:11} {sum(each):7.1f}  {len(each):5}  {file}" for file, each in longest]
    return "\n".join(lines) + "\n"


def run_all(todo: Sequence[Part], *, complete: bool, over: Callable[[], bool], may_be_empty: bool) -> int:
    """Run every part whatever became of those before it, print what came of all, and return the worst exit code."""
    all_ended: list[Ended] = []
    interrupted = False
    for part in todo:
        if over():
            break
        _say(f"\n--- {part.name}: {shlex.join(map(str, part.argv))}")
        try:
            ended = run_part(part, over=over, may_be_empty=may_be_empty)
        except KeyboardInterrupt:
            interrupted = True
            break
        all_ended.append(lacking(ended) if complete else ended)
    not_run = todo[len(all_ended) :]
    (RESULTS / "files.txt").write_text(by_file(all_ended))
    _say("\n".join(summary(all_ended, not_run)))
    codes = [ended.code for ended in all_ended] + [1 for _ in not_run] + [130 for _ in range(interrupted)]
    return max(codes)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests", description=__doc__, epilog="Other arguments are for each pytest.", allow_abbrev=False
    )
    parser.add_argument("which", choices=["test", "quick"])
    parser.add_argument("--workers", default="2", help="tests at once, where they may be")
    chosen, more = parser.parse_known_args()
    # Told to end, it ends as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    until = float(os.environ.get(UNTIL) or "inf")
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(RESULTS / "scenarios", ignore_errors=True)
    return run_all(
        parts(chosen.which, more, chosen.workers),
        complete=bool(os.environ.get(COMPLETE)),
        over=lambda: time.time() >= until,
        may_be_empty=bool(more),
    )


if __name__ == "__main__":
    sys.exit(main())
