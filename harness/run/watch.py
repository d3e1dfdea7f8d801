# SPDX-License-Identifier: Apache-2.0
"""Watching a machine while something else waits for its guest."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

from harness.errors import GuestError, GuestLostError, HostError, VmRoleError
from harness.machine.protocol import Machine, MachineState
from harness.quoting import quoted

_EVERY = 1.0


class Closable(Protocol):
    """A connection to the guest, which can be closed from any thread."""

    def close(self) -> None: ...


@contextlib.contextmanager
def watched(machine: Machine, guest: Closable) -> Iterator[None]:
    """Turn what happens to ``machine`` into an error of the block instead of a silence until its time-out.

    A machine that stopped, crashed or was paused by its hypervisor cannot answer: its guest's connection is closed,
    which ends what waits for it, and the reason takes the place of the GuestLostError.
    """
    found: list[VmRoleError] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(_EVERY):
            if reason := trouble(machine):
                found.append(reason)
                guest.close()
                return

    thread = threading.Thread(target=look, name="watch", daemon=True)
    thread.start()
    try:
        yield
    except GuestLostError as error:
        # The connection may have noticed first.
        reason = found[0] if found else trouble(machine)
        if reason:
            raise reason from error
        raise
    finally:
        over.set()
        thread.join()


def trouble(machine: Machine) -> VmRoleError | None:
    """Why ``machine`` cannot answer, None where it runs."""
    if paused := machine.why_paused():
        return HostError(paused, hint="free some disk space; 'vmrole sweep' and 'vmrole images list' help")
    state = machine.state()
    if state is MachineState.running:
        return None
    panic = next((line for line in machine.console.lines() if "Kernel panic" in line), None)
    return GuestError(f"the machine {state} while it was used" + (f": {quoted(panic)}" if panic else ""))
