# SPDX-License-Identifier: Apache-2.0
"""The seam to a guest's operating system: what a run has to know of it, and nothing else of a run does.

An implementation is the package harness.run.<os>, imported when an image of that system is used; for guests without an
agent of ours harness.run.linux.cloud.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from harness.deadline import Deadline
from harness.guest.protocol import Guest, GuestResult
from harness.machine.protocol import FreezePoint, Machine, Nic
from harness.quoting import Mask
from harness.run.readback import Observation
from harness.run.result import CertificateResult, LocalResourceResult, Outcome, PretendedCall

if TYPE_CHECKING:
    from harness.guest.channel import File
    from harness.image.recipe import Image, Recipe
    from harness.plan import Plan, Step
    from harness.run.events import EventBus
    from harness.run.request import MachineRequest, Pretence


@dataclass(frozen=True, slots=True)
class Specialization:
    """What a guest became, as it tells itself."""

    observations: tuple[Observation, ...]
    certificates: tuple[CertificateResult, ...] = ()
    local_resources: tuple[LocalResourceResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one execution of a step, and why. ``reboot`` whether the guest has to restart before anything
    else, ``rerun`` whether the step is executed again after that, ``restarting`` whether it does so anyway, as it was
    asked to from inside, ``warm`` whether an engine of PowerShell that stood by ran it. A step that was not started has
    no ``result``."""

    outcome: Outcome
    result: GuestResult | None = None
    finding: str | None = None
    reboot: bool = False
    rerun: bool = False
    restarting: bool = False
    cut_short: bool = False
    """Whether the restart that it asked for has ended the step itself."""
    warm: bool = False
    pretended: tuple[PretendedCall, ...] = ()

    def noting(self, said: str) -> Done:
        """The same with one more reason."""
        return replace(self, finding=f"{self.finding}; {said}" if self.finding else said)


class Terminal(Protocol):
    """A user's own session in the guest."""

    @property
    def connected(self) -> bool: ...

    def interactive(self) -> int:
        """Join it to this terminal until it ends; its exit code."""

    def close(self) -> None: ...


class Identity(Protocol):
    """One machine to be: what was made for it alone, and how it is given it, reached and asked."""

    @property
    def secrets(self) -> list[str]:
        """What must not be shown."""

    def write_medium(self, path: Path, image: Image, payload: Path | None) -> None:
        """Write the instance medium to ``path``; ``payload`` is the folder of the extension's payload."""

    def files(self, payload: Path | None) -> Iterator[File]:
        """The same for the agent's channel, which carries no integration components."""

    def connect(self, machine: Machine, agent: Resident | None, *, boot_id: str, deadline: Deadline) -> Guest:
        """The guest for commands; ``agent`` is the channel that a fork was greeted on, if it was one, and ``boot_id``
        what the guest announced with its readiness."""

    def terminal(self, machine: Machine, *, deadline: Deadline) -> Terminal: ...

    def put_settings(self, guest: Guest, settings: bytes, *, deadline: Deadline) -> None:
        """Give programs in the guest the values of the service configuration, one JSON object."""

    def read_back(self, guest: Guest, *, deadline: Deadline) -> Specialization: ...

    def recycle(self, guest: Guest, *, deadline: Deadline) -> str:
        """Restart the guest as the platform recycles a role: it comes back with those local resources empty that are
        not to be kept, their folders, rights and sizes as they were. The new boot's id."""

    def access(self, machine: Machine) -> dict[str, str | int]:
        """What a later process needs to log in; goes to the private state folder only."""


class Executor(Protocol):
    """Executes the steps of one run."""

    def prepare(
        self, plan: Plan, guest: Guest, bus: EventBus, *, deadline: Deadline, pretence: Pretence | None = None
    ) -> None:
        """Look, before anything runs, at what will not work, and say so; have the guest pretend what is asked for."""

    def why_not(self, step: Step) -> str | None:
        """Why ``step`` cannot be executed in this guest, one sentence; None when it can."""

    def run(self, step: Step, guest: Guest, *, deadline: Deadline) -> Done:
        """One step, once. Raises VmRoleError when the guest is lost."""


class Resident(Protocol):
    """What makes a fork a machine of its own."""

    def state(self, *, deadline: Deadline) -> Installed: ...

    def specialize(self, files: Iterable[File]) -> None:
        """Give the guest its instance data and let it specialise; its stages are told on the console."""


class Installed(Protocol):
    @property
    def version(self) -> str:
        """Of the integration components in the guest."""


class Greeting(FreezePoint, Protocol):
    """A freeze point that remembers the fork it greeted last."""

    @property
    def guest(self) -> Resident | None: ...

    def renew(self, instance: str, *, deadline: Deadline) -> None:
        """Give that fork, ``instance`` since its medium was read, entropy and the clock of now. Raises GuestError."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What a replay changes in the payload: names below ``folder`` of files to write, and of files that are gone."""

    folder: Path
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.changed + self.gone


class Resumption(Protocol):
    """How a machine goes on from a checkpoint (harness.run.replay)."""

    def remember(self, identity: Identity) -> dict[str, Any]:
        """What has to be known of ``identity`` to reach its machine again, as JSON values; secret."""

    def recall(self, facts: Mapping[str, Any]) -> Identity:
        """The identity again. Raises KeyError, TypeError or ValueError for what was not remembered."""

    def go_on(self, machine: Machine, identity: Identity, changes: Changes | None, *, deadline: Deadline) -> Guest:
        """Give the guest entropy and clock of now, and the payload of now where that has changes; everything else stays
        as it was. Raises GuestError when it does not go on."""


class System(Protocol):
    """What the package of an operating system offers, as ``SYSTEM``."""

    @property
    def resumption(self) -> Resumption | None:
        """None where a machine cannot go on from a checkpoint."""

    def caveat(self, recipe: Recipe) -> str | None:
        """What a result on the image does not prove, one sentence; None for nothing that has to be told."""

    def identity(
        self, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, has_channel: bool
    ) -> Identity:
        """Make everything that makes a machine one of its own."""

    def freeze_point(self, image: Image, nic: Nic) -> Greeting: ...

    def executor(self, recipe: Recipe) -> Executor: ...

    def collect(self, guest: Guest, plan: Plan, folder: Path, *, mask: Mask, deadline: Deadline) -> list[str]:
        """Write the guest's logs to ``folder``; returns sentences about what could not be had."""

    @property
    def offline(self) -> Sequence[str]:
        """Files to look for on the disk of a guest that does not answer."""


def system_of(recipe: Recipe) -> System:
    """The implementation for guests of ``recipe``."""
    module = "linux.cloud" if recipe.bootstrap == "cloud-init" else recipe.os
    return cast(System, importlib.import_module(f"harness.run.{module}").SYSTEM)
