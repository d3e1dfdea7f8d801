# SPDX-License-Identifier: Apache-2.0
"""``make_plan``: from a package and its parameters to the steps, without touching anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import PackageError
from harness.masking import Masker
from harness.package.findings import Findings
from harness.plan.linux import linux_steps
from harness.plan.step import OS, Event, Plan, Step
from harness.plan.windows import windows_steps

if TYPE_CHECKING:
    from harness.package.parameters import Parameters
    from harness.package.patterns import Defaults
    from harness.package.reader import Package


def make_plan(
    package: Package,
    parameters: Parameters,
    *,
    os: OS,
    event: Event = "deploy",
    instance: int = 1,
    strict: bool = True,
    pattern_defaults: Defaults = "recorded",
) -> Plan:
    """The steps of ``event`` on instance ``instance`` (from 1) of a guest that runs ``os``.

    Steps for the other system are in the plan and not applicable. With ``strict`` raises PackageError when no step is
    applicable, or when one that is has a parameter without a value; without it such steps are only marked.
    ``pattern_defaults`` says which failure patterns stand for missing ones (harness.package.patterns).
    """
    findings = Findings()
    linux = linux_steps(package, parameters, event, os == "linux", findings)
    windows = windows_steps(package, parameters, event, instance, os == "windows", pattern_defaults)
    steps = [*linux, *windows] if os == "linux" else [*windows, *linux]
    masker = Masker(parameters.secrets)
    steps = [_masked(step, masker) for step in steps]
    if strict:
        require_steps(package, steps, os, (event,))
    for step in steps:
        if step.unresolved and not step.applicable:
            node = package.document.find(step.source) or package.document.root
            findings.add(
                "parameter-unresolved",
                f"the {step.os} step {step.id} uses {_names(step.unresolved)} without a value; it does not run here",
                hint=_how(step.unresolved),
                file=package.document.file,
                pointer=step.source,
                line=node.line,
                column=node.column,
            )
    return Plan(os, event, instance, tuple(steps), tuple(findings))


def _masked(step: Step, masker: Masker) -> Step:
    """Secrets that the document itself has in plain text are no parameters: they are found by text."""
    folder = step.working_directory_shown or step.working_directory
    return replace(
        step,
        name=masker.text(step.name),
        command=masker.text(step.command),
        working_directory_shown=masker.text(folder) if folder else None,
    )


def require_steps(
    package: Package,
    steps: Sequence[Step],
    os: OS,
    events: Sequence[Event],
    how: Callable[[str], str] = lambda name: f"-p {name[:60]}=...",
) -> None:
    """Raise PackageError when none of ``steps`` is for ``os``, or when one that is lacks a value.

    ``how`` says of a parameter how it gets one: an option, or the end of a sentence.
    """
    mine = [step for step in steps if step.applicable]
    if not mine:
        all_of_them = "its only step is" if len(steps) == 1 else f"all its {len(steps)} steps are"
        others = f"; {all_of_them} for {steps[0].os}" if steps else ""
        during = "" if tuple(events) == ("deploy",) else f" at {', '.join(events)}"
        raise PackageError(
            f"{package.name} has nothing to run on {os}{during}{others}",
            hint=(
                "choose an image of the other system"
                if steps
                else "an extension has RunOnceCommands or scripts"
                if "deploy" in events
                else "Linux commands run at deploy and scale-out, Windows scripts at the events of their ScriptType"
            ),
        )
    missing = dict.fromkeys(name for step in mine for name in step.unresolved)
    if missing:
        step = next(step for step in mine if step.unresolved)
        word = "has" if len(missing) == 1 else "have"
        hints = dict.fromkeys(how(name) for name in list(missing)[:10])
        options = " ".join(hint for hint in hints if hint.startswith("-p "))
        raise PackageError(
            f"{_names(tuple(missing))} {word} no value, and the step {step.id} of {package.name} needs it",
            hint="; ".join(
                [*([f"give it with {options}"] if options else []), *(h for h in hints if not h.startswith("-p "))]
            ),
        )


def _names(names: tuple[str, ...]) -> str:
    word = "the parameter" if len(names) == 1 else "the parameters"
    return f"{word} {', '.join(name[:60] for name in names[:10])}"


def _how(names: tuple[str, ...]) -> str:
    return " ".join(f"-p {name[:60]}=..." for name in names[:10])
