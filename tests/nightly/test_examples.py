# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/nightly, as a hosted system or a service manager executes them: their own lines, in their order.

What sets a computer up (apt-get, make setup) is what this very session came from, and is not done again.
"""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.conftest import HANGS, REPOSITORY, VMROLE, guests

EXAMPLES = REPOSITORY / "docs/nightly"
SET_UP = ["apt-get update && apt-get install --yes git make", "make setup"]
UNITS = ("vmrole-nightly.service", "vmrole-nightly-resume.service", "vmrole-nightly.timer")


def github() -> tuple[list[str], list[str]]:
    """The shell lines, and what is kept of the folder afterwards."""
    document: dict[Any, Any] = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    assert [entry["cron"] for entry in document[True]["schedule"]] == ["0 2 * * *"]  # YAML takes "on" for a truth
    steps = document["jobs"]["nightly"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    kept = [step["with"]["path"] for step in steps if step.get("if") == "always()"]
    return [step["run"] for step in steps if "run" in step], kept


def gitlab() -> tuple[list[str], list[str]]:
    job = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["nightly"]
    artifacts = job["artifacts"]
    return [*job["before_script"], *job["script"]], [*artifacts["paths"], artifacts["reports"]["junit"]]


def night(folder: Path) -> None:
    """A nightly.toml in ``folder``, for the samples of this repository."""
    text = (EXAMPLES / "hello.toml").read_text()
    assert text.count('"../../') == 4
    (folder / "nightly.toml").write_text(text.replace('"../../scenarios', f'"{REPOSITORY}/scenarios'))


@pytest.mark.vm
def test_ci_systems(image: str, tmp_path: Path, state_folder: Path) -> None:
    """Both do the same, which is done once."""
    (lines, kept), (others, kept_too) = github(), gitlab()
    assert lines == others and lines[:2] == SET_UP and len(lines) > 2
    night(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/vmrole").symlink_to(VMROLE)
    for line in lines[2:]:
        done = subprocess.run(
            ["bash", "-e", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=HANGS, check=False,
            env=os.environ | {"CI": "true"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert kept and kept_too and all((tmp_path / path).exists() for path in kept + kept_too), (kept, kept_too)
    cases = ElementTree.parse(tmp_path / "vmrole-nightly/junit.xml").getroot().findall(".//testcase")
    assert [case.get("name") for case in cases if len(case.findall("failure") + case.findall("error"))] == []
    assert len(cases) == 4
    assert guests(state_folder) == []


def test_units(tmp_path: Path) -> None:
    """What systemd finds wrong with them, and their commands: one lists, one finds no night to go on with."""
    started = []
    for name in UNITS:
        text = (EXAMPLES / name).read_text()
        (tmp_path / name).write_text(text.replace("/srv/vmrole/.venv/bin/vmrole", str(VMROLE)))
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.read_string(text)
        started += [unit["Service"]["ExecStart"]] if "Service" in unit else []
    done = subprocess.run(
        ["systemd-analyze", "verify", *UNITS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    night(tmp_path)
    for line, more in zip(started, (["--list"], []), strict=True):
        program, *words = shlex.split(line)
        assert program == "/srv/vmrole/.venv/bin/vmrole"
        done = subprocess.run([VMROLE, *words, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("HelloLinux") == (3 if more else 0), done.stdout
