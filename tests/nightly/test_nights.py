# SPDX-License-Identifier: Apache-2.0
"""Nights of real runs: what happens to them, nothing is lost, nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.deadline import Deadline
from tests.conftest import HANGS, SAMPLES, VMROLE, guests, inventory, vmrole
from tests.nightly.test_file import file

pytestmark = pytest.mark.vm

SLEEPY = {
    "SchemaVersion": "1.0",
    "Name": "Sleepy",
    "Version": "1.0.0.0",
    "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
    "ResourceExtensionParameters": [{"Name": "Seconds", "Type": "Int"}],
    "ExtensionSettings": {
        "ApplicationProfile": {
            "Name": "Sleepy",
            "LinuxApplicationProfile": {"RunOnceCommands": ["/bin/sleep [Param.Seconds]"]},
        }
    },
}

TWELVE = f"""
name = "twelve"
images = ["IMAGE"]
output = "out"
[[packages]]
path = "{SAMPLES}/hello-linux"
matrix = {{ Greeting = ["one", "two", "three"] }}
[[packages]]
path = "sleepy.resext"
matrix = {{ Seconds = ["@first", "@second"] }}
[[packages]]
path = "{SAMPLES}/hello-linux"
name = "more"
matrix = {{ Greeting = ["four", "five", "six", "seven", "eight"] }}
[[packages]]
path = "{SAMPLES}/failing.resext"
strict = true
[[packages]]
path = "broken.resext"
"""


SHORT = """
[[packages]]
path = "sleepy.resext"
matrix = { Seconds = ["@first"] }
"""


def twelve(folder: Path, image: str) -> Path:
    """Two of the runs are at it until their files are changed."""
    (folder / "broken.resext").write_text('{"SchemaVersion": "1.0", ')
    (folder / "sleepy.resext").write_text(json.dumps(SLEEPY))
    for name in ("first", "second"):
        (folder / name).write_text("250")
    return file(folder, TWELVE.replace("IMAGE", image))


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [VMROLE, "nightly", path, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def state(output: Path) -> list[dict[str, Any]]:
    try:
        runs: list[dict[str, Any]] = json.loads((output / "nightly.json").read_text())["runs"]
    except FileNotFoundError:
        return []
    return runs


def done(output: Path) -> int:
    return sum(run["exit_code"] is not None for run in state(output))


def in_the_middle(night: subprocess.Popen[str], output: Path, case: str) -> tuple[int, str]:
    """Wait until the run of ``case`` executes a step; its worker's pid and its directory."""

    def working() -> tuple[int, str] | None:
        if night.poll() is not None:
            raise AssertionError(night.communicate())
        name = next(
            (run["attempts"][-1]["run"] for run in state(output) if run["case"] == case and run["attempts"]), ""
        )
        log = output / name / "events.jsonl"
        if not name or not log.exists() or "step-started" not in log.read_text():
            return None
        for pid in Path(f"/proc/{night.pid}/task/{night.pid}/children").read_text().split():
            if str(log) in [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]:
                return int(pid), name
        return None

    found = Deadline(HANGS).poll(working, every=0.05)
    assert found, state(output)
    return found


def cases(output: Path) -> dict[str, ElementTree.Element]:
    root = ElementTree.parse(output / "junit.xml").getroot()
    return {f"{case.get('classname')} {case.get('name')}": case for case in root.iter("testcase")}


def test_twelve_runs_with_a_worker_killed_and_the_night_killed(image: str, tmp_path: Path, state_folder: Path) -> None:
    before = inventory(state_folder)
    path, output = twelve(tmp_path, image), tmp_path / "out"
    night = start(path)
    victim, cut = in_the_middle(night, output, "Seconds=@first")
    (tmp_path / "first").write_text("0")
    os.kill(victim, signal.SIGKILL)
    _, cut_too = in_the_middle(night, output, "Seconds=@second")
    (tmp_path / "second").write_text("0")
    assert Deadline(HANGS).poll(lambda: True if done(output) >= 5 else None), state(output)
    early = {run["key"]: run["attempts"] for run in state(output) if run["exit_code"] is not None}
    night.kill()
    said = night.communicate()[0]
    assert f"its process was killed by SIGKILL ({cut})" in said
    # Its workers see that it is gone, and end in order, although nobody sweeps.
    assert Deadline(HANGS).poll(lambda: True if not guests(state_folder) else None), inventory(state_folder)

    ended = vmrole("nightly", path, "--json")
    assert ended.code == ended.json["exit_code"] == 2, ended.stderr
    runs = ended.json["runs"]
    assert sorted(run["verdict"] for run in runs) == ["error", *["succeeded"] * 10, "warnings"]
    assert {run["exit_code"] for run in runs if run["package"] == "Failing"} == {1}
    why = {Path(one["directory"]).name: one["why"] for run in runs for one in run["cut_off"]}
    assert why[cut] == "its process was killed by SIGKILL"
    assert why[cut_too] == "the nightly ended in the middle of it"
    assert {run["key"]: run["attempts"] for run in state(output) if run["key"] in early} == early
    assert all((Path(run["directory"]) / "report.html").exists() for run in runs)
    assert "going on with the night of" in ended.stderr

    tests = cases(output)
    assert len(tests) == 12
    assert [name for name, case in tests.items() if case.find("failure") is not None] == [f"Failing on {image}"]
    assert [name for name, case in tests.items() if case.find("error") is not None] == [f"broken.resext on {image}"]
    told = [case.findtext("system-out") or "" for case in tests.values()]
    assert sum(f"the run {cut} was cut off: its process was killed by SIGKILL" in text for text in told) == 1
    index = (output / "index.html").read_text()
    assert index.count('scope="row"') >= 12
    for run in runs:
        assert f"{Path(run['directory']).name}/report.html" in index
    assert inventory(state_folder) == before

    # The next night is a new one, and knows those before.
    again = vmrole("nightly", path, "--resume", "--json")
    assert (again.code, again.json["runs"]) == (0, [])


def test_ctrl_c_ends_the_runs_in_order_and_the_night_goes_on_later(
    image: str, tmp_path: Path, state_folder: Path
) -> None:
    before = inventory(state_folder)
    path, output = twelve(tmp_path, image), tmp_path / "out"
    night = start(path, "--parallel", "1")
    _, cut = in_the_middle(night, output, "Seconds=@first")
    other = vmrole("nightly", path)
    assert (other.code, "another nightly is at work" in other.stderr) == (3, True)
    night.send_signal(signal.SIGINT)
    out, err = night.communicate(timeout=HANGS)
    assert night.returncode == 130, err
    assert "Traceback" not in err
    assert f"the nightly was interrupted by SIGINT ({cut})" in out
    assert "the same command goes on with this night" in err
    assert inventory(state_folder) == before
    assert json.loads((output / cut / "result.json").read_text())["verdict"] == "interrupted"
    assert done(output) == 3
    skipped = [case for case in cases(output).values() if case.find("skipped") is not None]
    assert len(skipped) == 9

    # Somebody looks at it, and shortens the file.
    (tmp_path / "first").write_text("0")
    path.write_text(path.read_text().partition('[[packages]]\npath = "sleepy')[0].replace(', "three"', "") + SHORT)
    ended = vmrole("nightly", path, "--json")
    assert ended.code == 0, ended.stderr
    assert "in which 3 runs were finished" in ended.stderr
    assert [(run["case"], len(run["cut_off"])) for run in ended.json["runs"]] == [
        ("Greeting=one", 0),
        ("Greeting=two", 0),
        ("Seconds=@first", 1),
    ]
    assert ended.stderr.count("succeeded  ") == 1
    assert inventory(state_folder) == before


def test_secrets_are_in_nothing_that_a_night_writes(image: str, tmp_path: Path) -> None:
    path = file(
        tmp_path,
        f"""
        images = ["{image}"]
        strict = true
        [[packages]]
        path = "secretive.resext"
        matrix = {{ Token = ["env:NIGHT_TOKEN", "@token.txt"] }}
        """,
    )
    (tmp_path / "token.txt").write_text("Ultra-violet-7\n")
    output = tmp_path / "out"
    ended = vmrole("nightly", path, "--output", output, "--json", NIGHT_TOKEN="Infra-red-9")
    assert ended.code == 1
    assert [run["case"] for run in ended.json["runs"]] == ["Token=env:NIGHT_TOKEN", "Token=@token.txt"]
    written = [ended.stdout, ended.stderr]
    written += [item.read_text("utf-8", "replace") for item in output.rglob("*") if item.is_file()]
    assert len(written) > 20
    assert not [text for text in written if "Ultra-violet-7" in text or "Infra-red-9" in text]
    failures = [case.find("failure") for case in cases(output).values()]
    assert all(found is not None and "__**__" in (found.text or "") for found in failures)


def test_history_and_old_runs(image: str, tmp_path: Path) -> None:
    path = file(
        tmp_path, f'images = ["{image}"]\nkeep-days = 2\n[[packages]]\npath = "HELLO"\nparameters.Greeting = "Hi"'
    )
    output = tmp_path / "out"
    first = vmrole("nightly", path, "--output", output, "--json")
    assert first.code == 0
    run = Path(first.json["runs"][0]["directory"])
    old = output / f"20200101T000000Z{run.name[16:]}"
    shutil.copytree(run, old)
    for night in range(2):  # what is usual takes three nights before the last
        shutil.copytree(run, output / f"{run.name[:9]}{night:06}Z{run.name[16:]}")
    second = vmrole("nightly", path, "--output", output)
    assert second.code == 0
    assert second.stdout.startswith("succeeded"), second.stdout
    assert second.stdout.count("\n") == 1
    assert not old.exists()
    assert run.exists()
    assert "usually" in (output / "index.html").read_text()
