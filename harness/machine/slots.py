# SPDX-License-Identifier: Apache-2.0
"""Memory and processors of this host, handed out to machines of this user's processes: never more than there is.

Each machine that runs has a file in STATE/slots, locked as long as its process holds it: the kernel lets go of the
lock of a process that dies. Machines that are kept outlive theirs, and their memory counts for as long as they are
there. A machine gets a slot when its memory fits beside that of the others, and when its process works already or
fewer processes work than the host has processors: a process that has a machine may have more, so that nobody waits
for a processor while holding one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.machine.host import OVERHEAD_MB, memory_available_mb, memory_total_mb
from harness.state import alone_in, make_private, process_folders, state_folder

_EVERY = 0.05
_PATIENCE = 3600.0
"""Seconds that a machine waits for its turn where nobody said how long; others may be at it all night."""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot of a living process."""

    pid: int
    memory_mb: int


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def capacity_mb() -> int:
    """Memory for machines on this host in MiB: all but a tenth, and at least 1 GiB, that stays for everything else."""
    total = memory_total_mb()
    return max(0, total - max(1024, total // 10))


def how_many(memory_mb: int) -> int:
    """How many machines of ``memory_mb`` it makes sense to work with at once, at least 1."""
    fitting = min(capacity_mb(), memory_available_mb()) // (memory_mb + OVERHEAD_MB)
    return max(1, min(processors(), fitting))


@contextlib.contextmanager
def slot(memory_mb: int, *, deadline: Deadline, waiting: Callable[[str], None] = lambda _for: None) -> Iterator[None]:
    """Hold the right to run a machine of ``memory_mb`` MiB for the time of the context.

    ``waiting`` is told once when others have to end first. Raises HostError for what this host can never give, and
    when the deadline passes.
    """
    need = memory_mb + OVERHEAD_MB
    if need > capacity_mb():
        raise HostError(
            f"a guest of {memory_mb} MiB needs {need} MiB of memory, this host has {capacity_mb()} MiB for guests",
            hint="give --memory a smaller number",
        )
    if need > capacity_mb() - (kept := _kept_mb()):
        raise HostError(
            f"a guest of {memory_mb} MiB needs {need} MiB of memory, and machines that are kept hold {kept} of the "
            f"{capacity_mb()} MiB that this host has for guests",
            hint="'vmrole sweep --kept' removes them",
        )
    folder = state_folder() / "slots"
    make_private(folder)
    limit = deadline.within(_PATIENCE)
    told = False

    def take() -> tuple[Path, int] | None:
        nonlocal told
        with alone_in(folder):
            held = _held(folder)
            lacking = _what_lacks(held, need)
            if not lacking:
                return _make(folder, need)
        if not told:
            told = True
            waiting(f"waiting for one of {len(held)} machines to end: there is no {lacking}")
        return None

    taken = limit.poll(take, every=_EVERY)
    if taken is None:
        raise HostError(
            f"no turn for a guest of {memory_mb} MiB within {limit.seconds:.0f} s: {len(_held(folder))} machines run",
            hint="end something, or run fewer at once",
        )
    path, descriptor = taken
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _make(folder: Path, need: int) -> tuple[Path, int]:
    path = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, f"{os.getpid()} {need}\n".encode())
    return path, descriptor


def _what_lacks(held: list[Held], need: int) -> str | None:
    """What there is not enough of for one more machine."""
    if sum(one.memory_mb for one in held) + _kept_mb() + need > capacity_mb() or need > memory_available_mb():
        return f"memory for one more ({need} MiB)"
    working = {one.pid for one in held}
    if os.getpid() not in working and len(working) >= processors():
        return f"processor for one more (this host has {processors()})"
    return None


def _kept_mb() -> int:
    """Memory of the machines that outlived their processes, in MiB; those hold no slot any more."""
    records = (record for folder in process_folders() for record in folder.records())
    return sum(record.memory_mb + OVERHEAD_MB for record in records if record.kept and record.memory_mb)


def _held(folder: Path) -> list[Held]:
    """The slots of living processes; those of dead ones are removed."""
    found = []
    for path in folder.glob("*-*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(ValueError):
                pid, memory = os.pread(descriptor, 64, 0).split()
                found.append(Held(int(pid), int(memory)))
        else:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    return found
