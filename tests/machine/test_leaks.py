# SPDX-License-Identifier: Apache-2.0
"""Nothing leaks: processes, files and ports before and after every way a run can end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.deadline import Deadline
from tests.conftest import HANGS, VMROLE, guests, inventory, settled, vmrole

pytestmark = [pytest.mark.vm, pytest.mark.alone]


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [VMROLE, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def endless(image: str, log: Path, *options: str) -> tuple[str | Path, ...]:
    """A run that does not end by itself."""
    document = log / "endless.resext"
    document.write_text(
        '{"SchemaVersion": "1.0", "Name": "Endless", "Version": "1.0.0.0",'
        ' "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0", "ExtensionSettings": {"ApplicationProfile":'
        ' {"Name": "Endless", "LinuxApplicationProfile": {"RunOnceCommands": ["/bin/sleep 250"]}}}}'
    )
    return ("run", document, "--image", image, "--output", log / "out", *options)


def until(log: Path, what: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for ``what`` in the events of the run."""
    events = log / "out/events.jsonl"

    def seen() -> bool | None:
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}: {process.communicate()}")
        return True if events.exists() and what in events.read_text() else None

    assert Deadline(HANGS).poll(seen, every=0.1), f"no {what!r} in {events.read_text()}"


def test_interrupted_while_the_machine_is_made(image: str, tmp_path: Path, state_folder: Path) -> None:
    """Between libvirt's making a domain and our knowing of it."""
    before = inventory(state_folder)
    process = start(*endless(image, tmp_path))
    assert Deadline(HANGS).poll(lambda: guests(state_folder) or None, every=0.002)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS)
    assert process.returncode == 143
    settled(state_folder, before)


@pytest.mark.parametrize(
    ("number", "when", "code", "options"),
    [
        (signal.SIGINT, '"boot"', 130, ()),
        (signal.SIGINT, "step-started", 130, ()),
        (signal.SIGTERM, '"stage": "booting"', 143, ("--cold",)),
        (signal.SIGTERM, '"stage": "specializing"', 143, ()),
        (signal.SIGTERM, "step-started", 143, ()),
    ],
)
def test_interrupted(
    number: signal.Signals,
    when: str,
    code: int,
    options: tuple[str, ...],
    image: str,
    state_folder: Path,
    tmp_path: Path,
) -> None:
    before = inventory(state_folder)
    process = start(*endless(image, tmp_path, *options))
    until(tmp_path, when, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == code, stderr
    assert b"Traceback" not in stderr
    assert '"verdict": "interrupted"' in (tmp_path / "out/result.json").read_text()
    settled(state_folder, before)


def test_exec_interrupted(image: str, state_folder: Path) -> None:
    """What has no result says by its exit code which signal it was."""
    before = inventory(state_folder)
    process = start("exec", "--image", image, "--", "/bin/sleep", "250")
    assert Deadline(HANGS).poll(lambda: True if guests(state_folder) else None, every=0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 143 and b"interrupted" in stderr, stderr
    assert b"Traceback" not in stderr
    settled(state_folder, before)


def test_killed_and_swept(image: str, state_folder: Path, tmp_path: Path) -> None:
    """SIGKILL leaves a machine; sweep takes it, and leaves alone what a living run owns."""
    before = inventory(state_folder)
    (tmp_path / "dead").mkdir()
    (tmp_path / "alive").mkdir()
    dead = start(*endless(image, tmp_path / "dead"))
    until(tmp_path / "dead", "step-started", dead)
    dead.kill()
    dead.communicate()
    orphans = set(guests(state_folder))
    assert len(orphans) == 1, "a killed harness leaves its machine"
    alive = start(*endless(image, tmp_path / "alive"))
    try:
        # The next run sweeps by itself before it makes its own machine.
        until(tmp_path / "alive", "step-started", alive)
        living = set(guests(state_folder))
        assert len(living) == 1 and not living & orphans
        done = vmrole("sweep", "--json")
        assert done.code == 0 and done.json["removed"] == []
        assert set(guests(state_folder)) == living
    finally:
        alive.kill()
        alive.communicate()
    done = vmrole("sweep", "--json")
    assert len(done.json["removed"]) == 1
    settled(state_folder, before)


@pytest.mark.parametrize("moment", [0.15, 0.4, 0.7, 1.2])
def test_killed_early(moment: float, image: str, state_folder: Path) -> None:
    """SIGKILL while the machine is being made: at any moment, sweep finds what there is."""
    before = inventory(state_folder)
    process = start("exec", "--image", image, "--", "true")
    time.sleep(moment)  # not awaited for anything: the moment is the point
    process.kill()
    process.communicate()
    vmrole("sweep")
    settled(state_folder, before)


def test_run_timeout(image: str, state_folder: Path, tmp_path: Path) -> None:
    """The overall time-out: exit 3, nobody's fault, and where it was."""
    before = inventory(state_folder)
    done = vmrole(*endless(image, tmp_path), "--timeout", "25", "--json")
    assert done.code == 3, done.stderr
    assert done.json["verdict"] == "error" and done.json["blame"] is None
    assert done.json["summary"].startswith("the time-out of the whole run, 25 s, was over")
    settled(state_folder, before)


def test_too_short_a_timeout_says_how_far_it_got(image: str, state_folder: Path, tmp_path: Path) -> None:
    before = inventory(state_folder)
    done = vmrole(*endless(image, tmp_path, "--cold"), "--timeout", "2", "--json")
    assert done.code == 3, done.stderr
    assert "awaited was" in done.json["summary"] and done.json["blame"] is None
    assert done.json["summary"].startswith("the time-out of the whole run, 2 s, was over: ")
    assert (tmp_path / "out/console.log").exists()
    settled(state_folder, before)


def test_kept_machine(image: str, state_folder: Path, tmp_path: Path) -> None:
    """--keep always outlives the process, can be entered, and goes with sweep --kept only."""
    before = inventory(state_folder)
    document = endless(image, tmp_path)[1]
    Path(document).write_text(Path(document).read_text().replace("/bin/sleep 250", "/bin/true"))
    done = vmrole("run", document, "--output", tmp_path / "out", "--keep", "always")
    assert done.code == 0, done.stderr
    assert len(guests(state_folder)) == 1
    shell = subprocess.run(
        [VMROLE, "shell", tmp_path / "out"],
        input=b"hostname; exit 5\n",
        capture_output=True,
        timeout=HANGS,
        check=False,
    )
    assert shell.returncode == 5 and b"VMROLE-" in shell.stdout, shell
    swept = vmrole("sweep", "--json").json
    assert swept["removed"] == [] and swept["kept"][0]["run"].split("-")[1] == "Endless"
    assert len(guests(state_folder)) == 1
    removed = [item["what"] for item in vmrole("sweep", "--kept", "--json").json["removed"]]
    assert len([what for what in removed if what.startswith("machine")]) == 1
    settled(state_folder, before)


def test_strict_makes_a_warning_a_reason_to_keep_the_machine(image: str, state_folder: Path, tmp_path: Path) -> None:
    before = inventory(state_folder)
    document = endless(image, tmp_path)[1]
    Path(document).write_text(Path(document).read_text().replace("/bin/sleep 250", "/bin/false"))
    done = vmrole("run", document, "--output", tmp_path / "out", "--keep", "failed", "--strict")
    assert done.code == 1 and "the machine is kept" in done.stderr, done.stderr
    assert len(guests(state_folder)) == 1
    vmrole("sweep", "--kept")
    settled(state_folder, before)
