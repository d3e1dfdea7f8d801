# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol through libvirt, for what libvirt itself has no call for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from harness.deadline import Deadline
from harness.errors import HostError

_INCOMING = "vmrole-state"
_LOAD_SECONDS = 120.0
"""It takes a tenth of a second; a QEMU that hangs takes for ever, and a busy host is in between."""


def command(domain: libvirt.virDomain, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """One command; its answer. Raises HostError with QEMU's own words when it refuses."""
    text = json.dumps({"execute": name, "arguments": dict(arguments or {})})
    return _answer(name, libvirt_qemu.qemuMonitorCommand(domain, text, 0))


def save_state(domain: libvirt.virDomain, path: Path) -> None:
    """Write the state of all devices of a paused guest, without its RAM, to ``path`` (there, writable for QEMU)."""
    command(domain, "xen-save-devices-state", {"filename": str(path), "live": True})


def load_state(domain: libvirt.virDomain, path: Path, deadline: Deadline) -> None:
    """Give a guest that was started with ``-incoming defer`` the devices of ``path``; it is paused afterwards.

    Raises HostError when QEMU does not take them (it then ends) or does not come to an end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = json.dumps({"execute": "getfd", "arguments": {"fdname": _INCOMING}})
        answer, _files = libvirt_qemu.qemuMonitorCommandWithFiles(domain, text, [descriptor], 0)
        _answer("getfd", answer)
    finally:
        os.close(descriptor)
    command(domain, "migrate-incoming", {"uri": f"fd:{_INCOMING}"})

    def ended() -> str | None:
        status = str(command(domain, "query-migrate").get("status", ""))
        return status if status in ("completed", "failed") else None

    status = deadline.within(_LOAD_SECONDS).poll(ended, every=0.002)
    if status != "completed":
        raise HostError(f"QEMU did not take the saved state: {status or 'it is still reading it'}")


def node_of_disk(domain: libvirt.virDomain) -> str:
    """The name that QEMU's block layer has for the guest's first disk. Raises HostError when there is none."""
    for device in command(domain, "query-block"):
        # By libvirt's name of the device: the file may be described in many ways.
        if "virtio-disk0" in device.get("qdev", "") and device.get("inserted"):
            return str(device["inserted"]["node-name"])
    raise HostError("QEMU does not know the disk of the machine")


def add_layer(domain: libvirt.virDomain, node: str, following: Path) -> str:
    """Let the guest write to the overlay ``following`` from now on; the disk ``node``, below it, stays as it is.

    Returns the name of the new node."""
    new = f"layer-{following.stem}"[:31]
    arguments = {
        "node-name": node, "snapshot-file": str(following), "snapshot-node-name": new, "format": "qcow2",
        "mode": "existing",
    }  # fmt: skip
    command(domain, "blockdev-snapshot-sync", arguments)
    return new


def _answer(name: str, text: str) -> Any:
    answer = json.loads(text)
    if "error" in answer:
        raise HostError(f"QEMU refuses {name}: {answer['error'].get('desc', 'it does not say why')}")
    return answer.get("return")
