# SPDX-License-Identifier: Apache-2.0
"""What a run says of its package before a machine is there, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.run import is_of, prepare
from harness.errors import PackageError
from harness.masking import Masker
from harness.run.events import Event, EventBus, Notice
from harness.run.recorder import Recorder
from harness.run.request import RunRequest
from harness.run.result import CertificateResult, Verdict
from harness.run.runner import Role, _tell_findings, certificate_variables
from tests.package.material import with_profile, write
from tests.plan.test_plan import script

WINDOWS = "/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile"


def request_of(path: Path, image: str = "debian-12") -> RunRequest:
    return prepare(
        path, parameters=(), parameters_file=None, image=image, certificates=(), certificate_password_file=None,
        local_resources=(), computer_name=None, admin_password_file=None, memory=None, cpus=None, network="none",
        connect=None, keep="never", strict=False, allow_unexecuted=False, timeout=None, output=path.parent / "out",
    )  # fmt: skip


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """Its Windows script has an error, its Linux command none."""
    windows: dict[str, Any] = {"ProvisioningScripts": [script(TimeoutInSeconds=-1)]}
    return write(tmp_path, with_profile("/bin/true", windows=windows))


def test_an_error_of_a_step_that_would_run_is_refused(extension: Path) -> None:
    with pytest.raises(PackageError) as caught:
        request_of(extension, "windows-server")
    assert caught.value.exit_code == 2
    line = extension.read_text().index("-1", extension.read_text().index("TimeoutInSeconds")) + 1
    assert caught.value.message.startswith(f"small.resext:1:{line}: TimeoutInSeconds is negative")


def test_an_error_elsewhere_is_told_as_one_and_counts_as_a_warning(extension: Path) -> None:
    request = request_of(extension)
    request.output.mkdir()
    bus, recorder = EventBus(), Recorder()
    told: list[Event] = []
    bus.subscribe(recorder)
    bus.subscribe(told.append)
    role = Role(request, bus, recorder, Masker())
    _tell_findings(role)
    notices = [(event.severity, event.text) for event in told if isinstance(event, Notice)]
    assert [severity for severity, _ in notices] == ["error"]
    assert "TimeoutInSeconds is negative" in notices[0][1] and "[limit-negative]" in notices[0][1]
    assert json.loads((request.output / "findings.json").read_text())["errors"] == 1
    assert role.conclusion.verdict is Verdict.warnings and "1 warning" in role.conclusion.summary


@pytest.mark.parametrize(
    ("pointer", "own"),
    [
        ("", True),
        ("/TimeoutInSeconds", True),
        ("/ScriptCommands", True),
        ("/ScriptCommands/0/TimeoutInSeconds", False),
        ("/SQLScriptCommands/0", False),
        ("0", False),
    ],
)
def test_what_is_of_a_step(pointer: str, own: bool) -> None:
    source = f"{WINDOWS}/ScriptApplications/1"
    assert is_of(source + pointer, source) is own
    assert not is_of(WINDOWS, source)


def test_a_step_is_told_the_certificates_of_its_machine(extension: Path) -> None:
    placed = [CertificateResult(*what, "path") for what in (("C4", "CA"), ("A1", "My"), ("B2", "My"), ("A1", "Root"))]
    plan = request_of(extension).plan
    told = plan.with_environment(certificate_variables(placed))
    assert told.steps[0].environment[:2] == (("VMROLE_CERTIFICATE", "A1"), ("VMROLE_CERTIFICATES", "A1 B2"))
    assert told.steps[0].environment[2:] == plan.steps[0].environment
    assert plan.with_environment(certificate_variables(placed[:1])) == plan
