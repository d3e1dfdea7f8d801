# SPDX-License-Identifier: Apache-2.0
"""Cold `vmrole exec` beside the distribution's debvm-run, both without KVM; writes build/bench.json.

Each is timed from the shell to the output of `uname -r`, in turn, and the median is shown. debvm-run has no command of
its own to run: its guest's SSH server is polled for the protocol's banner with short time-outs (user-mode networking
accepts connections before the guest listens, and a client that waits on one measures itself).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.machine.qemu.tunnel import free_port
from harness.process import run
from tests.bench import packages
from tests.conftest import SAMPLES, VMROLE

ROUNDS = int(os.environ.get("VMROLE_BENCH_ROUNDS", "5"))
BUILD = Path("build")


def ours(*arguments: str | Path) -> float:
    """Seconds of one whole `vmrole` process."""
    began = time.monotonic()
    subprocess.run([VMROLE, *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.monotonic() - began


def debvm_image() -> Path:
    """A general-purpose Debian as debvm makes it, with an SSH server; kept between benches."""
    image = BUILD / "debvm.ext4"
    if not image.exists():
        BUILD.mkdir(exist_ok=True)
        argv = ["debvm-create", "-o", str(image), "-r", "bookworm", "--", "--include=openssh-server"]
        run(argv, output=BUILD / "debvm.log")
    return image


def debvm(image: Path) -> float:
    """Seconds from `debvm-run` to its guest's SSH banner. Its KVM is disabled by an emulator that lacks it."""
    port = free_port()
    # Arguments after -- go to QEMU and come last. The CPU is what it is without KVM, the default of QEMU.
    without_kvm = ["-machine", "accel=tcg", "-cpu", "qemu64", "-snapshot"]
    argv = ["debvm-run", "-i", str(image), "-s", str(port), "--", *without_kvm]
    began = time.monotonic()
    # It is killed and cannot remove its own temporary files: they go with the bench's folder.
    process = subprocess.Popen(
        argv,
        env=os.environ | {"TMPDIR": os.environ["VMROLE_STATE_DIR"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.monotonic() - began < 180:
            if process.poll() is not None:
                raise RuntimeError(f"debvm-run ended with {process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.5) as link:
                    link.settimeout(0.5)
                    if link.recv(64).startswith(b"SSH-"):
                        return time.monotonic() - began
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("debvm-run's guest did not answer within 180 s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    rows: list[dict[str, object]] = []
    peer: list[float] = []
    cold: list[float] = []
    sample: list[float] = []
    image = debvm_image() if shutil.which("debvm-run") else None
    with tempfile.TemporaryDirectory(prefix="vmb-", dir="/tmp") as folder:
        os.environ["VMROLE_STATE_DIR"] = folder
        ours("exec", "--image", "debian-12", "--", "true")  # the first one asks libvirt what QEMU can do
        for number in range(ROUNDS):
            cold.append(ours("exec", "--image", "debian-12", "--", "uname", "-r"))
            sample.append(ours("run", SAMPLES / "hello-linux", "-p", "Greeting=x", "--output", f"{folder}/{number}"))
            if image:
                peer.append(debvm(image))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)  # noqa: T201

    def row(name: str, values: list[float], baseline: list[float]) -> None:
        value, base = statistics.median(values), statistics.median(baseline) if baseline else None
        rows.append(
            {
                "name": name,
                "value": round(value, 3),
                "unit": "s",
                "baseline": round(base, 3) if base else None,
                "ratio": round(base / value, 2) if base else None,
            }
        )

    row("cold exec, specialised (baseline: debvm-run to its SSH banner)", cold, peer)
    row("cold run of the sample, with read-back and logs (baseline: the same)", sample, peer)
    rows += packages.measure(ROUNDS)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{'what':<72} {'median':>9} {'baseline':>9} {'ratio':>6}")  # noqa: T201
    for entry in rows:
        base, ratio = entry["baseline"] or "-", entry["ratio"] or "-"
        print(f"{entry['name']:<72} {entry['value']:>8} {entry['unit']} {base:>9} {ratio:>6}")  # noqa: T201


if __name__ == "__main__":
    main()
