# SPDX-License-Identifier: Apache-2.0
"""`vmrole run`."""

from __future__ import annotations

import json
import re
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from harness.cli.options import machine_options, machine_request
from harness.errors import UsageError


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE|NAME=@FILE|NAME=env:VAR",
    help="Value of a parameter of the extension.",
)
@click.option(
    "--parameters",
    "parameters_file",
    type=click.Path(path_type=Path),
    help="Values as a flat JSON object or a ResourceConfiguration; -p wins.",
)
@machine_options
@click.option("--instance", type=click.IntRange(min=1), default=1, show_default=True, help="Number of the instance.")
@click.option("--strict", is_flag=True, help="Warnings make exit code 1; missing requirement tags exit code 2.")
@click.option("--allow-unexecuted", is_flag=True, help="Steps that cannot be executed here are no reason for exit 4.")
@click.option(
    "--keep",
    type=click.Choice(["always", "failed", "never"]),
    default="never",
    show_default=True,
    help="Keep the machine, for at most 24 h.",
)
@click.option("--output", type=click.Path(path_type=Path), help="The run directory, new or empty.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of the whole run.")
@click.option("--cold", is_flag=True, help="Boot from power-on. (Every run does; forks are not made yet.)")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(path: Path, **options: Any) -> None:
    """Deploy the extension PATH (.resextpkg, .resext or its folder) into a throwaway machine.

    Exit codes: 0 succeeded (warnings allowed), 1 the extension failed, 2 wrong usage or impossible package, 3 guest,
    host or harness failed, 4 incomplete, 130 and 143 interrupted.
    """
    from harness.cli.reporting import reporting
    from harness.masking import Masker
    from harness.report.text import masked
    from harness.run.interrupt import interruptible
    from harness.run.runner import perform

    with interruptible():
        request = prepare(path, **options)
        masker = Masker(request.secrets)
        with (
            reporting(masker, folder=request.output) as (bus, recorder),
            perform(request, bus, recorder, masker) as role,
        ):
            pass
    if options["as_json"]:
        click.echo(json.dumps(masked(role.result.to_json(), masker), indent=2))
    sys.exit(role.conclusion.exit_code)


def prepare(path: Path, **options: Any) -> Any:
    """A complete RunRequest, with everything that can be wrong before a machine is started found out."""
    from harness.package import read_package, read_parameters
    from harness.plan import make_plan
    from harness.run.request import RunRequest

    machine = machine_request(
        **{name: options[name] for name in (
            "image", "certificates", "certificate_password_file", "local_resources", "computer_name",
            "admin_password_file", "memory", "cpus", "network", "connect", "instance",
        )}
    )  # fmt: skip
    package = read_package(path)
    parameters = read_parameters(package, given=options["parameters"], file=options["parameters_file"])
    from harness.image import catalog

    recipe = catalog.load(machine.image).recipe
    plan = make_plan(package, parameters, os=recipe.os, instance=machine.instance)
    warnings = [*parameters.warnings, *missing_tags(package, recipe.tags, machine.image, strict=options["strict"])]
    warnings += changed_values(package, parameters, plan)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", package.name).strip("-.")[:40] or "extension"
    name = f"{stamp}-{slug}-{secrets.token_hex(3)}"
    return RunRequest(
        machine=machine,
        package=package,
        plan=plan,
        output=options["output"] or Path("vmrole-runs") / name,
        name=name,
        keep=options["keep"],
        strict=options["strict"],
        allow_unexecuted=options["allow_unexecuted"],
        timeout=options["timeout"],
        secrets=(*parameters.secrets, *machine.secrets, *as_the_agent_splits(parameters.secrets)),
        warnings=tuple(warnings),
    )


def missing_tags(package: Any, tags: tuple[str, ...], image: str, *, strict: bool) -> list[str]:
    """Requirement tags that ``image`` does not declare: a warning each, or with ``strict`` UsageError."""
    requirements = package.extension.resource_requirements
    wanted = (requirements.os_virtual_hard_disk_requirements or ()) if requirements else ()
    have = {tag.lower() for tag in tags}
    missing = [tag for tag in wanted if tag.lower() not in have]
    if missing and strict:
        raise UsageError(
            f"the extension requires {', '.join(missing)}, which the image {image} does not declare",
            hint="leave --strict out to run it anyway",
        )
    return [f"the extension requires {tag}, which the image {image} does not declare" for tag in missing]


def as_the_agent_splits(secrets: tuple[str, ...]) -> list[str]:
    """The secrets as the Linux agent's tokenizer makes them, in quotes and bare: a program may print that form."""
    from harness.plan.linux import split_command

    found = set()
    for secret in secrets:
        for text in (f'"{secret}"', f"'{secret}'", secret):
            words = split_command(text)
            if len(words) == 1:
                found.add(words[0])
    return sorted(found - set(secrets))


def changed_values(package: Any, parameters: Any, plan: Any) -> list[str]:
    """A warning for every value that reaches a Linux command changed: the agent takes quotes and backslashes away."""
    told = []
    for name, value in parameters.values.items():
        if not set(value) & set("\\\"'"):
            continue
        used = re.compile(rf"\[param\.{re.escape(name)}\]", re.IGNORECASE)
        for step in plan.applicable:
            node = package.document.find(step.source)
            if step.kind == "run-once" and node is not None and used.search(str(node.value)):
                told.append(
                    f"the value of {name} has quotes or backslashes, which the Linux agent takes away when it splits "
                    f"the command of {step.id}"
                )
                break
    return told
