# SPDX-License-Identifier: Apache-2.0
"""`vmrole replay`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import powershell_options
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.machine.checkpoints import Kept
    from harness.run.request import RunRequest


@click.command()
@click.argument("run")
@click.option("--from", "step", required=True, metavar="STEP", help="The first step to run.")
@click.option(
    "--package", type=click.Path(path_type=Path), help="A changed package or definition; as it was on disk without it."
)
@click.option(
    "--keep",
    type=click.Choice(["always", "failed", "never"]),
    default="never",
    show_default=True,
    help="Keep the machine, for at most 24 h. As with run, 'failed' keeps nothing for a warning.",
)
@click.option("--output", type=click.Path(path_type=Path), help="The run directory, new or empty.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of the whole run.")
@click.option("--exact-timeouts", is_flag=True,
              help="Time-outs of steps as their author wrote them, in an emulated guest too.")  # fmt: skip
@powershell_options
@click.option("--no-checkpoints", is_flag=True, help="Do not save the machine before each step.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(run: str, step: str, package: Path | None, as_json: bool, **options: Any) -> None:  # fmt: skip
    """Go on from the machine of RUN as it was just before STEP, perhaps with a changed package.

    RUN is the directory of a run that something went wrong in, or its name. Files of the payload that changed are
    replaced in the guest; parameters, certificates and everything else are those of RUN. Exit codes are those of run.
    """
    from harness.cli.run import carry_out
    from harness.run.interrupt import interruptible

    with interruptible():
        carry_out(prepare(kept_of(run), step, package, **options), as_json=as_json)


def kept_of(run: str) -> Kept:
    """The checkpoints of a run, by its directory or its name. Raises UsageError when there are none."""
    from harness.cli.shell import name_of
    from harness.machine.checkpoints import find

    return find(name_of(Path(run)))


def prepare(kept: Kept, step: str, package: Path | None, **options: Any) -> RunRequest:
    """The request of the first run with its machine as it was before ``step``."""
    from harness.cli.run import prepare as prepare_run
    from harness.run.replay import changed_before
    from harness.run.request import Resume

    how = dict(kept.facts["how"])
    pretend = tuple(options.pop("pretend", ()) or how.get("pretend", ()))
    modules = options.pop("pretend_modules", None) or how.get("pretend_modules")
    flags = ("exact_timeouts", "cold_engines")
    asked = {name: options.pop(name, False) or how.get(name, False) for name in flags}
    try:
        path = package or Path(how.pop("path"))
        extension = Path(how["extension"]) if how["extension"] else None
        request = prepare_run(
            path,
            **options,
            **asked,
            pretend=pretend,
            pretend_modules=Path(modules) if modules else None,
            parameters=(),
            parameters_file=None,
            given=how["given"],
            extension=extension,
            external_payload=tuple(how["external_payload"]),
            events=tuple(how["events"]),
            pattern_defaults=how["pattern_defaults"],
            strict=how["strict"],
            allow_unexecuted=how["allow_unexecuted"],
            **machine_options(how),
        )
    except KeyError as error:
        raise HarnessError(f"the checkpoints of {kept.run} do not say {error} of it") from error
    known = [planned.id for planned in request.plan.applicable]
    if step not in known:
        raise UsageError(f"{path} has no step {step!r}", hint=f"its steps are {', '.join(known)}")
    kept.before(step)
    again = ("vmrole", "replay", kept.run, "--from", step, *(("--package", str(package)) if package else ()))
    again += tuple(f"--{name.replace('_', '-')}" for name in flags if asked[name])
    again += tuple(word for names in pretend for word in ("--pretend", names))
    again += ("--pretend-modules", str(modules)) if modules else ()
    warnings = (*request.warnings, *changed_before(kept, request.plan, step))
    return dataclasses.replace(request, resume=Resume(kept, step), again=again, warnings=warnings)


def machine_options(how: dict[str, Any]) -> dict[str, Any]:
    """The machine of a run for ``machine_request``; what is in the guest already is not asked for again."""
    return {
        "image": how["image"],
        "memory": how["memory"],
        "cpus": how["cpus"],
        "network": how["network"],
        "instance": how["instance"],
        "certificates": (),
        "certificate_password_file": None,
        "local_resources": (),
        "computer_name": None,
        "admin_password_file": None,
        "connect": None,
        "service_definition": None,
        "service_configuration": None,
    }
