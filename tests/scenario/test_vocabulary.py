# SPDX-License-Identifier: Apache-2.0
"""What a scenario says to a guest, in a real one, over the agent's channel and over SSH."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import ChannelGuest
from harness.guest.ssh import SshGuest
from harness.run.deploy import Deployed
from harness.run.events import Event, EventBus, ScenarioActed
from harness.run.request import MachineRequest
from harness.scenario import ScenarioGuest
from harness.scenario.probes import linux_ports, windows_ports
from tests import machines
from tests.conftest import HANGS


@pytest.fixture(scope="module")
def deployed(image: str) -> Iterator[Deployed]:
    with machine(image) as deployed:
        yield deployed


def machine(image: str) -> contextlib.AbstractContextManager[Deployed]:
    return machines.machine(MachineRequest(image), reading_back=False)


class Told:
    """A subscriber that keeps what the scenario did."""

    def __init__(self) -> None:
        self.acts: list[ScenarioActed] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, ScenarioActed):
            self.acts.append(event)


@pytest.fixture(params=["channel", "ssh"])
def over(request: pytest.FixtureRequest, deployed: Deployed) -> Iterator[tuple[ScenarioGuest, Told]]:
    """The same guest by each way there is to it."""
    bus, told = EventBus(), Told()
    bus.subscribe(told)
    if request.param == "channel":
        assert isinstance(deployed.guest, ChannelGuest)
        yield ScenarioGuest(deployed, bus), told
        return
    terminal = deployed.terminal(deadline=Deadline(HANGS))
    assert isinstance(terminal, SshGuest)
    with terminal as ssh:
        yield ScenarioGuest(dataclasses.replace(deployed, guest=ssh), bus), told


pytestmark = pytest.mark.vm
Over = tuple[ScenarioGuest, Told]


def test_commands(over: Over) -> None:
    guest, told = over
    assert guest.succeed("echo", "a b", "*") == "a b *\n"
    assert guest.fail("sh", "-c", "exit 4").exit_code == 4
    assert guest.run(["cat"], stdin=b"x").stdout == b"x"
    with failing(r"^sh -c '.*' was to succeed, but it ended with 3; stdout: out; stderr: err$"):
        guest.succeed("sh", "-c", "echo out; echo err >&2; exit 3")
    with failing(r"^true was to fail, but it ended with 0 and said nothing$"):
        guest.fail("true")
    with failing(r"give each word of a command as an argument of its own$"):
        guest.succeed("echo a b")
    with failing(r"^sleep 30 was to fail, but it was stopped at its time-out"):
        guest.fail("sleep", "30", timeout=1)
    assert [act.ok for act in told.acts] == [True, True, True, False, False, False, False]
    assert told.acts[0].what == "succeed echo 'a b' '*'" and told.acts[3].told.startswith("sh -c")


def test_waits(over: Over) -> None:
    guest, told = over
    guest.run(["rm", "-rf", "/run/later", "/run/seen"])
    guest.succeed(
        "systemd-run",
        "sh",
        "-c",
        "sleep 1; echo hello >/run/later; while [ ! -e /run/seen ]; do sleep 0.2; done; rm /run/later",
    )
    guest.wait_for_file("/run/later")
    assert guest.wait_until_succeeds("cat", "/run/later") == "hello\n"
    guest.succeed("touch", "/run/seen")
    assert guest.wait_until_fails("cat", "/run/later").exit_code == 1
    guest.wait_for_port(22)
    assert [act.what for act in told.acts if act.what.startswith("wait")] == [
        "wait for the file /run/later",
        "wait for cat /run/later to succeed",
        "wait for cat /run/later to fail",
        "wait for port 22 to be listened on",
    ]


def test_waits_tell_what_they_saw_last(over: Over) -> None:
    guest, told = over
    saw = r"the ports that something listens on are (.*, )?22(, .*)?$"
    with failing(rf"^waited 4 s for port 81 to be listened on, looked \d+ times; the last time {saw}"):
        guest.wait_for_port(81, timeout=4)
    with failing(r"for the file /no, looked .*; the last time there is nothing of that name$"):
        guest.wait_for_file("/no", timeout=4)
    with failing(r"for cat /no to succeed, .* it ended with 1; stderr: cat: /no: No such file"):
        guest.wait_until_succeeds("cat", "/no", timeout=4)
    with failing(r"for echo hi to fail, .*; the last time it ended with 0; stdout: hi$"):
        guest.wait_until_fails("echo", "hi", timeout=4)
    # What it saw last is of the last time that it looked to the end.
    slow = "test -e /run/slow && sleep 60; touch /run/slow; echo whole; exit 1"
    guest.run(["rm", "-f", "/run/slow"])
    with failing(r"looked \d+ times; the last time it ended with 1; stdout: whole$"):
        guest.wait_until_succeeds("sh", "-c", slow, timeout=4)
    # A command that hangs does not make the wait longer than it was to be.
    with failing(r"it was stopped at its time-out"):
        guest.wait_until_succeeds("sleep", "60", timeout=1)
    assert not any(act.ok for act in told.acts if act.what.startswith("wait"))


def failing(said: str) -> contextlib.AbstractContextManager[Any]:
    return pytest.raises(AssertionError, match=said)


def test_files(over: Over, tmp_path: Path) -> None:
    guest, _told = over
    (tmp_path / "source").write_bytes(b"\0binary\xff")
    guest.put(tmp_path / "source", "/root/there")
    assert guest.get("/root/there") == b"\0binary\xff"
    guest.put("text", "/root/there", mode=0o640)
    assert guest.get("/root/there") == b"text"
    assert guest.succeed("stat", "-c", "%a", "/root/there") == "640\n"
    with pytest.raises(GuestError, match="/root/nothing"):
        guest.get("/root/nothing")
    assert re.search("^vmrole: stage ready", guest.console, re.MULTILINE)


def test_network(deployed: Deployed) -> None:
    """Over the channel, which is none of the network's; while it is blocked the guest sees no carrier."""
    guest = ScenarioGuest(deployed, EventBus())
    carrier = ("grep", "-q", "1", "/sys/class/net/eth0/carrier")
    guest.wait_until_succeeds(*carrier)
    address = guest.succeed("ip", "-4", "-o", "addr", "show", "eth0")
    host, port = guest.endpoint(22)
    assert banner(host, port).startswith(b"SSH-")
    guest.block_network()
    guest.wait_until_fails(*carrier)
    assert banner(host, port, seconds=2) == b""
    guest.unblock_network()
    guest.wait_until_succeeds(*carrier)
    assert Deadline(HANGS).poll(lambda: banner(host, port, seconds=2) or None)
    assert guest.succeed("ip", "-4", "-o", "addr", "show", "eth0") == address


def banner(host: str, port: int, seconds: float = 10) -> bytes:
    """The first bytes of an SSH server, b"" when nothing comes."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.connect()
        return connection.sock.recv(4)
    except OSError:
        return b""
    finally:
        connection.close()


def test_a_wait_outlives_a_reboot_of_the_guest(image: str) -> None:
    with machine(image) as deployed:
        guest = ScenarioGuest(deployed, EventBus())
        before = guest.succeed("cat", "/proc/sys/kernel/random/boot_id")
        guest.succeed("systemd-run", "sh", "-c", "sleep 1; systemctl reboot")
        script = f"[ $(cat /proc/sys/kernel/random/boot_id) != {before.strip()} ]"
        guest.wait_until_succeeds("sh", "-c", script, timeout=HANGS)
        assert guest.reboot() not in ("", before.strip())
        assert guest.succeed("echo", "again") == "again\n"


def test_crash(image: str) -> None:
    with machine(image) as deployed:
        guest = ScenarioGuest(deployed, EventBus())
        guest.succeed("true")
        console = guest.console
        guest.crash()
        for ask in (lambda: guest.succeed("true"), guest.reboot, guest.block_network, guest.crash):
            with pytest.raises(GuestError, match="the guest is off: the scenario cut its power"):
                ask()
        assert guest.console.startswith(console)


def test_a_machine_that_ends_ends_the_wait(image: str) -> None:
    with machine(image) as deployed:
        guest = ScenarioGuest(deployed, EventBus())
        threading.Timer(1.0, deployed.machine.crash).start()
        with pytest.raises(GuestError, match="the machine stopped while it was used"):
            guest.wait_for_file("/no", timeout=HANGS)


def test_without_a_machine() -> None:
    guest = ScenarioGuest(None, EventBus())
    with pytest.raises(GuestError, match="there is no machine: the run did not get that far"):
        guest.succeed("true")
    with pytest.raises(GuestError, match="there is no machine"):
        _ = guest.console


def test_ports_of_linux() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21021 1
   1: 0F02000A:0016 0202000A:D2F4 01 00000000:00000000 02:000A7B5A 00000000     0        0 21590 2
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
"""
    assert linux_ports(table) == {22, 8080}
    assert linux_ports("") == set()


def test_ports_of_windows() -> None:
    table = """
Aktive Verbindungen

  Proto  Lokale Adresse         Remoteadresse          Status
  TCP    0.0.0.0:135            0.0.0.0:0              ABH\u00d6REN
  TCP    10.0.2.15:5985         10.0.2.2:51234         HERGESTELLT
  TCP    [::]:445               [::]:0                 LISTENING
"""
    assert windows_ports(table) == {135, 445}
