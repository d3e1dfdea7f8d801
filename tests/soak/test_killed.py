# SPDX-License-Identifier: Apache-2.0
"""Owners of machines that are killed at random moments leave nothing that a sweep does not find."""

from __future__ import annotations

import contextlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import VMROLE, inventory, settled, vmrole
from tests.machine.test_forks import killed_while_a_template_is_made
from tests.soak.conftest import Soak

pytestmark = pytest.mark.vm


def test_forks_whose_owner_is_killed(image: str, state_folder: Path, soak: Soak) -> None:
    """Two at a time."""
    vmrole("exec", "--image", image, "--", "true")
    before = inventory(state_folder)
    moments = [soak.random.uniform(0.0, 1.2) for _ in range(soak.count(200))]

    def kill_one(moment: float) -> None:
        process = subprocess.Popen(
            [VMROLE, "exec", "--image", image, "--", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):  # the moment is the point
            process.wait(moment)
        process.kill()
        process.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(kill_one, moments))
    vmrole("sweep")
    settled(state_folder, before)
    assert vmrole("sweep", "--json").json["removed"] == []


def test_killed_while_a_template_is_made(image: str, state_folder: Path, soak: Soak) -> None:
    for _ in range(soak.count(20)):
        killed_while_a_template_is_made(image, state_folder, soak.random.uniform(0.0, 8.0))
