# SPDX-License-Identifier: Apache-2.0
"""`vmrole run`."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from harness.cli.options import MACHINE_OPTIONS, machine_options, machine_request
from harness.cli.subject import Subject, plan_events, read_subject, subject_options
from harness.errors import PackageError, UsageError

if TYPE_CHECKING:
    from harness.run.request import MachineRequest, RunRequest


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@subject_options
@machine_options
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
@click.option("--cold", is_flag=True, help="Boot from power-on instead of forking.")
@click.option("--no-checkpoints", is_flag=True, help="Do not save the machine before each step.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(path: Path, **options: Any) -> None:
    """Deploy PATH into a throwaway machine: an extension (.resextpkg, .resext or its folder) or a definition
    (.resdefpkg, .resdef or its folder, with --extension).

    Exit codes: 0 succeeded (warnings allowed), 1 the extension failed, 2 wrong usage or impossible package, 3 guest,
    host or harness failed, 4 incomplete, 130 and 143 interrupted.
    """
    from harness.run.interrupt import interruptible

    with interruptible():
        carry_out(prepare(path, **options), as_json=options["as_json"])


def carry_out(request: RunRequest, *, as_json: bool) -> NoReturn:
    """Do the run, tell its result, and exit with its code."""
    from harness.cli.reporting import reporting
    from harness.masking import Masker
    from harness.report.text import masked
    from harness.run.runner import perform

    masker = Masker(request.secrets)
    with (
        reporting(masker, folder=request.output) as (bus, recorder),
        perform(request, bus, recorder, masker) as role,
    ):
        pass
    if as_json:
        click.echo(json.dumps(masked(role.result.to_json(), masker), indent=2))
    sys.exit(role.conclusion.exit_code)


def prepare(path: Path, **options: Any) -> RunRequest:
    """A complete RunRequest, with everything that can be wrong before a machine is started found out."""
    from harness.run.request import RunRequest

    subject = read_subject(
        path,
        parameters=options["parameters"],
        parameters_file=options["parameters_file"],
        extension=options.get("extension"),
        external_payload=options.get("external_payload"),
        given=options.get("given"),
    )
    package, parameters = subject.package, subject.values
    given: dict[str, Any] = {name: options[name] for name in MACHINE_OPTIONS if name in options}
    machine, told = with_settings(machine_request(**given), subject)
    from harness.image import catalog

    recipe = catalog.load(machine.image).recipe
    plan = plan_events(
        subject,
        os=recipe.os,
        instance=machine.instance,
        events=options.get("events", ("deploy",)),
        pattern_defaults=options.get("pattern_defaults", "recorded"),
        strict=True,
    )
    require_payload(package)
    warnings = [*subject.warnings, *told, *missing_tags(package, recipe.tags, machine.image, strict=options["strict"])]
    warnings += changed_values(package, parameters, plan)
    name = run_name(package.name)
    return RunRequest(
        machine=dataclasses.replace(machine, cold=options.get("cold", False)),
        package=package,
        plan=plan,
        output=options["output"] or Path("vmrole-runs") / name,
        name=name,
        keep=options["keep"],
        strict=options["strict"],
        allow_unexecuted=options["allow_unexecuted"],
        timeout=options["timeout"],
        secrets=(*subject.secrets, *machine.secrets, *as_the_agent_splits(subject.secrets)),
        warnings=tuple(warnings),
        checkpoints=not options.get("no_checkpoints", False),
        how=how_again(path, subject, machine, options),
    )


def run_name(subject: str) -> str:
    """A unique name for a run of ``subject`` that says when it was."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", subject).strip("-.")[:40] or "extension"
    return f"{stamp}-{slug}-{secrets.token_hex(3)}"


def how_again(path: Path, subject: Subject, machine: MachineRequest, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a replay needs to plan the same again: the options as JSON has them, paths absolute, values as given."""
    paths = {"path": path, "extension": options.get("extension"), "external_payload": options.get("external_payload")}
    return {name: str(value.absolute()) if value else None for name, value in paths.items()} | {
        "given": dict(subject.given),
        "events": list(options.get("events", ("deploy",))),
        "pattern_defaults": options.get("pattern_defaults", "recorded"),
        "strict": options["strict"],
        "allow_unexecuted": options["allow_unexecuted"],
        "image": machine.image,
        "memory": machine.memory_mb,
        "cpus": machine.cpus,
        "network": machine.network,
        "instance": machine.instance,
    }


def with_settings(machine: Any, subject: Subject) -> tuple[Any, list[str]]:
    """``machine`` with what the definition of ``subject`` says of it where no option says otherwise, and warnings.

    The machine stays in UTC whatever time zone the definition has (seed 000: "You must not change this setting").
    """
    settings = subject.machine
    if settings is None:
        return machine, []
    from harness.run.answer import hash_password
    from harness.run.request import NAME_PATTERN

    changes: dict[str, Any] = {}
    warnings = []
    if machine.memory_mb is None and settings.memory_mb:
        changes["memory_mb"] = settings.memory_mb
    if settings.cpus and not explicit("cpus"):
        changes["cpus"] = settings.cpus
    if machine.computer_name == NAME_PATTERN and settings.computer_name_pattern:
        changes["computer_name"] = checked_name(settings.computer_name_pattern, machine.instance)
    if machine.administrator_password is None and settings.admin_password:
        hash_password(settings.admin_password)
        changes["administrator_password"] = settings.admin_password
    if settings.time_zone and settings.time_zone not in ("UTC", "Etc/UTC"):
        warnings.append(f"timezone-kept-utc: the definition asks for {settings.time_zone!r}, the machine stays in UTC")
    if settings.domain:
        raise UsageError(
            f"the definition joins the machine to the domain {settings.domain!r}, and there is none here",
            hint="give it a workgroup instead of DomainJoin",
        )
    if len(settings.adapters) > 1:
        raise UsageError(
            f"the definition has {len(settings.adapters)} network adapters, and a machine has one here",
            hint="leave one in its NetworkProfile",
        )
    changes["data_disks"], told = data_disks(settings.data_disks)
    return dataclasses.replace(machine, **changes), [*warnings, *told]


def data_disks(wanted: Any) -> tuple[Any, list[str]]:
    """The data disks of a definition by their logical unit number, and warnings: their images are not here.

    Raises UsageError for a number that is taken or makes no sense.
    """
    from harness.machine.protocol import DataDisk

    disks: dict[int, Any] = {}
    told = []
    for disk in wanted:
        lun = disk.lun if disk.lun is not None else next(n for n in range(64) if n not in disks)
        if lun in disks or not 0 <= lun <= 63:
            what = "two data disks" if lun in disks else "a data disk"
            raise UsageError(f"the definition has {what} at the logical unit number {lun}", hint="0 to 63, each once")
        disks[lun] = DataDisk(lun)
        if disk.image:
            told.append(f"the data disk {lun} is empty: the image {disk.image} is not here")
    return tuple(disks.values()), told


def checked_name(pattern: str, instance: int) -> str:
    """``pattern`` if the name it makes can be a computer's."""
    import random

    from harness.run.answer import check_computer_name, computer_name

    check_computer_name(computer_name(pattern, instance, random.Random(0)))
    return pattern


def explicit(option: str) -> bool:
    """Whether the user gave ``option`` on the command line of this process."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def require_payload(package: Any) -> None:
    """Raises PackageError when a file of the external payload is missing or another one than was declared."""
    wrong = next((f for f in package.findings if f.code in ("external-missing", "external-hash")), None)
    if wrong:
        place = ":".join(str(part) for part in (wrong.file, wrong.line, wrong.column) if part)
        hint = "put it into a folder and name that with --external-payload DIR"
        raise PackageError(f"{place}: {wrong.sentence}", hint=hint)


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
