# SPDX-License-Identifier: Apache-2.0
"""Collecting at the end of a run: from guests that do not answer, and while the user wants it to end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.deadline import Deadline
from harness.errors import GuestLostError
from harness.guest.channel import ChannelGuest
from harness.machine.protocol import MachineState
from harness.masking import Masker
from harness.run import runner
from harness.run.events import EventBus
from harness.run.interrupt import Interrupted, again_interruptible, interruptible
from harness.run.recorder import Recorder
from harness.run.runner import Role
from tests.package.material import with_profile, write
from tests.run.test_runner import request_of


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Role]:
    """A run whose guest has a connection, and nobody at its other end."""
    request = request_of(write(tmp_path, with_profile("/bin/true")))
    ours, theirs = socket.socketpair()
    with theirs, ChannelGuest(ours) as guest:
        role = Role(request, EventBus(), Recorder(), Masker())
        machine = SimpleNamespace(state=lambda: MachineState.running)
        role.deployed = SimpleNamespace(guest=guest, machine=machine)  # type: ignore[assignment]
        yield role


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GuestLostError("lost")])
def test_a_connection_that_stands_says_nothing_of_the_agent(silent: Role, error: BaseException) -> None:
    silent.error = error
    assert not runner._reachable(silent, Deadline(0.2))


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_one_more_signal_ends_what_may_be_left_out_and_no_cleaning_up() -> None:
    done = []
    with interruptible():
        with pytest.raises(Interrupted):
            press()
        with pytest.raises(Interrupted), again_interruptible():
            done.append("collecting")
            press()
            done.append("collected")
        press()
        done.append("cleaned up")
    assert done == ["collecting", "cleaned up"]


def test_a_signal_after_the_collecting_does_not_disturb() -> None:
    with interruptible():
        with pytest.raises(Interrupted):
            press()
        with again_interruptible():
            pass
        press()
