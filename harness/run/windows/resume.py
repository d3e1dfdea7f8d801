# SPDX-License-Identifier: Apache-2.0
"""How the stand-in guest goes on from a checkpoint: renewed by the agent of its Linux part, then reached by WinRM."""

from __future__ import annotations

import posixpath
import secrets
import time
from collections.abc import Mapping
from typing import Any

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import ChannelGuest
from harness.guest.protocol import Guest
from harness.machine.protocol import Machine
from harness.plan.guestpaths import PAYLOAD_FOLDER
from harness.run.freeze import renewed
from harness.run.linux.resume import must, packed
from harness.run.readback import READ_BEFORE
from harness.run.system import Changes, Identity
from harness.run.windows.answer import WindowsAnswer, WinRmCertificate
from harness.run.windows.identity import WindowsIdentity

_DRIVE = "/var/lib/standin/prefix/drive_c"
"""C: of the stand-in, as its Linux part sees it."""
_PAYLOAD = posixpath.join(_DRIVE, *PAYLOAD_FOLDER.split("\\")[1:])
_CHANGED = "vmrole-changed"
"""A folder at the root of C:, for the moment that changed files are copied from it."""
_CONNECT_SECONDS = 60.0


class WindowsResumption:
    """harness.run.system.Resumption."""

    def remember(self, identity: Identity) -> dict[str, Any]:
        """See the protocol."""
        assert isinstance(identity, WindowsIdentity)
        answer = identity.answer
        return {
            "instance": answer.instance,
            "computer_name": answer.computer_name,
            "machine_id": answer.machine_id,
            "payload": answer.payload,
            "password": identity.password,
            "certificate": identity.winrm.pem.decode("ascii"),
            "key": identity.winrm.key_pem,
            "stand_in": identity.stand_in,
            "secrets": identity.secrets,
        }

    def recall(self, facts: Mapping[str, Any]) -> WindowsIdentity:
        """See the protocol. What the machine was made from is in it, and is not given to it again."""
        winrm = WinRmCertificate.load(facts["certificate"], facts["key"])
        answer = WindowsAnswer(
            instance=facts["instance"],
            computer_name=facts["computer_name"],
            machine_id=facts["machine_id"],
            entropy=secrets.token_hex(64),
            time=time.time(),
            nics=(),
            certificates=(),
            pfx_password="",
            winrm_certificate=winrm.thumbprint,
            local_resources=(),
            payload=facts["payload"],
        )
        known = [str(secret) for secret in facts["secrets"]]
        return WindowsIdentity(
            answer,
            facts["password"],
            b"",
            winrm,
            READ_BEFORE,
            facts["stand_in"],
            known,
            facts.get("cold_engines", False),
        )

    def go_on(self, machine: Machine, identity: Identity, changes: Changes | None, *, deadline: Deadline) -> Guest:
        """See the protocol. The payload comes as it did first, by the channel; Windows' own names for files decide what
        is replaced."""
        assert isinstance(identity, WindowsIdentity)
        replacing = changes is not None and bool(changes.changed)
        with ChannelGuest(machine.channel()) as agent:
            renewed(agent, identity.answer.instance, identity.answer.entropy, deadline=deadline)
            if changes and changes.gone:
                argv = ["rm", "-f", "--", *(posixpath.join(_PAYLOAD, name) for name in changes.gone)]
                must(agent, argv, deadline, "files of the payload cannot be removed in the guest")
            if changes and replacing:
                unpack = 'rm -rf "$1" && mkdir -m 700 "$1" && exec tar -C "$1" --no-same-owner -xpf -'
                argv = ["sh", "-c", unpack, "sh", posixpath.join(_DRIVE, _CHANGED)]
                must(agent, argv, deadline, "the changed payload cannot be unpacked in the guest", packed(changes))
        limit = deadline.within(_CONNECT_SECONDS)
        guest = identity.connect(machine, None, boot_id="", deadline=limit)
        try:
            guest.boot_id(deadline=deadline)  # a step that is lost later is asked whether it was in this one
            if replacing:
                _copy(guest, deadline)
        except BaseException:
            guest.close()
            raise
        return guest


def _copy(guest: Guest, deadline: Deadline) -> None:
    copy = f"xcopy.exe C:\\{_CHANGED} {PAYLOAD_FOLDER} /E /H /I /K /Q /R /Y >nul && rmdir /S /Q C:\\{_CHANGED}"
    done = guest.run(["cmd.exe", "/c", copy], deadline=deadline)
    if done.exit_code != 0:
        raise GuestError(f"the changed payload cannot be copied in the guest: {done.said}")
