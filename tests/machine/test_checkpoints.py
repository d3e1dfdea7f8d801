# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as files: what is kept of a run is what a machine goes on from, or nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.machine.checkpoints import Kept, Recording
from tests.image.test_cache import overwrite


class Saved:
    """A machine of two files and a disk, which is another layer at each checkpoint."""

    def __init__(self) -> None:
        self.count = 0

    def checkpoint(self, folder: Path, layers: Path) -> float:
        self.count += 1
        (layers / f"disk-{self.count}.qcow2").write_bytes(b"disk" * 50_000)
        (folder / "ram").write_bytes(b"page" * 50_000)
        (folder / "state").write_bytes(b"devices")
        return 0.1


@pytest.fixture
def kept(tmp_path: Path, state_folder: Path) -> Iterator[Kept]:
    (tmp_path / "run").mkdir()
    recording, machine = Recording(tmp_path / "run"), Saved()
    for step in ("run-once-1", "run-once-2"):
        recording.take(machine, step)
    kept = recording.keep("a-run", {})
    assert kept is not None
    yield kept
    kept.remove()


def test_what_was_not_touched_is_used(kept: Kept) -> None:
    for step in ("run-once-1", "run-once-2"):
        kept.before(step).check()


@pytest.mark.parametrize("name", ["002/ram", "002/state", "layers/disk-1.qcow2"])
@pytest.mark.parametrize("place", [0, 5])
def test_a_file_that_was_changed_in_place_is_found(kept: Kept, name: str, place: int) -> None:
    overwrite(kept.folder / name, place, b"!")
    with pytest.raises(HostError, match=f"before run-once-2 is damaged: {name} is not what it was"):
        kept.before("run-once-2").check()
