# SPDX-License-Identifier: Apache-2.0
"""`vmrole sweep`."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--kept", is_flag=True, help="Kept machines too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(kept: bool, as_json: bool) -> None:
    """Remove machines, overlays and media whose owner is gone, and kept machines that have expired.

    What a living run owns is never touched.
    """
    from harness.image.build import sweep_cache
    from harness.image.cache import Cache
    from harness.machine.sweep import kept_machines, sweep

    removed = [(item.what, item.why) for item in sweep(kept=kept)]
    removed += [(f"half-built image {path.name}", "its builder is gone") for path in sweep_cache(Cache.of_user())]
    staying = [record for _folder, record in kept_machines()]
    if as_json:
        rows = [{"what": what, "why": why} for what, why in removed]
        keep = [{"machine": r.name, "run": r.run, "image": r.image, "until": r.kept_until} for r in staying]
        click.echo(json.dumps({"schema": 1, "removed": rows, "kept": keep}, indent=2))
        return
    for what, why in removed:
        click.echo(f"removed {what}: {why}")
    for record in staying:
        click.echo(f"kept machine {record.name} of run {record.run} stays; 'vmrole sweep --kept' removes it")
    if not removed and not staying:
        click.echo("nothing is left over")
