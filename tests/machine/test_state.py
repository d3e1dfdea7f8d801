# SPDX-License-Identifier: Apache-2.0
"""Folders of processes, while others sweep."""

from __future__ import annotations

import subprocess
import sys

from harness.state import process_folders
from tests.conftest import HANGS

MAKE = """
from harness.state import new_process_folder
for _ in range(300):
    with new_process_folder() as folder:
        (folder.path / "file").touch()
        with folder.lock() as another:
            assert not another
        assert (folder.path / "file").exists()
"""
SWEEP = """
from harness.machine.sweep import sweep
while True:
    sweep()
"""


def test_a_sweep_leaves_alone_what_is_just_being_made() -> None:
    before = process_folders()  # that of this very process
    sweepers = [subprocess.Popen([sys.executable, "-c", SWEEP]) for _ in range(2)]
    try:
        makers = [subprocess.Popen([sys.executable, "-c", MAKE]) for _ in range(2)]
        assert [maker.wait(timeout=HANGS) for maker in makers] == [0, 0]
        assert [sweeper.poll() for sweeper in sweepers] == [None, None]
    finally:
        for sweeper in sweepers:
            sweeper.kill()
            sweeper.wait()
    assert process_folders() == before
