# SPDX-License-Identifier: Apache-2.0
"""Windows runs in real machines of the stand-in guest: what they become, published packages, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.run.execute
from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError
from harness.guest.channel import ChannelGuest
from harness.guest.winrm import WinRmGuest
from harness.masking import Masker
from harness.package import read_package
from harness.package.parameters import read_parameters
from harness.plan import make_plan
from harness.run.answer import LocalResource
from harness.run.deploy import Deployed
from harness.run.events import Event, EventBus, SpecializationRead, StepFinished
from harness.run.execute import execute
from harness.run.request import MachineRequest
from harness.run.result import StepResult
from harness.run.windows.execute import WindowsExecutor
from harness.run.windows.identity import WindowsIdentity
from tests import machines
from tests.conftest import HANGS, REPOSITORY, VMROLE, inventory, vmrole
from tests.run.test_certificates import load_certificate, make, write
from tests.run.test_windows_execute import extension, script, scripts

pytestmark = pytest.mark.vm

REFERENCE = Path(os.environ.get("VMROLE_REFERENCE_DOCS", REPOSITORY.parent / "shared"))
PASSWORD = "Correct-Horse-9"
CUSTOM = "Our Own Store"


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the stand-in image, which is built first if the cache lacks it."""
    subprocess.run([VMROLE, "images", "build", "windows-stand-in"], check=True, stdin=subprocess.DEVNULL)
    return "windows-stand-in"


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def machine(image: str, events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("certificates")
    mine = load_certificate(write(folder, make("mine").pfx(), "mine.pfx"))
    request = MachineRequest(
        image,
        computer_name="WIN-##",
        instance=7,
        administrator_password=PASSWORD,
        certificates=(
            mine,
            load_certificate(write(folder, make("root").pem(), "root.pem"), "Root"),
            load_certificate(write(folder, make("own").pfx(), "own.pfx"), CUSTOM),
        ),
        local_resources=(LocalResource("Work", 20), LocalResource("With blanks", 5)),
        settings={"Setting": "välue"},
    )

    def payload(target: Path) -> None:
        (target / "deep").mkdir(parents=True)
        (target / "deep" / "Ünï file.txt").write_bytes(b"payload")

    bus = EventBus()
    bus.subscribe(events.append)
    with machines.machine(request, bus, payload=payload) as deployed:
        yield deployed


def _soon() -> Deadline:
    return Deadline(HANGS)


def guest_of(machine: Deployed) -> WinRmGuest:
    assert isinstance(machine.guest, WinRmGuest)
    return machine.guest


def agent_of(machine: Deployed) -> ChannelGuest:
    """The Linux side of the stand-in, for what no Windows program could do to it."""
    return ChannelGuest(machine.machine.channel())


def run(machine: Deployed, tmp_path: Path, *items: dict[str, Any]) -> list[StepResult]:
    path = tmp_path / "x.resext"
    path.write_text(json.dumps(extension(scripts(*items))))
    package = read_package(path)
    plan = make_plan(package, read_parameters(package, (), None), os="windows")
    found: dict[str, StepResult] = {}
    bus = EventBus()
    bus.subscribe(lambda event: found.update({event.step.id: event.step}) if isinstance(event, StepFinished) else None)
    executor = WindowsExecutor.of(machine.image.recipe)
    try:
        execute(plan, executor, machine.guest, bus, deadline=Deadline(HANGS), masker=Masker())
    finally:
        run.steps = list(found.values())  # type: ignore[attr-defined]
    return list(found.values())


def test_it_is_as_wanted(machine: Deployed, events: list[Event]) -> None:
    [read] = [event for event in events if isinstance(event, SpecializationRead)]
    assert [seen for seen in read.observations if not seen.ok] == []
    seen = {one.name: one for one in read.observations}
    assert seen["computer-name"].observed == "WIN-07" and seen["computer-name"].provable
    assert not seen["time-zone"].provable and not seen["local-resource Work"].provable
    assert {c.store for c in read.certificates} == {"My", "Root", CUSTOM}
    assert {r.path for r in read.local_resources} >= {"C:\\Resources\\Work", "C:\\Resources\\With blanks"}
    assert machine.machine.origin.forked, machine.machine.origin.reason


def test_certificates_are_in_the_machine_s_stores(machine: Deployed) -> None:
    key = "HKLM\\SOFTWARE\\Microsoft\\SystemCertificates"
    done = guest_of(machine).run(["reg.exe", "query", key, "/s"], deadline=_soon())
    text = done.stdout.decode("cp1252", "replace")
    assert isinstance(machine.identity, WindowsIdentity)
    for certificate in machine.identity.answer.certificates:
        assert f"\\{certificate.store}\\Certificates\\{certificate.thumbprint}" in text


def test_payload_and_settings(machine: Deployed) -> None:
    guest = guest_of(machine)
    assert guest.get("C:\\ProgramData\\VMRole\\Payload\\deep\\Ünï file.txt", deadline=_soon()) == b"payload"
    settings = guest.get("C:\\ProgramData\\VMRole\\configuration-settings.json", deadline=_soon())
    assert json.loads(settings) == {"Setting": "välue"}


def test_no_password_is_left(machine: Deployed) -> None:
    """Neither the administrator's nor the PFX files', plain or encoded, in any file that specialization wrote."""
    assert isinstance(machine.identity, WindowsIdentity)
    texts = [PASSWORD, machine.identity.answer.pfx_password, *machine.identity.secrets[2:4]]
    since = f"@{machine.identity.answer.time - 60:.0f}"
    script = f'find / -xdev -newermt {since} -type f -size -20M | xargs -d "\\n" grep -lsaF -e "$1"; true'
    with agent_of(machine) as agent:
        for text in texts:
            for form in (text.encode(), text.encode("utf-16-le")):
                if 0 in form:
                    continue  # an argument cannot carry it; the encoded form of the answer file is looked for
                found = agent.run(["sh", "-c", script, "sh", text], deadline=_soon()).stdout.decode()
                assert found == "", found


def test_another_password_is_refused(machine: Deployed) -> None:
    host, port = machine.machine.endpoint(5986)
    assert isinstance(machine.identity, WindowsIdentity)
    with pytest.raises(GuestError, match="does not let Administrator in"):
        WinRmGuest.connect(
            host, port, password="wrong", certificate=machine.identity.winrm.pem, deadline=Deadline(HANGS)
        )


def test_a_restart_keeps_what_is_on_the_disk(machine: Deployed) -> None:
    guest = guest_of(machine)
    before = guest.boot_id(deadline=_soon())
    places = ("C:\\stays.txt", "C:\\Resources\\Work\\stays.txt")
    for place in places:
        guest.put(b"stays", place, deadline=_soon())
    after = guest.reboot(deadline=_soon())
    assert after != before and guest.boot_id(deadline=_soon()) == after
    assert [guest.get(place, deadline=_soon()) for place in places] == [b"stays"] * 2
    assert isinstance(machine.identity, WindowsIdentity)
    seen = machine.identity.read_back(guest, deadline=_soon()).observations
    assert [one for one in seen if not one.ok] == []


def test_a_script_that_runs_again_after_its_restart(machine: Deployed, tmp_path: Path) -> None:
    line = "cmd.exe /c if exist C:\\again.txt (echo again) else (echo x>C:\\again.txt& exit 3010)"
    before = guest_of(machine).last_boot
    [step] = run(machine, tmp_path, script(1, line, RestartOnExitCodeReboot=True))
    assert (str(step.outcome), step.exit_code, step.stdout.strip()) == ("succeeded", 0, "again")
    assert guest_of(machine).last_boot != before


def test_a_step_that_restarts_the_guest_itself(machine: Deployed, tmp_path: Path) -> None:
    steps = run(
        machine,
        tmp_path,
        script(1, "cmd.exe /c shutdown.exe /r /t 0 & ping.exe -n 90 127.0.0.1", TimeoutInSeconds=200),
        script(2, "cmd.exe /c echo after"),
    )
    assert [str(step.outcome) for step in steps] == ["warned", "succeeded"]
    assert "the guest restarted while it ran" in (steps[0].finding or "")


def test_a_step_that_ends_by_letting_the_guest_restart(machine: Deployed, tmp_path: Path) -> None:
    before = guest_of(machine).last_boot
    line = "cmd.exe /c shutdown.exe /r /t 0"
    steps = run(machine, tmp_path, script(1, line), script(2, "cmd.exe /c echo x>>C:\\once.txt& type C:\\once.txt"))
    try:
        assert [str(step.outcome) for step in steps] == ["warned", "succeeded"], steps
        assert "it let the guest restart as it ended" in (steps[0].finding or "") and steps[0].exit_code == 0
        assert steps[1].stdout.split() == ["x"] and steps[1].finding is None
        assert guest_of(machine).last_boot == guest_of(machine).boot_id(deadline=_soon()) != before
    finally:
        guest_of(machine).run(["cmd.exe", "/c", "del C:\\once.txt"], deadline=_soon())


def test_a_full_disk_is_told(machine: Deployed, tmp_path: Path) -> None:
    with agent_of(machine) as agent:
        # What becomes free while it is filled is filled too; then a little is given back.
        most = "fallocate -l $(($(stat -f -c '%a*%S' /) - 1000000)) /full; sync"
        rest = "dd if=/dev/zero bs=64k >>/more; sync"
        fill = f"{most}; {rest}; {rest}; truncate -s -128K /more; sync"
        agent.run(["sh", "-c", fill], deadline=_soon())
        try:
            out = "cmd.exe /c for /l %i in (1,1,5000) do @echo 01234567890123456789012345678901234567890123456789"
            [step] = run(machine, tmp_path, script(1, out, StandardOutputPath="C:\\out.txt", TimeoutInSeconds=150))
        finally:
            agent.run(["rm", "-f", "/full", "/more"], deadline=_soon())
    assert "disk is full" in (step.finding or ""), step


def test_a_service_that_is_killed(machine: Deployed, tmp_path: Path) -> None:
    """With it all of the stand-in's Windows part ends and begins anew: the step is marked, and the run goes on."""
    # For seconds already: its start has been answered, and it is the step that is lost and not the request for it.
    begun = "until p=$(pgrep -of '[p]ing.exe -n 120') && [ $(ps -o etimes= -p $p) -ge 5 ]; do sleep 0.2; done"

    def kill() -> None:
        with agent_of(machine) as agent:
            agent.run(["sh", "-c", f"{begun}; systemctl kill -s KILL vmrole-standin"], deadline=_soon())

    threading.Thread(target=kill, daemon=True).start()
    steps = run(
        machine,
        tmp_path,
        script(1, "cmd.exe /c ping.exe -n 120 127.0.0.1", TimeoutInSeconds=200),
        script(2, "cmd.exe /c exit 0"),
    )
    assert [str(step.outcome) for step in steps] == ["warned", "succeeded"]
    assert "the guest restarted while it ran" in (steps[0].finding or "") and steps[0].exit_code is None


def test_a_step_that_had_not_begun_when_the_guest_was_lost(machine: Deployed, tmp_path: Path) -> None:
    """As after a script that restarts the guest and ends at once: the step runs when the guest is there again, once."""
    waits = "until ss -Htn state established sport = :5986 | grep -q '^[1-9]'; do sleep 0.1; done"

    def kill() -> None:
        with agent_of(machine) as agent:
            agent.run(["sh", "-c", f"{waits}; systemctl kill -s KILL vmrole-standin"], deadline=_soon())

    with agent_of(machine) as agent:
        agent.run(["systemctl", "kill", "-s", "STOP", "vmrole-standin"], deadline=_soon())
    threading.Thread(target=kill, daemon=True).start()
    [step] = run(machine, tmp_path, script(1, "cmd.exe /c echo x>>C:\\once.txt& type C:\\once.txt"))
    assert (str(step.outcome), step.stdout.split(), step.finding) == ("succeeded", ["x"], None)


def test_a_restart_after_a_service_that_was_killed_unnoticed(machine: Deployed, tmp_path: Path) -> None:
    """What a killed service announces when it is there again is not taken for the restart that is asked for next."""
    # Until another one is there: a request that the old one still takes would be lost with it.
    pid = "systemctl show -P MainPID vmrole-standin"
    another = f"until n=$({pid}) && [ $n != 0 -a $n != $p ]; do sleep 0.1; done"
    kill = f"p=$({pid}); systemctl kill -s KILL vmrole-standin; {another}"
    with agent_of(machine) as agent:
        before = agent.boot_id(deadline=_soon())
        agent.run(["sh", "-c", kill], deadline=_soon())
    steps = run(machine, tmp_path, script(1, "cmd.exe /c exit 0", AlwaysReboot=True), script(2, "cmd.exe /c exit 0"))
    assert [(str(step.outcome), step.finding) for step in steps] == [("succeeded", None)] * 2
    with agent_of(machine) as agent:
        assert agent.boot_id(deadline=_soon()) != before
    assert guest_of(machine).last_boot == guest_of(machine).boot_id(deadline=_soon())


def test_a_service_that_does_not_come_back(machine: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test: this machine does not answer any more."""
    monkeypatch.setattr(harness.run.execute, "_REBOOT_SECONDS", 20.0)
    with agent_of(machine) as agent:
        agent.run(["systemctl", "mask", "vmrole-standin"], deadline=_soon())
    with pytest.raises(GuestNotReadyError, match="did not come back from its restart within 20 s"):
        run(machine, tmp_path, script(1, "cmd.exe /c exit 0", AlwaysReboot=True), script(2, "cmd.exe /c exit 0"))
    steps = {step.id: step for step in run.steps}  # type: ignore[attr-defined]
    assert steps["preinstall-1"].outcome == "succeeded", "it had ended before the restart"
    assert steps["preinstall-2"].outcome == "skipped"


def published(name: str, folder: Path) -> Path:
    """A published package's documents, with payload of our own in the place of its scripts."""
    parts = REFERENCE / "packages" / f"{name}.resextpkg.parts"
    if not parts.is_dir():
        pytest.skip(f"the reference documents are not there ({REFERENCE}); VMROLE_REFERENCE_DOCS names their folder")
    target = folder / name
    for line in (parts / "ENTRIES.tsv").read_text("utf-8").splitlines():
        entry = line.split("\t")[0]
        if entry.endswith("/"):
            continue
        (target / entry).parent.mkdir(parents=True, exist_ok=True)
        source = parts / entry
        if source.is_file():
            shutil.copyfile(source, target / entry)
        else:
            (target / entry).write_text("Write-Output 'ours'\r\n")
    return target


PACKAGES = {
    "RDSSH": ({"ExternalFQDN": "x.example", "SelfSignedCert": "true", "CertPath": "-", "CertPathUser": "-",
               "CertPathPwd": "Secret-Word-1", "PFXPin": "Secret-Word-2"}, 10, {"preinstall-1": "warned"}),
    "SQLServer2016": ({"SQLInstanceName": "I", "SQLProductKey": "K-E-Y-12", "SQLSecurityMode": "SQL",
                       "SQLSAPassword": "Secret-Word-3", "SQLPort": "1433"}, 0, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
def test_published_packages(image: str, tmp_path: Path, state_folder: Path, name: str) -> None:
    values, features, executed = PACKAGES[name]
    package, output = published(name, tmp_path), tmp_path / "out"
    (tmp_path / "values.json").write_text(json.dumps(values))
    before = inventory(state_folder)
    done = vmrole(
        "run", package, "--image", image, "--parameters", tmp_path / "values.json", "--output", output, "--json",
        timeout=600,
    )  # fmt: skip
    assert done.code == 4, done.stderr
    assert done.json["verdict"] == "incomplete" and done.json["image"]["stand_in"] is True
    steps = done.json["instances"][0]["steps"]
    assert sum(step["kind"] == "feature" for step in steps) == features
    for step in steps:
        assert step["outcome"] == executed.get(step["id"], "not_executable"), step
    assert all(step["after_unexecuted"] for step in steps[1:])
    secret = re.compile("Secret-Word")
    assert not any(secret.search(p.read_text("utf-8", "replace")) for p in output.rglob("*") if p.is_file())
    assert inventory(state_folder).processes == before.processes
