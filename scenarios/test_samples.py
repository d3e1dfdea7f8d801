# SPDX-License-Identifier: Apache-2.0
"""The samples, run in real machines. Read these to see what a scenario looks like."""

from __future__ import annotations

from collections.abc import Callable

from harness.scenario import ScenarioRole


def test_hello_linux(vm_role: Callable[..., ScenarioRole]) -> None:
    """An extension with a payload greets, and finds its local resource."""
    role = vm_role("samples/hello-linux", parameters={"Greeting": "Good morning"}, local_resources=["Data=20"])
    assert role.verdict == "succeeded"
    assert "Good morning" in role.step("run-once-1").stdout
    assert role.guest.succeed("stat", "-c", "%U %a", role.local_resource("Data").path) == "root 700\n"
    assert role.guest.succeed("date", "+%Z") == "UTC\n"


def test_everything(vm_role: Callable[..., ScenarioRole]) -> None:
    """Every field of a ResourceExtension: what is Windows' own changes nothing here, the Linux commands run."""
    role = vm_role("samples/everything.resext")
    outcomes = {step.id: str(step.outcome) for step in role.result.instances[0].steps}
    assert {outcome for id, outcome in outcomes.items() if id.startswith("run-once-")} <= {"succeeded"}
    assert {outcome for id, outcome in outcomes.items() if not id.startswith("run-once-")} == {"not_applicable"}


def test_failing_command_is_a_warning(vm_role: Callable[..., ScenarioRole]) -> None:
    """A run-once command that fails does not fail the role; the ones after it still run."""
    role = vm_role("samples/failing.resext")
    assert role.verdict == "warnings"
    outcomes = [str(step.outcome) for step in role.result.instances[0].steps]
    assert "warned" in outcomes and outcomes[-1] == "succeeded"
