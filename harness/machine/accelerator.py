# SPDX-License-Identifier: Apache-2.0
"""Which accelerator really executes guest code on this host.

A /dev/kvm that opens proves nothing: on some hosts it opens and stock guest kernels hang or crawl. So the kernel of a
guest image is started on it, without a disk, and has to reach the end of its own start (the panic for want of a root
file system) at native speed. The answer is kept per host boot, QEMU and kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError
from harness.files import replace_file
from harness.machine.protocol import Accelerator
from harness.process import run, which
from harness.state import host_boot_id, qemu_account, state_folder

PROBE_SECONDS = 2.0
"""A native boot to this point takes some 0.5 s; emulated or nested-and-trapped ones take longer or never get there."""

EMULATOR = "qemu-system-x86_64"
_REACHED = re.compile(rb"Kernel panic - not syncing: VFS|Unable to mount root fs")
_KVM = Path("/dev/kvm")
_CAPABILITIES = "arch-capabilities"
_REFUSED = re.compile(rb"failed to set MSR 0x10a")
"""The register with them, which some hosts show to QEMU and do not let it set."""


def choose_accelerator(kernel: Path, *, fresh: bool = False) -> Accelerator:
    """KVM when the probe executed ``kernel`` with it, TCG otherwise, with the reason.

    ``fresh`` probes again instead of taking the answer kept for this boot of the host.
    """
    key = _key(kernel)
    kept = state_folder() / "accelerator.json"
    if not fresh:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(kept.read_text())
            if data["key"] == key:
                return Accelerator(data["kind"], data["reason"], tuple(data["without"]))
    answer = probe(kernel)
    replace_file(kept, json.dumps({"key": key, **asdict(answer)}))
    return answer


def probe(kernel: Path, *, seconds: float = PROBE_SECONDS) -> Accelerator:
    """Start ``kernel`` under KVM and see whether it gets anywhere within ``seconds``."""
    if not _KVM.exists():
        return Accelerator("tcg", "there is no /dev/kvm on this host")
    answer, refused = _probed(kernel, seconds, ())
    return _probed(kernel, seconds, (_CAPABILITIES,))[0] if refused else answer


def _probed(kernel: Path, seconds: float, without: tuple[str, ...]) -> tuple[Accelerator, bool]:
    """The answer, and whether QEMU could not give the guest what the host says of its processor's capabilities."""
    account = qemu_account()
    # In memory: nothing of it is left, whatever ends this process.
    with open(os.memfd_create("vmrole-kvm"), "rb") as kept:  # noqa: PTH123 (a descriptor)
        log = Path(f"/proc/self/fd/{kept.fileno()}")
        started = time.monotonic()
        argv = [
            EMULATOR, "-accel", "kvm", "-cpu", ",".join(("host", *(f"{name}=off" for name in without))),
            "-machine", "pc", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", "stdio",
        ]  # fmt: skip
        try:
            run(argv, deadline=Deadline(seconds), output=log, account=account)
        except CommandError as error:
            if error.returncode == 127:
                return Accelerator("tcg", f"{EMULATOR} is not installed"), False
            said = log.read_bytes()
            if error.returncode is not None and not _REACHED.search(said):
                who = f" by {account.name}, under which QEMU runs" if account else ""
                why = f"KVM cannot be used{who}: {_last_line(log) or error.message}"
                return Accelerator("tcg", why), _REFUSED.search(said) is not None
        took = time.monotonic() - started
        said = log.read_bytes()
        if _REACHED.search(said):
            return Accelerator("kvm", f"a guest kernel started natively in {took:.1f} s", without), False
        how_far = f"got as far as '{_last_line(log)}'" if said.strip() else "printed nothing"
        why = f"/dev/kvm opens, but a guest kernel {how_far} within {seconds:.0f} s on it"
        return Accelerator("tcg", why), False


def _key(kernel: Path) -> str:
    emulator = which(EMULATOR)
    account = qemu_account()
    facts = [host_boot_id(), str(kernel), str(kernel.stat().st_mtime_ns), account.name if account else str(os.getuid())]
    for path in (Path(emulator) if emulator else None, _KVM):
        if path and path.exists():
            status = path.stat()
            facts.append(f"{path} {status.st_mtime_ns if path != _KVM else ''} {status.st_mode} {status.st_gid}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_bytes().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""
