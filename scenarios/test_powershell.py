# SPDX-License-Identifier: Apache-2.0
"""The sample that is PowerShell, on an image that has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario import VmRole

pytestmark = pytest.mark.image("windows-*powershell", "windows-server")


def test_a_restart_in_the_middle(vm_role: VmRole, certificate: tuple[Path, str]) -> None:
    """Parameters with a credential, a certificate, files, registry, an MSI and a service; what is left after 3010."""
    file, thumbprint = certificate
    role = vm_role(
        "samples/powershell",
        parameters={"Greeting": "Good day", "Account": "clerk:planted:word", "Thumbprint": thumbprint},
        certificates=[file],
        local_resources=["Data=20"],
    )
    assert role.verdict == "succeeded"
    first, second = role.steps
    assert first.exit_code == 3010
    for said in ("certificate CN=scenario", "installed: installed by the MSI", "service Stopped"):
        assert said in first.stdout
    assert "after 1 restart: Good day, clerk" in second.stdout
    assert "planted" not in first.command and "planted" not in role.result.summary
    assert role.pretended("preinstall-1") == ()
    assert b'"greeting"' in role.guest.get(r"C:\Resources\Data\app\settings.json")
