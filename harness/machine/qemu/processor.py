# SPDX-License-Identifier: Apache-2.0
"""What a saved state depends on when this host's processor executed the guest.

QEMU loads a state of another processor without a word: the guest "runs", and is silent for ever (measured). So whoever
loads one compares this first.
"""

from __future__ import annotations

import os
from pathlib import Path

_NAMED = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")


def identity() -> tuple[str, ...]:
    """The processor of this host, its kernel, and the module that is KVM there, each as a line of text."""
    first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    said = {name.strip(): value.split() for name, value in fields.items()}
    # The kernel lists its flags in an order of its own.
    facts = [f"{name}: {' '.join(sorted(said.get(name, ())))}" for name in _NAMED]
    return (*facts, f"kernel: {os.uname().release}", *_modules())


def _modules() -> list[str]:
    """KVM's modules with their versions; those that are part of the kernel have none."""
    found = []
    for folder in sorted(Path("/sys/module").glob("kvm*")):
        version = folder / "srcversion"
        found.append(f"{folder.name}: {version.read_text().strip() if version.is_file() else ''}")
    return found
