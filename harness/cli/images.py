# SPDX-License-Identifier: Apache-2.0
"""`vmrole images`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.deadline import Deadline
    from harness.image.cache import Cache
    from harness.image.contents import Os


@click.group()
def command() -> None:
    """List, build, add and remove guest images."""


def _cache() -> Any:
    from harness.image.cache import Cache

    return Cache.of_user()


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(as_json: bool) -> None:
    """The images this harness can build, those that are built, and the templates that machines are forked from."""
    from harness.image import catalog
    from harness.image.added import BUILDER
    from harness.image.build import list_images
    from harness.machine.templates import TemplateStore
    from harness.run.result import counted

    built = list_images(_cache())
    rows: list[dict[str, Any]] = [
        {"name": e.name, "key": e.key, "built": e.built, "size_mb": round(e.size / 2**20), "current": e.current}
        for e in built
    ]
    known = [name for name in catalog.names() if not any(row["name"] == name for row in rows)]
    templates: list[dict[str, Any]] = [
        {
            "image": t.image,
            "key": t.key,
            "memory_mb": t.memory_mb,
            "cpus": t.cpus,
            "size_mb": round(t.size / 2**20),
            "used": datetime.fromtimestamp(t.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for t in TemplateStore.of_user().all()
    ]
    if as_json:
        told = {"schema": 1, "images": rows, "templates": templates, "not_built": known}
        click.echo(json.dumps(told, indent=2))
        return
    for row in rows:
        state = "current" if row["current"] else "outdated"
        click.echo(f"{row['name']:<24} {row['key']}  {row['size_mb']:>6} MiB  built {row['built'][:19]}Z  {state}")
    for template in templates:
        title = f"  template of {template['image']}"
        click.echo(
            f"{title:<24} {template['key']}  {template['size_mb']:>6} MiB  used  {template['used']}  for "
            f"{template['memory_mb']} MiB, {counted(template['cpus'], 'processor')}"
        )
    for name in known:
        if catalog.load(name).recipe.builder == BUILDER:
            click.echo(f"{name:<24} made from media of your own: 'vmrole images add {name} FILE'")
        else:
            click.echo(f"{name:<24} not built yet: 'vmrole images build {name}', or the first run, builds it")


@command.command("build")
@click.argument("name")
@click.option("--again", is_flag=True, help="Build it anew, with today's packages, although it is there.")
@click.option(
    "--powershell",
    metavar="FILE|URL",
    help="Of a stand-in for Windows: NAME-powershell, with the PowerShell 7 in this zip (Windows, x64).",
)
@click.option("--sha256", metavar="DIGEST", help="What that zip must have; an address needs it.")
@click.option(
    "--programs-32", is_flag=True, help="Of a stand-in for Windows: NAME-32, which executes 32-bit programs, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def build(name: str, again: bool, powershell: str | None, sha256: str | None, programs_32: bool, as_json: bool) -> None:
    """Build the image NAME unless it is there."""
    from harness.deadline import Deadline
    from harness.image import catalog
    from harness.image.build import ensure_image
    from harness.run.host import IMAGE_SECONDS
    from harness.run.interrupt import interruptible

    def progress(line: str) -> None:
        click.echo(line, err=True)

    cache, deadline = _cache(), Deadline(IMAGE_SECONDS)
    if programs_32:
        name = catalog.with_programs_32(name)
    with interruptible():
        if powershell:
            name = _with_powershell(name, powershell, sha256, cache, deadline, progress)
        elif sha256:
            raise UsageError("--sha256 is of what --powershell names", hint="leave it out, or name the zip")
        image = ensure_image(name, cache=cache, deadline=deadline, progress=progress, rebuild=again)
    if as_json:
        facts = {"name": name, "key": image.key, "built": image.built, "components": image.components_version}
        click.echo(json.dumps({"schema": 1, "image": facts}, indent=2))
    else:
        click.echo(f"{name} {image.key} is there (built {image.built[:19]}Z)")


def _with_powershell(
    name: str, zipped: str, sha256: str | None, cache: Cache, deadline: Deadline, progress: Callable[[str], None]
) -> str:
    from harness.image.added import fetch
    from harness.image.powershell import variant

    if "://" not in zipped:
        return variant(name, Path(zipped), sha256=sha256, cache=cache, deadline=deadline)
    progress(f"loading {zipped}")
    file = fetch(zipped, sha256, cache=cache, deadline=deadline)
    try:
        return variant(name, file, sha256=sha256, cache=cache, deadline=deadline)
    finally:
        file.unlink(missing_ok=True)


@command.command("add")
@click.argument("name")
@click.argument("file", metavar="FILE|URL")
@click.option("--sha256", metavar="DIGEST", help="What the file must have; an address needs it.")
@click.option(
    "--os",
    type=click.Choice(["linux", "windows"]),
    help="The system on the disk; seen from its file systems without it.",
)
@click.option("--edition", metavar="NAME|NUMBER", help="Of a medium: which Windows on it; the first one without it.")
@click.option("--product-key-file", type=click.Path(path_type=Path), help="Of a medium: the key, on the first line.")
@click.option("--disk-gb", type=click.IntRange(min=1, max=2000), help="Of a medium: the disk it is installed on; 40.")
@click.option("--memory", type=click.IntRange(min=256), metavar="MB", help="Of a medium: while it is installed.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Of a medium: limit of Windows Setup.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def add(name: str, file: str, sha256: str | None, os: Os | None, as_json: bool, **setup: Any) -> None:
    """Make the image NAME from a disk (VHD, VHDX, VMDK, qcow2, raw) or from an installation medium of Windows (ISO).

    NAME is any new name, or that of an image which was added before. A disk is one of your own with a generalized
    Windows, or a Linux cloud image as its distribution publishes it, with a boot loader and cloud-init. From a medium
    Windows Setup installs and generalizes a disk once, unattended, in a machine that reaches nothing.
    """
    from harness.deadline import Deadline
    from harness.image.added import add_image, fetch, is_medium, known
    from harness.run.host import IMAGE_SECONDS
    from harness.run.interrupt import interruptible

    def progress(line: str) -> None:
        click.echo(line, err=True)

    known(name, os)  # before anything is loaded
    cache, deadline = _cache(), Deadline(IMAGE_SECONDS)
    with interruptible():
        if fetched := "://" in file:
            progress(f"loading {file}")
            path = fetch(file, sha256, cache=cache, deadline=deadline)
        else:
            path = Path(file)
        try:
            if is_medium(path):
                key = _install(name, path, os, sha256, **setup)
            else:
                given = [f"--{option.replace('_', '-')}" for option, value in setup.items() if value is not None]
                if given:
                    raise UsageError(f"{given[0]} is for installation media, and {path} is none", hint="leave it out")
                key = add_image(name, path, os=os, sha256=sha256, cache=cache, deadline=deadline, progress=progress)
        finally:
            if fetched:
                path.unlink(missing_ok=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "image": {"name": name, "key": key}}, indent=2))
    else:
        click.echo(f"{name} {key} is there")


def _install(
    name: str,
    file: Path,
    os: Os | None,
    sha256: str | None,
    *,
    edition: str | None,
    product_key_file: Path | None,
    disk_gb: int | None,
    memory: int | None,
    timeout: float | None,
) -> str:
    from harness.cli.options import read_secret
    from harness.cli.reporting import reporting
    from harness.image.added import known, new_source
    from harness.image.catalog import load, names
    from harness.masking import Masker
    from harness.run.windows.install import DISK_GB, Installation, install_image

    if os == "linux":
        raise UsageError(f"{file} is an installation medium, and only Windows is installed from one", hint="add a disk")
    known(name, "windows")
    product_key = read_secret(product_key_file) if product_key_file else None
    wanted = Installation(file, sha256, edition or "1", product_key, disk_gb or DISK_GB, memory, timeout)
    masker = Masker(wanted.secrets)
    source = load(name) if name in names() else new_source(name, "windows")
    with reporting(masker, folder=None) as (bus, _recorder):
        return install_image(source, wanted, _cache(), bus, on_secrets=masker.add)


@command.command("remove")
@click.argument("name")
@click.option("--outdated", is_flag=True, help="Only what its recipe would not give today.")
def remove(name: str, outdated: bool) -> None:
    """Remove the built images called NAME, with their templates. Machines that run on them must be gone."""
    from harness.deadline import Deadline
    from harness.image.added import forget_media, forget_recipe
    from harness.image.build import list_images, remove_image
    from harness.machine.checkpoints import templates_in_use
    from harness.machine.sweep import kept_machines
    from harness.machine.templates import TemplateStore

    cache = _cache()
    entries = [e for e in list_images(cache) if e.name == name and not (outdated and e.current)]
    if not entries:
        raise UsageError(f"no image called {name} is built", hint="'vmrole images list' shows what there is")
    if any(record.image == name for _folder, record in kept_machines()):
        raise UsageError(f"a kept machine runs on {name}", hint="'vmrole sweep --kept' removes it")
    store = TemplateStore.of_user()
    keys = {entry.key for entry in entries}
    templates = [template for template in store.all() if template.image_key in keys]
    if templates_in_use() & {template.key for template in templates}:
        raise UsageError(f"checkpoints of a run need {name}", hint="'vmrole sweep --kept' removes them")
    for template in templates:
        store.discard(template.key)
        click.echo(f"removed the template {template.key} of {template.image}")
    for entry in entries:
        remove_image(cache, entry, deadline=Deadline(60))
        click.echo(f"removed {entry.name} {entry.key}")
    forget_media(cache)
    if not outdated:
        forget_recipe(name)
