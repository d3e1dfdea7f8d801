# SPDX-License-Identifier: Apache-2.0
"""`vmrole exec`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import machine_options, machine_request, tell_machine
from harness.errors import VmRoleError

if TYPE_CHECKING:
    from harness.guest.protocol import GuestResult
    from harness.machine.protocol import Machine
    from harness.masking import Masker
    from harness.run.recorder import Recorder
    from harness.run.request import MachineRequest

OUR_FAILURE = 125
"""Exit code when not the command failed but we did, as in other tools that run a command elsewhere."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The command in one machine: the facts of the run and the instance in the shapes of result.json, its streams."""

    facts: dict[str, Any]
    instance: dict[str, Any]
    stdout: bytes
    stderr: bytes


@click.command(context_settings={"ignore_unknown_options": False})
@machine_options
@click.option(
    "--count",
    type=click.IntRange(min=1, max=100),
    default=1,
    show_default=True,
    help="In so many machines, as many at once as this host has means for.",
)
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of the whole command.")
@click.option("--cold", is_flag=True, help="Boot from power-on instead of forking.")
@click.option("--cold-engines", is_flag=True,
              help="A PowerShell starts an engine of its own on a stand-in; none that stands by takes it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    argv: tuple[str, ...],
    count: int,
    timeout: float | None,
    cold: bool,
    cold_engines: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run ARGV, without a shell, in a throwaway machine that is specialised exactly as in run.

    Its exit code is the command's own (over 255 becomes 1); with --count the highest; 125 when we failed.
    """
    from harness.cli.main import say, tell
    from harness.image import catalog
    from harness.run.interrupt import interruptible
    from harness.run.windows.execute import UNAVAILABLE

    with interruptible():
        request = dataclasses.replace(machine_request(**options), cold=cold, cold_engines=cold_engines)
        if cold_engines:
            from harness.cli import run

            run.cold_engines(catalog.load(request.image).recipe, asked=True)
        tell_machine(request)
        try:
            outcomes = _in_machines(request, argv, count, timeout, show=not as_json)
        except VmRoleError as error:
            sys.exit(tell(error, code=OUR_FAILURE))
    codes = [outcome.instance["exit_code"] for outcome in outcomes]
    code = max(code if code <= 255 else 1 for code in codes)
    if as_json:
        instances = [{"id": str(number)} | outcome.instance for number, outcome in enumerate(outcomes)]
        told = {"schema": 1, **outcomes[0].facts, "command": list(argv), "exit_code": code, "instances": instances}
        click.echo(json.dumps(told, indent=2))
    if outcomes[0].facts["image"]["stand_in"] and UNAVAILABLE in codes:
        has_engine = bool(catalog.load(request.image).recipe.powershell)
        say("the stand-in for Windows does not have what the command needs", _instead(argv, has_engine=has_engine))
    sys.exit(code)


def _instead(argv: tuple[str, ...], *, has_engine: bool) -> str:
    """What to do about a command that needs what is not there in the stand-in for Windows."""
    if re.search(r"(?i)\b(?:powershell|pwsh)\b", " ".join(argv)):
        if has_engine:
            return "docs/powershell.md says which cmdlets it lacks, and how a run goes on past them"
        return "'vmrole images build windows-stand-in --powershell ZIP' makes an image with a PowerShell of yours"
    return "docs/windows-guest.md says what it has; 'vmrole images add' takes a Windows of yours, which has all"


def _in_machines(
    request: MachineRequest, argv: tuple[str, ...], count: int, timeout: float | None, *, show: bool
) -> list[Outcome]:
    """The command in ``count`` machines, in their order; with ``show`` its streams are copied to ours as they are.

    The first error of ours ends the others too, and is raised.
    """
    from harness.cli.reporting import reporting
    from harness.deadline import Deadline
    from harness.machine.slots import how_many
    from harness.masking import Masker
    from harness.run.deploy import deploy
    from harness.run.events import EventBus
    from harness.run.host import find_image, hypervisor
    from harness.run.limits import limited
    from harness.run.recorder import Recorder
    from harness.run.watch import watched
    from harness.run.windows.engines import was_taken

    deadline, masker, turns = Deadline(timeout), Masker(request.secrets), threading.Lock()
    machines: list[Machine] = []
    over, running_it = threading.Event(), threading.Event()

    def on_machine(machine: Machine) -> None:
        machines.append(machine)
        if over.is_set():
            machine.crash()

    def where() -> str:
        return " while it ran" if running_it.is_set() else " before it ran"

    with limited(deadline, "the whole command", where), contextlib.ExitStack() as stack:
        bus, recorder = stack.enter_context(reporting(masker, folder=None, quiet=not sys.stderr.isatty()))
        image = find_image(request, bus, deadline=deadline)
        driver, scratch = stack.enter_context(hypervisor(request, bus))

        def one(number: int) -> Outcome:
            own_bus, own = bus, recorder
            if count > 1:
                own_bus, own = EventBus(), Recorder()
                own_bus.subscribe(own)
            deployed = deploy(
                driver,
                image,
                request,
                own_bus,
                deadline=deadline,
                scratch=scratch,
                on_machine=on_machine,
                on_secrets=masker.add,
                reading_back=not show,  # takes a guest a second, and nobody sees it otherwise
            )
            with deployed as machine, watched(machine.machine, machine.guest):
                running_it.set()
                done = machine.guest.run(argv, deadline=deadline)
                warm = not show and bool(image.recipe.powershell) and was_taken(machine.guest, deadline=deadline)
            outcome = _outcome(own, done, masker)
            if warm:
                outcome.instance["engine"]["warm"] = True
            if count > 1:
                bus.notice("note", f"machine {number + 1} of {count}: exit code {outcome.instance['exit_code']}")
            if show:
                with turns:
                    for source, target in ((outcome.stdout, sys.stdout), (outcome.stderr, sys.stderr)):
                        target.buffer.write(source)
                        target.buffer.flush()
            return outcome

        if count == 1:
            return [one(0)]
        with ThreadPoolExecutor(min(count, how_many(request.memory_mb or image.recipe.memory_mb))) as pool:
            running = [pool.submit(one, number) for number in range(count)]
            try:
                return [task.result() for task in running]
            except BaseException:
                for task in running:
                    task.cancel()
                over.set()
                for machine in machines:  # ends what the other threads wait for
                    machine.crash()
                raise


def _outcome(recorder: Recorder, done: GuestResult, masker: Masker) -> Outcome:
    from harness.report.text import masked
    from harness.run.result import text_of

    result = recorder.result().to_json()
    facts = {name: result[name] for name in ("image", "accelerator", "forked", "fork_reason")}
    instance = masked(result["instances"][0], masker)
    del instance["steps"], instance["id"]
    instance |= {
        "exit_code": done.exit_code if done.exit_code is not None else 1,
        "stdout": text_of(masker.bytes(done.stdout)),
        "stderr": text_of(masker.bytes(done.stderr)),
        "seconds": round(done.seconds, 3),
    }
    return Outcome(facts, instance, done.stdout, done.stderr)
