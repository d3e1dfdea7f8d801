# SPDX-License-Identifier: Apache-2.0
"""The samples for Windows, in real machines of the stand-in guest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.scenario import ScenarioRole

IMAGE = "windows-stand-in"

Start = Callable[..., ScenarioRole]


def test_msi(vm_role: Start) -> None:
    """An MSI is installed; what it brings is there afterwards."""
    role = vm_role("samples/msi", image=IMAGE, local_resources=["Data=20"])
    assert role.verdict == "succeeded"
    assert "installed by the MSI" in role.guest.succeed(
        "cmd.exe", "/c", "type", r"C:\Program Files\VM Role Sample\hello.txt"
    )
    assert "hello from the MSI" in role.guest.succeed("reg.exe", "query", r"HKLM\SOFTWARE\VM Role Sample")
    assert role.local_resource("Data").path == r"C:\Resources\Data"
    role.guest.fail("cmd.exe", "/c", r"dir C:\Resources\Other")


def test_a_restart_in_the_middle(vm_role: Start) -> None:
    """3010 restarts the machine, and the run goes on with the next script."""
    role = vm_role("samples/batch-reboot", image=IMAGE)
    assert role.verdict == "succeeded"
    assert role.step("preinstall-1").exit_code == 3010
    assert "after the restart" in role.step("preinstall-2").stdout


def test_vbscript(vm_role: Start) -> None:
    """Scripts of the time: registry, files, WMI."""
    role = vm_role("samples/vbscript", image=IMAGE, parameters={"Greeting": "Good morning"})
    assert role.verdict == "succeeded"
    assert role.step("preinstall-1").stdout.startswith("Good morning")
    assert (
        role.guest.succeed("cmd.exe", "/c", r"type C:\Resources\DiagnosticStore\greeting.txt").strip() == "Good morning"
    )


@pytest.mark.parametrize(("sample", "outcomes"), [
    ("stderr", ["warned", "succeeded", "succeeded", "warned"]),
    ("warn", ["warned", "succeeded", "warned"]),
])  # fmt: skip
def test_warnings(vm_role: Start, sample: str, outcomes: list[str]) -> None:
    """What warns and what does not, as the patterns say."""
    role = vm_role(f"samples/{sample}", image=IMAGE)
    assert role.verdict == "warnings"
    assert [str(step.outcome) for step in role.result.instances[0].steps] == outcomes
