# SPDX-License-Identifier: Apache-2.0
"""Following a guest from power-on, by what it announces on its console, and saying why it is not ready."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError, HostError
from harness.guest.protocol import Restarted
from harness.machine.protocol import Machine, MachineState
from harness.quoting import quoted
from harness.run.events import EventBus, StageReached

_AWAITS = {
    None: "the guest's first sign of life",
    "booting": "the guest's agent to look for its instance medium",
    "awaiting-instance": "the guest to find its instance medium",
    "installing-components": "the guest to install the integration components",
    "specializing": "the guest to finish its specialization",
}
_STAGE = re.compile(r"vmrole: stage (\S+)\s*(.*)")
_FAILED = re.compile(r"vmrole: failed (.*)")
_PANIC = re.compile(r"(end )?Kernel panic - not syncing: (.*)")
"""A kernel that has panicked restarts (panic=SECONDS), or says "end Kernel panic" and stands still for ever."""
_CONSOLE_LINES = 12
_SHOWN = 160


def await_ready(machine: Machine, token: str, bus: EventBus, deadline: Deadline) -> str:
    """Follow the guest's announcements until it is ready as the instance ``token``, or say why it is not. Returns the
    boot id that it announces."""
    boot_id = ""

    def reached(stage: str, more: str) -> bool:
        nonlocal boot_id
        words = more.split()
        if stage == "ready" and words[:1] != [token]:
            raise GuestError("the guest is ready as another instance than the one it was made for")
        boot_id = "".join(words[1:2])
        return stage == "ready"

    await_stage(machine, reached, deadline, told=lambda stage: bus.emit(StageReached(stage=stage)))
    return boot_id


def announced_restart(machine: Machine) -> Restarted:
    """Awaits the announcement of another boot on the machine's console.

    What is there before the guest is asked to restart does not count: boots that nobody asked for, of a service that
    was killed, are announced there too.
    """

    def leave(boot_id: str) -> Callable[[Deadline], str]:
        known = {boot_id, *_announced_boots(machine)}  # its own may be late

        return lambda deadline: _await_another_boot(machine, known, deadline)

    return leave


def _announced_boots(machine: Machine) -> set[str]:
    """The boot ids of all that was announced as ready until now."""
    found: set[str] = set()

    def collect(line: str) -> None:
        if (stage := _STAGE.match(line)) and stage[1] == "ready":
            found.update(stage[2].split()[1:2])

    machine.console.wait_for(collect, deadline=Deadline(0))
    return found


def _await_another_boot(machine: Machine, known: Collection[str], deadline: Deadline) -> str:
    """Follow the guest's announcements until it is ready in a boot that is not ``known``; its id. Raises as
    ``await_stage``."""
    boot_id = ""

    def reached(stage: str, more: str) -> bool:
        nonlocal boot_id
        boot_id = "".join(more.split()[1:2])
        return stage == "ready" and bool(boot_id) and boot_id not in known

    await_stage(machine, reached, deadline, doing="come back from its restart")
    return boot_id


def await_stage(
    machine: Machine,
    reached: Callable[[str, str], bool],
    deadline: Deadline,
    *,
    told: Callable[[str], None] = lambda _stage: None,
    doing: str = "specialise",
) -> None:
    """Follow the announcements on the console until ``reached`` accepts one (the stage, and what follows it).

    ``told`` gets every new stage; ``doing`` is what the guest is to do. Raises GuestError for a failure that the guest
    announces, GuestNotReadyError with the stage reached and what was awaited for a panic that it does not come back
    from, an end or the deadline, HostError when the host paused the machine.
    """
    stage: str | None = None
    counted, panic, halted = 0, "", False

    def match(line: str) -> str | None:
        nonlocal stage, counted, panic, halted
        if failed := _FAILED.match(line):
            raise GuestError(f"the guest cannot {doing}: {quoted(failed[1])}")
        if said := _PANIC.search(line):
            panic, halted = f"the guest's kernel panicked: {quoted(said[2])}", said[1] is not None
        elif found := _STAGE.match(line):
            panic, halted = "", False  # it has come back
            announcements.append(line)
            if len(announcements) > counted:
                counted = len(announcements)
                stage = found[1]
                told(stage)
            if reached(found[1], found[2]):
                return line
        return None

    while True:
        announcements: list[str] = []
        panic, halted = "", False
        if machine.console.wait_for(match, deadline=deadline.within(0.5)):
            return
        if reason := machine.why_paused():
            raise HostError(f"{reason} (the guest was at stage {stage or 'power-on'})", hint="free some disk space")
        if halted:
            raise _not_ready(machine, stage, panic)
        after = f"; {panic}" if panic else ""
        state = machine.state()
        if state is not MachineState.running:
            ended = _ENDED.get(state, state)
            raise _not_ready(machine, stage, f"the machine {ended} before the guest was ready{after}")
        if deadline.expired:
            raise _not_ready(machine, stage, f"the guest is not ready after {deadline.seconds:.0f} s{after}")


_ENDED = {MachineState.stopped: "switched itself off", MachineState.crashed: "crashed"}


def _not_ready(machine: Machine, stage: str | None, what: str) -> GuestNotReadyError:
    awaited = _AWAITS.get(stage, "the ready marker")
    lines = [line for line in machine.console.lines() if line.strip()][-_CONSOLE_LINES:]
    last = f", its last console line is '{quoted(lines[-1], _SHOWN)}'" if lines else ", and its console is empty"
    return GuestNotReadyError(
        f"{what}; it reached stage {stage or 'power-on'}, awaited was {awaited}{last}",
        stage=stage,
        awaited=awaited,
        console=lines,
    )
