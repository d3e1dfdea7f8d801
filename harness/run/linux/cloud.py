# SPDX-License-Identifier: Apache-2.0
"""Linux guests without an agent of ours: cloud images, as distributions publish them.

Their cloud-init finds its seed (NoCloud) on the instance medium, and installs the integration components from there,
which specialise the guest and leave a unit that restores local resources at later boots. Commands go over SSH.

They are frozen when they are specialised and their SSH server is up. All that makes a fork a machine of its own,
name, keys, password, machine-id, entropy, clock, is made anew over SSH before anything else. The template's own key
serves for that alone, and is let in no longer.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import File
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.guest.ssh import SshGuest
from harness.machine.protocol import Machine, Medium, Nic
from harness.run.answer import LOCALE
from harness.run.boot import await_ready
from harness.run.events import EventBus
from harness.run.instance import SshKeyPair
from harness.run.linux.identity import LinuxIdentity
from harness.run.linux.system import LinuxSystem
from harness.run.request import DIAGNOSTICS, MachineRequest
from harness.run.system import Resident
from harness.state import replace_text

if TYPE_CHECKING:
    from harness.image.recipe import Image

LABEL = "CIDATA"
"""Volume label by which cloud-init knows a NoCloud seed."""
_ACCESS = "access.json"
_INSTANCE = "/var/lib/vmrole/instance"
_COMPONENTS = "/usr/lib/vmrole/components"
_SSH = 22
_TAR_MOST = 4 << 20
"""Bytes of a file that goes with the others; larger ones are sent on their own, not held in memory."""
_GREET_SECONDS = 60.0
_ASKED = 3
_QUICK = 0.3
"""Seconds: an answer that quick tells the time well enough."""
_LATER = (
    f'(umask 077; cd {_INSTANCE}; awk -v at=$UPTIME \'FILENAME == "/proc/uptime" {{ late = $1 - at; next }} '
    '/^time=/ { printf "time=%.6f\\n", substr($0, 6) + late; next } { print }\' /proc/uptime answer.conf >later '
    "&& mv later answer.conf)"
)
"""The time in the answer document, made that of now: sending it to a busy guest may take seconds."""
_INSTALL = f"""\
set -e
m=/run/vmrole/medium
mkdir -p -m 700 /run/vmrole $m
mount -t iso9660 -o ro,nosuid,nodev /dev/disk/by-label/{LABEL} $m
d={_COMPONENTS}/$(cat $m/components/VERSION)
mkdir -p $d
cp $m/components/vmrole-components $d/
locale -a | grep -qix 'en_US.utf-*8' || localedef -i en_US -f UTF-8 en_US.UTF-8 || true
systemctl -q mask --now apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service || true
exec $d/vmrole-components install
"""
_WARM = (
    "systemctl is-system-running --wait; "
    "cat /usr/sbin/mkfs.ext4 /usr/bin/openssl /usr/bin/tar /usr/bin/stat /usr/bin/sha256sum /usr/bin/systemctl "
    "/usr/bin/journalctl /usr/sbin/sshd >/dev/null; locale charmap; date; sync"
)


@dataclass(frozen=True, slots=True)
class _Installed:
    """What harness.run.deploy asks of an agent's state."""

    version: str


class SshResident:
    """The integration components in a fork, reached over SSH: what ChannelGuest is for guests with an agent."""

    def __init__(self, guest: SshGuest, version: str) -> None:
        self._guest = guest
        self._version = version

    def close(self) -> None:
        self._guest.close()

    def state(self, *, deadline: Deadline) -> _Installed:
        return _Installed(self._version)

    def specialize(self, files: Iterable[File]) -> None:
        """Send the instance data and let the components make the guest another one."""
        made = time.time()
        deadline = Deadline(600.0)
        uptime = self._uptime_at(made, deadline)
        stream = io.BytesIO()
        large: list[tuple[str, int, Path]] = []
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, mode, content in files:
                if isinstance(content, Path) and content.stat().st_size > _TAR_MOST:
                    large.append((name, mode, content))
                else:
                    _add(archive, name, mode, content)
        program = f"{_COMPONENTS}/{self._version}/vmrole-components"
        unpack = f"tar -x -f - -C {_INSTANCE}"
        unpack = f"rm -rf {_INSTANCE}; mkdir -m 700 {_INSTANCE} && {unpack}"
        if large:
            self._guest.run(["sh", "-c", unpack], stdin=stream.getvalue(), deadline=deadline)
            for name, mode, path in large:
                self._guest.put(path, f"{_INSTANCE}/{name}", mode=mode, deadline=deadline)
            unpack, stream = "true", io.BytesIO()
        done = self._guest.run(
            ["sh", "-c", f"{unpack} && {_LATER} && exec {program} identify"],
            stdin=stream.getvalue(),
            env={"UPTIME": f"{uptime:.3f}"},
            deadline=deadline,
        )
        if done.exit_code != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:200]
            raise GuestError(f"the fork cannot be made another machine: exit code {done.exit_code} {said}".strip())

    def _uptime_at(self, moment: float, deadline: Deadline) -> float:
        """What the guest's monotonic clock said at ``moment`` of the host: it goes right, unlike the other one."""
        best, uptime = float("inf"), 0.0
        for _ in range(_ASKED):
            before = time.time()
            said = self._guest.run(["cat", "/proc/uptime"], deadline=deadline).stdout.split()
            took = time.time() - before
            if said and took < best:
                best, uptime = took, float(said[0]) - (before + took / 2 - moment)
            if best < _QUICK:
                break
        return uptime


def _add(archive: tarfile.TarFile, name: str, mode: int, content: bytes | Path | None) -> None:
    entry = tarfile.TarInfo(name.rstrip("/"))
    entry.mode, entry.mtime = mode, int(time.time())
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        return
    data = content.read_bytes() if isinstance(content, Path) else content
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@dataclass(frozen=True, slots=True)
class CloudIdentity(LinuxIdentity):
    """harness.run.system.Identity for guests that cloud-init brings up."""

    nic: Nic | None = None

    @classmethod
    def made(cls, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool) -> CloudIdentity:
        plain = LinuxIdentity.new(request, image, token, nic, payload=payload, await_ssh=True)
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
        return self.terminal(machine, deadline=deadline)


def seed(token: str, name: str, host_key: SshKeyPair, nic: Nic | None) -> dict[str, bytes]:
    """The files of a NoCloud seed. JSON is YAML; the installation is the last thing that cloud-init does, and makes the
    locale, which it cannot do on every Debian.

    The SSH server cannot start without a key, and is started before that.
    """
    user: dict[str, Any] = {
        # No module but those that are needed: each costs an emulated processor about a second.
        "cloud_init_modules": ["ssh"],
        "cloud_config_modules": ["runcmd"],
        "cloud_final_modules": ["scripts-user"],
        "disable_root": False,
        "ssh_deletekeys": False,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": host_key.private.decode(), "ed25519_public": host_key.public},
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "runcmd": [["sh", "-c", _INSTALL]],
    }
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


class CloudFreezePoint:
    """harness.machine.protocol.FreezePoint: specialised as nobody, with an SSH server."""

    def __init__(self, image: Image, nic: Nic) -> None:
        self._image = image
        self._token = secrets.token_hex(3)
        made = CloudIdentity.made(MachineRequest(image.recipe.name), image, self._token, nic, payload=False)
        self._identity = replace(made, answer=replace(made.answer, local_resources=()))
        self._access: Mapping[str, str] = {}
        self.guest: SshResident | None = None

    @property
    def medium(self) -> Medium | None:
        """See the protocol."""
        return Medium(LABEL, lambda path: self._identity.write_medium(path, self._image, None))

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol."""
        await_ready(machine, self._token, EventBus(), deadline)
        machine.eject()
        version = self._image.wanted_components
        with self._identity.terminal(machine, deadline=deadline) as guest:
            guest.run(["sh", "-c", _WARM], deadline=deadline)
            program = f"{_COMPONENTS}/{version}/vmrole-components"
            guest.run([program, "spare", str(DIAGNOSTICS.size_mb), "3"], deadline=deadline)

    def keep(self, folder: Path) -> None:
        """See the protocol: what a fork is logged in to with, in a folder that is the user's alone."""
        identity = self._identity
        access = {
            "client_key": identity.client_key.private.decode(),
            "host_key": identity.host_key.public,
            "made": self._made(),
        }
        replace_text(folder / _ACCESS, json.dumps(access))

    def recall(self, folder: Path) -> None:
        """See the protocol."""
        try:
            self._access = json.loads((folder / _ACCESS).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise GuestError("the key to the template is gone") from error

    def greet(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol."""
        self.close()
        if self._access.get("made") != self._made():
            raise GuestError("the template has other integration components")
        host, port = machine.endpoint(_SSH)
        guest = SshGuest.connect(
            host,
            port,
            client_key=self._access["client_key"].encode(),
            host_key=self._access["host_key"],
            deadline=deadline.within(_GREET_SECONDS),
            environment={**ENVIRONMENT, "LANG": LOCALE},
        )
        self.guest = SshResident(guest, self._image.wanted_components)

    def close(self) -> None:
        guest, self.guest = self.guest, None
        if guest:
            guest.close()

    def _made(self) -> str:
        """What a template was made with, beside its image."""
        return hashlib.sha256("\0".join((_INSTALL, _WARM, self._image.wanted_components)).encode()).hexdigest()


class CloudSystem(LinuxSystem):
    """harness.run.system.System."""

    resumption = None

    def identity(
        self, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, has_channel: bool
    ) -> CloudIdentity:
        return CloudIdentity.made(request, image, token, nic, payload=payload)

    def freeze_point(self, image: Image, nic: Nic) -> CloudFreezePoint:
        return CloudFreezePoint(image, nic)


SYSTEM = CloudSystem()
