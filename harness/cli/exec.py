# SPDX-License-Identifier: Apache-2.0
"""`vmrole exec`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from typing import Any

import click

from harness.cli.options import machine_options, machine_request, tell_machine

OUR_FAILURE = 125
"""Exit code when not the command failed but we did, as in other tools that run a command elsewhere."""


@click.command(context_settings={"ignore_unknown_options": False})
@machine_options
@click.option(
    "--count",
    type=click.IntRange(min=1, max=100),
    default=1,
    show_default=True,
    help="So many machines, one after the other.",
)
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of the whole command.")
@click.option("--cold", is_flag=True, help="Boot from power-on instead of forking.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    argv: tuple[str, ...], count: int, timeout: float | None, cold: bool, as_json: bool, **options: Any
) -> None:
    """Run ARGV, without a shell, in a throwaway machine that is specialised exactly as in run.

    Its exit code is the command's own (over 255 becomes 1); with --count the highest; 125 when we failed.
    """
    from harness.cli.main import tell
    from harness.errors import VmRoleError
    from harness.run.interrupt import interruptible

    outcomes = []
    with interruptible():
        request = dataclasses.replace(machine_request(**options), cold=cold)
        tell_machine(request)
        try:
            for _ in range(count):
                outcomes.append(_one(request, argv, timeout, stream=not as_json))
        except VmRoleError as error:
            sys.exit(tell(error, code=OUR_FAILURE))
    codes = [instance["exit_code"] for _facts, instance in outcomes]
    code = max(code if code <= 255 else 1 for code in codes)
    if as_json:
        instances = [{"id": str(number)} | instance for number, (_facts, instance) in enumerate(outcomes)]
        told = {"schema": 1, **outcomes[0][0], "command": list(argv), "exit_code": code, "instances": instances}
        click.echo(json.dumps(told, indent=2))
    sys.exit(code)


def _one(
    request: Any, argv: tuple[str, ...], timeout: float | None, *, stream: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The command in one machine: the facts of its run and the instance, in the shapes of result.json.

    With ``stream`` its streams are copied to ours as they are.
    """
    from harness.cli.reporting import reporting
    from harness.deadline import Deadline
    from harness.masking import Masker
    from harness.report.text import masked
    from harness.run.deploy import deploy
    from harness.run.host import find_image, hypervisor
    from harness.run.result import text_of

    deadline = Deadline(timeout)
    masker = Masker(request.secrets)
    quiet = not sys.stderr.isatty()
    with contextlib.ExitStack() as stack:
        bus, recorder = stack.enter_context(reporting(masker, folder=None, quiet=quiet))
        image = find_image(request, bus, deadline=deadline)
        driver, scratch = stack.enter_context(hypervisor(request, bus))
        # Reading back takes an emulated guest two seconds; without --json nobody sees it.
        deployment = deploy(
            driver,
            image,
            request,
            bus,
            deadline=deadline,
            scratch=scratch,
            on_secrets=masker.add,
            reading_back=not stream,
        )
        machine = stack.enter_context(deployment)
        done = machine.guest.run(argv, deadline=deadline)
    if stream:
        sys.stdout.buffer.write(done.stdout)
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(done.stderr)
        sys.stderr.buffer.flush()
    result = recorder.result().to_json()
    facts = {name: result[name] for name in ("image", "accelerator", "forked", "fork_reason")}
    instance = masked(result["instances"][0], masker)
    del instance["steps"], instance["id"]
    return facts, instance | {
        "exit_code": done.exit_code if done.exit_code is not None else 1,
        "stdout": text_of(masker.bytes(done.stdout)),
        "stderr": text_of(masker.bytes(done.stderr)),
        "seconds": round(done.seconds, 3),
    }
