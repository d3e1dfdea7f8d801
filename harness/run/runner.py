# SPDX-License-Identifier: Apache-2.0
"""One run from start to end: machine, specialization, steps, logs, verdict, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, HostError, TimeLimitError, VmRoleError
from harness.files import refusal, replace_file
from harness.guest.protocol import Guest
from harness.image.recipe import Image
from harness.machine.checkpoints import LIFE_HOURS, Recording
from harness.machine.protocol import Capability, Console, Hypervisor, Machine, MachineState
from harness.masking import Masker
from harness.package import Findings
from harness.plan import Step
from harness.run import deploy as deployment
from harness.run.collect import collect_offline
from harness.run.deploy import Deployed, deploy
from harness.run.events import CheckpointTaken, EventBus, RunFinished, RunPlanned, RunRepeatable, RunStarted
from harness.run.execute import execute
from harness.run.host import find_image, hypervisor
from harness.run.interrupt import again_interruptible
from harness.run.limits import limited
from harness.run.recorder import Recorder
from harness.run.replay import GoingBack, facts_of, resumed
from harness.run.request import KEEP_HOURS, Resume, RunRequest
from harness.run.result import CertificateResult, Conclusion, Outcome, RunResult, StepResult, Verdict, conclude
from harness.run.system import system_of
from harness.run.watch import watched

_COLLECT_SECONDS = 90.0
_HURRIED_SECONDS = 8.0
"""The same when the user or the time-out ended the run: whoever waits has waited enough."""
_ANSWER_SECONDS = 15.0
"""How long a guest that got lost may take to say that it is there before its disk is looked at instead."""

_FINDINGS_TOLD = 10

_WRONG = (Outcome.failed, Outcome.timed_out, Outcome.unknown, Outcome.interrupted, Outcome.warned)
"""Outcomes of steps that somebody wants to look into."""

_RETURN_SECONDS = 60.0
"""How long a guest that went away in a step may take to come back, so that its logs can be had."""


@dataclass(slots=True)
class Role:
    """A run whose machine may still be there. The one mutable object of a run."""

    request: RunRequest
    bus: EventBus
    recorder: Recorder
    masker: Masker
    image: Image | None = None
    deployed: Deployed | None = None
    machine: Machine | None = None
    recording: Recording | None = None
    error: BaseException | None = None
    kept: bool = False
    boot: str = ""
    """The boot in which the guest was before the step that runs."""
    keep_anyway: bool = False
    """Set by whoever found a fault that the run itself did not see; --keep failed then keeps the machine."""
    errors_told: list[str] = field(default_factory=list)
    """Errors of the package that do not matter on this guest; each counts as a warning of the run."""
    replay: tuple[str, ...] = ()
    """The command that goes on before the step that went wrong."""

    @property
    def conclusion(self) -> Conclusion:
        """Verdict, blame, sentence and exit code as far as they are known."""
        signum = getattr(self.error, "signum", None)
        return conclude(
            self.recorder.instances,
            error=self.error or self.bus.lost,
            warnings=self.warnings,
            strict=self.request.strict,
            allow_unexecuted=self.request.allow_unexecuted,
            signum=signum,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those that are not of a step."""
        return (*self.recorder.warnings, *self.errors_told)

    @property
    def result(self) -> RunResult:
        return self.recorder.result(self.conclusion)

    @property
    def steps(self) -> tuple[StepResult, ...]:
        return tuple(step for instance in self.recorder.instances for step in instance.steps)

    def how_again(self) -> tuple[str, str]:
        """The command that does the same again with the very build of the image, "" where it is not known, and the one
        that goes on before the step that went wrong, "" where none does."""
        words = list(self.request.again)
        image = self.result.image
        if image and "--image" in words:
            words[words.index("--image") + 1] = f"{image.name}@{image.key}"
        return shlex.join(words), shlex.join(self.replay)


@contextlib.contextmanager
def perform(request: RunRequest, bus: EventBus, recorder: Recorder, masker: Masker) -> Iterator[Role]:
    """Do the whole run, yield while its machine is still there, then take everything down and conclude.

    Nothing escapes: what went wrong is the role's ``error`` and in its result. The run directory is there already;
    ``recorder`` and every report are subscribed to ``bus``.
    """
    role = Role(request, bus, recorder, masker)
    began = time.monotonic()
    bus.emit(
        RunStarted(
            run=request.name,
            title=f"{request.package.name} on {request.machine.image}",
            extension=request.package.name,
            version=request.package.extension.version or "",
            case=request.case,
        )
    )
    steps = tuple((step.id, step.name) for step in request.plan.steps)
    bus.emit(RunPlanned(phases=("image", *deployment.PHASES, "steps", "collect", "remove"), steps=steps))
    for warning in request.warnings:
        bus.notice("warning", warning)
    for note in request.notes:
        bus.notice("note", note)
    deadline = Deadline(request.timeout)
    try:
        with contextlib.ExitStack() as stack:
            try:
                with limited(deadline, "the whole run", lambda: _where(role)):
                    _tell_findings(role)
                    _bring_up_and_execute(role, stack, deadline)
            except (Exception, KeyboardInterrupt) as error:
                role.error = error
            with again_interruptible():
                _collect(role, hurried=deadline.expired or isinstance(role.error, KeyboardInterrupt))
            yield role
            with _required(role):
                _save_console(role)
            _keep(role)
            _keep_checkpoints(role)
            with bus.phase("remove") if not role.kept else contextlib.nullcontext():
                stack.close()
    except (Exception, KeyboardInterrupt) as error:
        role.error = role.error or error
    if role.error and not isinstance(role.error, VmRoleError | KeyboardInterrupt) and os.environ.get("VMROLE_DEBUG"):
        traceback.print_exception(role.error)
    if isinstance(role.error, VmRoleError) and role.error.hint:
        bus.notice("note", f"what to do: {role.error.hint}")
    bus.notice("note", f"everything about this run is in {request.output}")
    if request.again and role.conclusion.verdict is not Verdict.succeeded:
        command, replay = role.how_again()
        bus.emit(RunRepeatable(command=command, replay=replay))
    seconds = round(time.monotonic() - began, 3)

    def finished() -> RunFinished:
        conclusion = role.conclusion
        return RunFinished(result=recorder.result(conclusion), exit_code=conclusion.exit_code, seconds=seconds)

    bus.finish(finished)


def _tell_findings(role: Role) -> None:
    """findings.json, and the first of those that matter as warnings of the run: a typo must not hide in a file."""
    request, bus, masker = role.request, role.bus, role.masker
    findings = Findings([*request.findings, *request.package.findings, *request.plan.findings])
    text = masker.text(json.dumps(findings.as_json(), indent=2, ensure_ascii=False))
    replace_file(request.output / "findings.json", text + "\n", mode=None)
    telling = [finding for finding in findings.sorted() if finding.severity != "info"]
    for finding in telling[:_FINDINGS_TOLD]:
        place = ":".join(str(part) for part in (finding.file, finding.line, finding.column) if part)
        is_error = finding.severity == "error"
        text = f"{place}: {finding.sentence} [{finding.code}]"
        if is_error:
            role.errors_told.append(text)
        bus.notice("error" if is_error else "warning", text, finding.hint or None)
    if len(telling) > _FINDINGS_TOLD:
        more = len(telling) - _FINDINGS_TOLD
        bus.notice("warning", f"{more} more findings about the package are in findings.json")


def _where(role: Role) -> str:
    """Where the run was when its time was over, to end a sentence with."""
    running = [step for step in role.steps if step.outcome in (Outcome.interrupted, Outcome.unknown)]
    if running:
        return f" while step {running[-1].id} ran"
    phases = [phase for instance in role.recorder.instances for phase in instance.phases]
    return f" in the phase {phases[-1].name}" if phases else ""


def _bring_up_and_execute(role: Role, stack: contextlib.ExitStack, deadline: Deadline) -> None:
    request, bus = role.request, role.bus
    role.image = image = find_image(request.machine, bus, deadline=deadline)
    driver, scratch = stack.enter_context(hypervisor(request.machine, bus))

    def on_machine(machine: Machine) -> None:
        role.machine = machine

    def again(step: Step, guest: Guest) -> Guest | None:
        """Its machine takes the place of the one that is there."""
        assert role.machine is not None
        if role.recording is None or deadline.expired or not _lives_on(role.machine, guest, role.boot, deadline):
            return None
        if step.id not in {taken.step for taken in role.recording.steps}:
            return None
        bus.notice("note", f"the answer of step {step.id} was lost: it is run again from the checkpoint before it")
        watching.close()
        facts = facts_of(_left(role))
        wanted = Resume(role.recording.now(request.name, facts), step.id)
        place.close()
        back = GoingBack(driver, image, request.machine, wanted, bus, deadline, on_machine)
        role.deployed = machine = place.enter_context(back.machine())
        watching.enter_context(watched(machine.machine, machine.guest))
        # The other recording stays: the new machine's disk is based on its layers.
        role.recording = stack.enter_context(driver.recording(machine.machine.name))
        _checkpoint(role, step)
        return machine.guest

    place = stack.enter_context(contextlib.ExitStack())
    role.deployed = deployed = place.enter_context(_machine(role, driver, image, scratch, deadline, on_machine))
    able = Capability.checkpoint in deployed.machine.capabilities and deployed.system.resumption is not None
    if request.checkpoints and able:
        role.recording = stack.enter_context(driver.recording(deployed.machine.name))
    with bus.phase("steps", limit=deadline.timeout()), contextlib.ExitStack() as watching:
        watching.enter_context(watched(deployed.machine, deployed.guest))
        executor = deployed.system.executor(image.recipe)
        instance = next(iter(role.recorder.instances), None)
        plan = request.plan.with_environment(certificate_variables(instance.certificates if instance else ()))
        executor.prepare(plan, deployed.guest, bus, deadline=deadline, pretence=request.pretence)
        execute(
            plan,
            executor,
            deployed.guest,
            bus,
            deadline=deadline,
            masker=role.masker,
            before=lambda step: _checkpoint(role, step),
            again=again,
            start=request.resume.step if request.resume else None,
            slowness=1.0 if request.exact_timeouts else driver.slowness(image),
        )


def certificate_variables(certificates: Iterable[CertificateResult]) -> list[tuple[str, str]]:
    """What a step's environment says of the machine's own certificates: our addition, the platform has none."""
    own = list(dict.fromkeys(certificate.thumbprint for certificate in certificates if certificate.store == "My"))
    return [("VMROLE_CERTIFICATE", own[0]), ("VMROLE_CERTIFICATES", " ".join(own))] if own else []


def _machine(
    role: Role,
    driver: Hypervisor,
    image: Image,
    scratch: Path,
    deadline: Deadline,
    on_machine: Callable[[Machine], None],
) -> contextlib.AbstractContextManager[Deployed]:
    """The specialised machine of the run: a fresh one, or one that goes on from a checkpoint."""
    request, bus, payload = role.request, role.bus, role.request.package.payload
    if request.resume:
        back = GoingBack(driver, image, request.machine, request.resume, bus, deadline, on_machine, role.masker.add)
        return resumed(back, payload, scratch)
    return deploy(
        driver,
        image,
        request.machine,
        bus,
        deadline=deadline,
        payload=payload.extract if payload else None,
        scratch=scratch,
        on_machine=on_machine,
        on_secrets=role.masker.add,
    )


def _lives_on(machine: Machine, guest: Guest, boot: str, deadline: Deadline) -> bool:
    """Whether the guest answers, still in the boot that is known of it."""
    if machine.state() is not MachineState.running or machine.why_paused():
        return False
    limit = deadline.within(_RETURN_SECONDS)
    with contextlib.suppress(VmRoleError):
        if not guest.connected:
            guest.reconnect(deadline=limit)
        return guest.boot_id(deadline=limit) == boot
    return False


def _left(role: Role) -> Deployed:
    """The machine that is about to be left, with what only it has saved."""
    deployed = role.deployed
    assert deployed is not None
    console = role.request.output / "console.log"
    _save_console(role)
    console.replace(console.with_name("console-before.log"))
    role.deployed = role.machine = None
    return deployed


def _checkpoint(role: Role, step: Step) -> None:
    """Save the machine before ``step``. A run does not fail for want of checkpoints; that is told once."""
    if role.recording is None or role.machine is None or role.deployed is None:
        return
    role.boot = role.deployed.guest.last_boot
    began = time.monotonic()
    try:
        paused = role.recording.take(role.machine, step.id)
    except (HostError, OSError) as error:
        role.recording = None
        why = refusal(error) if isinstance(error, OSError) else error
        role.bus.notice("note", f"no checkpoints from step {step.id} on: {why.message}")
        return
    if paused is None:
        role.bus.notice("note", f"no checkpoint before step {step.id}: the machine has changed too much memory")
        return
    seconds = time.monotonic() - began
    role.bus.emit(CheckpointTaken(step=step.id, bytes=role.recording.size, seconds=seconds, paused=paused))


def _keep_checkpoints(role: Role) -> None:
    """Keep the checkpoints of a run in which something went wrong, and say how to go on from them."""
    request, recording = role.request, role.recording
    wrong = [step for step in role.steps if step.outcome in _WRONG]
    if recording is None or role.deployed is None or isinstance(role.error, KeyboardInterrupt):
        return
    if not wrong and role.error is None and not role.keep_anyway:
        return
    seen = next(iter(role.recorder.instances), None)
    try:
        kept = recording.keep(request.name, facts_of(role.deployed, seen, request))
    except (HostError, OSError) as error:
        why = refusal(error) if isinstance(error, OSError) else error
        role.bus.notice("note", f"no checkpoints are kept: {why.message}")
        return
    if kept is None:
        return
    known = [taken.step for taken in kept.steps]
    start = next((step.id for step in wrong if step.id in known), kept.steps[-1].step)
    role.replay = ("vmrole", "replay", str(request.output), "--from", start)
    role.bus.notice(
        "note",
        f"checkpoints are kept for {LIFE_HOURS:.0f} h, {kept.size >> 20} MiB, before {', '.join(known)}: "
        f"'vmrole replay {request.output} --from {start}' goes on from there",
    )


def _collect(role: Role, *, hurried: bool) -> None:
    """Save the console and the guest's logs, whatever state it is in, ``hurried`` for a few seconds only. What the
    guest does not give is worth a note, no more; what this host does not take is an error."""
    machine = role.machine
    if machine is None:
        return
    folder = role.request.output / "guest"
    limit = Deadline(_HURRIED_SECONDS if hurried else _COLLECT_SECONDS)
    try:
        with role.bus.phase("collect", limit=limit.timeout()), _required(role):
            if _reachable(role, limit):
                assert role.deployed is not None
                system, guest = role.deployed.system, role.deployed.guest
                missing = system.collect(guest, role.request.plan, folder, mask=role.masker.excerpt, deadline=limit)
                for sentence in missing:
                    role.bus.notice("note", sentence)
            elif isinstance(role.error, GuestError | TimeLimitError) and role.request.keep == "never":
                assert role.image is not None
                paths = system_of(role.image.recipe).offline
                collect_offline(machine, paths, folder, mask=role.masker.excerpt, deadline=limit)
                role.bus.notice("note", "the guest does not answer: only its console and its disk could be looked at")
            else:
                role.bus.notice("note", "the guest does not answer: only its console could be looked at")
            _save_console(role)
    except KeyboardInterrupt as error:
        role.error = role.error or error
    except Exception as error:
        role.bus.notice("note", f"logs could not be collected: {error}")


@contextlib.contextmanager
def _required(role: Role) -> Iterator[None]:
    """What is written here belongs to the result: a run without it has not succeeded."""
    try:
        yield
    except HostError as error:
        role.error = role.error or error


def _save_console(role: Role) -> None:
    """console.log: at the end of the steps, and anew when a scenario went on with the machine. What is not masked yet
    is never in a file."""
    if role.machine is None:
        return
    replace_file(role.request.output / "console.log", console_log(role.machine.console, role.masker), mode=None)


def console_log(console: Console, masker: Masker) -> bytes:
    """What was kept of a console, masked, with a line where something was dropped."""
    head, dropped, tail = console.content()
    if not dropped:
        return masker.bytes(head)
    left_out = f"\n[... {dropped} bytes of console output were not kept ...]\n".encode()
    return masker.beginning(head) + left_out + masker.excerpt(tail)


def _reachable(role: Role, limit: Deadline) -> bool:
    """Whether the guest answers, perhaps again: one that rebooted in a step comes back.

    That a connection stands says nothing of who is at its other end: the extension may have killed the agent.
    """
    if role.deployed is None:
        return False
    guest, machine = role.deployed.guest, role.deployed.machine
    if guest.connected:
        if role.error is None:
            return True
        try:
            # Half of what there is: the rest is for the logs, or for the disk.
            guest.boot_id(deadline=limit.within(min(_ANSWER_SECONDS, limit.remaining / 2)))
        except VmRoleError:
            return False
        return True
    if isinstance(role.error, GuestLostError) and machine.state() is MachineState.running:
        with contextlib.suppress(VmRoleError):
            guest.reconnect(deadline=limit.within(_RETURN_SECONDS))
    return guest.connected


def _keep(role: Role) -> None:
    """Keep the machine when that was asked for and there is something to log in to."""
    keep = role.request.keep
    conclusion = role.conclusion
    failed = conclusion.exit_code == 1 or conclusion.verdict not in (Verdict.succeeded, Verdict.warnings)
    failed = failed or role.keep_anyway
    if role.deployed is None or keep == "never" or (keep == "failed" and not failed):
        return
    if role.deployed.machine.state() is not MachineState.running:
        role.bus.notice("note", "the machine is not kept: it does not run any more")
        return
    if isinstance(role.error, KeyboardInterrupt):
        return
    role.deployed.machine.keep(KEEP_HOURS, run=role.request.name, access=role.deployed.access())
    role.kept = True
    role.bus.notice(
        "note",
        f"the machine is kept for {KEEP_HOURS:.0f} h: 'vmrole shell {role.request.output}' enters it, "
        "'vmrole sweep --kept' removes it",
    )
