# SPDX-License-Identifier: Apache-2.0
"""The plugin as an author meets it: sessions of their own, in real machines."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.machine.slots import processors
from harness.pytest_plugin import _case
from harness.run.result import InstanceResult, Outcome, RunResult, StepResult, Verdict
from harness.scenario.start import require_executed
from tests.conftest import HANGS, REPOSITORY, SAMPLES, VMROLE, guests, vmrole

pytestmark = pytest.mark.vm

_HEAD = "import pytest\nfrom harness.scenario import PlanOf, ScenarioGuest, VmRole\n"


@dataclass(frozen=True)
class Session:
    """A finished session. ``text`` is what it printed."""

    code: int
    text: str
    junit: ET.Element
    output: Path

    def case(self, name: str) -> ET.Element:
        return next(case for case in self.junit.iter("testcase") if case.get("name") == name)

    def properties(self, name: str) -> dict[str, str]:
        return {p.get("name", ""): p.get("value", "") for p in self.case(name).iter("property")}

    def outcomes(self) -> dict[str, str]:
        """Name and outcome of every test."""
        ways = ("failure", "error", "skipped")
        return {
            case.get("name", ""): next((way for way in ways if case.find(way) is not None), "passed")
            for case in self.junit.iter("testcase")
        }


def session(folder: Path, scenarios: str, *arguments: str) -> Session:
    """Run ``scenarios`` as pytest does it for an author."""
    shutil.copytree(SAMPLES, folder / "samples", dirs_exist_ok=True)
    (folder / "test_mine.py").write_text(_HEAD + scenarios)
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--junitxml=junit.xml", "--vmrole-output=runs", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert (folder / "junit.xml").exists(), done.stdout
    return Session(done.returncode, done.stdout, ET.parse(folder / "junit.xml").getroot(), folder / "runs")


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("test_x", "test_x"),
        ("test_x[debian-12]", "test_x"),
        ("test_x[debian-12-80]", "test_x[80]"),
        ("test_x[80-debian-12]", "test_x[80]"),
        ("test_x[a-debian-12-b]", "test_x[a-b]"),
        ("test_x[debian-123]", "test_x[debian-123]"),
        ("test_x[my-debian-12x]", "test_x[my-debian-12x]"),
    ],
)
def test_cases_are_the_same_on_all_images(name: str, case: str) -> None:
    assert _case(name, "debian-12") == case


def test_steps_that_could_not_be_executed_are_named() -> None:
    """Also one that does not say why."""
    steps = (
        StepResult("preinstall-1", "x", "script", Outcome.succeeded, exit_code=0),
        StepResult("msi-1", "x", "script", Outcome.not_executable, finding="no MSI here"),
        StepResult("msi-2", "x", "script", Outcome.not_executable),
    )
    summary, started = "nothing failed", datetime.now(UTC)
    result = RunResult("r", started, None, None, Verdict.incomplete, None, summary, (InstanceResult("0", steps=steps),))
    said: list[str] = []
    require_executed(result, said.append)
    assert said == ["the run is incomplete: msi-1 (no MSI here); msi-2"]
    require_executed(dataclasses.replace(result, verdict=Verdict.succeeded), said.append)
    assert len(said) == 1


def test_an_incomplete_run_is_a_skip(tmp_path: Path) -> None:
    """In a real machine of the stand-in, which has no PowerShell."""
    subprocess.run([VMROLE, "images", "build", "windows-stand-in"], check=True, stdin=subprocess.DEVNULL)
    document = json.loads((SAMPLES / "warn/warn.resext").read_text())
    scripts = document["ExtensionSettings"]["ApplicationProfile"]["WindowsApplicationProfile"]["ProvisioningScripts"]
    for script, (executable, line) in zip(
        scripts, [("cmd.exe", "/c ver"), ("powershell.exe", "-File x.ps1"), ("cmd.exe", "/c exit 0")], strict=True
    ):
        script |= {"ExecutableAndParams": {"Executable": executable, "Parameters": line}, "TimeoutInSeconds": 120}
    shutil.copytree(SAMPLES / "warn/payload", tmp_path / "payload")
    (tmp_path / "mixed.resext").write_text(json.dumps(document))
    scenarios = """
def test_whole(vm_role: VmRole) -> None:
    vm_role("mixed.resext")
    raise AssertionError("not reached")


def test_what_can_be(vm_role: VmRole) -> None:
    role = vm_role("mixed.resext", allow_unexecuted=True)
    assert [str(step.outcome) for step in role.steps] == ["succeeded", "not_executable", "succeeded"]
    assert [step.after_unexecuted for step in role.steps] == [False, False, True]
"""
    named = "the run is incomplete: preinstall-2 (this guest has no PowerShell)"
    done = session(tmp_path, scenarios, "--vmrole-image=windows-stand-in", "-rs")
    assert (done.code, done.outcomes()) == (0, {"test_whole": "skipped", "test_what_can_be": "passed"}), done.text
    assert named in done.text
    strict = session(tmp_path, scenarios, "--vmrole-image=windows-stand-in", "--strict-environment", "-k", "whole")
    assert (strict.code, strict.outcomes()) == (1, {"test_whole": "failure"}), strict.text
    assert named in strict.text and "not reached" not in strict.text


def test_an_interrupted_session_leaves_nothing(image: str, state_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        f"{_HEAD}from pathlib import Path\ndef test_long(vm_role: VmRole, guest: ScenarioGuest) -> None:\n"
        f'    role = vm_role({str(SAMPLES / "failing.resext")!r})\n    Path("there").touch()\n'
        '    role.guest.wait_for_file("/no", timeout=300)\n'
    )
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--vmrole-output=runs"]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert Deadline(HANGS).poll(lambda: (tmp_path / "there").exists() or process.poll() is not None or None)
    assert len(guests(state_folder)) == 2
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 2 and "KeyboardInterrupt" in text, text
    assert guests(state_folder) == []
    assert (tmp_path / "runs/test_long-1/report.html").exists()


def test_what_an_author_sees(image: str, state_folder: Path, tmp_path: Path) -> None:
    """Passing, failing in the step, failing in the scenario, nonsense: each with what its author needs, no more."""
    done = session(tmp_path, '''
def test_good(vm_role: VmRole) -> None:
    role = vm_role("samples/failing.resext")
    assert role.verdict == "warnings"
    assert role.guest.succeed("true") == ""


def test_step(vm_role: VmRole) -> None:
    role = vm_role("samples/failing.resext", parameters={})
    assert role.step("run-once-2").exit_code == 0


def test_wait(vm_role: VmRole) -> None:
    role = vm_role("samples/failing.resext")
    role.guest.wait_for_port(81, timeout=1)


def test_no_package(vm_role: VmRole) -> None:
    vm_role("samples/nothing.resext")


def test_no_step(vm_role: VmRole) -> None:
    vm_role("samples/failing.resext").step("run-twice-1")


def test_plan(plan: PlanOf) -> None:
    assert [step.id for step in plan("samples/failing.resext").applicable] == [f"run-once-{n}" for n in (1, 2, 3, 4)]


def test_guest(guest: ScenarioGuest) -> None:
    assert guest.succeed("hostname").startswith("VMROLE-")
    guest.crash()
''')  # fmt: skip
    assert done.code == 1, done.text
    assert done.outcomes() == {
        "test_good": "passed", "test_step": "failure", "test_wait": "failure", "test_no_package": "failure",
        "test_no_step": "failure", "test_plan": "passed", "test_guest": "passed",
    }  # fmt: skip
    text = done.text
    # Only the author's own lines of code are shown: no frame of the harness.
    frames = re.findall(r"^(\S+\.py):\d+: ", text, re.MULTILINE)
    assert frames and set(frames) == {"test_mine.py"}, frames
    assert "for port 81 to be listened on, looked" in text
    assert "UsageError: there is no" in text and "the run has no step run-twice-1; its steps are run-once-1," in text
    # The step, its streams, the run directory, and how to go on.
    assert "step run-once-2 warned, exit code 3: the self-check failed" in text
    assert "  stderr: the self-check failed" in text and "  stdout: working" in text
    directory = done.output / "test_step-1"
    assert f"run directory: {directory}" in text
    assert re.search(r"again: vmrole run samples/failing\.resext --image debian-12@[0-9a-f]{16}\n", text)
    assert f"from that step: vmrole replay {directory} --from run-once-2" in text
    # JUnit has the same, and the facts.
    failure = done.case("test_step").find("failure")
    assert failure is not None and failure.text and "the self-check failed" in failure.text
    facts = done.properties("test_step")
    assert facts["vmrole_image"] == "debian-12" and re.fullmatch("[0-9a-f]{16}", facts["vmrole_image_key"])
    assert (facts["vmrole_extension"], facts["vmrole_extension_version"]) == ("Failing", "1.0.0.0")
    assert facts["vmrole_accelerator"] in ("tcg", "kvm") and facts["vmrole_verdict"] == "warnings"
    assert facts["vmrole_run"] == str(directory) and "vmrole_revision" not in facts
    # The report says that the scenario failed though the role did not; the index of all says it too.
    report = (done.output / "test_wait-1/report.html").read_text()
    assert "Scenario failed" in report and "for port 81 to be listened on" in report
    assert f"vmrole: 4 runs, see {done.output / 'index.html'}" in text
    index = (done.output / "index.html").read_text()
    assert "3 of 4 runs did not succeed" in index and "test_mine::test_wait" in index
    result = json.loads((directory / "result.json").read_text())
    assert [phase["name"] for phase in result["instances"][0]["phases"]].count("scenario") == 1
    assert guests(state_folder) == []


def test_a_kept_machine_can_be_entered(image: str, state_folder: Path, tmp_path: Path) -> None:
    """Where the scenario failed its machine is kept, with what the scenario did to it; the others are gone."""
    done = session(tmp_path, '''
@pytest.mark.parametrize("good", [True, False])
def test_one(vm_role: VmRole, good: bool) -> None:
    role = vm_role("samples/hello-linux", parameters={"Greeting": "x"})
    role.guest.put("it was here", "/root/left")
    assert good
''', "--vmrole-keep=failed")  # fmt: skip
    assert done.code == 1
    run = done.output / "test_one-False-1"
    assert f"the machine is kept: vmrole shell {run}" in done.text
    assert "test_one-True-1\n" not in done.text
    assert len(guests(state_folder)) == 1
    entered = subprocess.run(
        [VMROLE, "shell", run], input="cat /root/left\n", capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert entered.stdout.strip() == "it was here", (entered.stdout, entered.stderr)
    assert vmrole("sweep", "--kept").code == 0
    assert guests(state_folder) == []


def test_a_run_whose_time_is_over_is_an_error_with_its_sentence(image: str, tmp_path: Path) -> None:
    done = session(tmp_path, '''
def test_late(vm_role: VmRole) -> None:
    vm_role("samples/failing.resext", cold=True, timeout=1)
    raise AssertionError
''')  # fmt: skip
    assert done.outcomes() == {"test_late": "failure"}
    assert re.search(
        r"TimeLimitError: the time-out of the whole run, 1 s, was over: the guest reached stage ", done.text
    ), done.text
    assert re.search(
        "error: the time-out of the whole run, 1 s, was over: the guest reached stage .*, awaited was ", done.text
    )
    assert "blame" not in done.text
    frames = re.findall(r"^(\S+\.py):\d+: ", done.text, re.MULTILINE)
    assert set(frames) == {"test_mine.py"}, frames


def test_a_fixture_that_fails_says_its_sentence_alone(image: str, tmp_path: Path) -> None:
    scenario = "def test_none(guest: ScenarioGuest) -> None:\n    raise AssertionError\n"
    done = session(tmp_path, scenario, "--vmrole-connect=lxc:///")
    assert done.outcomes() == {"test_none": "error"}
    told = done.text.partition("ERROR at setup of test_none")[2]
    assert re.match(r" _+\nUsageError: 'lxc:///' is not the URI of a QEMU libvirt [(].*[)]\n[=-]", told), told
    done = session(tmp_path, scenario, "--vmrole-connect=qemu+tcp://127.0.0.1:1/system", "-rs")
    assert done.outcomes() == {"test_none": "skipped"}
    assert "this host cannot run it: libvirt cannot open qemu+tcp://127.0.0.1:1/system" in done.text


def test_revision_of_the_extension(image: str, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    head = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("the repository is no clone")
    scenario = f'def test_one(vm_role: VmRole) -> None:\n    vm_role("{SAMPLES / "failing.resext"}")\n'
    done = session(tmp_path, scenario)
    assert done.code == 0, done.text
    assert done.properties("test_one")["vmrole_revision"] == head.stdout.strip()


SKIPS = """
@pytest.mark.hypervisor("teleport")
def test_needs(guest: ScenarioGuest) -> None:
    raise AssertionError


@pytest.mark.image("no-such-image-*")
def test_image(guest: ScenarioGuest) -> None:
    raise AssertionError


def test_memory(vm_role: VmRole) -> None:
    vm_role("samples/failing.resext", memory=99_000_000)
    raise AssertionError


@pytest.mark.hypervisor("crash", "fork")
@pytest.mark.image("debian-*")
@pytest.mark.slow
def test_there(guest: ScenarioGuest) -> None:
    guest.succeed("true")
"""


def test_what_is_missing_is_named(image: str, tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "-rs", "--vmrole-image=debian-12")
    assert done.code == 0, done.text
    assert done.outcomes() == {
        "test_needs": "skipped", "test_image": "skipped", "test_memory": "skipped", "test_there": "passed",
    }  # fmt: skip
    assert "the hypervisor lacks teleport" in done.text
    assert "the scenario is for no-such-image-*, and the session has debian-12" in done.text
    assert "this host cannot run it: a guest of 99000000 MiB needs" in done.text


def test_strict_environment(image: str, tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "--strict-environment")
    assert done.code == 1
    assert list(done.outcomes().values()) == ["error", "error", "failure", "passed"], done.text
    assert "the hypervisor lacks teleport" in done.text


def test_unknown_image(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--vmrole-image=no-such", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "--vmrole-image: there is no image 'no-such' (known images: " in done.stderr
    assert "Traceback" not in done.stderr


def test_several_images(image: str, tmp_path: Path) -> None:
    """The same scenario once for each image; one named twice is one."""
    scenario = """
@pytest.mark.parametrize("number", [1, 2])
def test_which(vmrole_image: str, number: int) -> None:
    assert vmrole_image
@pytest.mark.image("debian-*")
def test_one(vmrole_image: str) -> None:
    assert vmrole_image == "debian-12"
"""
    images = sorted(path.parent.name for path in (REPOSITORY / "images").glob("*/recipe.toml"))
    done = session(tmp_path, scenario, *(f"--vmrole-image={name}" for name in (*images, images[0])))
    assert done.code == 0, done.text
    count = sum(name.startswith("test_which") for name in done.outcomes())
    assert count == 2 * len(images)


def test_more_workers_than_slots(image: str, state_folder: Path, tmp_path: Path) -> None:
    """No more processes work with machines at once than there are processors, and all of them come to their turn."""
    workers = processors() + 2
    scenario = f'''
import time
from pathlib import Path
from tests.conftest import guests

@pytest.mark.parametrize("number", range({workers + 2}))
def test_one(vm_role: VmRole, guest: ScenarioGuest, number: int) -> None:
    role = vm_role("samples/failing.resext")
    assert role.guest.succeed("echo", str(number)) == f"{{number}}\\n"
    machines = len(guests(Path({str(state_folder)!r})))
    Path(f"machines-{{number}}").write_text(str(machines))
'''  # fmt: skip
    done = session(tmp_path, scenario, "-n", str(workers), "-rs")
    assert set(done.outcomes().values()) == {"passed"}, done.text
    counts = [int(path.read_text()) for path in tmp_path.glob("machines-*")]
    assert len(counts) == workers + 2
    # Each process that works has the two machines of its test, and no other has any.
    assert 2 <= max(counts) <= 2 * processors()
    assert f"vmrole: {workers + 2} runs, see" in done.text
    assert guests(state_folder) == []
