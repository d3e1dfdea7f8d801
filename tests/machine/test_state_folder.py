# SPDX-License-Identifier: Apache-2.0
"""State folders with names of all kinds, and whatever umask their user has."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.machine.qemu.calls import undisturbed
from harness.state import state_folder as this_users
from tests.conftest import HANGS, VMROLE, vmrole


@pytest.mark.vm
@pytest.mark.parametrize("name", ["a b&c", "jörg's 100%20#1?"])
def test_a_state_folder_has_any_name_that_qemu_takes(name: str, image: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"vmt {name} ", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        done = vmrole("exec", "--cold", "--image", image, "--", "id", "-un", VMROLE_STATE_DIR=folder)
    assert (done.code, done.stdout) == (0, "root\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's QEMU runs as the user")
def test_a_state_folder_that_qemu_cannot_reach_is_told() -> None:
    with tempfile.TemporaryDirectory(prefix="vmt-", dir="/tmp") as folder:
        done = vmrole("exec", "--image", "debian-12", "--", "true", VMROLE_STATE_DIR=f"{folder}/s")
    assert done.code == 125 and f"may not pass through {folder} to {folder}/s" in done.stderr, done
    assert f"chmod o+x {folder}" in done.stderr


def test_a_name_that_qemu_does_not_take_is_refused(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a,b", "a\nb"):
        monkeypatch.setenv("VMROLE_STATE_DIR", str(state_folder / name))
        with pytest.raises(HostError, match="which libvirt cannot give to QEMU") as caught:
            this_users()
        assert "without commas" in str(caught.value)
    done = vmrole("exec", "--image", "debian-12", "--", "true", VMROLE_STATE_DIR=str(state_folder / "a,b"))
    assert done.code == 125 and "name a folder without commas" in done.stderr, done


@pytest.mark.vm
@pytest.mark.parametrize("umask", ["027", "077"])
def test_the_umask_of_the_user_is_for_the_users_own_files(umask: str, image: str, tmp_path: Path) -> None:
    folder, package = tmp_path / "out", Path(__file__).parents[2] / "scenarios/samples/hello-linux"
    done = subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$@"', "sh", VMROLE, "run", package, "-p", "Greeting=x", "--output", folder],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o666 & ~int(umask, 8)


DISTURBED = """
import os, signal
from harness.machine.qemu.calls import undisturbed
def call():
    os.kill(os.getpid(), signal.SIGINT)
    os.read(0, 1)  # which comes once the signal was noticed
    print("whole", flush=True)
def noticed(number, frame):
    os.write(2, b"!")
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, noticed)
try:
    undisturbed(call)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_call_that_a_signal_disturbs_is_whole() -> None:
    # In a process of its own: the workers of a test session take no SIGINT.
    argv = [sys.executable, "-c", DISTURBED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr and process.stderr.read(1) == b"!"
        out, _ = process.communicate(b"x", timeout=HANGS)
    assert out == b"whole\ninterrupted\n"


def test_a_call_has_a_umask_of_its_own() -> None:
    before = os.umask(0o077)
    try:
        assert undisturbed(lambda: os.umask(0o022)) == 0o022
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


def test_what_a_call_raises_comes_out() -> None:
    def call() -> None:
        raise HostError("no")

    with pytest.raises(HostError, match="no"):
        undisturbed(call)


@pytest.mark.parametrize("arguments", [("pack", "{sample}"), ("run", "{sample}", "-p", "Greeting=x"), ("new", "abc")])
def test_a_working_directory_that_is_gone_is_told(arguments: tuple[str, ...], tmp_path: Path) -> None:
    gone, sample = tmp_path / "gone", Path(__file__).parents[2] / "scenarios/samples/hello-linux"
    gone.mkdir()
    command = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    words = [word.format(sample=sample) for word in arguments]
    done = subprocess.run(
        ["sh", "-c", command, "sh", gone, VMROLE, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode in (2, 3) and "Traceback" not in done.stderr, done
    assert "the working directory is not there any more" in done.stderr
