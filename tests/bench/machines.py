# SPDX-License-Identifier: Apache-2.0
"""Machines in this process, as pytest has them: forks, many of them, their memory, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.deadline import Deadline
from harness.image.recipe import Image
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.machine.qemu.machine import LibvirtMachine
from harness.run.deploy import Deployed, deploy
from harness.run.events import EventBus, MachineChosen
from harness.run.host import find_image, hypervisor
from harness.run.replay import GoingBack, facts_of
from harness.run.request import MachineRequest, Resume

MANY = 8
_DIRTY_MB = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """An open hypervisor with an image."""

    driver: LibvirtHypervisor
    image: Image
    scratch: Path

    @contextlib.contextmanager
    def machine(self, memory_mb: int = 512) -> Iterator[Deployed]:
        request = MachineRequest(self.image.recipe.name, memory_mb=memory_mb)
        with deploy(
            self.driver, self.image, request, EventBus(), deadline=Deadline(300), scratch=self.scratch,
            reading_back=False,
        ) as machine:  # fmt: skip
            yield machine

    def forked(self, memory_mb: int) -> float:
        """Seconds until a fork runs and its agent has answered; it is not specialised."""
        request, bus, answered = MachineRequest(self.image.recipe.name, memory_mb=memory_mb), EventBus(), []
        bus.subscribe(lambda event: answered.append(time.monotonic()) if _is_forked(event) else None)
        began = time.monotonic()
        with deploy(
            self.driver, self.image, request, bus, deadline=Deadline(300), scratch=self.scratch, reading_back=False
        ):
            return answered[0] - began

    def first_command(self) -> float:
        """Seconds until the first command in a specialised fork has ended."""
        began = time.monotonic()
        with self.machine() as machine:
            machine.guest.run(["true"], deadline=Deadline(60))
            return time.monotonic() - began

    def many(self, threads: int) -> float:
        """Seconds until MANY forks have each run a command, all of them there at the same time."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(threads) as pool:

            def one(_number: int) -> None:
                machine = stack.enter_context(self.machine())
                machine.guest.run(["true"], deadline=Deadline(60))

            list(pool.map(one, range(MANY)))
            return time.monotonic() - began

    def memory_of_many(self) -> float:
        """MiB that MANY idle forks take together, shared memory counted once (PSS)."""
        with contextlib.ExitStack() as stack:
            machines = [stack.enter_context(self.machine()).machine for _ in range(MANY)]
            return sum(m.memory_size for m in machines if isinstance(m, LibvirtMachine)) / (1 << 20)

    def checkpoint(self, run: str) -> tuple[float, float]:
        """Seconds that a guest stands still at a checkpoint after a step that dirtied 50 MB, and seconds from the start
        of going on from it to the end of the first command there."""
        bus = EventBus()
        request = MachineRequest(self.image.recipe.name)
        with self.machine() as machine, self.driver.recording(machine.machine.name) as recording:
            script = f"head -c {_DIRTY_MB * 1_000_000} /dev/urandom >/dev/shm/dirty"
            machine.guest.run(["sh", "-c", script], deadline=Deadline(120))
            paused = recording.take(machine.machine, "step")
            assert paused is not None
            kept = recording.keep(run, facts_of(machine))
        assert kept is not None
        began = time.monotonic()
        back = GoingBack(self.driver, self.image, request, Resume(kept, "step"), bus, Deadline(120))
        with back.told() as again:
            again.guest.run(["true"], deadline=Deadline(60))
            took = time.monotonic() - began
        kept.remove()
        return paused, took


def _is_forked(event: object) -> bool:
    return isinstance(event, MachineChosen) and bool(event.forked)


@contextlib.contextmanager
def place(image: str) -> Iterator[Place]:
    """The hypervisor of this process with ``image``."""
    request, bus = MachineRequest(image), EventBus()
    built = find_image(request, bus, deadline=Deadline(900))
    with hypervisor(request, bus) as (driver, scratch):
        yield Place(driver, built, scratch)
