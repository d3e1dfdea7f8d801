# SPDX-License-Identifier: Apache-2.0
"""A guest has no way out: not to this host's loopback, not to a resolver, not to anything else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import vmrole

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def listener(kind: socket.SocketKind) -> Iterator[tuple[int, list[bytes]]]:
    """A server on this host's loopback that remembers who came."""
    came: list[bytes] = []
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    if kind is socket.SOCK_STREAM:
                        link, _ = server.accept()
                        came.append(b"connection")
                        link.sendall(b"you reached the host\n")
                        link.close()
                    else:
                        came.append(server.recvfrom(2000)[0])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], came
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


PROBE = """
try() { timeout 8 bash -c "$1" 2>/dev/null && echo "$2 reached" || echo "$2 closed"; }
try "exec 3<>/dev/tcp/10.0.2.2/$1; read -r l <&3; [ -n \\"\\$l\\" ]" loopback &
try "exec 3<>/dev/tcp/10.0.2.3/53" resolver-tcp &
try "exec 3<>/dev/tcp/1.1.1.1/80" internet &
try "getent ahosts debian.org" name &
try "exec 3<>/dev/tcp/[fec0::2]/$1; read -r l <&3; [ -n \\"\\$l\\" ]" loopback6 &
bash -c "echo ping >/dev/udp/10.0.2.2/$2" 2>/dev/null
wait
"""


def test_no_way_out(image: str) -> None:
    with listener(socket.SOCK_STREAM) as (tcp, connected), listener(socket.SOCK_DGRAM) as (udp, received):
        done = vmrole("exec", "--image", image, "--", "bash", "-c", PROBE, "probe", str(tcp), str(udp))
        assert done.code == 0, done.stderr
        said = sorted(done.stdout.split("\n"))
        assert "loopback closed" in said and "resolver-tcp closed" in said and "name closed" in said
        assert "internet closed" in said and "loopback6 closed" in said
        assert not connected and not received


def test_the_probe_can_succeed(image: str) -> None:
    """The same probe reaches the same listener when the user asks for a network: the test above can fail."""
    with listener(socket.SOCK_STREAM) as (tcp, connected), listener(socket.SOCK_DGRAM) as (udp, received):
        done = vmrole(
            "exec", "--image", image, "--network", "nat", "--", "bash", "-c", PROBE, "probe", str(tcp), str(udp)
        )
        assert "loopback reached" in done.stdout, done
        assert connected and received
