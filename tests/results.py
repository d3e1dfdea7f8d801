# SPDX-License-Identifier: Apache-2.0
"""What became of each test, written while it happens: a session that is killed has told of the tests before.

As a plugin of pytest: ``-p tests.results --results FILE``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Case:
    """A test: passed, failed or skipped, its seconds with those of the fixtures made for it, and what it said."""

    id: str
    outcome: str
    seconds: float
    said: str = ""

    @property
    def file(self) -> str:
        return self.id.partition("::")[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", metavar="FILE", help="write what becomes of each test to FILE")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--results") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(Path(config.getoption("--results"))))


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        fields = {
            "id": report.nodeid, "when": report.when, "outcome": report.outcome, "seconds": report.duration,
            "said": _said(report.longrepr),
        }  # fmt: skip
        with self._path.open("a") as file:
            file.write(json.dumps(fields) + "\n")


def _said(shown: Any) -> str:
    """The reason of a skip, or the sentence of a failure."""
    if isinstance(shown, tuple):
        return str(shown[2]).removeprefix("Skipped: ")
    crash = getattr(shown, "reprcrash", None)
    return str(crash.message if crash else shown or "")


def read(path: Path) -> list[Case]:
    """The tests that ``path`` tells of, in their order; none where it is missing."""
    phases: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        told = json.loads(line)
        phases.setdefault(told["id"], []).append(told)
    return list(_cases(phases))


def _cases(phases: dict[str, list[dict[str, Any]]]) -> Iterator[Case]:
    for id, told in phases.items():
        seconds = sum(phase["seconds"] for phase in told)
        bad = next((phase for name in ("failed", "skipped") for phase in told if phase["outcome"] == name), None)
        if bad:
            yield Case(id, bad["outcome"], seconds, bad["said"])
        elif told[-1]["when"] == "teardown":
            yield Case(id, "passed", seconds)
        else:
            yield Case(id, "failed", seconds, "it had not ended when its session did")
