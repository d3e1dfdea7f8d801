# SPDX-License-Identifier: Apache-2.0
"""Reaching a port on the loopback of another libvirt host: an SSH forward, as the libvirt URI itself uses."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import Self
from urllib.parse import urlsplit

from harness.deadline import Deadline
from harness.errors import HostError
from harness.process import which


def is_this_host(name: str | None) -> bool:
    """Whether a URI's host is this computer."""
    return name in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname())


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tunnel:
    """127.0.0.1:``port`` here is 127.0.0.1:``remote`` on the host of ``uri``, for the time of the context."""

    def __init__(self, uri: str, remote: int) -> None:
        parts = urlsplit(uri)
        if "ssh" not in parts.scheme or not parts.hostname:
            raise HostError(
                f"the guest's ports are on {parts.hostname}, which {parts.scheme} gives no way to reach",
                hint="use a qemu+ssh:// URI",
            )
        self._target = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
        self._options = ["-p", str(parts.port)] if parts.port else []
        self._remote = remote
        self.port = 0

    def __enter__(self) -> Self:
        ssh = which("ssh")
        if ssh is None:
            raise HostError("the program ssh is not installed", hint="install the package openssh-client")
        self.port = free_port()
        forward = f"127.0.0.1:{self.port}:127.0.0.1:{self._remote}"
        argv = [ssh, "-N", "-T", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", *self._options, "-L", forward]
        self._process = subprocess.Popen(
            [*argv, self._target], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        ready = Deadline(20).poll(self._answers, every=0.1)
        if not ready:
            self.__exit__()
            raise HostError(f"ssh to {self._target} cannot forward a port", hint=f"does 'ssh {self._target}' work?")
        return self

    def _answers(self) -> bool | None:
        if self._process.poll() is not None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return None

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()
