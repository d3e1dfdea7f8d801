# SPDX-License-Identifier: Apache-2.0
"""`vmrole images`."""

from __future__ import annotations

import json
from typing import Any

import click

from harness.errors import UsageError


@click.group()
def command() -> None:
    """List, build and remove guest images."""


def _cache() -> Any:
    from harness.image.cache import Cache
    from harness.state import qemu_account

    account = qemu_account()
    cache = Cache.of_user(group=account.gid if account else None)
    cache.prepare()
    return cache


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(as_json: bool) -> None:
    """The images this harness can build, and those that are built."""
    from harness.image import catalog
    from harness.image.build import list_images

    built = list_images(_cache())
    rows: list[dict[str, Any]] = [
        {"name": e.name, "key": e.key, "built": e.built, "size_mb": round(e.size / 2**20), "current": e.current}
        for e in built
    ]
    known = [name for name in catalog.names() if not any(row["name"] == name for row in rows)]
    if as_json:
        click.echo(json.dumps({"schema": 1, "images": rows, "not_built": known}, indent=2))
        return
    for row in rows:
        state = "current" if row["current"] else "outdated"
        click.echo(f"{row['name']:<24} {row['key']}  {row['size_mb']:>6} MB  built {row['built'][:19]}Z  {state}")
    for name in known:
        click.echo(f"{name:<24} not built yet: 'vmrole images build {name}', or the first run, builds it")


@command.command("build")
@click.argument("name")
@click.option("--again", is_flag=True, help="Build it anew, with today's packages, although it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def build(name: str, again: bool, as_json: bool) -> None:
    """Build the image NAME unless it is there."""
    from harness.deadline import Deadline
    from harness.image.build import ensure_image
    from harness.run.host import IMAGE_SECONDS
    from harness.run.interrupt import interruptible

    def progress(line: str) -> None:
        click.echo(line, err=True)

    with interruptible():
        image = ensure_image(name, cache=_cache(), deadline=Deadline(IMAGE_SECONDS), progress=progress, rebuild=again)
    if as_json:
        facts = {"name": name, "key": image.key, "built": image.built, "components": image.components_version}
        click.echo(json.dumps({"schema": 1, "image": facts}, indent=2))
    else:
        click.echo(f"{name} {image.key} is there (built {image.built[:19]}Z)")


@command.command("remove")
@click.argument("name")
@click.option("--outdated", is_flag=True, help="Only what its recipe would not give today.")
def remove(name: str, outdated: bool) -> None:
    """Remove the built images called NAME. Machines that run on them must be gone."""
    from harness.deadline import Deadline
    from harness.image.build import list_images, remove_image
    from harness.machine.sweep import kept_machines

    cache = _cache()
    entries = [e for e in list_images(cache) if e.name == name and not (outdated and e.current)]
    if not entries:
        raise UsageError(f"no image called {name} is built", hint="'vmrole images list' shows what there is")
    if any(record.image == name for _folder, record in kept_machines()):
        raise UsageError(f"a kept machine runs on {name}", hint="'vmrole sweep --kept' removes it")
    for entry in entries:
        remove_image(cache, entry, deadline=Deadline(60))
        click.echo(f"removed {entry.name} {entry.key}")
