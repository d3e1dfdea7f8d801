# SPDX-License-Identifier: Apache-2.0
"""Following a guest by what its console says, fed to the recorder that every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from harness.deadline import Deadline
from harness.errors import GuestNotReadyError
from harness.machine.console import ConsoleRecorder
from harness.machine.protocol import Machine, MachineState
from harness.run.boot import announced_restart, await_ready
from harness.run.events import EventBus

PANIC = "[    3.1] Kernel panic - not syncing: sysrq triggered crash\n"
HALTED = "[    3.2] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n"
RESTARTS = "[    3.2] Rebooting in 1 seconds..\n"
AGAIN = "vmrole: stage booting\nvmrole: stage ready token boot-2\n"


class Told:
    """A machine of which only its console is looked at, and whether it runs."""

    def __init__(self, *said: str, states: tuple[MachineState, ...] = ()) -> None:
        self.console = ConsoleRecorder()
        self.console.feed("".join(("vmrole: stage booting\n", *said)).encode())
        self._states: Iterator[MachineState] = iter(states)

    def state(self) -> MachineState:
        return next(self._states, MachineState.running)

    def why_paused(self) -> str | None:
        return None


def ready(told: Told, seconds: float = 60) -> str:
    return await_ready(cast(Machine, told), "token", EventBus(), Deadline(seconds))


def test_a_guest_that_panics_and_comes_back_is_followed() -> None:
    assert ready(Told(PANIC, RESTARTS, AGAIN)) == "boot-2"


def test_a_guest_that_panics_for_good_is_not_waited_for() -> None:
    deadline = Deadline(60)
    with pytest.raises(GuestNotReadyError, match="kernel panicked: sysrq triggered crash"):
        await_ready(cast(Machine, Told(PANIC, HALTED)), "token", EventBus(), deadline)
    assert not deadline.expired


def test_a_guest_that_panics_and_does_not_come_back_in_time_says_both() -> None:
    with pytest.raises(GuestNotReadyError, match=r"not ready after 1 s; the guest's kernel panicked: sysrq"):
        ready(Told(PANIC, RESTARTS), 1)


def test_a_machine_that_panics_and_goes_off_says_both() -> None:
    with pytest.raises(GuestNotReadyError, match=r"switched itself off before .*; the guest's kernel panicked: sysrq"):
        ready(Told(PANIC, states=(MachineState.stopped,)))


def test_a_restart_after_a_panic_of_long_ago_is_followed() -> None:
    told = Told("vmrole: stage ready token boot-1\n", PANIC, RESTARTS, AGAIN)
    restarted = announced_restart(cast(Machine, told))("boot-2")
    told.console.feed(AGAIN.replace("boot-2", "boot-3").encode())
    assert restarted(Deadline(60)) == "boot-3"
