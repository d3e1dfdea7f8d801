# SPDX-License-Identifier: Apache-2.0
"""`vmrole doctor`."""

from __future__ import annotations

import json
import sys

import click

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
