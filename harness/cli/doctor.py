# SPDX-License-Identifier: Apache-2.0
"""`vmrole doctor`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.machine.doctor import Check

_MARK = {"ok": "ok  ", "warning": "warn", "error": "FAIL"}


@click.command()
@click.option(
    "--probe", is_flag=True, help="Probe KVM again instead of telling the answer kept since the host started."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(probe: bool, as_json: bool) -> None:
    """What this host has and lacks for a run, each with what to do. Exit code 3 when a run cannot work."""
    from harness.machine.doctor import examine

    checks = examine(probe=probe)
    if not any(check.level == "error" for check in checks):
        checks.append(_forks())
    broken = any(check.level == "error" for check in checks)
    if as_json:
        rows = [{"name": c.name, "level": c.level, "observed": c.observed, "advice": c.advice} for c in checks]
        click.echo(json.dumps({"schema": 1, "ok": not broken, "checks": rows}, indent=2))
    else:
        for check in checks:
            click.echo(f"{_MARK[check.level]}  {check.name:<14} {check.observed}")
            if check.advice:
                click.echo(f"      {'':<14} -> {check.advice}")
        click.echo("a run can work here" if not broken else "a run cannot work here: see FAIL above")
    sys.exit(3 if broken else 0)


def _forks() -> Check:
    """How long a specialised machine takes on this host, by making one from the template that was used last."""
    from harness.deadline import Deadline
    from harness.errors import VmRoleError
    from harness.machine.doctor import Check
    from harness.machine.templates import TemplateStore
    from harness.run.deploy import deploy
    from harness.run.events import EventBus
    from harness.run.host import find_image, hypervisor
    from harness.run.interrupt import interruptible
    from harness.run.request import MachineRequest

    used = next(iter(TemplateStore.of_user().all()), None)
    if used is None:
        return Check("forks", "ok", "not known yet: the first run of an image makes the template that others fork from")
    request = MachineRequest(used.image, memory_mb=used.memory_mb, cpus=used.cpus)
    bus, deadline = EventBus(), Deadline(120)
    try:
        with interruptible():
            image = find_image(request, bus, deadline=deadline)
            with hypervisor(request, bus) as (driver, scratch):
                began = time.monotonic()
                with deploy(
                    driver, image, request, bus, deadline=deadline, scratch=scratch, reading_back=False
                ) as machine:
                    nothing = ["cmd.exe", "/c", "exit"] if image.recipe.os == "windows" else ["true"]
                    machine.guest.run(nothing, deadline=deadline)
                    seconds, origin = time.monotonic() - began, machine.machine.origin
    except VmRoleError as error:
        return Check("forks", "error", error.message, error.hint)
    if origin.forked:
        told = f"a specialised machine of {used.image} took its first command after {seconds:.2f} s"
        return Check("forks", "ok", told)
    return Check("forks", "warning", f"machines are booted, {seconds:.1f} s each: {origin.reason}", "works, slower")
