# SPDX-License-Identifier: Apache-2.0
"""The tutorial, done as it says: its files are written, its commands are run, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import HANGS, REPOSITORY, VMROLE
from tests.scenario.test_plugin import session

pytestmark = pytest.mark.vm

_TEXT = (REPOSITORY / "docs/tutorial.md").read_text("utf-8")
# "... into `FILE`:" and a block is a file; a block called sh are commands.
_BLOCK = re.compile(r"(?:into\s+`(?P<file>[^`]+)`:\n\n)?^```(?P<kind>sh|bash|python)\n(?P<text>.*?)^```$", re.M | re.S)
_EXITS = re.compile(r"\s+# exits with (\d+)$")


def test_the_scenario_of_the_readme(image: str, tmp_path: Path) -> None:
    source = (REPOSITORY / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    assert source.count("\n") <= 10
    done = session(tmp_path, source)
    assert done.code == 0 and done.outcomes() == {"test_hello_linux": "passed"}, done.text


def test_the_tutorial_works(image: str, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{VMROLE.parent}:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    ran = []
    for block in _BLOCK.finditer(_TEXT):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
            continue
        assert block["kind"] == "sh", block[0]
        for line in block["text"].splitlines():
            wanted = _EXITS.search(line)
            done = subprocess.run(
                ["sh", "-c", _EXITS.sub("", line)],
                cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANGS,
                check=False,
            )  # fmt: skip
            ran.append((line, done.stdout + done.stderr))
            assert done.returncode == (int(wanted[1]) if wanted else 0), (line, ran[-1][1])
    assert len(ran) >= 8
    first = json.loads((tmp_path / "first/result.json").read_text())
    assert first["verdict"] == "succeeded" and (tmp_path / "first/report.html").exists()
    broken = next(said for line, said in ran if "exits with 1" in line)
    for text in ("test_greeter.py:8: AssertionError", "step run-once-1 warned, exit code 3", "stdout: failed",
                 "from that step: vmrole replay ", "runs/test_greets-2/report.html"):  # fmt: skip
        assert text in broken, broken
    assert json.loads((tmp_path / "again/result.json").read_text())["verdict"] == "succeeded"
    mended = [said for line, said in ran if line.startswith("pytest ")][-1]
    assert "2 passed" in mended and "runs/index.html" in mended
    sealed = json.loads((tmp_path / "sealed/result.json").read_text())
    assert sealed["verdict"] == "succeeded" and "CN = greeter" in sealed["instances"][0]["steps"][0]["stdout"]
