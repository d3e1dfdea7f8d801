# SPDX-License-Identifier: Apache-2.0
"""`pytest -n 2` as a project's author has it: twenty scenarios, forked and cold, and the memory they take together."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import SAMPLES

COUNT = 20
WORKERS = 2
_EVERY = 0.5
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_SCENARIO = """\
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_hello(vm_role, number):
    role = vm_role({sample!r}, parameters={{"Greeting": f"hello {{number}}"}}, cold={cold})
    assert f"hello {{number}}" in role.step("run-once-1").stdout
"""


@dataclass(frozen=True, slots=True)
class Took:
    """``memory_mb`` is the most that the session and its machines had at once, shared memory counted once (PSS)."""

    seconds: float
    memory_mb: float


def session(folder: Path, *, cold: bool) -> Took:
    """One whole session."""
    folder.mkdir()
    text = _SCENARIO.format(count=COUNT, sample=str(SAMPLES / "hello-linux"), cold=cold)
    (folder / "test_bench.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-q", "-n", str(WORKERS), "-p", "no:cacheprovider", "--vmrole-output=runs"]
    over, most = threading.Event(), [0.0]

    def watch(pid: int) -> None:
        while not over.wait(_EVERY):
            most[0] = max(most[0], _memory_mb(pid))

    began = time.monotonic()
    process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    watching = threading.Thread(target=watch, args=(process.pid,), daemon=True)
    watching.start()
    said, _ = process.communicate()
    took = time.monotonic() - began
    over.set()
    watching.join()
    if process.returncode:
        raise RuntimeError(f"the session failed: {said}")
    return Took(took, most[0])


def _memory_mb(root: int) -> float:
    """PSS of ``root`` and of all that descends from it: machines are children of the worker that has them."""
    parents, sizes = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found = _PSS.search((path / "smaps_rollup").read_text())
        except (OSError, ValueError, IndexError):
            continue
        sizes[int(path.name)] = int(found[1]) if found else 0

    def below(pid: int) -> bool:
        while pid > 1:
            if pid == root:
                return True
            pid = parents.get(pid, 0)
        return False

    return sum(size for pid, size in sizes.items() if below(pid)) / 1024
