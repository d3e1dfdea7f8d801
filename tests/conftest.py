# SPDX-License-Identifier: Apache-2.0
"""What tests with real machines share: a state folder of their own, the image, and an inventory of what is left."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.guest.winrm import WinRmGuest
from harness.machine.protocol import MachineState
from harness.machine.qemu.connection import process_folder
from harness.machine.qemu.machine import LibvirtMachine
from harness.run.deploy import Deployed
from harness.run.linux.identity import LinuxIdentity

VMROLE = Path(sys.executable).parent / "vmrole"
REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "scenarios/samples"


def pytest_unconfigure() -> None:
    """A process that does not end after its last test shows where it hangs, and fails, instead of hanging for ever. One
    of several waits for the others, and is ended with them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        faulthandler.dump_traceback_later(120, exit=True, file=2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails with a machine shows what the machine is at."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for machine in (value.machine for value in item.funcargs.values() if isinstance(value, Deployed)):
            told = [f"{machine.state().name}, {machine.why_paused() or 'not paused'}"]
            running = machine.state() is MachineState.running
            if running and isinstance(machine, LibvirtMachine):
                told += [line for line in machine.monitor("info registers -a").splitlines() if "RIP" in line]
            report.sections.append((f"machine {machine.name}", "\n".join([*told, *machine.console.lines()[-40:]])))
    return report


@pytest.fixture(scope="session", autouse=True)
def state_folder() -> Iterator[Path]:
    """The private state folder of this test session: short, and apart from the user's own machines."""
    folder = Path(tempfile.mkdtemp(prefix="vmt-", dir="/tmp"))
    before = os.environ.get("VMROLE_STATE_DIR")
    os.environ["VMROLE_STATE_DIR"] = str(folder)
    yield folder
    subprocess.run([VMROLE, "sweep", "--kept"], check=False, capture_output=True)
    if before is None:
        del os.environ["VMROLE_STATE_DIR"]
    else:
        os.environ["VMROLE_STATE_DIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the Linux image, which is built first if the cache lacks it."""
    subprocess.run([VMROLE, "images", "build", "debian-12"], check=True, stdin=subprocess.DEVNULL)
    return "debian-12"


@dataclass(frozen=True)
class Inventory:
    """What machines leave on a host: QEMU processes, files of process folders, ports those processes listen on."""

    processes: frozenset[int]
    files: frozenset[str]
    ports: frozenset[str]


def inventory(state: Path) -> Inventory:
    """What there is now of machines whose files are in ``state``."""
    processes = frozenset(guests(state))
    # The folder of this very process stays, as libvirt laid it out; machines must leave nothing in it.
    ours = process_folder().path if process_folder.cache_info().currsize else None
    files = frozenset(
        str(path)
        for folder in (state / "r").glob("*")
        for path in (folder.rglob("*") if folder != ours else (*folder.glob("*/vmrole-*"), *folder.glob("vmrole-*")))
    )
    listening = subprocess.run(["ss", "-Hltnp"], check=True, capture_output=True, text=True).stdout
    ports = frozenset(line.split()[3] for line in listening.splitlines() if any(f"pid={p}," in line for p in processes))
    return Inventory(processes, files, ports)


def settled(state: Path, before: Inventory) -> None:
    """Assert that the inventory is again what it was; the kernel may take its time to take a killed process away."""
    Deadline(60).poll(lambda: True if inventory(state) == before else None)
    assert inventory(state) == before


def guests(state: Path) -> list[int]:
    """Pids of the QEMU processes of machines in ``state``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"guest=vmrole-" in command and str(state).encode() in command:
            found.append(int(path.parent.name))
    return found


@dataclass(frozen=True)
class Ran:
    """A finished `vmrole`."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def vmrole(*arguments: str | Path, timeout: float = 240, **environment: str) -> Ran:
    """Run the command as a user does, in a process of its own."""
    done = subprocess.run(
        [VMROLE, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def linux(machine: Deployed) -> LinuxIdentity:
    """What a Linux machine was made from."""
    assert isinstance(machine.identity, LinuxIdentity)
    return machine.identity


@dataclass(frozen=True)
class NativeWindows:
    """Wine and the stand-in guest's listener on this computer: no machine, and no Windows either."""

    http: int
    https: int
    certificate: bytes
    password: str
    drive: Path
    """Drive C."""

    def connect(self, **more: Any) -> WinRmGuest:
        options: dict[str, Any] = {"password": self.password, "certificate": self.certificate, "deadline": Deadline(60)}
        return WinRmGuest.connect("127.0.0.1", self.https, **(options | more))


@pytest.fixture(scope="session")
def native_windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeWindows]:
    from tests.standin import native

    folder, prefix = tmp_path_factory.mktemp("listener"), tmp_path_factory.mktemp("prefix")
    with native.wine_prefix(prefix) as environment, native.listening(folder, environment) as listener:
        drive = prefix / "drive_c"
        (drive / "Program Files/VMRole").mkdir(parents=True)
        (drive / "ProgramData/VMRole/Payload").mkdir(parents=True)
        (drive / "windows/vmrole-unavailable.log").touch()
        source = REPOSITORY / "images/windows-components/run/vmrole-run.c"
        compile_windows(source, drive / "Program Files/VMRole/vmrole-run.exe", "-municode")
        certificate = listener.certificate.read_bytes()
        yield NativeWindows(listener.http, listener.https, certificate, native.PASSWORD, drive)


def compile_windows(source: Path, target: Path, *options: str) -> None:
    """A program for Windows."""
    flags = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-s", *options]
    subprocess.run(["x86_64-w64-mingw32-gcc", *flags, "-o", str(target), str(source)], check=True)
