# SPDX-License-Identifier: Apache-2.0
"""What `run` and `plan` are given: an extension, or a definition with its extension, and the values for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.package.machine_settings import MachineSettings
    from harness.package.parameters import Parameters
    from harness.package.reader import Package
    from harness.plan import Event, Plan

F = TypeVar("F", bound=Callable[..., Any])

EVENTS: tuple[Event, ...] = ("deploy", "update", "scale-out", "delete")


class _Events(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    name = "events"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Event, ...]:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in str(value).split(",")]
        for name in names:
            if name not in EVENTS:
                self.fail(f"{name!r} is no event; events are {', '.join(EVENTS)}", param, ctx)
        return tuple(event for name in names for event in EVENTS if event == name)


_SUBJECT = [
    click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE|NAME=@FILE|NAME=env:VAR",
                 help="Value of a parameter."),
    click.option("--parameters", "parameters_file", type=click.Path(path_type=Path),
                 help="Values as a flat JSON object or a ResourceConfiguration; -p wins."),
    click.option("--extension", type=click.Path(path_type=Path), help="The extension that a definition references."),
    click.option("--external-payload", type=click.Path(path_type=Path), metavar="DIR",
                 help="Folder that missing files of the extension's external payload may be taken from."),
    click.option("--instance", type=click.IntRange(min=1), default=1, show_default=True,
                 help="Number of the instance."),
    click.option("--event", "events", type=_Events(), default="deploy", show_default=True,
                 metavar="|".join(EVENTS), help="What happens to the instance; a comma list, in that order."),
    click.option("--pattern-defaults", type=click.Choice(["recorded", "console"]), default="recorded",
                 show_default=True, help="Failure patterns that stand for missing ones."),
]  # fmt: skip


def subject_options(function: F) -> F:
    """The options that say what is run, the same words everywhere."""
    for option in reversed(_SUBJECT):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Subject:
    """An extension with the values of its parameters. ``machine`` is what its definition says of the machine."""

    package: Package
    values: Parameters
    machine: MachineSettings | None = None
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The values as they were given."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()


def read_subject(
    path: Path,
    *,
    parameters: Sequence[str] = (),
    parameters_file: Path | None = None,
    extension: Path | None = None,
    external_payload: Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> Subject:
    """Read PATH and what belongs to it. ``given`` are values as an earlier ``Subject`` has them.

    Raises UsageError and PackageError, one sentence each.
    """
    from harness.package.definition import Definition, read_any
    from harness.package.external import with_external
    from harness.package.parameters import Given, declared_parameters, fill_parameters, read_values
    from harness.package.reader import read_package

    read = read_any(path)
    raw = read_values(parameters, parameters_file) if given is None else Given(given)
    if not isinstance(read, Definition):
        if extension is not None:
            raise UsageError(f"--extension is for definitions, and {path} is an extension")
        package = with_external(read, external_payload)
        values = fill_parameters(package.name, package.document, declared_parameters(package), raw)
        return Subject(package, values, None, raw.values, values.secrets, values.warnings)
    from harness.package.resolve import resolve_definition

    if extension is None:
        raise UsageError(f"{path} is a definition: its steps are those of its extension", hint="add --extension PATH")
    package = with_external(read_package(extension), external_payload)
    resolved = resolve_definition(read, package, raw)
    warnings = (*resolved.values.warnings, *(finding.sentence for finding in resolved.findings))
    return Subject(package, resolved.parameters, resolved.machine, raw.values, resolved.secrets, warnings)


def plan_events(
    subject: Subject,
    *,
    os: Any,
    instance: int,
    events: Sequence[Event],
    pattern_defaults: Any,
    strict: bool,
) -> Plan:
    """The plan of all ``events`` on one instance, one after the other.

    The steps of the first event have their own ids; those of a later one have its name before them, and its number
    when it is not the first of its kind: ``update-script-app-SITE-install``, ``update-2-script-app-SITE-install``.
    """
    from harness.plan import Plan, make_plan

    plans = [
        make_plan(
            subject.package,
            subject.values,
            os=os,
            event=event,
            instance=instance,
            strict=strict and (number == 0 or len(events) == 1),
            pattern_defaults=pattern_defaults,
        )
        for number, event in enumerate(events)
    ]
    if len(plans) == 1:
        return plans[0]
    steps = list(plans[0].steps)
    for number, plan in enumerate(plans[1:], 1):
        same = events[:number].count(plan.event)
        prefix = plan.event if not same else f"{plan.event}-{same + 1}"
        # What another system would do is told once.
        steps += [replace(step, id=f"{prefix}-{step.id}") for step in plan.steps if step.applicable]
    if strict and (missing := next((step for step in steps if step.applicable and step.unresolved), None)):
        raise UsageError(
            f"{missing.unresolved[0]} has no value, and the step {missing.id} needs it",
            hint=f"give it with -p {missing.unresolved[0]}=...",
        )
    findings = tuple(dict.fromkeys(finding for plan in plans for finding in plan.findings))
    return Plan(plans[0].os, plans[0].event, instance, tuple(steps), findings)
