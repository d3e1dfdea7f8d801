# SPDX-License-Identifier: Apache-2.0
"""How a Linux machine goes on from a checkpoint: its agent answers on the channel."""

from __future__ import annotations

import io
import posixpath
import secrets
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import ChannelGuest
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.machine.protocol import Machine
from harness.run.answer import Answer
from harness.run.boot import announced_restart
from harness.run.freeze import renewed
from harness.run.instance import SshKeyPair
from harness.run.linux.identity import PAYLOAD, LinuxIdentity
from harness.run.readback import READ_BEFORE
from harness.run.system import Changes, Identity

_KEYS = ("client_key", "host_key")
_ANSWER = ("instance", "computer_name", "administrator_password_hash", "machine_id", "payload")


class LinuxResumption:
    """harness.run.system.Resumption."""

    def remember(self, identity: Identity) -> dict[str, Any]:
        """See the protocol."""
        assert isinstance(identity, LinuxIdentity)
        keys = {name: getattr(identity, name) for name in _KEYS}
        return {
            **{name: getattr(identity.answer, name) for name in _ANSWER},
            "password": identity.password,
            **{name: [key.private.decode(), key.public] for name, key in keys.items()},
        }

    def recall(self, facts: Mapping[str, Any]) -> LinuxIdentity:
        """See the protocol."""
        client_key, host_key = (SshKeyPair(facts[name][0].encode(), facts[name][1]) for name in _KEYS)
        answer = Answer(
            **{name: facts[name] for name in _ANSWER},
            authorized_key=client_key.public,
            entropy=secrets.token_hex(64),
            time=time.time(),
        )
        return LinuxIdentity(answer, facts["password"], client_key, host_key, READ_BEFORE)

    def go_on(self, machine: Machine, identity: Identity, changes: Changes | None, *, deadline: Deadline) -> Guest:
        """See the protocol."""
        assert isinstance(identity, LinuxIdentity)
        answer = identity.answer
        guest = ChannelGuest(machine.channel(), environment={**ENVIRONMENT, "LANG": answer.locale})
        try:
            renewed(guest, answer.instance, answer.entropy, deadline=deadline)
            if changes:
                _update(guest, changes, deadline)
        except BaseException:
            guest.close()
            raise
        guest.follow_restarts(announced_restart(machine))
        return guest


def _update(guest: Guest, changes: Changes, deadline: Deadline) -> None:
    """What steps changed in the guest's copy stays otherwise."""
    if changes.changed:
        argv = ["tar", "-C", PAYLOAD, "--no-same-owner", "-xpf", "-"]
        must(guest, argv, deadline, "the changed payload cannot be unpacked in the guest", packed(changes))
    if changes.gone:
        argv = ["rm", "-f", "--", *(posixpath.join(PAYLOAD, name) for name in changes.gone)]
        must(guest, argv, deadline, "files of the payload cannot be removed in the guest")


def packed(changes: Changes) -> bytes:
    """The changed files as a tar archive; root's, and runnable where they are runnable."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in changes.changed:
            archive.add(changes.folder / name, name, filter=_as_root)
    return made.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.mode & 0o111 else 0o644
    return member


def must(guest: Guest, argv: Sequence[str], deadline: Deadline, what: str, stdin: bytes = b"") -> None:
    """Run it in a Linux; ``what`` begins the GuestError of an exit code other than 0."""
    done = guest.run(argv, stdin=stdin, deadline=deadline)
    if done.exit_code != 0:
        raise GuestError(f"{what}: {done.said}")
