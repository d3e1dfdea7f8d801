# SPDX-License-Identifier: Apache-2.0
"""The samples for Windows, in real machines of the stand-in guest."""

from __future__ import annotations

import pytest

from harness.errors import GuestError
from harness.scenario import ScenarioGuest, VmRole

pytestmark = pytest.mark.image("windows-stand-in", "windows-server")


def test_msi(vm_role: VmRole) -> None:
    """An MSI is installed; what it brings is there afterwards."""
    role = vm_role("samples/msi", local_resources=["Data=20"])
    assert role.verdict == "succeeded"
    assert "installed by the MSI" in role.guest.succeed(
        "cmd.exe", "/c", "type", r"C:\Program Files\VM Role Sample\hello.txt"
    )
    assert "hello from the MSI" in role.guest.succeed("reg.exe", "query", r"HKLM\SOFTWARE\VM Role Sample")
    assert role.local_resource("Data").path == r"C:\Resources\Data"
    role.guest.fail("cmd.exe", "/c", r"dir C:\Resources\Other")


def test_a_restart_in_the_middle(vm_role: VmRole) -> None:
    """3010 restarts the machine, and the run goes on with the next script."""
    role = vm_role("samples/batch-reboot")
    assert role.verdict == "succeeded"
    assert role.step("preinstall-1").exit_code == 3010
    assert "after the restart" in role.step("preinstall-2").stdout


def test_vbscript(vm_role: VmRole) -> None:
    """Scripts of the time: registry, files, WMI."""
    role = vm_role("samples/vbscript", parameters={"Greeting": "Good morning"})
    assert role.verdict == "succeeded"
    assert role.step("preinstall-1").stdout.startswith("Good morning")
    assert (
        role.guest.succeed("cmd.exe", "/c", r"type C:\Resources\DiagnosticStore\greeting.txt").strip() == "Good morning"
    )


@pytest.mark.parametrize(("sample", "outcomes", "exact"), [
    ("stderr", ["warned", "succeeded", "succeeded", "warned"], False),
    ("warn", ["warned", "succeeded", "warned"], True),
])  # fmt: skip
def test_warnings(vm_role: VmRole, sample: str, outcomes: list[str], exact: bool) -> None:
    """What warns and what does not, as the patterns say; time-outs are stretched where the guest is emulated."""
    role = vm_role(f"samples/{sample}", exact_timeouts=exact)
    assert role.verdict == "warnings"
    assert [str(step.outcome) for step in role.steps] == outcomes
    assert role.result.accelerator
    stretched = not exact and role.result.accelerator.kind == "tcg"
    timeouts = [step.timeout for step in role.steps]
    assert all(timeout and (timeout.used > timeout.asked) == stretched for timeout in timeouts), timeouts


def test_the_vocabulary(guest: ScenarioGuest) -> None:
    """What a scenario says to a guest is the same as on Linux."""
    guest.succeed("cmd.exe", "/c", r"md C:\Resources\Empty")
    guest.wait_for_file(r"C:\Resources\Empty")
    guest.put("left here", r"C:\Resources\a file.txt")
    guest.wait_for_file(r"C:\Resources\a file.txt")
    assert guest.get(r"C:\Resources\a file.txt") == b"left here"
    with pytest.raises(AssertionError, match="the last time there is nothing of that name"):
        guest.wait_for_file(r"C:\Resources\Nothing", timeout=1)
    with pytest.raises(GuestError, match="cannot tell which ports are listened on: netstat is not available"):
        guest.wait_for_port(5986)
    guest.wait_until_succeeds("cmd.exe", "/c", "exit 0")
    assert guest.wait_until_fails("cmd.exe", "/c", "exit 7").exit_code == 7
    assert "vmrole: stage ready" in guest.console
    assert guest.reboot()
