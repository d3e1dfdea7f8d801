# SPDX-License-Identifier: Apache-2.0
"""`vmrole plan`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.check import printable

if TYPE_CHECKING:
    from harness.masking import Masker
    from harness.package.jsontree import Document
    from harness.plan import Event, Plan, Step


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE|NAME=@FILE|NAME=env:VAR",
              help="Value of a parameter.")  # fmt: skip
@click.option("--parameters", "parameters_file", type=click.Path(path_type=Path),
              help="Values as a flat JSON object or a ResourceConfiguration; -p wins.")  # fmt: skip
@click.option("--extension", type=click.Path(path_type=Path), help="The extension that a definition references.")
@click.option("--os", type=click.Choice(["windows", "linux"]), help="Of the guest; the profile's own unless given.")
@click.option("--instance", type=click.IntRange(min=1), default=1, show_default=True, help="Number of the instance.")
@click.option("--event", type=click.Choice(["deploy", "update", "scale-out", "delete"]), default="deploy",
              show_default=True, help="What happens to the instance.")  # fmt: skip
@click.option("--pattern-defaults", type=click.Choice(["recorded", "console"]), default="recorded", show_default=True,
              help="Failure patterns that stand for missing ones.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the steps as one JSON document.")
def command(path: Path, as_json: bool, **options: Any) -> None:
    """Show what PATH would run, in which order and why; nothing is started.

    Exit codes: 0 all steps are complete, 1 a step has a parameter without a value, 2 PATH cannot be read.
    """
    plan, document, masker, warnings = prepare(path, **options)
    for warning in warnings:
        click.echo(f"vmrole: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(_masked(plan.as_json(), masker), indent=2))
    else:
        for line in _human(plan, document, options["extension"] is None):
            click.echo(masker.text(line))
    sys.exit(1 if any(step.unresolved for step in plan.steps) else 0)


def prepare(
    path: Path,
    *,
    parameters: tuple[str, ...] = (),
    parameters_file: Path | None = None,
    extension: Path | None = None,
    os: str | None = None,
    instance: int = 1,
    event: Event = "deploy",
    pattern_defaults: Any = "recorded",
) -> tuple[Plan, Document, Masker, tuple[str, ...]]:
    """The plan, the document that its steps point into, what masks secrets, and sentences for the user."""
    from harness.errors import UsageError
    from harness.masking import Masker
    from harness.package.definition import Definition, read_any
    from harness.package.parameters import read_parameters, read_values
    from harness.package.reader import read_package
    from harness.plan import make_plan

    read = read_any(path)
    warnings: tuple[str, ...]
    if isinstance(read, Definition):
        from harness.package.resolve import resolve_definition

        if extension is None:
            raise UsageError(
                f"{path} is a definition: its steps are those of its extension", hint="add --extension PATH"
            )
        package = read_package(extension)
        resolved = resolve_definition(read, package, read_values(parameters, parameters_file))
        values, secrets = resolved.parameters, resolved.secrets
        warnings = (*resolved.values.warnings, *(finding.sentence for finding in resolved.findings))
    else:
        if extension is not None:
            raise UsageError(f"--extension is for definitions, and {path} is an extension")
        package = read
        values = read_parameters(package, parameters, parameters_file)
        secrets, warnings = values.secrets, values.warnings
    if os is None:
        os = "linux" if package.extension.linux.run_once_commands and not _has_windows(package) else "windows"
    plan = make_plan(
        package, values, os="linux" if os == "linux" else "windows", event=event, instance=instance, strict=False,
        pattern_defaults=pattern_defaults,
    )  # fmt: skip
    return plan, package.document, Masker(secrets), warnings


def _has_windows(package: Any) -> bool:
    profile = package.extension.windows
    return any(
        (
            profile.windows_server_roles_and_features,
            profile.sql_profile and profile.sql_profile.sql_deployments,
            profile.provisioning_scripts,
            profile.web_deploy_applications,
            profile.sql_dac_applications,
            profile.script_applications,
        )
    )


def _masked(value: Any, masker: Masker) -> Any:
    if isinstance(value, str):
        return masker.text(value)
    if isinstance(value, dict):
        return {name: _masked(item, masker) for name, item in value.items()}
    return [_masked(item, masker) for item in value] if isinstance(value, list) else value


def _human(plan: Plan, document: Document, own_names: bool) -> list[str]:
    """The plan in words; ``own_names`` when parameters are given by the extension's names, not by a definition's."""
    mine = len(plan.applicable)
    others = len(plan.steps) - mine
    rest = f", {others} for another system" if others else ""
    lines = [
        f"{mine} {'step' if mine == 1 else 'steps'} at {plan.event} of instance {plan.instance} on {plan.os}{rest}"
    ]
    for number, step in enumerate(plan.steps, 1):
        lines.append("")
        lines += _step(number, step, document)
    missing = sorted({name for step in plan.steps for name in step.unresolved})
    if missing:
        lines += ["", f"without a value: {printable(', '.join(missing))}"]
        lines += ["  " + printable(" ".join(f"-p {name}=..." for name in missing))] if own_names else []
    return lines


def _step(number: int, step: Step, document: Document) -> list[str]:
    marks = [step.script_type if step.kind == "script" else step.kind]
    marks += [f"order {step.order}"] if step.order is not None and step.kind != "run-once" else []
    marks += [] if step.applicable else [f"not run here: for {step.os}"]
    title = f"{number:3}. {step.id} ({', '.join(mark for mark in marks if mark)})"
    node = document.find(step.source)
    place = f"{document.file}:{node.line} {step.source}" if node is not None else step.source
    rows = [
        ("command", printable(step.command) or "nothing to start"),
        ("folder", step.working_directory_shown or step.working_directory or ""),
        ("account", step.account),
        ("time-out", f"{step.timeout:g} s" if step.timeout is not None else "none"),
        ("reboot", step.reboot),
        ("fails by", _patterns(step)),
        ("from", place),
    ]
    lines = [f"{'!' if step.unresolved else ' '}{title[1:]}"]
    lines += [f"       {name:<9} {printable(text)}" for name, text in rows if text]
    if step.unresolved:
        lines.append(f"     ! no value for {printable(', '.join(step.unresolved))}")
    return lines


def _patterns(step: Step) -> str:
    if step.policy is None:
        return "" if step.on_failure == "fail" else "nothing, a failure is only a warning"
    told = []
    for check in step.policy.checks:
        if check.state != "off":
            problem = f" (never matches: {check.problem})" if check.problem else ""
            told.append(f"{check.stream} {check.pattern}{' (default)' if check.default else ''}{problem}")
    end = ", then only warns" if step.on_failure == "warn" else ""
    return (" or ".join(told) or "nothing") + end
