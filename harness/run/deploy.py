# SPDX-License-Identifier: Apache-2.0
"""Bringing a machine from power-on to specialised, reachable and read back."""

from __future__ import annotations

import contextlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError, HostError
from harness.guest.command import ENVIRONMENT
from harness.guest.ssh import SshGuest
from harness.image.recipe import Image
from harness.machine.protocol import Hypervisor, Machine, MachineSpec, MachineState, Medium, Network, Nic
from harness.run.answer import Answer, computer_name, hash_password, random_password
from harness.run.events import EventBus, MachineChosen, SpecializationRead, StageReached
from harness.run.medium import SshKeyPair, build_medium, make_ssh_keypair
from harness.run.readback import read_back
from harness.run.request import MachineRequest
from harness.run.result import CertificateResult, ImageFacts, LocalResourceResult

PHASES = ("boot", "connect", "read-back")

_BOOT_SECONDS = {"kvm": 60.0, "tcg": 300.0}
"""From power-on to the ready marker. Emulated guests are 3-7 times slower, and the host may be busy."""

_AWAITS = {
    None: "the guest's first sign of life",
    "booting": "the guest's agent to look for its instance medium",
    "awaiting-instance": "the guest to find its instance medium",
    "installing-components": "the guest to install the integration components",
    "specializing": "the guest to finish its specialization",
}
_STAGE = re.compile(r"vmrole: stage (\S+)\s*(.*)")
_FAILED = re.compile(r"vmrole: failed (.*)")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_PAYLOAD = "/var/lib/vmrole/payload"
_SSH = 22
_CONSOLE_LINES = 12


@dataclass(frozen=True, slots=True)
class Deployed:
    """A specialised machine and what was made for it. ``password`` and ``client_key`` are secret."""

    machine: Machine
    guest: SshGuest
    image: Image
    answer: Answer
    password: str = field(repr=False)
    client_key: bytes = field(repr=False)
    host_key: str

    def access(self) -> dict[str, str | int]:
        """What a later process needs to log in; goes to the private state folder only."""
        host, port = self.machine.endpoint(_SSH)
        return {"host": host, "port": port, "client_key": self.client_key.decode(), "host_key": self.host_key}


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
    bus.emit(MachineChosen(image=facts, accelerator=accelerator, forked=False, fork_reason="forks are not made yet"))
    host_key, client_key = make_ssh_keypair("vmrole"), make_ssh_keypair("vmrole")
    password = request.administrator_password or random_password()
    token = secrets.token_hex(3)
    nic = Nic(Network(request.network), _mac(), "10.0.2.15/24", "10.0.2.2", "10.0.2.3")
    rng = random.SystemRandom()
    answer = Answer(
        instance=token,
        computer_name=computer_name(request.computer_name, request.instance, rng),
        administrator_password_hash=hash_password(password),
        authorized_key=client_key.public,
        machine_id=secrets.token_hex(16),
        entropy=secrets.token_hex(64),
        time=time.time(),
        nics=(nic,),
        certificates=request.certificates,
        local_resources=request.all_local_resources,
        payload=_PAYLOAD if payload else None,
    )
    keys = [key.private.decode() for key in (host_key, client_key)]
    lines = [line for key in keys for line in key.splitlines() if len(line) > 30]
    on_secrets([password, answer.administrator_password_hash, *keys, *lines])
    medium = Medium("VMROLE", lambda path: _write_medium(path, answer, host_key, image, payload, scratch))
    spec = MachineSpec(
        name=f"vmrole-{token}",
        image=image,
        memory_mb=request.memory_mb or image.recipe.memory_mb,
        cpus=request.cpus,
        nics=(nic,),
        medium=medium,
    )
    with contextlib.ExitStack() as stack:
        limit = deadline.within(_BOOT_SECONDS[accelerator.kind])
        with bus.phase("boot", awaits="the guest to start and specialise", limit=_whole(limit.timeout())):
            machine = stack.enter_context(hypervisor.machine(spec, deadline=limit))
            on_machine(machine)
            _await_ready(machine, token, bus, limit)
        with bus.phase("connect", awaits="the guest's SSH server"):
            limit = deadline.within(_BOOT_SECONDS[accelerator.kind])
            host, port = machine.endpoint(_SSH)
            guest = stack.enter_context(
                SshGuest.connect(
                    host,
                    port,
                    client_key=client_key.private,
                    host_key=host_key.public,
                    deadline=limit,
                    environment={**ENVIRONMENT, "LANG": answer.locale},
                )
            )
            machine.eject()
        if reading_back:
            with bus.phase("read-back", awaits="the guest to tell what it became"):
                _read_back(guest, answer, host_key, bus, limit)
        yield Deployed(machine, guest, image, answer, password, client_key.private, host_key.public)


def _write_medium(
    path: Path,
    answer: Answer,
    host_key: SshKeyPair,
    image: Image,
    payload: Callable[[Path], None] | None,
    scratch: Path,
) -> None:
    if payload is None:
        build_medium(path, answer=answer, host_key=host_key, components=image.components)
        return
    folder = scratch / "payload"
    payload(folder)
    build_medium(path, answer=answer, host_key=host_key, components=image.components, payload_root=folder)


def _await_ready(machine: Machine, token: str, bus: EventBus, deadline: Deadline) -> None:
    """Follow the guest's announcements until it is ready, or say why it is not."""
    stage: str | None = None
    told = 0

    def match(line: str) -> str | None:
        nonlocal stage, told
        if failed := _FAILED.match(line):
            raise GuestError(f"the guest cannot specialise: {failed[1]}")
        if panic := _PANIC.search(line):
            raise _not_ready(machine, stage, f"the guest's kernel panicked: {panic[1]}")
        if found := _STAGE.match(line):
            announcements.append(line)
            if len(announcements) > told:
                told = len(announcements)
                stage = found[1]
                bus.emit(StageReached(stage=stage))
            if found[1] == "ready":
                if found[2].split()[:1] != [token]:
                    raise GuestError("the guest is ready as another instance than the one it was made for")
                return line
        return None

    while True:
        announcements: list[str] = []
        if machine.console.wait_for(match, deadline=deadline.within(0.5)):
            return
        if reason := machine.why_paused():
            raise HostError(f"{reason} (the guest was at stage {stage or 'power-on'})", hint="free some disk space")
        state = machine.state()
        if state is not MachineState.running:
            raise _not_ready(machine, stage, f"the machine {_ENDED.get(state, state)} before the guest was ready")
        if deadline.expired:
            raise _not_ready(machine, stage, f"the guest is not ready after {deadline.seconds:.0f} s")


_ENDED = {MachineState.stopped: "switched itself off", MachineState.crashed: "crashed"}


def _not_ready(machine: Machine, stage: str | None, what: str) -> GuestNotReadyError:
    awaited = _AWAITS.get(stage, "the ready marker")
    lines = [line for line in machine.console.lines() if line.strip()][-_CONSOLE_LINES:]
    last = f", its last console line is '{lines[-1][:160]}'" if lines else ", and its console is empty"
    return GuestNotReadyError(
        f"{what}; it reached stage {stage or 'power-on'}, awaited was {awaited}{last}",
        stage=stage,
        awaited=awaited,
        console=lines,
    )


def _read_back(guest: SshGuest, answer: Answer, host_key: SshKeyPair, bus: EventBus, deadline: Deadline) -> None:
    seen = read_back(guest, answer, host_key=host_key.public, deadline=deadline)
    certificates = tuple(
        CertificateResult(c.thumbprint, c.store, f"/var/lib/waagent/{c.thumbprint}.crt") for c in answer.certificates
    )
    resources = tuple(LocalResourceResult(r.name, f"/resources/{r.name}", r.size_mb) for r in answer.local_resources)
    bus.emit(SpecializationRead(observations=tuple(seen), certificates=certificates, local_resources=resources))


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else float(round(seconds))


def _mac() -> str:
    """A random address in the range QEMU's makers registered."""
    tail = secrets.token_bytes(3)
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)
