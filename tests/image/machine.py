# SPDX-License-Identifier: Apache-2.0
"""A machine on plain QEMU, and media for it: the guest's side of the contract without the harness's machine driver."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import paramiko
import pycdlib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.deadline import Deadline
from harness.image.recipe import Image
from harness.process import run, which
from tests.conftest import HANGS

MAC = "52:54:00:12:34:56"
PASSWORD = "correct horse"


def new_key() -> tuple[bytes, bytes]:
    """An ed25519 key pair as OpenSSH writes it: private, public."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public


@dataclass
class Medium:
    """What goes on an instance medium; ``lines`` are added to the answer document, ``files`` to the medium."""

    components: Path
    label: str = "VMROLE"
    lines: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    host_key: tuple[bytes, bytes] = field(default_factory=new_key)
    user_key: tuple[bytes, bytes] = field(default_factory=new_key)
    machine_id: str = field(default_factory=lambda: secrets.token_hex(16))

    def write(self, path: Path) -> Path:
        password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        answer = [
            "schema=1",
            "instance=tok-1",
            "computer-name=web-01",
            "time-zone=UTC",
            "locale=en_US.UTF-8",
            "automatic-updates=off",
            f"administrator-password-hash={password}",
            f"authorized-key={self.user_key[1].decode()}",
            f"machine-id={self.machine_id}",
            f"entropy={secrets.token_hex(64)}",
            f"time={time.time():.3f}",
            f"nic={MAC} 10.0.2.15/24 10.0.2.2 10.0.2.3",
            "payload=/var/lib/vmrole/payload",
            *self.lines,
        ]
        files = {
            "answer.conf": "".join(f"{line}\n" for line in answer).encode(),
            "ssh/host_ed25519": self.host_key[0],
            "ssh/host_ed25519.pub": self.host_key[1],
            **{f"components/{file.name}": file.read_bytes() for file in self.components.iterdir()},
            **self.files,
        }
        write_iso(path, files, self.label)
        return path


def write_iso(path: Path, files: Mapping[str, bytes], label: str) -> None:
    """ISO 9660 with Joliet and Rock Ridge."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    made: dict[str, str] = {"": ""}
    for number, (name, data) in enumerate(sorted(files.items())):
        parent = ""
        for part in name.split("/")[:-1]:
            folder = f"{parent}/{part}".strip("/")
            if folder not in made:
                made[folder] = f"{made[parent]}/D{number}"
                iso.add_directory(made[folder], rr_name=part, joliet_path=f"/{folder}")
            parent = folder
        mode = 0o100755 if name.endswith(".sh") else 0o100644
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            f"{made[parent]}/F{number}.;1",
            rr_name=name.rpartition("/")[2],
            joliet_path=f"/{name}",
            file_mode=mode,
        )
    iso.write(str(path))
    iso.close()


class Machine:
    """A running QEMU with its console and QMP. All times are seconds."""

    def __init__(self, image: Image, folder: Path, medium: Path | None) -> None:
        assert image.kernel is not None and image.initrd is not None
        overlay = folder / "overlay.qcow2"
        if not overlay.exists():
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "raw", str(overlay)])
        self.port = free_port()
        self.lines: list[str] = []
        self._qmp_path = folder / "qmp"
        self._qmp_path.unlink(missing_ok=True)
        drive = ["-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-cd,bus=scsi.0,id=cd"]
        if medium:
            drive[3] += ",drive=medium"
            drive += ["-blockdev", f"driver=file,node-name=medium,read-only=on,filename={medium}"]
        program = which("qemu-system-x86_64")
        assert program is not None
        self.process = subprocess.Popen(
            [
                program,
                *("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "Nehalem,+rdrand", "-smp", "2"),
                *("-m", str(image.recipe.memory_mb), "-nodefaults", "-no-user-config", "-display", "none"),
                *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
                *("-append", image.recipe.kernel_arguments),
                *("-drive", f"if=none,id=root,file={overlay},format=qcow2,cache=unsafe"),
                *("-device", "virtio-blk-pci,drive=root"),
                *("-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
                *("-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="),
                *drive,
                *("-qmp", f"unix:{self._qmp_path},server=on,wait=off", "-serial", "stdio"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.decode("utf-8", "replace").rstrip())

    @property
    def stages(self) -> list[str]:
        """First words of what the agent announced."""
        return [line.split()[2] for line in self.lines if line.startswith("vmrole: stage ")]

    def await_line(self, pattern: str, seconds: float = 240, *, after: int = 0) -> str:
        """The first console line from number ``after`` on that ``pattern`` is found in."""

        def look() -> str | None:
            return next((line for line in self.lines[after:] if re.search(pattern, line)), None)

        found = Deadline(seconds).poll(look, every=0.05)
        assert found is not None, f"no console line {pattern!r} in:\n" + "\n".join(self.lines[-20:])
        return found

    def insert(self, medium: Path) -> None:
        """Change the medium in the drive, as a hypervisor does."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(self._qmp_path))
            stream = connection.makefile("rw")
            stream.readline()
            change = {"id": "cd", "filename": str(medium), "format": "raw", "force": True}
            for command, arguments in (("qmp_capabilities", {}), ("blockdev-change-medium", change)):
                stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                stream.flush()
                while "event" in (answer := json.loads(stream.readline())):
                    pass
                assert "return" in answer, answer

    def connect(self, medium: Medium, *, password: str | None = None) -> paramiko.SSHClient:
        """An SSH connection, by key or by password; the host key is the one on the medium, or it fails."""
        client = paramiko.SSHClient()
        kind, text = medium.host_key[1].decode().split()[:2]
        client.get_host_keys().add(f"[127.0.0.1]:{self.port}", kind, paramiko.Ed25519Key(data=base64.b64decode(text)))
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(medium.user_key[0].decode()))
        client.connect(
            "127.0.0.1",
            self.port,
            "root",
            password=password,
            pkey=None if password else key,
            allow_agent=False,
            look_for_keys=False,
            banner_timeout=HANGS,
            auth_timeout=HANGS,
        )
        return client

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def command(client: paramiko.SSHClient, line: str, *, code: int = 0, seconds: float = 120) -> str:
    """Output of a shell line in the guest, which has to end with ``code``."""
    _, out, err = client.exec_command(line, timeout=seconds)
    text = out.read().decode() + err.read().decode()
    assert out.channel.recv_exit_status() == code, f"{line}: {text}"
    return text.strip()


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(image: Image, folder: Path, medium: Path | None) -> Iterator[Machine]:
    folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(image, folder, medium)
    try:
        yield machine
    finally:
        machine.close()
