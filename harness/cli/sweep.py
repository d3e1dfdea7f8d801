# SPDX-License-Identifier: Apache-2.0
"""`vmrole sweep`."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--kept", is_flag=True, help="Kept machines and checkpoints too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(kept: bool, as_json: bool) -> None:
    """Remove machines, overlays and media whose owner is gone, and kept machines and checkpoints that have expired.

    What a living run owns is never touched.
    """
    from harness.image.build import sweep_cache
    from harness.image.cache import Cache
    from harness.machine.checkpoints import kept_checkpoints, sweep_checkpoints
    from harness.machine.sweep import kept_machines, sweep

    swept = sweep(kept=kept)
    left = [item for item in swept if item.left]
    removed = [(item.what, item.why) for item in swept if not item.left]
    removed += sweep_checkpoints(kept=kept)
    removed += [(f"half-built image {path.name}", "its builder is gone") for path in sweep_cache(Cache.of_user())]
    points = kept_checkpoints()
    staying = [record for _folder, record in kept_machines()]
    if as_json:
        rows = [{"what": what, "why": why} for what, why in removed]
        keep = [{"machine": r.name, "run": r.run, "image": r.image, "until": r.kept_until} for r in staying]
        saved = [
            {"run": k.run, "steps": [c.step for c in k.steps], "bytes": k.size, "until": k.expires} for k in points
        ]
        told = {"removed": rows, "left": [item.left for item in left], "kept": keep, "checkpoints": saved}
        click.echo(json.dumps({"schema": 1, **told}, indent=2))
        return
    for what, why in removed:
        click.echo(f"removed {what}: {why}")
    for item in left:
        click.echo(f"vmrole: {item.left}", err=True)
    for record in staying:
        click.echo(f"kept machine {record.name} of run {record.run} stays; 'vmrole sweep --kept' removes it")
    for point in points:
        click.echo(
            f"checkpoints of run {point.run} stay ({point.size >> 20} MiB): 'vmrole replay' goes on from them, "
            "'vmrole sweep --kept' removes them"
        )
    if not removed and not left and not staying and not points:
        click.echo("nothing is left over")
