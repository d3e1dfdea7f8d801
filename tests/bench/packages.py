# SPDX-License-Identifier: Apache-2.0
"""What authors wait for: `vmrole --version`, and `vmrole check` of the sample and of every published package, from the
shell with cold imports; and packages checked per second in one process. ``python -m tests.bench.packages`` measures
them alone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.cli.check import examine
from tests.cli.test_authors import rebuilt
from tests.conftest import SAMPLES, VMROLE
from tests.package.material import REFERENCE

VERSION_LIMIT: Final = 0.15
CHECK_LIMIT: Final = 0.35
"""Seconds that an author may wait."""
_SECONDS: Final = 3.0
"""How long packages are checked in one process."""

Row = dict[str, object]


def from_the_shell(arguments: Sequence[str | Path], rounds: int) -> float:
    """Median seconds of a whole `vmrole` process."""
    taken = []
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run([VMROLE, *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def per_second(paths: Sequence[Path]) -> float:
    """Packages that are read and checked in a second, one after the other, in this process."""
    for path in paths:
        examine(path)
    count, began = 0, time.monotonic()
    while time.monotonic() - began < _SECONDS:
        for path in paths:
            examine(path)
        count += len(paths)
    return count / (time.monotonic() - began)


def measure(rounds: int) -> list[Row]:
    """Rows for the bench's table; ``baseline`` is what is allowed."""
    with tempfile.TemporaryDirectory(prefix="vmb-") as folder:
        sample = SAMPLES / "hello-linux.resextpkg"
        real = [rebuilt(parts, Path(folder)) for parts in sorted((REFERENCE / "packages").glob("*.parts"))]
        rows = [
            _row("vmrole --version", from_the_shell(["--version"], rounds), "s", VERSION_LIMIT),
            _row("vmrole check of the sample", from_the_shell(["check", sample], rounds), "s", CHECK_LIMIT),
        ]
        if real:
            slowest = max(from_the_shell(["check", path], rounds) for path in real)
            rows.append(_row(f"vmrole check, the slowest of {len(real)} published packages", slowest, "s", CHECK_LIMIT))
        rows.append(_row("packages checked in one process, the sample", per_second([sample]), "/s", None))
        if real:
            rows.append(_row("packages checked in one process, published ones", per_second(real), "/s", None))
    return rows


def _row(name: str, value: float, unit: str, allowed: float | None) -> Row:
    ratio = round(allowed / value, 2) if allowed else None
    return {"name": name, "value": round(value, 3), "unit": unit, "baseline": allowed, "ratio": ratio}


if __name__ == "__main__":
    for entry in measure(5):
        print(f"{entry['name']:<60} {entry['value']:>9} {entry['unit']}", file=sys.stdout)  # noqa: T201
