# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol through libvirt, for what libvirt itself has no call for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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


def nodes_of_disks(domain: libvirt.virDomain, devices: Sequence[str]) -> list[str]:
    """The names that QEMU's block layer has for the disks of ``devices``, libvirt's names: the files may be described
    in many ways. Raises HostError when there is none."""
    found = {
        part: str(device["inserted"]["node-name"])
        for device in command(domain, "query-block")
        if device.get("inserted")
        for part in device.get("qdev", "").split("/")
    }
    if lacking := [device for device in devices if device not in found]:
        raise HostError(f"QEMU does not know the machine's disk {lacking[0]}")
    return [found[device] for device in devices]


def add_layers(domain: libvirt.virDomain, layers: Mapping[str, Path]) -> list[str]:
    """Let the guest write to overlays from now on, for the disk of each node to the one that is named; all of them or
    none. The disks below stay as they are. Returns the names of the new nodes."""
    names = [f"layer-{following.stem}"[-31:] for following in layers.values()]
    actions = [
        {
            "type": "blockdev-snapshot-sync",
            "data": {
                "node-name": node, "snapshot-file": str(following), "snapshot-node-name": name, "format": "qcow2",
                "mode": "existing",
            },
        }
        for (node, following), name in zip(layers.items(), names, strict=True)
    ]  # fmt: skip
    command(domain, "transaction", {"actions": actions})
    return names


def _answer(name: str, text: str) -> Any:
    answer = json.loads(text)
    if "error" in answer:
        raise HostError(f"QEMU refuses {name}: {answer['error'].get('desc', 'it does not say why')}")
    return answer.get("return")
