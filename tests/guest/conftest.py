# SPDX-License-Identifier: Apache-2.0
"""A real OpenSSH server on the loopback, as a guest would run it: with our keys and nothing of the host's settings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.guest.ssh import SshGuest
from harness.process import which
from harness.run.instance import SshKeyPair, make_ssh_keypair
from tests.conftest import HANGS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    port: int
    host_key: SshKeyPair
    client_key: SshKeyPair
    process: subprocess.Popen[bytes]
    folder: Path

    def connect(self, **more: object) -> SshGuest:
        options: dict[str, object] = {
            "client_key": self.client_key.private,
            "host_key": self.host_key.public,
            "deadline": Deadline(HANGS),
        }
        return SshGuest.connect("127.0.0.1", self.port, **(options | more))  # type: ignore[arg-type]


def start_server(folder: Path) -> Server:
    """As the account that runs the tests: root everywhere that matters."""
    sshd = which("sshd")
    assert sshd, "openssh-server is not installed; 'make setup' installs it"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host, client, port = make_ssh_keypair(), make_ssh_keypair(), free_port()
    for name, data in (("host", host.private), ("authorized", client.public.encode() + b"\n")):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(data)
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nPrintMotd no\n"
        "Subsystem sftp internal-sftp\n"
    )
    log = (folder / "log").open("wb")
    with log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "config")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    return Server(port, host, client, process, folder)


def stop_server(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(HANGS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("sshd"))
    try:
        yield server
    finally:
        stop_server(server)


@pytest.fixture(scope="module")
def guest(server: Server) -> Iterator[SshGuest]:
    with server.connect() as guest:
        yield guest


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        assert Deadline(HANGS).poll(lambda: condition() or None)

    return wait
