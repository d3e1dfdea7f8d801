# SPDX-License-Identifier: Apache-2.0
"""Bringing a machine from power-on to specialised, reachable and read back."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.channel import ChannelGuest
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.image.recipe import Image
from harness.machine.protocol import Capability, Hypervisor, Machine, MachineSpec, Medium, Network, Nic
from harness.run.answer import LOCALE, Answer, computer_name, hash_password, random_password
from harness.run.boot import await_ready
from harness.run.events import EventBus, MachineChosen, SpecializationRead
from harness.run.freeze import AgentFreezePoint
from harness.run.instance import SshKeyPair, instance_files, make_ssh_keypair
from harness.run.readback import read_back
from harness.run.request import MachineRequest
from harness.run.result import CertificateResult, ImageFacts, LocalResourceResult

if TYPE_CHECKING:
    from harness.guest.ssh import SshGuest

PHASES = ("boot", "connect", "read-back")

_BOOT_SECONDS = {"kvm": 60.0, "tcg": 300.0}
"""From power-on to the ready marker. Emulated guests are 3-7 times slower, and the host may be busy."""

SETTINGS = "/var/lib/vmrole/configuration-settings.json"
"""Where programs in the guest find the values of the service configuration's settings: one JSON object, for root."""

PAYLOAD = "/var/lib/vmrole/payload"
_SSH = 22
_GREETED = 20.0
_MAC = "52:54:00:76:6d:72"
"""Every machine's: each is alone on its network, and a fork has to keep its template's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What was made for one machine. ``password`` and the private halves of the keys are secret."""

    answer: Answer
    password: str = field(repr=False)
    client_key: SshKeyPair
    host_key: SshKeyPair

    @property
    def secrets(self) -> list[str]:
        """What must not be shown, the keys also line by line."""
        keys = [key.private.decode() for key in (self.host_key, self.client_key)]
        lines = [line for key in keys for line in key.splitlines() if len(line) > 30]
        return [self.password, self.answer.administrator_password_hash, *keys, *lines]


@dataclass(frozen=True, slots=True)
class Deployed:
    """A specialised machine."""

    machine: Machine
    guest: Guest
    image: Image
    identity: Identity

    @property
    def answer(self) -> Answer:
        return self.identity.answer

    def ssh(self, *, deadline: Deadline) -> SshGuest:
        """A connection of its own to the guest's SSH server, for what needs a terminal. The caller closes it."""
        return _ssh(self.machine, self.identity, deadline)

    def access(self) -> dict[str, str | int]:
        """What a later process needs to log in; goes to the private state folder only."""
        host, port = self.machine.endpoint(_SSH)
        keys = self.identity
        client_key = keys.client_key.private.decode()
        return {"host": host, "port": port, "client_key": client_key, "host_key": keys.host_key.public}


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
    facts = ImageFacts(image.recipe.name, image.key, image.recipe.stand_in)
    bus.emit(MachineChosen(image=facts, accelerator=accelerator))
    token = secrets.token_hex(3)
    nic = network_card(Network(request.network))
    memory_mb = request.memory_mb or image.recipe.memory_mb
    with contextlib.ExitStack() as stack:
        turn = hypervisor.turn(memory_mb, deadline=deadline, waiting=lambda what: bus.notice("note", what))
        stack.enter_context(turn)
        # Made while the machine starts: it is needed only once there is a guest to give it to.
        making = stack.enter_context(ThreadPoolExecutor(1, "identity")).submit(
            _new_identity, request, token, nic, payload is not None, await_ssh=not hypervisor.has_channel
        )
        medium = Medium("VMROLE", lambda path: _write_medium(path, making.result(), image, payload, scratch))
        spec = MachineSpec(
            name=f"vmrole-{token}",
            image=image,
            memory_mb=memory_mb,
            cpus=request.cpus,
            nics=(nic,),
            medium=medium,
        )
        freeze = AgentFreezePoint({**ENVIRONMENT, "LANG": LOCALE})
        stack.callback(freeze.close)
        limit = deadline.within(_BOOT_SECONDS[accelerator.kind])
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
            if freeze.guest:
                _hand_over(machine, freeze.guest, image, medium, identity, payload, scratch)
            await_ready(machine, token, bus, limit)
        with bus.phase("connect", awaits="the guest to take commands"):
            limit = deadline.within(_BOOT_SECONDS[accelerator.kind])
            guest = _connect(machine, freeze, identity, limit)
            stack.callback(guest.close)
            machine.eject()
            if request.settings:
                # The seed's runtime APIs give them to programs; here they are a file.
                text = json.dumps(dict(request.settings), indent=1, ensure_ascii=False).encode()
                guest.put(text, SETTINGS, deadline=limit)
        if reading_back:
            with bus.phase("read-back", awaits="the guest to tell what it became"):
                _read_back(guest, identity, bus, limit)
        yield Deployed(machine, guest, image, identity)


def network_card(network: Network) -> Nic:
    """The one network card of a machine; QEMU's user networking has these addresses."""
    return Nic(network, _MAC, "10.0.2.15/24", "10.0.2.2", "10.0.2.3")


def _new_identity(request: MachineRequest, token: str, nic: Nic, payload: bool, *, await_ssh: bool) -> Identity:
    """Everything that makes a machine one of its own."""
    host_key, client_key = make_ssh_keypair("vmrole"), make_ssh_keypair("vmrole")
    password = request.administrator_password or random_password()
    answer = Answer(
        instance=token,
        computer_name=computer_name(request.computer_name, request.instance, random.SystemRandom()),
        administrator_password_hash=hash_password(password),
        authorized_key=client_key.public,
        machine_id=secrets.token_hex(16),
        entropy=secrets.token_hex(64),
        time=time.time(),
        nics=(nic,),
        certificates=request.certificates,
        local_resources=request.all_local_resources,
        payload=PAYLOAD if payload else None,
        await_ssh=await_ssh,
    )
    return Identity(answer, password, client_key, host_key)


def _hand_over(
    machine: Machine,
    guest: ChannelGuest,
    image: Image,
    medium: Medium,
    identity: Identity,
    payload: Callable[[Path], None] | None,
    scratch: Path,
) -> None:
    """Give a fork its instance data: over the channel, or on the medium when it lacks our integration components."""
    if guest.state(deadline=Deadline(_GREETED)).version != (image.components / "VERSION").read_text("utf-8").strip():
        machine.insert(medium)
        return
    folder = None
    if payload:
        folder = scratch / f"payload-{identity.answer.instance}"
        payload(folder)
    try:
        guest.specialize(instance_files(replace(identity.answer, time=time.time()), identity.host_key, folder))
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(machine: Machine, freeze: AgentFreezePoint, identity: Identity, deadline: Deadline) -> Guest:
    """By the agent's channel where there is one, else by SSH."""
    if freeze.guest:
        return freeze.guest
    if Capability.guest_channel in machine.capabilities:
        guest = ChannelGuest(machine.channel(), environment={**ENVIRONMENT, "LANG": identity.answer.locale})
        guest.reconnect(deadline=deadline)
        return guest
    return _ssh(machine, identity, deadline)


def _ssh(machine: Machine, identity: Identity, deadline: Deadline) -> SshGuest:
    from harness.guest.ssh import SshGuest

    host, port = machine.endpoint(_SSH)
    return SshGuest.connect(
        host,
        port,
        client_key=identity.client_key.private,
        host_key=identity.host_key.public,
        deadline=deadline,
        environment={**ENVIRONMENT, "LANG": identity.answer.locale},
    )


def _write_medium(
    path: Path, identity: Identity, image: Image, payload: Callable[[Path], None] | None, scratch: Path
) -> None:
    from harness.run.medium import build_medium

    folder = None
    if payload:
        folder = scratch / f"payload-{identity.answer.instance}"
        payload(folder)
    try:
        build_medium(
            path,
            answer=identity.answer,
            host_key=identity.host_key,
            components=image.components,
            payload_root=folder,
        )
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _read_back(guest: Guest, identity: Identity, bus: EventBus, deadline: Deadline) -> None:
    answer = identity.answer
    seen = read_back(guest, answer, host_key=identity.host_key.public, deadline=deadline)
    certificates = tuple(
        CertificateResult(c.thumbprint, c.store, f"/var/lib/waagent/{c.thumbprint}.crt") for c in answer.certificates
    )
    resources = tuple(LocalResourceResult(r.name, f"/resources/{r.name}", r.size_mb) for r in answer.local_resources)
    bus.emit(SpecializationRead(observations=tuple(seen), certificates=certificates, local_resources=resources))


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else float(round(seconds))
