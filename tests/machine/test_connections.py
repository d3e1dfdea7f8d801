# SPDX-License-Identifier: Apache-2.0
"""The sample through other libvirts than the in-process one, with daemons of our own; and as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.machine.templates import TemplateStore
from harness.process import which
from tests.conftest import HANGS, SAMPLES, VMROLE, vmrole
from tests.guest.conftest import start_server

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start the system's libvirt daemon"),
]

HELLO = ("run", str(SAMPLES / "hello-linux"), "-p", "Greeting=x", "--json")
_SOCKET = Path("/var/run/libvirt/libvirt-sock")


@pytest.fixture(scope="module")
def system_daemon() -> Iterator[str]:
    """libvirtd and virtlogd; those of the host where they run."""
    started: list[subprocess.Popen[bytes]] = []
    for program, socket in (("virtlogd", "virtlogd-sock"), ("libvirtd", "libvirt-sock")):
        if _answers(_SOCKET.with_name(socket)):
            continue
        path = which(program)
        assert path, f"{program} is not installed"
        started.append(
            subprocess.Popen([path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        assert Deadline(HANGS).poll(lambda socket=socket: _answers(_SOCKET.with_name(socket)) or None)  # type: ignore[misc]
    yield "qemu:///system"
    for process in reversed(started):
        process.send_signal(signal.SIGTERM)
        process.wait(HANGS)


def _answers(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
        link.connect(str(path))
        return True
    return False


def left(uri: str) -> tuple[str, list[str]]:
    """Domains, and volumes that are not images."""
    domains = subprocess.run(
        ["virsh", "-c", uri, "list", "--all", "--name"], capture_output=True, text=True, check=True
    )
    volumes = subprocess.run(["virsh", "-c", uri, "vol-list", "vmrole"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in volumes.stdout.splitlines() if line.strip().startswith("vmrole-")]
    return domains.stdout.strip(), names


def test_system(system_daemon: str, image: str, tmp_path: Path) -> None:
    done = vmrole(*HELLO, "--connect", system_daemon, "--output", tmp_path / "out", timeout=HANGS)
    assert done.code == 0, done.stderr
    assert done.json["verdict"] == "succeeded", done.json["summary"]
    assert (tmp_path / "out/console.log").stat().st_size > 0
    assert left(system_daemon) == ("", [])


def test_killed_on_another_libvirt(system_daemon: str, image: str, tmp_path: Path) -> None:
    """What a killed run left in a daemon is swept from there."""
    process = subprocess.Popen(
        [VMROLE, "exec", "--image", image, "--connect", system_daemon, "--", "sleep", "200"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert Deadline(HANGS).poll(lambda: True if left(system_daemon)[0] else None)
    process.kill()
    process.wait()
    assert left(system_daemon)[0].startswith("vmrole-")
    assert len(vmrole("sweep", "--json").json["removed"]) == 1
    assert left(system_daemon) == ("", [])


def test_over_ssh(system_daemon: str, image: str, tmp_path: Path) -> None:
    """qemu+ssh://localhost with an ssh server of our own."""
    server = start_server(tmp_path)
    try:
        key = tmp_path / "client"
        key.touch(mode=0o600)
        key.write_bytes(server.client_key.private)
        uri = f"qemu+ssh://root@localhost:{server.port}/system?keyfile={key}&no_verify=1&no_tty=1"
        done = vmrole(*HELLO, "--connect", uri, "--output", tmp_path / "out", timeout=HANGS)
        assert done.code == 0, done.stderr
        assert done.json["verdict"] == "succeeded"
        assert left(system_daemon) == ("", [])
    finally:
        server.process.terminate()
        server.process.wait()


@pytest.fixture(scope="module")
def ordinary(image: str) -> Iterator[list[str]]:
    """How to become an ordinary user with a home and a cache that has the image; a session daemon may start there."""
    account = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="vmu-", dir="/tmp"))
    cache = Cache.of_user()
    there = ensure_image(image, cache=cache, deadline=Deadline(HANGS), progress=lambda _: None)
    templates = {each.folder for each in TemplateStore.of_user().all() if each.image_key == there.key}

    def of_others(folder: str, names: list[str]) -> list[str]:
        wanted = {"images": {there.disk.parent}, "templates": templates}.get(Path(folder).name)
        return [] if wanted is None else [name for name in names if Path(folder, name) not in wanted]

    for name in ("state", "run"):
        (home / name).mkdir()
    shutil.copytree(cache.folder, home / "cache", copy_function=_copy_sparse, ignore=of_others)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
        path.chmod(0o700 if path.is_dir() else path.stat().st_mode & 0o111 | 0o600)
    environment = {
        "HOME": home, "XDG_RUNTIME_DIR": home / "run", "VMROLE_STATE_DIR": home / "state",
        "VMROLE_CACHE_DIR": home / "cache", "PATH": os.environ["PATH"],
    }  # fmt: skip
    become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "env", "-i"]
    yield become + [f"{name}={value}" for name, value in environment.items()]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == account.pw_uid and str(home).encode() in (path / "environ").read_bytes():
                os.kill(int(path.name), signal.SIGTERM)
    shutil.rmtree(home, ignore_errors=True)


def _copy_sparse(source: str, target: str) -> None:
    subprocess.run(["cp", "--sparse=always", "--preserve=mode", source, target], check=True)


def as_user(ordinary: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ordinary, str(VMROLE), *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=HANGS, cwd="/",
    )  # fmt: skip


def test_in_process_as_an_ordinary_user(ordinary: list[str], image: str) -> None:
    done = as_user(ordinary, "exec", "--image", image, "--", "uname", "-s")
    assert (done.returncode, done.stdout) == (0, "Linux\n"), done.stderr
    assert "nothing is left over" in as_user(ordinary, "sweep").stdout


def test_replays_of_an_ordinary_user(ordinary: list[str], image: str, tmp_path: Path) -> None:
    """The memory of a machine can be saved and put back without root's rights."""
    home = Path(next(word for word in ordinary if word.startswith("HOME=")).removeprefix("HOME="))
    for sample in SAMPLES.glob("failing.resext"):
        shutil.copy(sample, home / sample.name)
    output = str(home / "out")
    done = as_user(ordinary, "run", str(home / "failing.resext"), "--output", output)
    assert done.returncode == 0 and f"vmrole replay {output} --from run-once-2" in done.stderr, done.stderr
    again = as_user(ordinary, "replay", output, "--from", "run-once-2", "--output", f"{output}-2", "--json")
    assert again.returncode == 0, again.stderr
    outcomes = [step["outcome"] for step in json.loads(again.stdout)["instances"][0]["steps"]]
    assert outcomes == ["skipped", "warned", "warned", "succeeded"]
    assert "removed checkpoints" in as_user(ordinary, "sweep", "--kept").stdout


def test_session_as_an_ordinary_user(ordinary: list[str], image: str) -> None:
    done = as_user(ordinary, "exec", "--image", image, "--connect", "qemu:///session", "--", "uname", "-s")
    assert (done.returncode, done.stdout) == (0, "Linux\n"), done.stderr


_MIXED = """
from harness.machine.qemu.connection import connect
with connect(None) as connection:
    from lxml import etree
    etree.fromstring("<a/>")
    connection.raw.getDomainCapabilities(connection.emulator, "x86_64", "q35", "qemu")
"""


def test_libvirt_and_lxml_have_a_libxml2_each(state_folder: Path) -> None:
    """The dynamic linker tells what it takes from where: nothing of one for the other."""
    done = subprocess.run(
        [sys.executable, "-c", _MIXED], env=os.environ | {"LD_DEBUG": "bindings"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    taken = [line for line in done.stderr.splitlines() if "binding file" in line]
    assert any("/etree." in line.split(" to ")[0] for line in taken) and any("libxml2" in line for line in taken)
    mixed = [line for line in taken if "/etree." in line and "libxml2" in line]
    assert not mixed, mixed[:3]
