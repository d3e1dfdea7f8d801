# SPDX-License-Identifier: Apache-2.0
"""A soak test repeats: as often as --count says, with a seed that is printed and can be given again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

_TOLD = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak", "soak tests")
    group.addoption("--count", type=int, help="rounds of each soak test, instead of its own number")
    group.addoption("--seed", type=int, default=random.randrange(10**6), help="seed of the rounds (a new one)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(0))  # as long as its count takes


def pytest_report_header(config: pytest.Config) -> str:
    return f"soak: --seed {config.getoption('--seed')}"


@dataclass
class Soak:
    """What a soak test repeats with."""

    name: str
    seed: int
    given: int | None
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The same rounds whichever other tests run beside it.
        self.random = random.Random(f"{self.name} {self.seed}")

    def count(self, usual: int) -> int:
        """How many rounds there are: --count, or ``usual``."""
        count = usual if self.given is None else self.given
        self.told.append(f"{count} rounds")
        return count

    def tell(self, what: str) -> None:
        """A line of the summary: a rate, a slowest round."""
        self.told.append(what)


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Iterator[Soak]:
    """The count and the random numbers of this test."""
    config = request.config
    soak = Soak(request.node.name, config.getoption("--seed"), config.getoption("--count"))
    yield soak
    config.stash.setdefault(_TOLD, []).append(f"{request.node.nodeid}: {', '.join(soak.told)}, seed {soak.seed}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash.get(_TOLD, []):
        terminalreporter.write_line(f"soak: {line}")
