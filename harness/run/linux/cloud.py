# SPDX-License-Identifier: Apache-2.0
"""Linux guests without an agent of ours: cloud images, as distributions publish them.

Their cloud-init finds its seed (NoCloud) on the instance medium, and installs the integration components from there. A
machine that boots they specialise at once, and its commands go over SSH. A guest that is to become a template gets no
instance data, no key above all: the components stay in it as the agent, which waits for a fork's over its channel.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.files import replace_file
from harness.guest.channel import ChannelGuest
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.machine.protocol import Machine, Medium, Nic
from harness.run.answer import LOCALE
from harness.run.boot import await_stage
from harness.run.freeze import AgentFreezePoint
from harness.run.instance import SshKeyPair
from harness.run.linux.identity import LinuxIdentity
from harness.run.linux.system import LinuxSystem
from harness.run.request import MachineRequest
from harness.run.system import Resident

if TYPE_CHECKING:
    from harness.image.recipe import Image

LABEL = "CIDATA"
"""Volume label by which cloud-init knows a NoCloud seed."""
_ANSWER_SECONDS = 60.0
_MADE = "made"
_COMPONENTS = "/usr/lib/vmrole/components"
_BRING = f"""\
set -e
m=/run/vmrole/medium
mkdir -p -m 700 /run/vmrole $m
mount -t iso9660 -o ro,nosuid,nodev /dev/disk/by-label/{LABEL} $m
d={_COMPONENTS}/$(cat $m/components/VERSION)
mkdir -p $d
cp $m/components/vmrole-components $d/
locale -a | grep -qix 'en_US.utf-*8' || localedef -i en_US -f UTF-8 en_US.UTF-8 || true
systemctl -q mask --now apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service || true
"""
_INSTALL = f"{_BRING}exec $d/vmrole-components install\n"
_GENERALIZE = f"""\
{_BRING}\
systemctl -q stop ssh.socket ssh.service sshd.service || true
rm -f /etc/ssh/ssh_host_*
$d/vmrole-components generalize
systemctl -q reset-failed
exec systemctl --no-block start vmrole-components.service
"""
"""An SSH server may have made itself keys, and has failed if it has none."""


@dataclass(frozen=True, slots=True)
class CloudIdentity(LinuxIdentity):
    """harness.run.system.Identity for guests that cloud-init brings up."""

    nic: Nic | None = None

    @classmethod
    def new(
        cls, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, await_ssh: bool
    ) -> CloudIdentity:
        plain = LinuxIdentity.new(request, image, token, nic, payload=payload, await_ssh=await_ssh)
        # The network is cloud-init's business.
        answer = replace(plain.answer, nics=())
        return cls(answer, plain.password, plain.client_key, plain.host_key, plain.components, nic)

    def write_medium(self, path: Path, image: Image, payload: Path | None) -> None:
        from harness.run.medium import build_medium

        build_medium(
            path,
            answer=self.answer,
            host_key=self.host_key,
            components=image.components,
            payload_root=payload,
            label=LABEL,
            more=seed(self.answer.instance, self.answer.computer_name, self.host_key, self.nic),
        )

    def connect(self, machine: Machine, agent: Resident | None, *, boot_id: str, deadline: Deadline) -> Guest:
        """By the channel that a fork was greeted on; one that was booted has its agent from its next boot on."""
        return agent if isinstance(agent, ChannelGuest) else self.terminal(machine, deadline=deadline)


def seed(token: str, name: str, host_key: SshKeyPair | None, nic: Nic | None) -> dict[str, bytes]:
    """The files of a NoCloud seed, without ``host_key`` for a guest that is to wait for its instance data.

    JSON is YAML; the installation is the last thing that cloud-init does, and makes the locale, which it cannot do on
    every Debian. The SSH server cannot start without a key, and is started before that.
    """
    user: dict[str, Any] = {
        # No module but those that are needed: each costs an emulated processor about a second.
        "cloud_init_modules": ["ssh"] if host_key else [],
        "cloud_config_modules": ["runcmd"],
        "cloud_final_modules": ["scripts-user"],
        "disable_root": False,
        "ssh_deletekeys": False,
        "ssh_genkeytypes": [],
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "runcmd": [["sh", "-c", _INSTALL if host_key else _GENERALIZE]],
    }
    if host_key:
        user["ssh_keys"] = {"ed25519_private": host_key.private.decode(), "ed25519_public": host_key.public}
    files = {
        "meta-data": json.dumps({"instance-id": f"vmrole-{token}", "local-hostname": name}),
        "user-data": "#cloud-config\n" + json.dumps(user, indent=1),
    }
    if nic:
        card: dict[str, Any] = {"match": {"macaddress": nic.mac}, "addresses": [nic.address]}
        if nic.gateway != "-":
            card["gateway4"] = nic.gateway
        if nic.nameserver != "-":
            card["nameservers"] = {"addresses": [nic.nameserver]}
        files["network-config"] = json.dumps({"version": 2, "ethernets": {"nic0": card}})
    return {file: f"{text}\n".encode() for file, text in files.items()}


class CloudFreezePoint(AgentFreezePoint):
    """harness.machine.protocol.FreezePoint: cloud-init has ended, and our agent waits."""

    def __init__(self, image: Image, nic: Nic) -> None:
        super().__init__({**ENVIRONMENT, "LANG": LOCALE}, image)
        self._nic = nic

    @property
    def medium(self) -> Medium | None:
        """See the protocol: a seed without a key."""
        return Medium(LABEL, self._write_medium)

    def _write_medium(self, path: Path) -> None:
        from harness.run.medium import component_files, write_iso

        files = seed(secrets.token_hex(3), "generalized", None, self._nic)
        seeds = ((name, 0o600, data) for name, data in files.items())
        write_iso(path, [*seeds, *component_files(self._image.components)], now=time.time(), label=LABEL)

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol."""
        await_stage(machine, lambda stage, _more: stage == "awaiting-instance", deadline)
        machine.eject()
        # A kernel without the driver of the channel never answers, and there is a machine to be booted yet.
        with ChannelGuest(machine.channel()) as guest:
            guest.state(deadline=deadline.within(_ANSWER_SECONDS))
        super().reach(machine, deadline=deadline)

    def keep(self, folder: Path) -> None:
        """See the protocol: the channel asks for no key, but how the guest was made is ours and not its image's."""
        replace_file(folder / _MADE, self._made())

    def recall(self, folder: Path) -> None:
        """See the protocol."""
        try:
            made = (folder / _MADE).read_text("utf-8")
        except OSError:
            made = ""
        if made != self._made():
            raise GuestError("the template was made by another version of vmrole")

    def _made(self) -> str:
        return hashlib.sha256(f"{_GENERALIZE}\0{self._image.wanted_components}".encode()).hexdigest()


class CloudSystem(LinuxSystem):
    """harness.run.system.System."""

    def identity(
        self, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, has_channel: bool
    ) -> CloudIdentity:
        return CloudIdentity.new(request, image, token, nic, payload=payload, await_ssh=not has_channel)

    def freeze_point(self, image: Image, nic: Nic) -> CloudFreezePoint:
        return CloudFreezePoint(image, nic)


SYSTEM = CloudSystem()
