# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed in an empty environment outside the clone, runs the sample."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, SAMPLES

pytestmark = [pytest.mark.vm, pytest.mark.slow]


def test_wheel_runs_the_sample(image: str, tmp_path: Path) -> None:
    python = str(Path(sys.base_prefix) / "bin/python3")
    pip: list[str | Path] = ["pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "venv", tmp_path / "env"], check=True)
    here = tmp_path / "env/bin"
    build: list[str | Path] = [here / "python", "-m", *pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist"]
    subprocess.run([*build, REPOSITORY], check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([here / "python", "-m", *pip, "install", wheel], check=True, cwd=tmp_path)
    done = subprocess.run(
        [here / "vmrole", "run", SAMPLES / "hello-linux.resextpkg", "-p", "Greeting=x", "--output", tmp_path / "out"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "building the image" not in done.stderr, "the wheel's recipe is the clone's"
    assert (tmp_path / "out/result.json").exists()
