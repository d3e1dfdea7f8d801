# SPDX-License-Identifier: Apache-2.0
"""`vmrole shell`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import machine_options, machine_request, tell_machine
from harness.errors import GuestError, GuestLostError, HostError, UsageError

if TYPE_CHECKING:
    from harness.run.deploy import Deployed
    from harness.run.system import Terminal


@click.command()
@click.argument("run", required=False)
@machine_options
@click.option("--at", metavar="STEP", help="In the machine of RUN as it was just before STEP.")
@click.option("--cold", is_flag=True, help="Boot from power-on instead of forking.")
def command(run: str | None, at: str | None, cold: bool, **options: Any) -> None:
    """An interactive session as administrator in the machine that RUN kept; the last kept one without RUN.

    With --image, in a fresh throwaway machine, and with --at in one that goes on from a checkpoint; both are gone when
    the session ends. RUN is a run directory or its name.
    """
    from harness.run.interrupt import interruptible

    ctx = click.get_current_context()
    fresh = ctx.get_parameter_source("image") is not click.core.ParameterSource.DEFAULT
    if fresh and run:
        raise UsageError("both a run and --image are given", hint="leave one of them out")
    if at and (fresh or not run):
        raise UsageError("--at needs a run, whose machine it is", hint="vmrole shell RUN --at STEP")
    with interruptible():
        if run and at:
            sys.exit(_at(run, at))
        sys.exit(_fresh(**options, cold=cold) if fresh else _kept(run))


def _kept(run: str | None) -> int:
    from harness.machine.sweep import kept_machines

    machines = [record for _folder, record in kept_machines()]
    if run is not None:
        name = name_of(Path(run))
        machines = [record for record in machines if name in (record.run, record.name)]
    if not machines:
        raise _nothing_kept(run)
    record = machines[0]
    if not record.access:
        raise GuestError(f"the machine {record.name} was kept without a way in")
    with contextlib.closing(_reached(record.access)) as guest:
        return guest.interactive()


def _reached(access: dict[str, str | int]) -> Terminal:
    """The guest that ``access`` leads to: by SSH, or by WinRM where it has a password."""
    from harness.deadline import Deadline

    host, port = str(access["host"]), int(access["port"])
    if "password" in access:
        from harness.guest.winrm import WinRmGuest

        certificate, password = str(access["certificate"]).encode(), str(access["password"])
        return WinRmGuest.connect(host, port, password=password, certificate=certificate, deadline=Deadline(30))
    from harness.guest.ssh import SshGuest

    return SshGuest.connect(
        host,
        port,
        client_key=str(access["client_key"]).encode(),
        host_key=str(access["host_key"]),
        deadline=Deadline(30),
    )


def _nothing_kept(run: str | None) -> UsageError:
    """Says what there is in its place: the checkpoints of the run, else other machines."""
    hint = "'vmrole run --keep always' keeps one, 'vmrole shell --image NAME' starts a fresh one"
    if run is None:
        return UsageError("no machine is kept", hint=hint)
    from harness.machine.checkpoints import find

    with contextlib.suppress(UsageError, HostError):
        steps = ", ".join(taken.step for taken in find(name_of(Path(run))).steps)
        hint = f"'vmrole shell {run} --at STEP' goes on from before {steps}"
    return UsageError(f"no machine of the run {run} is kept", hint=hint)


def name_of(run: Path) -> str:
    """The run's name from its directory; else it is taken for the name itself."""
    try:
        return str(json.loads((run / "result.json").read_text())["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return run.name


def _fresh(*, cold: bool, **options: Any) -> int:
    from harness.cli.reporting import reporting
    from harness.deadline import Deadline
    from harness.masking import Masker
    from harness.run.deploy import deploy
    from harness.run.host import find_image, hypervisor

    request = dataclasses.replace(machine_request(**options), cold=cold)
    tell_machine(request)
    masker = Masker(request.secrets)
    with contextlib.ExitStack() as stack:
        with reporting(masker, folder=None) as (bus, _recorder):
            deadline = Deadline(None)
            image = find_image(request, bus, deadline=deadline)
            driver, scratch = stack.enter_context(hypervisor(request, bus))
            machine = stack.enter_context(deploy(driver, image, request, bus, deadline=deadline, scratch=scratch))
        return _session(machine)


def _at(run: str, step: str) -> int:
    from harness.cli.replay import kept_of, machine_options
    from harness.cli.reporting import reporting
    from harness.deadline import Deadline
    from harness.masking import Masker
    from harness.run.host import find_image, hypervisor
    from harness.run.replay import GoingBack
    from harness.run.request import Resume

    kept = kept_of(run)
    kept.before(step)
    request = machine_request(**machine_options(dict(kept.facts["how"])))
    masker, deadline = Masker(()), Deadline(None)
    with contextlib.ExitStack() as stack:
        with reporting(masker, folder=None) as (bus, _recorder):
            image = find_image(request, bus, deadline=deadline)
            driver, _scratch = stack.enter_context(hypervisor(request, bus))
            back = GoingBack(driver, image, request, Resume(kept, step), bus, deadline, on_secrets=masker.add)
            machine = stack.enter_context(back.told())
        return _session(machine)


def _session(deployed: Deployed) -> int:
    """The user's session in a machine of this process, which is watched: a guest without one says nothing."""
    from harness.deadline import Deadline
    from harness.run.watch import watched

    with contextlib.closing(deployed.terminal(deadline=Deadline(60))) as guest, watched(deployed.machine, guest):
        code = guest.interactive()
        if not guest.connected:
            raise GuestLostError("the session ended: the connection to the guest is gone")
        return code
