# SPDX-License-Identifier: Apache-2.0
"""The freeze point of guests with our agent: waiting for their instance data, everything else of the boot done."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError, HostError
from harness.guest.channel import ChannelGuest
from harness.image.recipe import Image
from harness.image.work import command, slowness
from harness.machine.protocol import Machine, Medium
from harness.run.boot import await_stage
from harness.run.request import DIAGNOSTICS

_GREET_SECONDS = 20.0
_RENEW_SECONDS = 30.0
_MEASURE_SECONDS = 30.0
"""How long measuring may take, which needs some five seconds: a busy host does without it."""
AGENT = "/usr/lib/vmrole/agent"
_WARM = (
    # What specialization, read-back, steps and collecting will start: in the page cache once for all forks.
    "cat /usr/sbin/mkfs.ext4 /usr/bin/openssl /usr/bin/tar /usr/bin/stat /usr/bin/sha256sum /usr/bin/date "
    "/usr/bin/locale /usr/bin/systemctl /usr/bin/dash /usr/bin/bash /usr/bin/cp /usr/bin/journalctl /usr/sbin/sshd "
    "/etc/ssl/certs/ca-certificates.crt $(ldd /usr/sbin/sshd /usr/bin/systemctl /usr/bin/tar | grep -o '/[^ ]*') "
    ">/dev/null; /usr/sbin/mkfs.ext4 -V; tar --version; systemctl --version; openssl version; date; locale charmap; "
    "sync"
)
_SSH_KEY = "/etc/ssh/ssh_host_ed25519_key"
_SSH = (
    # It listens in every fork from the start, and each connection reads the fork's own key: nothing has to be started
    # there. The key that it needs to start with is nobody's, and gone.
    f"[ -x /usr/sbin/sshd ] || exit 0; ssh-keygen -q -t ed25519 -N '' -f {_SSH_KEY} && systemctl start ssh.service; "
    f"code=$?; rm -f {_SSH_KEY} {_SSH_KEY}.pub; exit $code"
)


class AgentFreezePoint:
    """harness.machine.protocol.FreezePoint. ``guest`` is the fork that was greeted last."""

    def __init__(self, environment: Mapping[str, str], image: Image) -> None:
        self._environment = environment
        self._image = image
        self.guest: ChannelGuest | None = None
        self.slowness: float | None = None

    @property
    def medium(self) -> Medium | None:
        """See the protocol."""
        return None

    def keep(self, folder: Path) -> None:
        """See the protocol: the channel asks for no key."""

    def recall(self, folder: Path) -> None:
        """See the protocol."""

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol: the boot has ended, and what a fork needs first has been read from the disk."""
        await_stage(machine, lambda stage, _more: stage == "awaiting-instance", deadline)
        with ChannelGuest(machine.channel(), environment=self._environment) as guest:
            guest.state(deadline=deadline)
            # Ends with another code when a unit failed, which is not for us to judge.
            guest.run(["systemctl", "is-system-running", "--wait"], deadline=deadline)
            # For as many local resources of the default size as a run usually has.
            guest.run([AGENT, "spare", str(DIAGNOSTICS.size_mb), "3"], deadline=deadline)
            started = guest.run(["sh", "-c", _SSH], deadline=deadline)
            if started.exit_code != 0:
                raise GuestError(f"the guest's ssh server does not start: {started.said}")
            guest.run(["sh", "-c", _WARM], deadline=deadline)
            self.measure(machine, guest, deadline)

    def measure(self, machine: Machine, guest: ChannelGuest, deadline: Deadline) -> None:
        """Let the guest do the work of its image, which is compared with the same natively (harness.image.work). A
        guest that does not do it in time, or not at all, is frozen nevertheless."""
        self.slowness = None
        if not self._image.work_seconds:
            return
        limit = deadline.within(_MEASURE_SECONDS)
        with contextlib.suppress(GuestError, HostError):
            for _ in ("what is needed first is there then", "measured"):
                before = machine.processor_seconds
                line = command(self._image.recipe)
                done = guest.run(line, deadline=deadline, timeout=max(1.0, limit.remaining))
                if done.exit_code != 0:
                    return
            self.slowness = slowness(machine.processor_seconds - before, self._image.work_seconds)

    def greet(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol."""
        self.close()
        self.guest = ChannelGuest(machine.channel(), environment=self._environment)
        try:
            state = self.guest.state(deadline=deadline.within(_GREET_SECONDS))
            if state.stage != "awaiting-instance":
                raise GuestError(f"the fork is not waiting for its instance, it is {state.stage}")
        except BaseException:
            self.close()
            raise

    def renew(self, instance: str, *, deadline: Deadline) -> None:
        """See harness.run.system.Greeting."""
        assert self.guest is not None
        self.guest.reconnect(deadline=deadline)  # another agent may have taken over
        renewed(self.guest, instance, secrets.token_hex(64), deadline=deadline)

    def close(self) -> None:
        guest, self.guest = self.guest, None
        if guest:
            guest.close()


def renewed(guest: ChannelGuest, instance: str, entropy: str, *, deadline: Deadline) -> None:
    """Give the guest that goes on as ``instance`` entropy and the clock of now. Raises GuestError."""
    limit = deadline.within(_RENEW_SECONDS)
    state = guest.state(deadline=limit)
    if state.stage != "ready" or state.instance != instance:
        raise GuestError(f"the guest does not go on: it is {state.stage}")
    done = guest.run([AGENT, "renew"], stdin=f"{entropy}\n{time.time():.6f}\n".encode(), deadline=limit)
    if done.exit_code != 0:
        raise GuestError(f"the guest cannot renew its entropy and clock: {done.said}")
