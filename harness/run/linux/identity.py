# SPDX-License-Identifier: Apache-2.0
"""What one Linux machine is made from, and how it is reached."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.channel import ChannelGuest, File
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.machine.protocol import Capability, Machine, Nic
from harness.run.answer import Answer, computer_name, hash_password, random_password
from harness.run.boot import announced_restart
from harness.run.instance import SshKeyPair, instance_files, make_ssh_keypair
from harness.run.readback import Components, read_back
from harness.run.result import CertificateResult, LocalResourceResult
from harness.run.system import Resident, Specialization

if TYPE_CHECKING:
    from harness.guest.ssh import SshGuest
    from harness.image.recipe import Image
    from harness.run.request import MachineRequest

SETTINGS = "/var/lib/vmrole/configuration-settings.json"
"""Where programs in the guest find the values of the service configuration's settings: one JSON object, for root."""

PAYLOAD = "/var/lib/vmrole/payload"
RECYCLE = "/var/lib/vmrole/recycle"
"""Names of local resources, a line each, that the guest's next boot empties (docs/instance-medium.md)."""
_SSH = 22


@dataclass(frozen=True, slots=True)
class LinuxIdentity:
    """harness.run.system.Identity. ``password`` and the private halves of the keys are secret."""

    answer: Answer
    password: str = field(repr=False)
    client_key: SshKeyPair
    host_key: SshKeyPair
    components: Components

    @classmethod
    def new(
        cls, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, await_ssh: bool
    ) -> LinuxIdentity:
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
        components = Components(image.wanted_components, image.components_version)
        return cls(answer, password, client_key, host_key, components)

    @property
    def secrets(self) -> list[str]:
        """What must not be shown; the masker looks for the lines of keys too."""
        keys = [key.private.decode() for key in (self.host_key, self.client_key)]
        return [self.password, self.answer.administrator_password_hash, *keys]

    def write_medium(self, path: Path, image: Image, payload: Path | None) -> None:
        from harness.run.medium import build_medium

        build_medium(
            path, answer=self.answer, host_key=self.host_key, components=image.components, payload_root=payload
        )

    def files(self, payload: Path | None) -> Iterator[File]:
        return instance_files(replace(self.answer, time=time.time()), self.host_key, payload)

    def connect(self, machine: Machine, agent: Resident | None, *, boot_id: str, deadline: Deadline) -> Guest:
        """By the agent's channel where there is one, else by SSH."""
        if Capability.guest_channel not in machine.capabilities:
            return self.terminal(machine, deadline=deadline)
        guest = agent
        if not isinstance(guest, ChannelGuest):
            guest = ChannelGuest(machine.channel(), environment={**ENVIRONMENT, "LANG": self.answer.locale})
            guest.reconnect(deadline=deadline)
        guest.follow_restarts(announced_restart(machine))
        return guest

    def terminal(self, machine: Machine, *, deadline: Deadline) -> SshGuest:
        """A connection of its own to the guest's SSH server, for what needs a terminal. The caller closes it."""
        from harness.guest.ssh import SshGuest

        host, port = machine.endpoint(_SSH)
        return SshGuest.connect(
            host,
            port,
            client_key=self.client_key.private,
            host_key=self.host_key.public,
            deadline=deadline,
            environment={**ENVIRONMENT, "LANG": self.answer.locale},
        )

    def put_settings(self, guest: Guest, settings: bytes, *, deadline: Deadline) -> None:
        guest.put(settings, SETTINGS, deadline=deadline)

    def read_back(self, guest: Guest, *, deadline: Deadline) -> Specialization:
        answer = self.answer
        host_key = self.host_key.public
        seen = read_back(guest, answer, host_key=host_key, components=self.components, deadline=deadline)
        return Specialization(
            tuple(seen),
            tuple(
                CertificateResult(c.thumbprint, c.store, f"/var/lib/waagent/{c.thumbprint}.crt")
                for c in answer.certificates
            ),
            tuple(LocalResourceResult(r.name, f"/resources/{r.name}", r.size_mb) for r in answer.local_resources),
        )

    def recycle(self, guest: Guest, *, deadline: Deadline) -> str:
        names = [resource.name for resource in self.answer.local_resources if resource.clean]
        if names:
            guest.put("".join(f"{name}\n" for name in names).encode(), RECYCLE, deadline=deadline)
        return guest.reboot(deadline=deadline)

    def access(self, machine: Machine) -> dict[str, str | int]:
        host, port = machine.endpoint(_SSH)
        client_key = self.client_key.private.decode()
        return {"host": host, "port": port, "client_key": client_key, "host_key": self.host_key.public}
