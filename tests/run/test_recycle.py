# SPDX-License-Identifier: Apache-2.0
"""Recycling a role in real machines: what is to be kept is kept, what is to go goes, and nothing else is touched."""

from __future__ import annotations

import contextlib

import pytest

from harness.deadline import Deadline
from harness.guest.channel import ChannelGuest
from harness.run.answer import LocalResource
from harness.run.deploy import Deployed
from harness.run.events import Event, EventBus, ScenarioActed
from harness.run.request import MachineRequest
from harness.scenario import ScenarioGuest
from tests import machines
from tests.conftest import HANGS

pytestmark = pytest.mark.vm

RESOURCES = (LocalResource("Work", 20), LocalResource("With blanks ü", 5), LocalResource("Kept", 5, clean=False))

# On the stand-in, too, the worst that a role can do is what a program of Linux can.
HOSTILE = r"""
set -e
mkdir /outside; echo outside >/outside/file
cd /resources/Work
ln -s /outside/file link-to-a-file; ln -s /outside link-to-a-folder; ln -s /nowhere link-to-nothing
mkdir -p deep/deep/deep read-only; ln -s /outside deep/deep/link; ln -P link-to-a-file hard
echo x >read-only/file; chmod 0400 read-only/file; chmod 0500 read-only
echo x >immutable; chattr +i immutable; chattr +i read-only
touch "$(printf 'new\nline')" "$(printf '\033[31m')" -- -rf ' ' '*'; mkfifo pipe
mkdir mounted; mount -t tmpfs none mounted; touch mounted/file; mount --bind /outside deep/deep/deep
mkdir -p $(printf 'level/%.0s' $(seq 200))
chown 0:4 .; chmod 2750 .
"""


def machine(image: str) -> contextlib.AbstractContextManager[Deployed]:
    return machines.machine(MachineRequest(image, local_resources=RESOURCES), reading_back=False)


def shell(machine: Deployed, script: str) -> str:
    """What a script of Linux says in the guest, on its Linux side where that is a stand-in."""
    with ChannelGuest(machine.machine.channel()) as agent:
        done = agent.run(["sh", "-c", script], deadline=Deadline(HANGS))
    assert done.exit_code == 0, (script, done)
    return done.stdout.decode()


LIST = 'for f in /resources/*; do echo "$f:"; ls -A "$f"; done'
FOLDER = (
    "stat -c '%a %u %g' /resources/Work; df -m --output=size /resources/Work | tail -n 1; "
    "cat /proc/sys/kernel/random/boot_id"
)


def test_a_role_on_linux(image: str) -> None:
    with machine(image) as deployed:
        # The channel takes one host at a time.
        guest, told = ScenarioGuest(deployed, bus := EventBus()), list[Event]()
        bus.subscribe(told.append)
        guest.succeed(
            "sh", "-c", "for f in Kept 'With blanks ü' DiagnosticStore; do echo old >\"/resources/$f/file\"; done"
        )
        guest.succeed("sh", "-c", HOSTILE)
        before, listed = guest.succeed("sh", "-c", FOLDER).splitlines(), guest.succeed("sh", "-c", LIST)
        assert "immutable" in listed and before[0] == "2750 0 4"
        boot = guest.reboot()
        assert guest.succeed("sh", "-c", LIST) == listed, "an ordinary restart empties nothing"
        assert guest.recycle() != boot
        assert guest.succeed("sh", "-c", LIST).splitlines() == [
            "/resources/DiagnosticStore:", "file", "/resources/Kept:", "file",
            "/resources/With blanks ü:", "/resources/Work:",
        ]  # fmt: skip
        after = guest.succeed("sh", "-c", FOLDER).splitlines()
        assert after[:2] == before[:2] and after[2] != before[2], (
            "folder, rights and size stay, and the guest restarted"
        )
        assert guest.succeed("cat", "/outside/file") == "outside\n"
        guest.put(b"x", "/resources/Work/new")
        guest.reboot()
        assert guest.get("/resources/Work/new") == b"x", "a recycle is done once"
        acts = [event.what for event in told if isinstance(event, ScenarioActed)]
        assert "recycle" in acts


def test_a_role_on_the_stand_in() -> None:
    with machine("windows-stand-in") as deployed:
        guest = ScenarioGuest(deployed, EventBus())
        for name in ("Kept", "With blanks ü", "DiagnosticStore"):
            guest.put(b"old", f"C:\\Resources\\{name}\\file")
        guest.put(b"old", "C:\\Resources\\Work\\read-only.txt")
        guest.succeed("attrib.exe", "+r", "C:\\Resources\\Work\\read-only.txt")
        shell(deployed, HOSTILE)
        before = shell(deployed, FOLDER).splitlines()
        refused = guest.fail("C:\\Program Files\\VMRole\\vmrole-guest.exe", "recycle", "Windows")
        assert b"Windows is no local resource of this machine" in refused.stderr
        guest.recycle()
        assert shell(deployed, LIST).splitlines() == [
            "/resources/DiagnosticStore:", "file", "/resources/Kept:", "file",
            "/resources/With blanks ü:", "/resources/Work:",
        ]  # fmt: skip
        after = shell(deployed, FOLDER).splitlines()
        assert after[:2] == before[:2] and after[2] != before[2]
        assert guest.get("C:\\Resources\\Kept\\file") == b"old"
        assert shell(deployed, "cat /outside/file") == "outside\n"
        guest.put(b"new", "C:\\Resources\\Work\\new")
