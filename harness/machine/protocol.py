# SPDX-License-Identifier: Apache-2.0
"""The hypervisor seam: a throwaway machine, whatever runs it.

Above this line nobody sees a host path, a pid, a port number that is not an endpoint, or a monitor command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from harness.deadline import Deadline
from harness.image.recipe import Image
from harness.machine.checkpoints import Checkpoint, Recording


class Capability(StrEnum):
    """What a driver can do beyond starting and destroying; asked for, never assumed."""

    fork = "fork"
    checkpoint = "checkpoint"
    change_medium = "change-medium"
    guest_channel = "guest-channel"
    crash = "crash"


class MachineState(StrEnum):
    """Life of a machine as its hypervisor sees it."""

    running = "running"
    paused = "paused"
    crashed = "crashed"
    stopped = "stopped"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What executes guest code, and why that one."""

    kind: Literal["kvm", "tcg"]
    reason: str
    without: tuple[str, ...] = ()
    """Features of this host's processor that guests cannot be given."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a network card is connected to. ``none`` reaches nothing at all, ``nat`` whatever the host reaches."""

    kind: Literal["none", "nat"] = "none"


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card; ``address`` and ``gateway`` are what the guest gives itself, with prefix length."""

    network: Network
    mac: str
    address: str
    gateway: str
    nameserver: str


@dataclass(frozen=True, slots=True)
class DataDisk:
    """An empty disk at the logical unit number ``lun``; it takes room on the host only as it is written."""

    lun: int
    size_mb: int = 10_240


@dataclass(frozen=True, slots=True)
class Medium:
    """A removable medium to deliver: ``write(path)`` makes the ISO there. It lives as long as it is inserted."""

    label: str
    write: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine to make. ``name`` is unique on the host and short (it becomes part of socket paths)."""

    name: str
    image: Image
    memory_mb: int
    cpus: int
    nics: tuple[Nic, ...]
    medium: Medium | None = None
    data_disks: tuple[DataDisk, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a machine comes from: whether it is a fork of a template, and why (not)."""

    forked: bool
    reason: str
    template: str | None = None
    """Key of the template."""
    made: float = 0.0
    """When that one was made, seconds since 1970: another one of the same key has other memory and another disk."""


class Channel(Protocol):
    """A byte stream to the agent in the guest; reading blocks, b"" is its end, failures are OSError."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class FreezePoint(Protocol):
    """What the driver of a guest knows about templates of it; a hypervisor calls it."""

    @property
    def medium(self) -> Medium | None:
        """What a machine is started with that is to become a template; None for nothing."""

    def keep(self, folder: Path) -> None:
        """Put what forks will be greeted with into the template's private folder."""

    def recall(self, folder: Path) -> None:
        """Take it from there again. Raises GuestError when it is gone."""

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        """Wait until a machine that was just switched on has come to where it can be frozen, and let go of it."""

    @property
    def slowness(self) -> float | None:
        """Of the machine that was reached: how many times longer than natively it takes; None where it is not known."""

    def greet(self, machine: Machine, *, deadline: Deadline) -> None:
        """Make the first contact with a fork. Raises GuestError when it does not answer as one."""


class Console(Protocol):
    """What the guest wrote on its console since power-on; capped, the middle goes first."""

    def lines(self) -> Sequence[str]:
        """The last lines, decoded defensively, control characters removed."""

    def wait_for(self, match: Callable[[str], str | None], *, deadline: Deadline) -> str | None:
        """The first non-None answer of ``match`` for an announcement (a line that begins with "vmrole: ", or a kernel
        panic), past ones included; None at the deadline or when the console closed."""

    def content(self) -> tuple[bytes, int, bytes]:
        """What was kept: the first bytes, how many were dropped after them, and the last; all of it and b"" where none
        were."""


class Machine(Protocol):
    """One running machine. Leaving its context destroys it unless it was kept."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def console(self) -> Console: ...

    def state(self) -> MachineState: ...

    @property
    def origin(self) -> Origin: ...

    def channel(self) -> Channel:
        """Connect to the agent in the guest (Capability.guest_channel); one connection at a time."""

    def endpoint(self, port: int) -> tuple[str, int]:
        """Forward TCP ``port`` of the guest; where to connect. The same port gives the same endpoint."""

    def insert(self, medium: Medium) -> None: ...

    def eject(self) -> None:
        """Take the medium out and delete it."""

    def crash(self) -> None:
        """Power off without telling the guest."""

    def connect_network(self, up: bool) -> None:
        """Plug the cables of all network cards in, or pull them: the guest sees its carriers come and go."""

    def checkpoint(self, folder: Path, layers: Path) -> float:
        """Save the machine as it is (Capability.checkpoint), for harness.machine.checkpoints, which gives the places.
        The guest stands still for so many seconds and goes on."""

    def read_disk(self, paths: Sequence[str], *, limit: int, deadline: Deadline) -> Iterator[tuple[str, bytes]]:
        """Files of a guest that does not answer, read from its disk offline and never mounted: it is powered off.
        Those that cannot be read before ``deadline`` are left out."""

    @property
    def processor_seconds(self) -> float:
        """Processor time of the host that it has taken since it was started."""

    @property
    def disk_bytes(self) -> int:
        """What the guest has written to its disk takes so many bytes on the host; 0 where that is not known."""

    def save_disk(self, path: Path, *, deadline: Deadline) -> None:
        """Write the whole disk to ``path``, raw, with what the guest wrote to it: it is powered off."""

    def why_paused(self) -> str | None:
        """A sentence when the hypervisor stopped the guest on its own: the host's disk is full, or an I/O error."""

    def keep(self, hours: float, *, run: str | None = None, access: dict[str, str | int] | None = None) -> None:
        """Let it outlive this process, for at most ``hours``. ``access`` is what `shell` needs to reach it; it is kept
        in the private state folder."""


class Hypervisor(Protocol):
    """Makes machines on one connection."""

    @property
    def has_channel(self) -> bool:
        """Whether its machines have Capability.guest_channel."""

    def accelerator(self, image: Image) -> Accelerator:
        """What will execute guests of ``image``, and why."""

    def slowness(self, image: Image) -> float:
        """How many times longer than natively guests of ``image`` take, measured where that could be; 1 where they are
        not emulated."""

    def turn(
        self, memory_mb: int, *, deadline: Deadline, waiting: Callable[[str], None]
    ) -> AbstractContextManager[None]:
        """Hold the right to run one machine of ``memory_mb``; waits while others have all that the host can give.

        ``waiting`` is told once what is lacking. Raises HostError at the deadline, and for what can never be.
        """

    def machine(
        self,
        spec: MachineSpec,
        *,
        deadline: Deadline,
        freeze: FreezePoint | None = None,
        waiting: Callable[[str], None] = lambda _for: None,
    ) -> AbstractContextManager[Machine]:
        """A running machine when the context is entered, and nothing is left when it ends.

        With ``freeze`` it is a fork of a template where that is possible, and has no medium then; else it is switched
        on. Its ``origin`` says which and why. ``waiting`` is told what takes long.
        """

    def recording(self, name: str) -> AbstractContextManager[Recording]:
        """A place for the checkpoints of the machine ``name``."""

    def resume(
        self, spec: MachineSpec, checkpoint: Checkpoint, *, deadline: Deadline
    ) -> AbstractContextManager[Machine]:
        """A machine that goes on from ``checkpoint``, which was taken of one with the same ``spec`` but for the name.
        Its entropy and clock are those of then."""
