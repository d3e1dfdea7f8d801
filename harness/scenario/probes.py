# SPDX-License-Identifier: Apache-2.0
"""Questions that a scenario asks any guest, in the words of its operating system."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from harness.errors import GuestError
from harness.guest.protocol import GuestResult

System = Literal["linux", "windows"]
Run = Callable[..., GuestResult]
"""A guest's ``run`` with its limits set: it takes the argv."""

_LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp, Linux include/net/tcp_states.h."""
_ANY_PEER = re.compile(r"^(0\.0\.0\.0|\[::\]):0$")


def listening_ports(run: Run, os: System) -> set[int]:
    """The TCP ports that something in the guest listens on. Raises GuestError where netstat is not to be had."""
    if os == "windows":
        tables = [run(["netstat.exe", "-an", "-p", protocol]) for protocol in ("TCP", "TCPv6")]
        # One that was stopped at the end of the wait says nothing of the guest.
        if tables[0].exit_code != 0 and not tables[0].timed_out:
            raise GuestError(
                f"the guest cannot tell which ports are listened on: {tables[0].said}",
                hint="connect to guest.endpoint(PORT), or wait for what the service writes",
            )
        return windows_ports("\n".join(_text(table) for table in tables))
    # Read as files: ss and netstat may not be there. A guest without IPv6 has no second one.
    return linux_ports(_text(run(["cat", "/proc/net/tcp", "/proc/net/tcp6"])))


def file_exists(run: Run, os: System, path: str) -> bool:
    """Whether there is a file or folder ``path`` in the guest."""
    if os == "windows":
        # No quotation marks but those around a path with spaces: cmd would take others for its own.
        words = ["cmd.exe", "/d", "/c", "if", "exist", path, "(exit", "0)", "else", "(exit", "1)"]
        return run(words).exit_code == 0
    return run(["test", "-e", path]).exit_code == 0


def linux_ports(table: str) -> set[int]:
    """The ports of /proc/net/tcp: ``0: 00000000:0016 00000000:0000 0A ...``."""
    rows = (line.split() for line in table.splitlines())
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTENING}


def windows_ports(table: str) -> set[int]:
    """The ports of netstat. What listens has no peer; the word for its state is another in each language."""
    rows = (line.split() for line in table.splitlines())
    found = (row[1].rpartition(":")[2] for row in rows if len(row) >= 4 and row[0] == "TCP" and _ANY_PEER.match(row[2]))
    return {int(port) for port in found if port.isdigit()}


def _text(done: GuestResult) -> str:
    return done.stdout.decode("utf-8", "replace")
