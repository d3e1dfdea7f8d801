# SPDX-License-Identifier: Apache-2.0
"""What one Windows machine is made from, and how it is reached."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import ChannelGuest
from harness.guest.protocol import Guest, Restarted
from harness.guest.winrm import WinRmGuest
from harness.guest.wintext import GUEST
from harness.machine.protocol import Machine, Nic
from harness.plan.guestpaths import PAYLOAD_FOLDER
from harness.run.answer import computer_name, random_password
from harness.run.boot import announced_restart
from harness.run.medium import write_iso
from harness.run.readback import Components
from harness.run.result import CertificateResult, LocalResourceResult
from harness.run.system import Specialization
from harness.run.windows.answer import WindowsAnswer, WinRmCertificate, instance_files
from harness.run.windows.engines import end_engines
from harness.run.windows.readback import read_back
from harness.run.windows.unattend import MSI, answer_file, encode_password, render, secrets_of

if TYPE_CHECKING:
    from harness.guest.channel import File
    from harness.image.recipe import Image
    from harness.run.request import MachineRequest
    from harness.run.system import Resident

SETTINGS = "C:\\ProgramData\\VMRole\\configuration-settings.json"
"""Where programs in the guest find the values of the service configuration's settings: one JSON object."""
_HTTPS = 5986


@dataclass(frozen=True, slots=True)
class WindowsIdentity:
    """harness.run.system.Identity. ``password``, the answer file and the private keys are secret."""

    answer: WindowsAnswer
    password: str = field(repr=False)
    unattend: bytes = field(repr=False)
    winrm: WinRmCertificate
    components: Components
    stand_in: bool
    secrets: list[str] = field(repr=False)
    cold_engines: bool = False

    @classmethod
    def new(cls, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool) -> WindowsIdentity:
        name = computer_name(request.computer_name, request.instance, random.SystemRandom())
        password = request.administrator_password or random_password()
        winrm = WinRmCertificate.new(name)
        pfx_password = secrets.token_urlsafe(24)
        answer = WindowsAnswer(
            instance=token,
            computer_name=name,
            machine_id=secrets.token_hex(16),
            entropy=secrets.token_hex(64),
            time=time.time(),
            nics=(nic,),
            certificates=request.certificates,
            pfx_password=pfx_password,
            winrm_certificate=winrm.thumbprint,
            local_resources=request.all_local_resources,
            payload=PAYLOAD_FOLDER if payload else None,
        )
        components = Components(image.wanted_components, image.components_version)
        install = components.of_image != components.wanted
        file = answer_file(name, password, stand_in=image.recipe.stand_in, install=install)
        shown = [encode_password(password, "AdministratorPassword"), encode_password(password, "Password")]
        own = secrets_of(request.answer_file) if request.answer_file else []
        return cls(
            answer,
            password,
            render(file, request.answer_file),
            winrm,
            components,
            image.recipe.stand_in,
            [password, pfx_password, *shown, winrm.key_pem, *own],
            request.cold_engines,
        )

    def write_medium(self, path: Path, image: Image, payload: Path | None) -> None:
        def files() -> Iterator[File]:
            yield from instance_files(self.answer, self.unattend, self.winrm, payload)
            for name in ("VERSION", "vmrole-components"):
                if (image.components / name).exists():
                    yield f"components/{name}", 0o755 if name != "VERSION" else 0o644, image.components / name
            yield MSI, 0o644, image.components / MSI

        write_iso(path, files(), now=self.answer.time)

    def files(self, payload: Path | None) -> Iterator[File]:
        return instance_files(replace(self.answer, time=time.time()), self.unattend, self.winrm, payload)

    def connect(self, machine: Machine, agent: Resident | None, *, boot_id: str, deadline: Deadline) -> Guest:
        """By WinRM, as real Windows is: the stand-in's channel is for its instance data only."""
        if isinstance(agent, ChannelGuest):
            agent.close()
        guest = self._winrm(machine, deadline, boot_id=boot_id, restarted=announced_restart(machine))
        if self.cold_engines:
            try:
                end_engines(guest, deadline=deadline)
            except BaseException:
                guest.close()
                raise
        return guest

    def _winrm(
        self,
        machine: Machine,
        deadline: Deadline,
        *,
        boot_id: str = "",
        restarted: Restarted | None = None,
    ) -> WinRmGuest:
        host, port = machine.endpoint(_HTTPS)
        return WinRmGuest.connect(
            host,
            port,
            password=self.password,
            certificate=self.winrm.pem,
            deadline=deadline,
            boot_id=boot_id,
            restarted=restarted,
        )

    def terminal(self, machine: Machine, *, deadline: Deadline) -> WinRmGuest:
        return self._winrm(machine, deadline)

    def put_settings(self, guest: Guest, settings: bytes, *, deadline: Deadline) -> None:
        guest.put(settings, SETTINGS, deadline=deadline)

    def read_back(self, guest: Guest, *, deadline: Deadline) -> Specialization:
        answer = self.answer
        seen = read_back(guest, answer, components=self.components, stand_in=self.stand_in, deadline=deadline)
        return Specialization(
            tuple(seen),
            tuple(
                CertificateResult(c.thumbprint, c.store, f"Cert:\\LocalMachine\\{c.store}\\{c.thumbprint}")
                for c in answer.certificates
            ),
            tuple(LocalResourceResult(r.name, f"C:\\Resources\\{r.name}", r.size_mb) for r in answer.local_resources),
        )

    def recycle(self, guest: Guest, *, deadline: Deadline) -> str:
        names = [resource.name for resource in self.answer.local_resources if resource.clean]
        if names:
            done = guest.run([GUEST, "recycle", *names], deadline=deadline, max_output=4096)
            if done.exit_code != 0:
                raise GuestError(f"the guest cannot be recycled: {done.said}")
        return guest.reboot(deadline=deadline)

    def access(self, machine: Machine) -> dict[str, str | int]:
        host, port = machine.endpoint(_HTTPS)
        return {"host": host, "port": port, "password": self.password, "certificate": self.winrm.pem.decode("ascii")}
