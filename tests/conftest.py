# SPDX-License-Identifier: Apache-2.0
"""What tests with real machines share: a state folder of their own, the image, and an inventory of what is left."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.guest.winrm import WinRmGuest
from harness.image.builders.debian import MIRROR
from harness.image.cache import default_folder
from harness.machine.qemu.connection import process_folder
from harness.run.deploy import Deployed
from harness.run.linux.identity import LinuxIdentity
from tests.failures import COMMANDS, TEMPORARY, Failures

VMROLE = Path(sys.executable).parent / "vmrole"
REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "scenarios/samples"
USERS_CACHE = default_folder()
"""Where the images of this user are; tests without machines have another."""
HANGS = 600.0
"""Seconds after which something hangs, on the busiest of hosts."""


def pytest_unconfigure() -> None:
    """A process that does not end after its last test shows where it hangs, and fails, instead of hanging for ever. One
    of several waits for the others, and is ended with them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        faulthandler.dump_traceback_later(120, exit=True, file=2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-machines",
        action="store_true",
        help="only the tests that need no machine and no image; others are refused",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Failures())


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if {"image", "vm_role"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.vm)
    if config.getoption("--no-machines"):
        left_out = [item for item in items if item.get_closest_marker("vm")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("vm")]


@pytest.fixture(scope="session", autouse=True)
def state_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The private state folder of this test session: short, and apart from the user's own machines."""
    folder = Path(tempfile.mkdtemp(prefix="vmt-", dir="/tmp"))
    pytestconfig.stash[TEMPORARY] = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VMROLE_STATE_DIR", str(folder))
        if pytestconfig.getoption("--no-machines"):
            _refuse_machines(folder, environment)
        yield folder
        subprocess.run([VMROLE, "sweep", "--kept"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_machines(state: Path, environment: pytest.MonkeyPatch) -> None:
    """Let whatever wants a machine or an image fail: a test that does is to have the mark vm."""
    (state / "slots").write_text("no folder: --no-machines\n")
    environment.setenv("VMROLE_CACHE_DIR", str(state / "cache"))
    environment.setenv(MIRROR, "http://refused-by---no-machines.invalid")


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
    Deadline(HANGS).poll(lambda: True if inventory(state) == before else None)
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


def vmrole(*arguments: str | Path, timeout: float = HANGS, **environment: str) -> Ran:
    """Run the command as a user does, in a process of its own."""
    line = shlex.join(["vmrole", *map(str, arguments)])
    try:
        done = subprocess.run(
            [VMROLE, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired as error:
        COMMANDS.append(f"{line}\nno end after {timeout:.0f} s\n{(error.stderr or b'').decode('utf-8', 'replace')}")
        raise
    COMMANDS.append(f"{line}\nexit code {done.returncode}\n{done.stderr[-4000:]}")
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def processor_seconds(most: float) -> Iterator[None]:
    """Fail when the block takes more than ``most`` seconds of this process's own, whatever else the host does: for what
    must not grow with the square of its input."""
    began = time.process_time()
    yield
    assert time.process_time() - began < most


def linux(machine: Deployed) -> LinuxIdentity:
    """What a Linux machine was made from."""
    assert isinstance(machine.identity, LinuxIdentity)
    return machine.identity


@dataclass(frozen=True)
class NativeWindows:
    """The Wine of the stand-in image and its listener on this computer: no machine, and no Windows either."""

    http: int
    https: int
    certificate: bytes
    password: str
    drive: Path
    """Drive C."""

    def connect(self, **more: Any) -> WinRmGuest:
        options: dict[str, Any] = {
            "password": self.password,
            "certificate": self.certificate,
            "deadline": Deadline(HANGS),
        }
        return WinRmGuest.connect("127.0.0.1", self.https, **(options | more))


@pytest.fixture(scope="session")
def native_windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeWindows]:
    from tests.standin import native

    folder, prefix = tmp_path_factory.mktemp("listener"), tmp_path_factory.mktemp("wine") / "prefix"
    with native.wine_prefix(prefix) as environment, native.listening(folder, environment) as listener:
        drive = prefix / "drive_c"
        (drive / "ProgramData/VMRole/Payload").mkdir(parents=True, exist_ok=True)
        source = REPOSITORY / "images/windows-components/run/vmrole-run.c"
        compile_windows(source, drive / "Program Files/VMRole/vmrole-run.exe", "-municode")
        certificate = listener.certificate.read_bytes()
        yield NativeWindows(listener.http, listener.https, certificate, native.PASSWORD, drive)


def compile_windows(source: Path, target: Path, *options: str) -> None:
    """A program for Windows."""
    flags = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-s", *options]
    subprocess.run(["x86_64-w64-mingw32-gcc", *flags, "-o", str(target), str(source)], check=True)
