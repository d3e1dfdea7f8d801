# SPDX-License-Identifier: Apache-2.0
"""`vmrole plan`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.subject import Subject, place_of, plan_events, read_subject, subject_options
from harness.package.findings import one_line

if TYPE_CHECKING:
    from harness.masking import Masker
    from harness.package.jsontree import Document
    from harness.plan import OS, Event, Plan, Step

_MOST_ERRORS = 10
_TOLD = ("unknown-field", "definition-not-here")
"""Warnings that say why a plan is not the one that was meant, or will not be carried out."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@subject_options
@click.option("--os", type=click.Choice(["windows", "linux"]), help="Of the guest; the profile's own unless given.")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as one JSON document.")
def command(path: Path, as_json: bool, **options: Any) -> None:
    """Show what PATH would run, in which order and why; nothing is started.

    Exit codes: 0 all steps are complete, 1 a step has a parameter without a value or PATH has errors, 2 PATH cannot be
    read.
    """
    from harness.masking import Masker
    from harness.plan.quotes import changed_values

    chosen = {name: options.pop(name) for name in ("os", "instance", "events", "pattern_defaults")}
    subject = read_subject(path, **options)
    masker = Masker(subject.secrets)
    plan = make_plan_of(subject, **chosen)
    for warning in (*subject.warnings, *changed_values(subject.package, subject.values, plan)):
        click.echo(f"vmrole: {masker.text(warning)}", err=True)
    findings = (*subject.findings, *subject.package.findings, *plan.findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    told = [finding for finding in findings if finding.code in _TOLD]
    for one in (*errors[:_MOST_ERRORS], *told[:_MOST_ERRORS]):
        hint = f" ({one.hint})" if one.code in _TOLD and one.hint else ""
        text = f"{place_of(one)}: {one.severity}: {one.sentence}{hint}"
        click.echo(f"vmrole: {one_line(masker.text(text))}", err=True)
    if len(errors) > _MOST_ERRORS:
        click.echo(f"vmrole: there are {len(errors)} errors; 'vmrole check' shows all", err=True)
    if as_json:
        click.echo(json.dumps(_masked(plan.as_json(), masker), indent=2))
    else:
        for line in _human(plan, subject):
            click.echo(masker.text(line))
    sys.exit(1 if errors or any(step.unresolved for step in plan.steps) else 0)


def make_plan_of(subject: Subject, *, os: OS | None, instance: int, events: Sequence[Event], **more: Any) -> Plan:
    """The plan for ``os``, or for the system that most of the extension is for."""
    package = subject.package
    if os is None:
        os = "linux" if package.extension.linux.run_once_commands and not _has_windows(package) else "windows"
    return plan_events(subject, os=os, instance=instance, events=events, strict=False, **more)


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


def _human(plan: Plan, subject: Subject) -> list[str]:
    """The plan in words."""
    document = subject.package.document
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
        lines += ["", f"without a value: {one_line(', '.join(missing))}"]
        ways = dict.fromkeys(map(subject.how_to_give, missing))
        options = " ".join(way for way in ways if way.startswith("-p "))
        lines += [f"  {one_line(way)}" for way in (options, *(w for w in ways if not w.startswith("-p "))) if way]
    return lines


def _step(number: int, step: Step, document: Document) -> list[str]:
    marks = [step.script_type if step.kind == "script" else step.kind]
    marks += [f"order {step.order}"] if step.order is not None and step.kind != "run-once" else []
    marks += [] if step.applicable else [f"not run here: for {step.os}"]
    title = f"{number:3}. {step.id} ({', '.join(mark for mark in marks if mark)})"
    node = document.find(step.source)
    place = f"{document.file}:{node.line} {step.source}" if node is not None else step.source
    rows = [
        ("command", one_line(step.command) or "nothing to start"),
        ("folder", step.working_directory_shown or step.working_directory or _without_folder(step)),
        ("account", step.account),
        ("time-out", f"{step.timeout:.10g} s, more where a guest is emulated" if step.timeout is not None else "none"),
        ("reboot", step.reboot),
        ("fails by", _patterns(step)),
        ("from", place),
    ]
    lines = [f"{'!' if step.unresolved else ' '}{title[1:]}"]
    lines += [f"       {name:<9} {one_line(text)}" for name, text in rows if text]
    if step.unresolved:
        lines.append(f"     ! no value for {one_line(', '.join(step.unresolved))}")
    return lines


def _without_folder(step: Step) -> str:
    """Why a script has no folder to start in; nothing else needs one."""
    if step.kind not in ("script", "script-application"):
        return ""
    return f"no payload has the ID {step.payload_id[:60]}" if step.payload_id else "no payload"


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
