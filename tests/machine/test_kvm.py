# SPDX-License-Identifier: Apache-2.0
"""Forks, checkpoints and restores with a real KVM, of the smallest guest there is: any KVM runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import CommandError
from harness.machine.qemu import processor
from harness.process import run
from harness.state import qemu_account
from tests.conftest import HANGS, inventory, settled

pytestmark = pytest.mark.vm

KVM = Path("/dev/kvm")
# The account that QEMU runs under gets a device of its own there, in its own group: the host's keeps its rights.
_PRIVATELY = (
    "mount -t tmpfs -o mode=755 none $0 && mknod $0/kvm c $(stat -c '%Hr %Lr' /dev/kvm) && chown root:$1 $0/kvm && "
    'chmod 660 $0/kvm && mount --bind $0/kvm /dev/kvm && shift && exec "$@"'
)


@pytest.fixture
def kvm() -> None:
    try:
        os.close(os.open(KVM, os.O_RDWR))
    except OSError as error:
        pytest.skip(f"KVM cannot be used here: {error.strerror}")


def _features() -> list[str]:
    """The features of the processor that QEMU cannot give its guests here."""
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none", "-S"]
    try:
        run([*argv, "-monitor", "stdio"], stdin=b"quit\n", deadline=Deadline(HANGS))
    except CommandError as error:
        assert "0x10a" in f"{error}{error.stderr!r}", error
        return ["arch-capabilities"]
    return []


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose files QEMU's account can read."""
    with tempfile.TemporaryDirectory(prefix="vmt-kvm-", dir="/tmp") as name:
        for inside in ("", "guest", "dev"):
            (path := Path(name) / inside).mkdir(exist_ok=True)
            path.chmod(0o755)
        yield Path(name)


def test_forks_and_restores_go_on_where_their_guest_stood(kvm: None, folder: Path, state_folder: Path) -> None:
    before = inventory(state_folder)
    argv = [sys.executable, "-m", "tests.machine.counting", str(folder / "guest"), "kvm", *_features()]
    if account := qemu_account():
        argv = ["unshare", "--mount", "sh", "-c", _PRIVATELY, str(folder / "dev"), str(account.gid), *argv]
    environment = os.environ | {"VMROLE_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=2 * HANGS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen["origins"]) == 3, seen
    # A template stands at one count: all its forks go on with the next.
    assert len(set(seen["firsts"])) == 1 and seen["go on"] == [True] * 3, seen
    assert seen["goes on"] and seen["restored"] == [[True] * 3] * 2, seen
    assert seen["refused"].startswith("the checkpoint before first was taken with KVM, and guests run with TCG here")
    settled(state_folder, before)


def test_a_processor_is_told_by_what_a_state_depends_on() -> None:
    facts = processor.identity()
    named = {fact.partition(":")[0] for fact in facts}
    assert {"vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "kernel"} <= named
    assert facts == processor.identity() and all("\n" not in fact for fact in facts)
