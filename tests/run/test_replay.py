# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and replays in real guests: a machine goes on as it was before a step."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.machine.checkpoints import Recording
from tests.conftest import HANGS, VMROLE, Ran, inventory, vmrole
from tests.run.test_certificates import make, write

pytestmark = pytest.mark.vm

_COMMANDS = [
    '/bin/sh -c "echo first >/root/trace; date +%s.%N; cat /proc/sys/kernel/random/uuid"',
    '/bin/sh -c "echo second >>/root/trace; mkdir /root/d && head -c 3000000 /dev/urandom >/root/d/big"',
    '/bin/sh -c "cat /root/trace; $VMROLE_PAYLOAD/work.sh [Param.Word]"',
    '/bin/sh -c "cat /root/trace; date +%s.%N; cat /proc/sys/kernel/random/uuid; ls /root"',
]


def package(folder: Path, script: str) -> Path:
    """An extension whose third command fails until its payload is mended."""
    (folder / "payload").mkdir(parents=True)
    (folder / "payload/work.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "payload/work.sh").chmod(0o755)
    document = {
        "SchemaVersion": "1.0", "Name": "Trace", "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "DataPackage": {"Version": "1.0.0.0", "Location": "payload"},
        "ResourceExtensionParameters": [{"Name": "Word", "Type": "SecureString"}],
        "ExtensionSettings": {"ApplicationProfile": {
            "Name": "Trace", "LinuxApplicationProfile": {"RunOnceCommands": _COMMANDS}}},
    }  # fmt: skip
    (folder / "trace.resext").write_text(json.dumps(document))
    return folder


@dataclass(frozen=True)
class Failed:
    """A run whose third step warned, with its checkpoints."""

    output: Path
    result: dict[str, object]
    stderr: str


@pytest.fixture(scope="module")
def failed(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    folder = tmp_path_factory.mktemp("replay")
    (folder / "word").write_text("open-sesame-77")
    pfx = write(folder, make("replay").pfx(None), "cert.pfx")
    done = vmrole(
        "run", package(folder / "package", 'echo "$1" >&2; exit 9'), "-p", f"Word=@{folder / 'word'}", "--json",
        "--output", folder / "out", "--certificate", pfx, "--local-resource", "Data=20",
    )  # fmt: skip
    assert done.code == 0 and done.json["verdict"] == "warnings", done.stderr
    yield Failed(folder / "out", done.json, done.stderr)
    vmrole("sweep", "--kept")


def steps(done: Ran) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in done.json["instances"][0]["steps"]}


def test_a_run_tells_how_to_go_on(failed: Failed) -> None:
    assert f"vmrole replay {failed.output} --from run-once-3" in failed.stderr
    events = [json.loads(line) for line in (failed.output / "events.jsonl").read_text().splitlines()]
    taken = [event["step"] for event in events if event["event"] == "checkpoint-taken"]
    assert taken == ["run-once-1", "run-once-2", "run-once-3", "run-once-4"]
    kept = vmrole("sweep", "--json").json["checkpoints"]
    (mine,) = [point for point in kept if point["run"] == failed.result["run"]]
    assert mine["steps"] == taken and mine["bytes"] > 1 << 20


def test_the_step_with_a_changed_script(failed: Failed, tmp_path: Path, state_folder: Path) -> None:
    """What ran before is there, what is changed is new, and the secret of the first run comes along, masked."""
    before = inventory(state_folder)
    changed = package(tmp_path / "changed", 'test "$1" = open-sesame-77 && echo mended')
    done = vmrole(
        "replay", failed.output, "--from", "run-once-3", "--package", changed, "--output", tmp_path / "o", "--json"
    )
    assert done.code == 0 and done.json["verdict"] == "succeeded", done.stderr
    seen = steps(done)
    assert [step["outcome"] for step in seen.values()] == ["skipped", "skipped", "succeeded", "succeeded"]
    assert seen["run-once-3"]["stdout"] == "first\nsecond\nmended\n"
    assert done.json["forked"] and "run-once-3" in done.json["fork_reason"]
    assert done.json["instances"][0]["certificates"] == failed.result["instances"][0]["certificates"]  # type: ignore[index]
    assert "open-sesame-77" not in done.stdout + done.stderr + (tmp_path / "o/events.jsonl").read_text()
    assert inventory(state_folder) == before


def test_the_disk_and_the_memory_are_those_of_then(failed: Failed, tmp_path: Path) -> None:
    done = vmrole("replay", failed.output, "--from", "run-once-2", "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert steps(done)["run-once-2"]["exit_code"] == 0, "the folder that it makes is not there yet"
    assert steps(done)["run-once-4"]["stdout"].startswith("first\nsecond\n")


def test_clock_and_entropy_are_of_now(failed: Failed, tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b"):
        before = time.time()
        done = vmrole("replay", failed.output, "--from", "run-once-4", "--output", tmp_path / name, "--json")
        _first, _second, clock, uuid, *_ = steps(done)["run-once-4"]["stdout"].split()
        assert before - 2 < float(clock) < time.time() + 2
        seen.append(uuid)
    assert seen[0] != seen[1]


def test_a_replay_can_be_replayed(failed: Failed, tmp_path: Path) -> None:
    first = vmrole("replay", failed.output, "--from", "run-once-2", "--output", tmp_path / "a")
    assert "vmrole replay" in first.stderr
    again = vmrole("replay", tmp_path / "a", "--from", "run-once-3", "--output", tmp_path / "b", "--json")
    assert steps(again)["run-once-3"]["stdout"] == "first\nsecond\n"
    assert [step["outcome"] for step in steps(again).values()] == ["skipped", "skipped", "warned", "succeeded"]


def test_commands_that_never_ran_are_told(failed: Failed, tmp_path: Path) -> None:
    """A command more at the front: run-once-3 is then another one, and the new one has not run before it."""
    changed = package(tmp_path / "changed", "exit 9")
    document = json.loads((changed / "trace.resext").read_text())
    profile = document["ExtensionSettings"]["ApplicationProfile"]["LinuxApplicationProfile"]
    profile["RunOnceCommands"] = ["/bin/true", *_COMMANDS]
    (changed / "trace.resext").write_text(json.dumps(document))
    done = vmrole(
        "replay", failed.output, "--from", "run-once-3", "--package", changed, "--output", tmp_path / "out", "--json"
    )
    assert done.json["verdict"] == "warnings", done.stderr
    assert "had other commands than the package has now (run-once-1, run-once-2)" in done.stderr
    # its checkpoints have behind them what ran, not what its package says
    again = vmrole("replay", tmp_path / "out", "--from", "run-once-4", "--output", tmp_path / "again", "--json")
    assert "had other commands than the package has now (run-once-1, run-once-2)" in again.stderr


def test_a_shell_before_a_step(failed: Failed) -> None:
    done = subprocess.run(
        [VMROLE, "shell", failed.output, "--at", "run-once-2"],
        input=b"cat /root/trace; ls /var/lib/waagent | wc -l; exit 4\n",
        capture_output=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert b"first\r\n" in done.stdout or b"first\n" in done.stdout
    assert b"second" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "run-once-9"), "has no step 'run-once-9'"),
        (("--from", "run-once-3", "--package", "/nowhere"), "/nowhere"),
        ((), "--from"),
    ],
)
def test_what_cannot_be_replayed(failed: Failed, arguments: tuple[str, ...], said: str) -> None:
    done = vmrole("replay", failed.output, *arguments)
    assert done.code == 2 and said in done.stderr, done.stderr
    assert vmrole("replay", "no-such-run", "--from", "run-once-1").code == 2
    assert vmrole("shell", "--at", "run-once-1").code == 2
    assert f"'vmrole shell {failed.output} --at STEP'" in vmrole("shell", failed.output).stderr


def test_a_damaged_checkpoint(failed: Failed, tmp_path: Path, state_folder: Path) -> None:
    folders = sorted((state_folder / "checkpoints").iterdir())
    (place,) = [folder for folder in folders if failed.result["run"] == folder.name]
    ram = sorted(place.glob("*/ram"))[0]
    whole = ram.read_bytes()
    before = inventory(state_folder)
    try:
        os.truncate(ram, 1 << 20)
        done = vmrole("replay", failed.output, "--from", "run-once-1", "--output", tmp_path / "out", "--json")
        assert done.code == 3 and done.json["blame"] == "host", done.stderr
        assert "the checkpoint before run-once-1 is damaged: 001/ram is not what it was" in done.stderr
    finally:
        ram.write_bytes(whole)
    assert inventory(state_folder) == before


def test_none_are_kept_of_what_succeeds_or_when_not_wanted(image: str, tmp_path: Path, state_folder: Path) -> None:
    before = {folder.name for folder in (state_folder / "checkpoints").glob("*")}
    good = package(tmp_path / "good", "exit 0")
    bad = package(tmp_path / "bad", "exit 1")
    for path, options in ((good, ()), (bad, ("--no-checkpoints",)), (bad, ("--cold",))):
        output = tmp_path / f"{path.name}{len(options)}{options[-1:]}"
        done = vmrole("run", path, "-p", "Word=x", "--output", output, *options)
        assert done.code == 0, done.stderr
        assert "vmrole replay" not in done.stderr
    assert {folder.name for folder in (state_folder / "checkpoints").glob("*")} == before


class _Saved:
    """A machine that writes so many bytes at each checkpoint."""

    def __init__(self, size: int) -> None:
        self.size = size

    def checkpoint(self, folder: Path, layers: Path) -> float:
        (folder / "ram").write_bytes(os.urandom(self.size))
        return 0.1


def test_the_budget(tmp_path: Path) -> None:
    """The oldest go first; one that is too large alone is none."""
    recording = Recording(tmp_path, most=3 << 20)
    for step in ("a", "b", "c", "d"):
        assert recording.take(_Saved(1 << 20), step)
    assert [taken.step for taken in recording.steps] in (["c", "d"], ["b", "c", "d"])
    assert recording.size <= 3 << 20
    assert recording.take(_Saved(4 << 20), "e") is None
    assert recording.steps == ()
