# SPDX-License-Identifier: Apache-2.0
"""The agent's channel in a real guest, a fork."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, UsageError
from harness.guest.channel import ChannelGuest
from harness.guest.protocol import Guest
from harness.masking import Masker
from harness.package import read_package
from harness.package.parameters import read_parameters
from harness.plan import make_plan
from harness.run.deploy import Deployed
from harness.run.events import EventBus, StepFinished
from harness.run.execute import execute
from harness.run.linux.execute import LinuxExecutor
from harness.run.request import MachineRequest
from harness.run.result import StepResult
from tests import machines
from tests.conftest import HANGS, linux
from tests.run.test_windows_execute import extension


@pytest.fixture(scope="module")
def machine(image: str) -> Iterator[Deployed]:
    with machines.machine(MachineRequest(image)) as deployed:
        yield deployed


@pytest.fixture
def guest(machine: Deployed) -> Guest:
    assert isinstance(machine.guest, ChannelGuest)
    return machine.guest


def _within() -> Deadline:
    return Deadline(HANGS)


def test_it_is_a_fork_of_its_own(machine: Deployed, guest: Guest) -> None:
    assert machine.machine.origin.forked, machine.machine.origin.reason
    assert guest.run(["hostname"], deadline=_within()).stdout.decode().strip() == linux(machine).answer.computer_name


def test_arguments_environment_and_streams_arrive_exactly(guest: Guest) -> None:
    words = ["", " ", "a b", "$HOME", "'", '"', "\\", "\n", "ü", "-n"]
    done = guest.run(["printf", r"%s\0", *words], deadline=_within())
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)
    done = guest.run(["env"], deadline=_within(), env={"X": "a\nb", "LANG": "C"})
    assert sorted(done.stdout.decode().split("\n")) == sorted(
        ["LANG=C", "HOME=/root", "X=a", "b", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ""]
    )
    done = guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"], deadline=_within(), cwd="/tmp")
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert guest.run(["pwd"], deadline=_within(), cwd="/usr/lib").stdout == b"/usr/lib\n"


def test_a_long_command_comes_in_parts(guest: Guest) -> None:
    words = ["x" * 100_000, "y" * 100_000]
    done = guest.run(["printf", "%s", *words], deadline=_within())
    assert done.stdout.decode() == "".join(words)
    with pytest.raises(UsageError, match="a Linux guest takes"):
        guest.run(["true", "x" * 200_000], deadline=_within())


def test_what_cannot_be_started(guest: Guest) -> None:
    done = guest.run(["no-such-program"], deadline=_within())
    assert done.exit_code == 127
    assert "no-such-program" in done.stderr.decode()
    assert guest.run(["/etc/passwd"], deadline=_within()).exit_code == 126
    with pytest.raises(GuestError, match="no folder /nowhere"):
        guest.run(["true"], deadline=_within(), cwd="/nowhere")


def test_standard_input_of_any_size(guest: Guest) -> None:
    data = bytes(range(256)) * 20_000
    done = guest.run(["cat"], deadline=_within(), stdin=data)
    assert done.stdout == data
    assert guest.run(["head", "-c", "3"], deadline=_within(), stdin=data).stdout == data[:3]
    assert guest.run(["cat"], deadline=_within()).stdout == b""


def test_output_is_capped_and_the_command_goes_on(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "yes | head -c 3000000; exit 3"], deadline=_within(), max_output=1000)
    assert (done.exit_code, len(done.stdout), done.truncated) == (3, 1000, True)


def test_a_time_out_kills_all_that_was_started(guest: Guest) -> None:
    script = "setsid sleep 4321 & sleep 4322 & sleep 4323"
    done = guest.run(["sh", "-c", script], deadline=_within(), timeout=1)
    assert done.timed_out
    assert done.exit_code is None
    left = guest.run(["pgrep", "-fx", "sleep 432[23]"], deadline=_within())
    assert left.stdout == b""
    guest.run(["pkill", "-fx", "sleep 4321"], deadline=_within())


def test_what_is_left_running_does_not_hold_the_result(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "sleep 1000 & echo there"], deadline=_within())
    assert (done.exit_code, done.stdout) == (0, b"there\n")
    assert guest.run(["pkill", "-fx", "sleep 1000"], deadline=_within()).exit_code == 0
    assert guest.run(["sh", "-c", "kill -TERM $$"], deadline=_within()).exit_code == 128 + 15


def test_files(guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"\0\n" * 100_000)
    guest.put(source, "/root/file", deadline=_within(), mode=0o640)
    assert guest.get("/root/file", deadline=_within()) == source.read_bytes()
    assert guest.get("/root/file", deadline=_within(), limit=3) == b"\0\n\0"
    assert guest.run(["stat", "-c", "%a", "/root/file"], deadline=_within()).stdout == b"640\n"
    for path, why in (("/nowhere", "no such file"), ("/etc", "a folder"), ("/dev/null", "not a regular file")):
        with pytest.raises(GuestError, match=why):
            guest.get(path, deadline=_within())
    with pytest.raises(GuestError, match="cannot be written"):
        guest.put(b"x", "/nowhere/file", deadline=_within())


def test_ssh_is_there_for_who_wants_it(machine: Deployed) -> None:
    with linux(machine).terminal(machine.machine, deadline=_within()) as ssh:
        assert ssh.run(["hostname"], deadline=_within()).stdout.decode().strip() == linux(machine).answer.computer_name


def test_an_agent_that_does_not_answer(guest: Guest) -> None:
    agent = int(guest.run(["systemctl", "show", "-P", "MainPID", "vmrole-agent"], deadline=_within()).stdout)
    script = f"sleep 0.5; kill -STOP {agent}; sleep 15; kill -CONT {agent}"
    guest.run(["sh", "-c", 'setsid sh -c "$0" >/dev/null 2>&1 &', script], deadline=_within())

    def ask_for_ever() -> None:
        while True:
            guest.reconnect(deadline=Deadline(4))

    with pytest.raises(GuestNotReadyError, match=r"it said ready \d+ s ago, and does not answer"):
        ask_for_ever()
    guest.reconnect(deadline=_within())


def test_it_comes_back_from_a_reboot(guest: Guest) -> None:
    before = guest.boot_id(deadline=_within())
    guest.put(b"stays", "/root/stays", deadline=_within())
    after = guest.reboot(deadline=_within())
    assert after != before
    assert guest.get("/root/stays", deadline=_within()) == b"stays"
    assert guest.run(["mountpoint", "-q", "/resources/DiagnosticStore"], deadline=_within()).exit_code == 0


def test_steps_that_let_the_guest_restart(machine: Deployed, guest: Guest, tmp_path: Path) -> None:
    """Each restart is followed: its signal reaches the agent some time after the step that asked for it has ended."""
    tells = "/bin/cat /proc/sys/kernel/random/boot_id"
    ends, ended = "/bin/sh -c 'systemctl reboot; exit 0'", "/bin/sh -c 'systemctl reboot --force; sleep 60'"
    before = guest.boot_id(deadline=_within())
    first, second, third, fourth = run_once(machine, tmp_path, ends, tells, ended, tells)
    assert (first.outcome, first.exit_code) == ("warned", 0), first
    assert "it let the guest restart as it ended" in (first.finding or "")
    assert (third.outcome, third.exit_code) == ("warned", 128 + 15), third
    assert "the guest restarted while it ran" in (third.finding or "")
    assert (second.outcome, fourth.outcome) == ("succeeded", "succeeded"), (second, fourth)
    assert len({before, second.stdout, fourth.stdout}) == 3 and fourth.stdout.strip() == guest.last_boot


def test_an_agent_that_is_started_again_is_no_restart(machine: Deployed, guest: Guest, tmp_path: Path) -> None:
    before = guest.boot_id(deadline=_within())
    line = '/bin/sh -c \'systemctl --no-block restart vmrole-agent; until [ "$(systemctl is-active vmrole-agent)" = '
    line += "deactivating ]; do sleep 0.1; done'"
    steps = run_once(machine, tmp_path, line, "/bin/echo after")
    assert [step.exit_code for step in steps] == [0, 0]
    assert guest.boot_id(deadline=_within()) == before


def run_once(machine: Deployed, tmp_path: Path, *lines: str) -> list[StepResult]:
    """What became of the commands, which are executed as those of an extension are."""
    document = extension({})
    document["ExtensionSettings"]["ApplicationProfile"] = {
        "Name": "X", "LinuxApplicationProfile": {"RunOnceCommands": list(lines)},
    }  # fmt: skip
    (tmp_path / "x.resext").write_text(json.dumps(document))
    package = read_package(tmp_path / "x.resext")
    plan = make_plan(package, read_parameters(package, (), None), os="linux")
    found: list[StepResult] = []
    bus = EventBus()
    bus.subscribe(lambda event: found.append(event.step) if isinstance(event, StepFinished) else None)
    execute(plan, LinuxExecutor(), machine.guest, bus, deadline=_within(), masker=Masker())
    return found


def test_commands_of_a_boot_that_ends_are_lost(guest: Guest) -> None:
    with pytest.raises(GuestLostError):
        guest.run(["sh", "-c", "reboot -f; sleep 100"], deadline=_within())
    guest.reconnect(deadline=_within())
    assert guest.run(["true"], deadline=_within()).exit_code == 0


def test_a_boot_that_fails_says_why(guest: Guest) -> None:
    guest.run(["rm", "/var/lib/vmrole/components-version"], deadline=_within())
    within = _within()
    with pytest.raises(GuestError, match="cannot come back from its restart: /var/lib/vmrole/components-version"):
        guest.reboot(deadline=within)
    assert not within.expired
