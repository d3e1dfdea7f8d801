# SPDX-License-Identifier: Apache-2.0
"""Bringing a machine from power-on to specialised, reachable and read back."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.guest.protocol import Guest
from harness.image.recipe import Image
from harness.machine.protocol import Hypervisor, Machine, MachineSpec, Medium, Network, Nic
from harness.run.boot import await_ready
from harness.run.events import EventBus, MachineChosen, SpecializationRead
from harness.run.request import MachineRequest
from harness.run.result import ImageFacts
from harness.run.system import Identity, Resident, System, Terminal, system_of

PHASES = ("boot", "connect", "read-back")

_BOOT_SECONDS = {"kvm": 60.0, "tcg": 300.0}
"""From power-on to the ready marker. Emulated guests are 3-7 times slower, and the host may be busy."""

_GREETED = 20.0
_MAC = "52:54:00:76:6d:72"
"""Every machine's: each is alone on its network, and a fork has to keep its template's."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A specialised machine."""

    machine: Machine
    guest: Guest
    image: Image
    identity: Identity
    system: System

    def access(self) -> dict[str, str | int]:
        """What a later process needs to log in; goes to the private state folder only."""
        return self.identity.access(self.machine)

    def terminal(self, *, deadline: Deadline) -> Terminal:
        """A connection of its own for a user's session. The caller closes it."""
        return self.identity.terminal(self.machine, deadline=deadline)


@contextlib.contextmanager
def deploy(
    hypervisor: Hypervisor,
    image: Image,
    request: MachineRequest,
    bus: EventBus,
    *,
    deadline: Deadline,
    payload: Callable[[Path], None] | None = None,
    scratch: Path,
    on_machine: Callable[[Machine], None] = lambda _machine: None,
    on_secrets: Callable[[Sequence[str]], None] = lambda _secrets: None,
    reading_back: bool = True,
) -> Iterator[Deployed]:
    """A machine of ``image``, specialised as ``request`` says, for the time of the context.

    ``payload`` writes the extension's payload into a folder given to it; it reaches the guest on the instance medium,
    which is ejected and deleted before this yields. ``on_machine`` is called as soon as there is a machine, so that a
    caller can save its console whatever happens then; ``on_secrets`` gets what was made for it and must not be shown.
    ``reading_back`` is for who shows or checks what the guest became.
    Raises GuestNotReadyError, with the stage reached and what was awaited, when the guest does not become ready.
    """
    accelerator = hypervisor.accelerator(image)
    facts = ImageFacts.of(image)
    bus.emit(MachineChosen(image=facts, accelerator=accelerator))
    system = system_of(image.recipe)
    if told := system.caveat(image.recipe):
        bus.notice("note", told)
    token = secrets.token_hex(3)
    nic = network_card(Network(request.network))
    memory_mb = request.memory_mb or image.recipe.memory_mb
    with contextlib.ExitStack() as stack:
        turn = hypervisor.turn(memory_mb, deadline=deadline, waiting=lambda what: bus.notice("note", what))
        stack.enter_context(turn)
        # Made while the machine starts: it is needed only once there is a guest to give it to.
        making = stack.enter_context(ThreadPoolExecutor(1, "identity")).submit(
            lambda: system.identity(
                request, image, token, nic, payload=payload is not None, has_channel=hypervisor.has_channel
            )
        )

        def extracted() -> contextlib.AbstractContextManager[Path | None]:
            return _extracted(payload, scratch / f"payload-{token}")

        def write_medium(path: Path) -> None:
            with extracted() as folder:
                making.result().write_medium(path, image, folder)

        medium = Medium("VMROLE", write_medium)
        spec = MachineSpec(
            name=f"vmrole-{token}",
            image=image,
            memory_mb=memory_mb,
            cpus=request.cpus or image.recipe.cpus,
            nics=(nic,),
            medium=medium,
            data_disks=request.data_disks,
        )
        freeze = system.freeze_point(image, nic)
        stack.callback(freeze.close)
        limit = deadline.within(_BOOT_SECONDS[accelerator.kind] * image.recipe.patience)
        with bus.phase("boot", awaits="the guest to start and specialise", limit=_whole(limit.timeout())):
            machine = stack.enter_context(
                hypervisor.machine(
                    spec,
                    deadline=limit,
                    freeze=None if request.cold else freeze,
                    waiting=lambda what: bus.notice("note", what),
                )
            )
            identity = making.result()
            on_secrets(identity.secrets)
            on_machine(machine)
            bus.emit(MachineChosen(forked=machine.origin.forked, fork_reason=machine.origin.reason))
            inserted = freeze.guest is not None and not _is_current(freeze.guest, image)
            if inserted:
                machine.insert(medium)
            elif freeze.guest:
                with extracted() as folder:
                    freeze.guest.specialize(identity.files(folder))
            boot_id = await_ready(machine, token, bus, limit)
        with bus.phase("connect", awaits="the guest to take commands"):
            limit = deadline.within(_BOOT_SECONDS[accelerator.kind])
            if inserted:
                # The time on the medium is that of when it was asked for.
                freeze.renew(token, deadline=limit)
            guest = identity.connect(machine, freeze.guest, boot_id=boot_id, deadline=limit)
            stack.callback(guest.close)
            machine.eject()
            if request.settings:
                # The seed's runtime APIs give them to programs; here they are a file.
                text = json.dumps(dict(request.settings), indent=1, ensure_ascii=False).encode()
                identity.put_settings(guest, text, deadline=limit)
        if reading_back:
            with bus.phase("read-back", awaits="the guest to tell what it became"):
                seen = identity.read_back(guest, deadline=limit)
                bus.emit(
                    SpecializationRead(
                        observations=seen.observations,
                        certificates=seen.certificates,
                        local_resources=seen.local_resources,
                    )
                )
        yield Deployed(machine, guest, image, identity, system)


def network_card(network: Network) -> Nic:
    """The one network card of a machine; QEMU's user networking has these addresses."""
    return Nic(network, _MAC, "10.0.2.15/24", "10.0.2.2", "10.0.2.3")


@contextlib.contextmanager
def _extracted(payload: Callable[[Path], None] | None, folder: Path) -> Iterator[Path | None]:
    """The payload in ``folder``, which is gone afterwards; None when there is none."""
    if payload is None:
        yield None
        return
    payload(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_current(agent: Resident, image: Image) -> bool:
    """Whether a fork has our version of the integration components; another one needs the medium, which brings them."""
    return agent.state(deadline=Deadline(_GREETED)).version == image.wanted_components


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else float(round(seconds))
