# SPDX-License-Identifier: Apache-2.0
"""Other tools that start throwaway machines, as their users start them, without KVM."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from harness.machine.qemu.tunnel import free_port
from harness.process import run

BUILD = Path("build")
_PATIENCE = 180


def debvm_image() -> Path | None:
    """A general-purpose Debian as debvm makes it, with an SSH server; kept between benches. None without debvm."""
    if shutil.which("debvm-run") is None:
        return None
    image = BUILD / "debvm.ext4"
    if not image.exists():
        BUILD.mkdir(exist_ok=True)
        argv = ["debvm-create", "-o", str(image), "-r", "bookworm", "--", "--include=openssh-server"]
        run(argv, output=BUILD / "debvm.log")
    return image


def debvm(image: Path) -> float:
    """Seconds from `debvm-run` to its guest's SSH banner, which is before any command could run in it.

    It has no command of its own to run: its guest's server is polled with short time-outs (user-mode networking accepts
    connections before the guest listens, and a client that waits on one measures itself). Its KVM is disabled by
    arguments that come last.
    """
    port = free_port()
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
        while time.monotonic() - began < _PATIENCE:
            if process.poll() is not None:
                raise RuntimeError(f"debvm-run ended with {process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.5) as link:
                    link.settimeout(0.5)
                    if link.recv(64).startswith(b"SSH-"):
                        return time.monotonic() - began
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"debvm-run's guest did not answer within {_PATIENCE} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def virtme_kernel() -> Path | None:
    """The kernel that virtme-ng starts: VMROLE_BENCH_KERNEL, else this host's newest. None without either or vng.

    None also where vng does not work with it, as on a host that has no udev; that is said, and our own are measured.
    """
    if shutil.which("vng") is None:
        return None
    if given := os.environ.get("VMROLE_BENCH_KERNEL"):
        kernel: Path | None = Path(given)
    else:
        kernel = max(Path("/boot").glob("vmlinuz-*"), default=None, key=lambda path: path.stat().st_mtime)
    if kernel is not None:
        try:
            virtme(kernel)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"virtme-ng is not measured: {error}", file=sys.stderr)  # noqa: T201
            return None
    return kernel


def virtme(kernel: Path) -> float:
    """Seconds of `vng ... --exec true`: this host's files under another kernel, no specialization, no isolation."""
    argv = ["vng", "--disable-kvm", "--disable-microvm", "--force-9p", "--cpus", "2", "--memory", "512M", "--run"]
    began = time.monotonic()
    subprocess.run(
        [*argv, str(kernel), "--exec", "true"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        timeout=_PATIENCE,
    )
    return time.monotonic() - began
