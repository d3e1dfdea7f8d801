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
    from harness.package.findings import Finding
    from harness.package.machine_settings import MachineSettings
    from harness.package.parameters import Parameters
    from harness.package.patterns import Defaults
    from harness.package.reader import Package
    from harness.plan import OS, Event, Plan

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
    click.option("--external-payload", multiple=True, metavar="DIR|URL",
                 help="Folder or address that missing files of the extension's external payload may be taken from."),
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
    """An extension with the values of its parameters, and what its definition says where there is one.

    ``machine`` is what the definition says of the machine, ``asked`` the definition's parameters that an extension's
    parameter still needs, by its name; ``findings`` are the definition's and those of its use, ``warnings`` sentences.
    """

    package: Package
    values: Parameters
    machine: MachineSettings | None = None
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The values as they were given."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    asked: Mapping[str, tuple[str, ...]] | None = None
    exposed: tuple[str, ...] = ()
    """Secret parameters whose values were written in the open."""

    def how_to_give(self, name: str) -> str:
        """How a parameter of the extension gets a value: an option, or what to write into the definition."""
        if self.asked is None:
            return f"-p {name[:60]}=..."
        if self.asked.get(name):
            return " ".join(f"-p {asked[:60]}=..." for asked in self.asked[name])
        return f"add {name[:60]} to the definition's ResourceExtensionParameterValues"


def read_subject(
    path: Path,
    *,
    parameters: Sequence[str] = (),
    parameters_file: Path | None = None,
    extension: Path | None = None,
    external_payload: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    loading: bool = False,
) -> Subject:
    """Read PATH and what belongs to it. Raises UsageError and PackageError, one sentence each.

    ``given`` are values as an earlier ``Subject`` has them. With ``loading`` files of the external payload are loaded
    from the addresses that were allowed.
    """
    from harness.package.definition import Definition, read_any
    from harness.package.external import Places, with_external
    from harness.package.parameters import Given, declared_parameters, fill_parameters, read_values
    from harness.package.reader import read_package

    places = Places.of(external_payload, _fetch if loading else None)
    read = read_any(path)
    raw = read_values(parameters, parameters_file) if given is None else Given(given)
    if not isinstance(read, Definition):
        if extension is not None:
            raise UsageError(f"--extension is for definitions, and {path} is an extension")
        package = with_external(read, places)
        values = fill_parameters(package.name, package.document, declared_parameters(package), raw)
        return Subject(package, values, None, raw.values, values.secrets, values.warnings, exposed=values.exposed)
    from harness.package.resolve import resolve_definition

    if extension is None:
        raise UsageError(f"{path} is a definition: its steps are those of its extension", hint="add --extension PATH")
    package = with_external(read_package(extension), places)
    resolved = resolve_definition(read, package, raw)
    return Subject(
        package,
        resolved.parameters,
        resolved.machine,
        raw.values,
        resolved.secrets,
        resolved.values.warnings,
        (*read.findings, *resolved.findings),
        resolved.asked,
        resolved.values.exposed,
    )


def place_of(finding: Finding) -> str:
    """``file:line:column``, as far as they are known."""
    return ":".join(str(part) for part in (finding.file, finding.line, finding.column) if part)


def _fetch(url: str, allowed: Sequence[str], wanted: str | None) -> Path | None:
    from harness.deadline import Deadline
    from harness.image.cache import default_folder
    from harness.package.archive import MAX_TOTAL
    from harness.package.download import SECONDS, download, shown

    click.echo(f"vmrole: looking for {shown(url)}", err=True)
    folder = default_folder() / "external"
    return download(url, allowed, folder, wanted=wanted, most=MAX_TOTAL, deadline=Deadline(SECONDS))


def plan_events(
    subject: Subject,
    *,
    os: OS,
    instance: int,
    events: Sequence[Event],
    pattern_defaults: Defaults,
    strict: bool,
) -> Plan:
    """The plan of all ``events`` on one instance, one after the other.

    The steps of the first event have their own ids; those of a later one have its name before them, and its number
    when it is not the first of its kind: ``update-script-app-SITE-install``, ``update-2-script-app-SITE-install``.
    With ``strict`` raises PackageError when no step is for ``os``, and when one lacks a value.
    """
    from harness.plan import Plan, make_plan, require_steps

    plans = [
        make_plan(
            subject.package,
            subject.values,
            os=os,
            event=event,
            instance=instance,
            strict=False,
            pattern_defaults=pattern_defaults,
        )
        for event in events
    ]
    steps = list(plans[0].steps)
    for number, plan in enumerate(plans[1:], 1):
        same = events[:number].count(plan.event)
        prefix = plan.event if not same else f"{plan.event}-{same + 1}"
        # What another system would do is told once.
        steps += [replace(step, id=f"{prefix}-{step.id}") for step in plan.steps if step.applicable]
    if strict:
        require_steps(subject.package, steps, os, events, subject.how_to_give)
    findings = tuple(dict.fromkeys(finding for plan in plans for finding in plan.findings))
    return Plan(os, plans[0].event, instance, tuple(steps), findings)
