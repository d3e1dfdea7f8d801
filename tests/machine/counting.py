# SPDX-License-Identifier: Apache-2.0
"""Forks, checkpoints and restores of a boot sector that counts, with the product's own classes; prints what it saw.

A program of its own: it runs in a mount namespace where the account that QEMU runs under may open /dev/kvm.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.image.recipe import Image, Recipe
from harness.machine.protocol import Accelerator, Machine, MachineSpec, Medium
from harness.machine.qemu import driver, processor
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.process import run

HANGS = 240.0
_DELAY = {"kvm": 30_000, "tcg": 3_000_000}
_SOURCE = Path(__file__).with_name("counting.S")


@dataclass
class Counting:
    """harness.machine.protocol.FreezePoint."""

    slowness: float | None = None
    medium: Medium | None = None

    def keep(self, folder: Path) -> None:
        """Forks are greeted with nothing."""

    def recall(self, folder: Path) -> None:
        """Nothing."""

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        count(machine, at_least=5)

    def greet(self, machine: Machine, *, deadline: Deadline) -> None:
        count(machine)


def count(machine: Machine, *, at_least: int = 1) -> int:
    """What ``machine`` counts to next that is ``at_least`` so much."""

    def match(line: str) -> str | None:
        word, number = line.split()[-2:]
        assert word == "count", line
        return number if int(number, 16) >= at_least else None

    number = machine.console.wait_for(match, deadline=Deadline(HANGS))
    assert number is not None, list(machine.console.lines())[-5:]
    return int(number, 16)


def image(folder: Path, accelerator: Accelerator) -> Image:
    (folder / "probed").mkdir()
    (folder / "probed/kernel").touch()
    (folder / "image").mkdir()
    disk = folder / "image/disk.raw"
    run(["gcc", "-m32", "-nostdlib", "-Wl,--oformat=binary,-Ttext=0x7c00,--build-id=none", "-o", str(disk),
         f"-DDELAY={_DELAY[accelerator.kind]}", str(_SOURCE)], deadline=Deadline(HANGS))  # fmt: skip
    with disk.open("r+b") as file:
        file.truncate(1 << 20)
    disk.chmod(0o644)
    renews = ("entropy", "clock", "host-key", "name")
    recipe = Recipe.model_validate({
        "name": "counting", "os": "linux", "family": "Counting", "version": "1.0.0.0", "freeze_point": "specialised",
        "builder": "debian", "suite": "none", "disk_mb": 512, "packages": [], "memory_mb": 128, "renews": renews,
    })  # fmt: skip
    return Image(recipe, f"counting-{accelerator.kind}", disk, None, None, "", folder, "")


def next_count(machine: Machine) -> int:
    """One that it had not come to yet."""
    seen = [int(line.split()[-1], 16) for line in machine.console.lines() if line.startswith("vmrole: count ")]
    return count(machine, at_least=max(seen, default=0) + 2)


def tell(folder: Path, accelerator: Accelerator) -> Iterator[tuple[str, object]]:
    spec = MachineSpec("", image(folder, accelerator), 128, 1, ())
    freeze, deadline = Counting(), Deadline(HANGS)

    def named(name: str) -> MachineSpec:
        return replace(spec, name=f"vmrole-{name}")

    with LibvirtHypervisor.open() as hypervisor, contextlib.ExitStack() as stack:
        forks, took = [], []
        for name in ("a", "b", "c"):
            began = time.monotonic()
            machine = stack.enter_context(hypervisor.machine(named(name), deadline=deadline, freeze=freeze))
            took.append(time.monotonic() - began)
            forks.append(machine)
        yield "seconds", took
        yield "origins", [machine.origin.reason for machine in forks if machine.origin.forked]
        # The first line of a fork may be the rest of one that the template had begun.
        firsts = [count(machine) for machine in forks]
        yield "firsts", firsts
        yield "go on", [next_count(machine) > first for machine, first in zip(forks, firsts, strict=True)]
        recording = stack.enter_context(hypervisor.recording("vmrole-a"))
        saved = next_count(forks[0])
        yield "paused", recording.take(forks[0], "first")
        yield "goes on", next_count(forks[0]) > saved
        checkpoint = recording.steps[0]
        restored = []
        for name in ("d", "e"):
            with hypervisor.resume(named(name), checkpoint, deadline=deadline) as machine:
                first = count(machine)
                restored.append([first >= saved, first < saved + 50, next_count(machine) > first])
        yield "restored", restored
        other = Accelerator("tcg" if accelerator.kind == "kvm" else "kvm", "it is another one")
        set_accelerator(other)
        hypervisor._accelerators.clear()
        try:
            with hypervisor.resume(named("f"), checkpoint, deadline=deadline):
                yield "refused", ""
        except HostError as error:
            yield "refused", error.message


def set_accelerator(accelerator: Accelerator) -> None:
    """The probe's answer is for kernels of Linux, which some hosts' KVM does not run: this guest is less than those."""

    def chosen(kernel: Path, *, fresh: bool = False) -> Accelerator:
        return accelerator

    driver.choose_accelerator = chosen  # type: ignore[attr-defined]


def main() -> None:
    folder, kind, *without = sys.argv[1:]
    accelerator = Accelerator("kvm" if kind == "kvm" else "tcg", "asked for", tuple(without))
    set_accelerator(accelerator)
    seen: dict[str, object] = {"processor": processor.identity()}
    for name, value in tell(Path(folder), accelerator):
        seen[name] = value
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
