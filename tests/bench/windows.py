# SPDX-License-Identifier: Apache-2.0
"""Runs on the stand-in Windows guest: a whole one from a warm fork, and what a restart in the middle adds."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.conftest import SAMPLES, VMROLE

IMAGE = "windows-stand-in"


def built() -> None:
    """The image and its template, which are made once."""
    subprocess.run([VMROLE, "images", "build", IMAGE], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    done = subprocess.run(
        [VMROLE, "exec", "--image", IMAGE, "--", "cmd.exe", "/c", "ver"],
        check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the stand-in guest does not run: {done.stderr}")


def sample(name: str, output: Path) -> float:
    """Seconds of one whole `vmrole run` of a sample, every step of which succeeds."""
    began = time.monotonic()
    argv: list[str | Path] = [VMROLE, "run", SAMPLES / name, "--image", IMAGE, "--output", output]
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"the sample {name} failed: {done.stderr}")
    return took


def reboot(output: Path) -> float:
    """Seconds of the restart in the middle of the sample that has one."""
    sample("batch-reboot", output)
    phases = json.loads((output / "result.json").read_text())["instances"][0]["phases"]
    return float(next(phase["seconds"] for phase in phases if phase["name"] == "reboot"))
