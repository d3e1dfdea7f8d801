# SPDX-License-Identifier: Apache-2.0
"""The samples, run in real machines. Read these to see what a scenario looks like."""

from __future__ import annotations

from pathlib import Path

from harness.scenario import PlanOf, ScenarioGuest, VmRole


def test_hello_linux(vm_role: VmRole, certificate: tuple[Path, str]) -> None:
    """An extension with a payload greets, and finds its local resource and its certificate."""
    file, thumbprint = certificate
    role = vm_role(
        "samples/hello-linux",
        parameters={"Greeting": "Good morning"},
        local_resources=["Data=20"],
        certificates=[file],
    )
    assert role.verdict == "succeeded"
    assert "Good morning" in role.step("run-once-1").stdout
    assert role.guest.succeed("stat", "-c", "%U %a", role.local_resource("Data").path) == "root 700\n"
    role.guest.succeed("openssl", "x509", "-noout", "-in", role.certificate(thumbprint).path)
    role.guest.reboot()
    assert role.guest.succeed("cat", "/var/lib/hello-linux/greeting") == "Good morning\n"


def test_everything(plan: PlanOf) -> None:
    """Every field of a ResourceExtension: on Linux its run-once commands are what there is to do."""
    steps = plan("samples/everything.resext", os="linux").steps
    assert {step.kind for step in steps if step.applicable} == {"run-once"}
    assert len({step.kind for step in steps if not step.applicable}) > 3


def test_failing_command_is_a_warning(vm_role: VmRole) -> None:
    """A run-once command that fails does not fail the role; the ones after it still run."""
    role = vm_role("samples/failing.resext")
    assert role.verdict == "warnings"
    outcomes = [str(step.outcome) for step in role.steps]
    assert "warned" in outcomes and outcomes[-1] == "succeeded"


def test_service_that_is_slow_to_start(guest: ScenarioGuest) -> None:
    """Without a role: a service that takes its time, and a network that goes and comes back."""
    guest.put("#!/bin/sh\nsleep 1; touch /run/up; exec sleep 60\n", "/usr/local/bin/slow", mode=0o755)
    guest.succeed("systemd-run", "--unit=slow", "/usr/local/bin/slow")
    guest.wait_for_file("/run/up")
    guest.wait_until_succeeds("systemctl", "is-active", "slow")
    guest.wait_for_port(22)
    guest.block_network()
    guest.wait_until_fails("grep", "-q", "1", "/sys/class/net/eth0/carrier")
    guest.unblock_network()
    guest.wait_until_succeeds("grep", "-q", "1", "/sys/class/net/eth0/carrier")
