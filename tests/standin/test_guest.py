# SPDX-License-Identifier: Apache-2.0
"""The stand-in guest in a real machine: other people's clients, programs in place of stubs, its one account."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import winrm
from pypsrp.shell import Process, WinRS
from pypsrp.wsman import WSMan
from winrm.exceptions import InvalidCredentialsError

from harness.deadline import Deadline
from harness.image.catalog import images_folder
from harness.run.deploy import Deployed
from harness.run.request import MachineRequest
from tests import machines
from tests.conftest import HANGS, VMROLE, vmrole

pytestmark = pytest.mark.vm

PASSWORD = "Correct-Horse-9"
LOG = "C:\\windows\\vmrole-unavailable.log"


@pytest.fixture(scope="module")
def machine() -> Iterator[Deployed]:
    subprocess.run([VMROLE, "images", "build", "windows-stand-in"], check=True, stdin=subprocess.DEVNULL)
    request = MachineRequest("windows-stand-in", administrator_password=PASSWORD)
    with machines.machine(request, reading_back=False) as deployed:
        yield deployed


def _run(machine: Deployed, line: str) -> tuple[int | None, str, str]:
    done = machine.guest.run(["cmd.exe", "/c", line], deadline=Deadline(HANGS))
    return done.exit_code, done.stdout.decode("cp1252"), done.stderr.decode("cp1252")


def _session(machine: Deployed, transport: str, *, secure: bool, password: str = PASSWORD) -> winrm.Session:
    host, port = machine.machine.endpoint(5986 if secure else 5985)
    options = {"server_cert_validation": "ignore"} if secure else {"message_encryption": "always"}
    url = f"{'https' if secure else 'http'}://{host}:{port}/wsman"
    patience = {"read_timeout_sec": 130, "operation_timeout_sec": 60}
    return winrm.Session(url, auth=("Administrator", password), transport=transport, **options, **patience)


@pytest.mark.filterwarnings("ignore::Warning:urllib3")
@pytest.mark.parametrize(("transport", "secure"), [("basic", True), ("ntlm", True), ("ntlm", False)])
def test_pywinrm(machine: Deployed, transport: str, secure: bool) -> None:
    done = _session(machine, transport, secure=secure).run_cmd("echo out& exit 3010")
    assert (done.std_out, done.status_code) == (b"out\r\n", 3010)
    with pytest.raises(InvalidCredentialsError):
        _session(machine, transport, secure=secure, password="wrong").run_cmd("ver")


def test_pypsrp_by_an_encrypted_connection(machine: Deployed) -> None:
    host, port = machine.machine.endpoint(5985)
    client = WSMan(
        host,
        port=port,
        ssl=False,
        username="Administrator",
        password=PASSWORD,
        auth="negotiate",
        operation_timeout=60,
        read_timeout=130,
    )
    with client as wsman, WinRS(wsman) as shell:
        process = Process(shell, "cmd.exe", ["/c", "exit", "7"])
        process.invoke()
        assert process.rc == 7


def test_every_stub_was_replaced(machine: Deployed) -> None:
    """Wine's own programs would come first, so they must be gone; ours are there under each name."""
    listed = (images_folder() / "windows-stand-in/tools/unavailable.txt").read_text("utf-8")
    names = [line.split()[0] for line in listed.splitlines()]
    assert len(names) > 100
    _, out, _ = _run(machine, "dir /b Z:\\usr\\lib\\x86_64-linux-gnu\\wine\\x86_64-windows\\*.exe")
    own = {line.strip().lower() for line in out.splitlines()}
    assert "reg.exe" in own
    assert not own & {f"{name}.exe" for name in [*names, "net", "sc", "wmic", "shutdown", "findstr", "certutil"]}
    _, out, _ = _run(machine, "dir /b C:\\windows\\system32\\*.exe")
    there = {line.strip().lower() for line in out.splitlines()}
    assert {f"{name}.exe" for name in names} <= there | {"powershell.exe", "mofcomp.exe"}


@pytest.mark.parametrize("name", ["powershell", "icacls", "dism", "netsh", "schtasks", "robocopy"])
def test_what_is_not_there_is_told_and_logged(machine: Deployed, name: str) -> None:
    before = _run(machine, f"type {LOG}")[1]
    assert _run(machine, f"{name} -x") == (9150, "", f"{name} is not available on the stand-in guest\r\n")
    assert _run(machine, f"type {LOG}")[1] == f"{before}{name}\n"


def test_the_time_zone_is_utc(machine: Deployed) -> None:
    assert _run(machine, "tzutil /g")[:2] == (0, "UTC")


def test_a_new_password_counts_at_once(machine: Deployed) -> None:
    """The last test here: the harness knows the old one only."""
    code, out, _ = _run(machine, "net user Administrator Another-Horse-9")
    assert (code, out) == (0, "The command completed successfully.\r\n")
    with pytest.raises(InvalidCredentialsError):
        _session(machine, "ntlm", secure=False).run_cmd("ver")
    assert _session(machine, "ntlm", secure=False, password="Another-Horse-9").run_cmd("exit 3").status_code == 3


def test_exec_says_what_to_do_about_a_program_that_is_not_there() -> None:
    done = vmrole("exec", "--image", "windows-stand-in", "--", "powershell", "-Command", "1")
    assert (done.code, done.stdout) == (1, "")
    assert "powershell is not available on the stand-in guest" in done.stderr
    assert "'vmrole images build windows-stand-in --powershell ZIP' makes an image with" in done.stderr
