# SPDX-License-Identifier: Apache-2.0
"""A host that lacks something: QEMU, libvirt, disk space, memory, a port; really, in a mount namespace of our own."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from harness.machine.qemu import machine
from harness.machine.qemu.tunnel import free_port
from tests.conftest import HANGS, SAMPLES, VMROLE, Ran, inventory, vmrole
from tests.machine.test_bad_guests import booted, built  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.vm, pytest.mark.alone]

HELLO = ("run", str(SAMPLES / "hello-linux"), "-p", "Greeting=x")


def in_namespace(prepare: str, *arguments: str, **environment: str) -> Ran:
    """Run vmrole where ``prepare`` has changed the mounts; the host's own stay as they are."""
    script = f"set -e; mount --make-rprivate /; {prepare}; exec {shlex.join([str(VMROLE), *arguments])}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change mounts")


@needs_root
def test_no_qemu(image: str, tmp_path: Path) -> None:
    hide = "mount --bind /dev/null /usr/bin/qemu-system-x86_64"
    done = in_namespace(hide, *HELLO, "--output", str(tmp_path / "out"))
    assert done.code == 3 and "qemu-system-x86_64 is not installed" in done.stderr, done
    assert "qemu-system-x86" in in_namespace(hide, "doctor").stdout


@needs_root
def test_no_libvirt_driver(image: str, tmp_path: Path) -> None:
    hide = f"mount --bind {tmp_path} /usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
    done = in_namespace(hide, *HELLO, "--output", str(tmp_path / "out"))
    assert done.code == 3 and "libvirt" in done.stderr and "install" in done.stderr, done
    assert in_namespace(hide, "doctor").code == 3


@needs_root
def test_no_room_at_all(image: str, tmp_path: Path) -> None:
    small = "mkdir -p /tmp/vmt-small; mount -t tmpfs -o size=8m none /tmp/vmt-small"
    done = in_namespace(small, *HELLO, "--output", str(tmp_path / "out"), VMROLE_STATE_DIR="/tmp/vmt-small")
    assert done.code == 3 and "MiB are free" in done.stderr, done
    Path("/tmp/vmt-small").rmdir()


@needs_root
def test_the_disk_of_the_host_fills_up(image: str, tmp_path: Path) -> None:
    """The guest writes more than the host has: QEMU pauses it, and that is said instead of a time-out."""
    document = tmp_path / "fill.resext"
    document.write_text(
        '{"SchemaVersion": "1.0", "Name": "Fill", "Version": "1.0.0.0",'
        ' "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0", "ExtensionSettings": {"ApplicationProfile":'
        ' {"Name": "Fill", "LinuxApplicationProfile": {"RunOnceCommands":'
        ' ["/bin/dd if=/dev/urandom of=/fill bs=1M count=900 conv=fsync"]}}}}'
    )
    small = "mkdir -p /tmp/vmt-small; mount -t tmpfs -o size=560m none /tmp/vmt-small"
    done = in_namespace(
        small, "run", str(document), "--output", str(tmp_path / "out"), VMROLE_STATE_DIR="/tmp/vmt-small"
    )
    assert done.code == 3 and "disk of this host is full" in done.stderr, done
    Path("/tmp/vmt-small").rmdir()


@needs_root
def test_the_disk_of_the_host_fills_up_under_a_single_command(image: str) -> None:
    """As in a run: nothing but the machine knows that its guest waits for ever."""
    small = "mkdir -p /tmp/vmt-small; mount -t tmpfs -o size=560m none /tmp/vmt-small"
    fill = ("dd", "if=/dev/urandom", "of=/fill", "bs=1M", "count=900", "conv=fsync")
    done = in_namespace(small, "exec", "--image", image, "--", *fill, VMROLE_STATE_DIR="/tmp/vmt-small")
    assert done.code == 125 and "disk of this host is full" in done.stderr, done
    Path("/tmp/vmt-small").rmdir()


@needs_root
def test_a_run_whose_reports_have_no_room_did_not_succeed(image: str, tmp_path: Path) -> None:
    """Its steps did: that alone would be green, without anything to show for it."""
    small = f"mount -t tmpfs -o size=64k none {tmp_path}"
    done = in_namespace(small, *HELLO, "--output", str(tmp_path / "out"))
    last = done.stderr.strip().splitlines()[-1]
    assert done.code == 3 and "No space left on device" in last and "blame: host" in last, done


def test_too_much_memory(image: str, state_folder: Path, tmp_path: Path) -> None:
    before = inventory(state_folder)
    done = vmrole(*HELLO, "--memory", "99000000", "--output", tmp_path / "out")
    assert done.code == 3 and "MiB of memory" in done.stderr and "--memory" in done.stderr
    assert inventory(state_folder) == before


def test_a_port_in_use(built: object, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Somebody takes the port between looking for a free one and using it: the next one is taken."""
    real = free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        offered = [taken.getsockname()[1], real()]
        monkeypatch.setattr(machine, "free_port", lambda: offered.pop(0))
        with booted(built) as booted_machine:  # type: ignore[arg-type]
            assert booted_machine.endpoint(22) == ("127.0.0.1", booted_machine.endpoint(22)[1])
            assert booted_machine.endpoint(22)[1] != taken.getsockname()[1] and not offered
