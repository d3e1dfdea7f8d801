# SPDX-License-Identifier: Apache-2.0
"""`vmrole run`."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from harness.cli.options import MACHINE_OPTIONS, machine_options, machine_request, powershell_options
from harness.cli.subject import Subject, place_of, plan_events, read_subject, subject_options
from harness.errors import PackageError, UsageError

if TYPE_CHECKING:
    from harness.image.recipe import Recipe
    from harness.package.reader import Package
    from harness.plan import Plan, Step
    from harness.run.request import MachineRequest, Pretence, RunRequest


_REFUSED = ("value-rule", "reference-mismatch", "definition-not-here", "definition-lun")
"""Findings about a definition with which no machine is made of it."""


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
    help="Keep the machine, for at most 24 h. On Linux a run-once command that fails is only a warning, as on the "
    "platform: 'failed' keeps nothing for it without --strict. 'vmrole replay' and 'vmrole shell RUN --at STEP' go on "
    "from before it.",
)
@click.option("--output", type=click.Path(path_type=Path), help="The run directory, new or empty.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of the whole run.")
@click.option("--exact-timeouts", is_flag=True,
              help="Time-outs of steps as their author wrote them, in an emulated guest too.")  # fmt: skip
@powershell_options
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
    from harness.cli.again import again
    from harness.plan.quotes import changed_values
    from harness.run.request import RunRequest

    subject = read_subject(
        path,
        parameters=options["parameters"],
        parameters_file=options["parameters_file"],
        extension=options.get("extension"),
        external_payload=options.get("external_payload", ()),
        given=options.get("given"),
        loading=True,
    )
    require_use(subject)
    package = subject.package
    given: dict[str, Any] = {name: options[name] for name in MACHINE_OPTIONS if name in options}
    machine = machine_request(**given, definition=subject.machine)
    from harness.image import catalog

    recipe = catalog.load(machine.image).recipe
    events = options.get("events", ("deploy",))
    plan = plan_events(
        subject,
        os=recipe.os,
        instance=machine.instance,
        events=events,
        pattern_defaults=options.get("pattern_defaults", "recorded"),
        strict=True,
    )
    require_sound(package, plan)
    require_payload(package, plan)
    warnings = [*subject.warnings, *machine.warnings, *created_twice(events)]
    warnings += missing_tags(subject, recipe, strict=options["strict"])
    warnings += changed_values(package, subject.values, plan)
    name = run_name(package.name)
    return RunRequest(
        machine=dataclasses.replace(
            machine,
            cold=options.get("cold", False),
            cold_engines=cold_engines(recipe, asked=options.get("cold_engines", False)),
        ),
        package=package,
        plan=plan,
        output=options["output"] or Path("vmrole-runs") / name,
        name=name,
        keep=options["keep"],
        strict=options["strict"],
        allow_unexecuted=options["allow_unexecuted"],
        timeout=options["timeout"],
        exact_timeouts=options.get("exact_timeouts", False),
        pretence=pretence_of(options.get("pretend", ()), options.get("pretend_modules"), recipe),
        secrets=(*subject.secrets, *machine.secrets, *as_the_agent_splits(subject.secrets)),
        warnings=tuple(warnings),
        case=options.get("case", ""),
        again=again(path, subject.values, machine, options),
        checkpoints=not options.get("no_checkpoints", False),
        how=how_again(path, subject, machine, options),
        notes=(*machine.notes, *engine_notes(plan, recipe)),
        findings=subject.findings,
    )


def engine_notes(plan: Plan, recipe: Recipe) -> list[str]:
    """Which image would execute the steps that start PowerShell, where ``recipe``'s cannot."""
    from harness.package.lint import POWERSHELL_HINT, no_powershell
    from harness.wincmd import is_powershell

    if not recipe.lacks_powershell or not any(is_powershell(step.executable) for step in plan.applicable):
        return []
    return [f"{no_powershell(recipe.name)}; {POWERSHELL_HINT.format(image=recipe.name)}"]


def pretence_of(names: Sequence[str], folder: Path | None, recipe: Recipe) -> Pretence:
    """Raises UsageError for what cannot be pretended, and where there is nobody to pretend it."""
    from harness.run.request import Pretence

    if not names and not folder:
        return Pretence()
    from harness.run.windows.pretence import pretence

    wanted = pretence(names, folder)
    _require_powershell(recipe, "pretends commands")
    return wanted


def cold_engines(recipe: Recipe, *, asked: bool) -> bool:
    """``asked``. Raises UsageError where no engine could stand by."""
    if asked:
        _require_powershell(recipe, "has engines that stand by")
    return asked


def _require_powershell(recipe: Recipe, what: str) -> None:
    if not recipe.powershell:
        raise UsageError(
            f"only a stand-in for Windows with a PowerShell {what}, and the image {recipe.name} is none",
            hint="'vmrole images build windows-stand-in --powershell ZIP' makes one",
        )


def run_name(subject: str) -> str:
    """A unique name for a run of ``subject`` that says when it was."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", subject).strip("-.")[:40] or "extension"
    return f"{stamp}-{slug}-{secrets.token_hex(3)}"


def how_again(path: Path, subject: Subject, machine: MachineRequest, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a replay needs to plan the same again: the options as JSON has them, paths absolute, values as given."""
    extension = options.get("extension")
    return {
        "path": str(path.absolute()),
        "extension": str(extension.absolute()) if extension else None,
        "external_payload": [
            place if "://" in place else str(Path(place).absolute()) for place in options.get("external_payload", ())
        ],
        "given": dict(subject.given),
        "events": list(options.get("events", ("deploy",))),
        "pattern_defaults": options.get("pattern_defaults", "recorded"),
        "strict": options["strict"],
        "allow_unexecuted": options["allow_unexecuted"],
        "exact_timeouts": options.get("exact_timeouts", False),
        "pretend": list(options.get("pretend", ())),
        "pretend_modules": str(modules.absolute()) if (modules := options.get("pretend_modules")) else None,
        "cold_engines": options.get("cold_engines", False),
        "image": machine.image,
        "memory": machine.memory_mb,
        "cpus": machine.cpus,
        "network": machine.network,
        "instance": machine.instance,
    }


def require_use(subject: Subject) -> None:
    """Raises UsageError or PackageError when the platform would not have made a machine of this definition so."""
    refused = [finding for finding in subject.findings if finding.code in _REFUSED]
    if not refused:
        return
    kind = UsageError if any(finding.code != "reference-mismatch" for finding in refused) else PackageError
    hint = refused[0].hint
    if refused[0].code == "value-rule":
        hint = hint or "the view definition says what is allowed"
    raise kind("; ".join(f"{place_of(finding)}: {finding.sentence}" for finding in refused), hint=hint)


def created_twice(events: Sequence[str]) -> list[str]:
    """A warning when a list of events makes the one instance again."""
    made = [event for event in events if event in ("deploy", "scale-out")]
    if len(made) < 2:
        return []
    return [f"{' and '.join(made)} each make an instance; here the steps of all of them run on the same machine"]


def require_sound(package: Package, plan: Plan) -> None:
    """Raises PackageError when a step of this guest has an error of its own: what is left of it must not be run."""
    errors = [error for error in (*package.findings, *plan.findings) if error.severity == "error"]
    for step in plan.applicable:
        for error in errors:
            if error.file == package.document.file and is_of(error.pointer, step.source):
                raise PackageError(
                    f"{place_of(error)}: {error.sentence}, and the step {step.id} would run",
                    hint=error.hint or "'vmrole check' shows the line",
                )


def is_of(pointer: str, source: str) -> bool:
    """Whether a place of the document is of the step that comes from ``source``. The scripts of an application are
    steps of their own."""
    rest = pointer.removeprefix(source)
    own = rest == "" or re.match(r"/(?!(?:SQL)?ScriptCommands/)", rest) is not None
    return pointer.startswith(source) and own


def require_payload(package: Package, plan: Plan) -> None:
    """Raises PackageError for a file of the external payload that is another one than was declared, and for a missing
    one that a step of this guest names or has in its payload. Others are findings of the run."""
    for finding in package.findings:
        hint = "name a folder that has it, or an address, with --external-payload"
        if finding.code == "external-hash":
            raise PackageError(f"{place_of(finding)}: {finding.sentence}", hint=hint)
        node = package.document.find(finding.pointer) if finding.code == "external-missing" else None
        user = next((step for step in plan.applicable if uses(step, str(node.value), package)), None) if node else None
        if user:
            what = f"{place_of(finding)}: {finding.sentence}, and the step {user.id} needs it"
            raise PackageError(what, hint=hint)


def uses(step: Step, path: str, package: Package) -> bool:
    """Whether a step names a payload file, or starts in the payload folder that it belongs to."""
    from harness.plan.guestpaths import PAYLOAD_FOLDER, payload_path

    parts = [part for part in re.split(r"[\\/]+", path.lower()) if part not in ("", ".")]
    if parts and parts[-1] in step.command_line.lower():
        return True
    own = payload_path(package, step.payload_id)
    return own is not None and "\\".join((PAYLOAD_FOLDER.lower(), *parts)).startswith(own[0].lower() + "\\")


def missing_tags(subject: Subject, recipe: Recipe, *, strict: bool) -> list[str]:
    """Requirement tags that an image does not declare: a warning each, or with ``strict`` UsageError."""
    requirements = subject.package.extension.resource_requirements
    written = requirements.os_virtual_hard_disk_requirements if requirements else ()
    wanted = dict.fromkeys(subject.values.fill(tag).masked.strip() for tag in written)
    have = {tag.lower() for tag in recipe.tags}
    missing = [tag for tag in wanted if tag and tag.lower() not in have]
    if missing and strict:
        raise UsageError(
            f"the extension requires {', '.join(missing)}, which the image {recipe.name} does not declare",
            hint="leave --strict out to run it anyway",
        )
    has = f"it has {', '.join(recipe.tags)}" if recipe.tags else "it has none"
    if recipe.stand_in:
        has += f", and its programs are told that it is Windows {recipe.version.rpartition('.')[0]}"
    return [f"the extension requires {tag}, which the image {recipe.name} does not declare ({has})" for tag in missing]


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
