# SPDX-License-Identifier: Apache-2.0
"""Starting what a scenario needs: a role in a machine, a machine alone, a plan alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from harness.errors import HostError, UsageError, VmRoleError
from harness.files import replace_file
from harness.image.recipe import Image
from harness.machine.protocol import Accelerator
from harness.masking import Masker
from harness.plan import Plan
from harness.run.deploy import Deployed
from harness.run.events import PhaseFinished, PhaseStarted, ScenarioEnded
from harness.run.request import MachineRequest
from harness.run.result import Outcome, RunResult, Verdict, utc_now
from harness.run.runner import Role, perform
from harness.scenario.guest import ScenarioGuest
from harness.scenario.role import ScenarioRole

Network = Literal["none", "nat"]
PHASE = "scenario"


@dataclass(slots=True)
class Scene:
    """One test: where it is, what its session asked for, and what was started for it.

    ``lacking`` ends the test because something is not there; ``output`` makes a run directory; ``needs`` are the
    accelerators and capabilities that it was marked with.
    """

    folder: Path
    case: str
    image: str
    connect: str | None
    keep: str
    network: Network
    needs: tuple[str, ...]
    output: Callable[[], Path]
    lacking: Callable[[str], NoReturn]
    stack: contextlib.ExitStack
    started: Callable[[ScenarioRole], None] = lambda _role: None
    roles: list[Role] = field(default_factory=list)
    masker: Masker = field(default_factory=Masker)
    """With the secrets of all of them: a role is told those of another, by the test or over a network."""

    def ended(self, failure: str | None) -> None:
        """The test is over; ``failure`` is why it failed. To be called before the stack is closed."""
        for role in self.roles:
            role.keep_anyway = failure is not None
            role.bus.emit(ScenarioEnded(ok=failure is None, told=failure or ""))

    def mask_again(self) -> None:
        """Take out of the run directories what only a later role of the test made a secret. To be called when all runs
        are over."""
        for role in self.roles[:-1]:
            for path in role.request.output.rglob("*"):
                data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                if (safe := self.masker.bytes(data)) != data:
                    replace_file(path, safe, mode=None)


class PlanOf:
    """What the fixture ``plan`` is."""

    def __init__(self, folder: Path, image: str) -> None:
        self._folder, self._image = folder, image

    def __repr__(self) -> str:
        return f"<plan for {self._image}>"

    def __call__(
        self,
        path: str | Path,
        *,
        parameters: Mapping[str, object] | None = None,
        parameters_file: Path | None = None,
        extension: Path | None = None,
        events: Sequence[str] = ("deploy",),
        instance: int = 1,
        os: Literal["linux", "windows"] | None = None,
    ) -> Plan:
        """The steps that ``path`` would run, in their order, without a machine: a ``Plan`` with ``steps``,
        ``applicable`` and ``step(id)``, which is None where no step is called so.

        The arguments are those of ``vm_role``; ``os`` is the image's unless it is given. A parameter without a value
        is no error here.
        """
        __tracebackhide__ = True
        from harness.cli.subject import plan_events, read_subject
        from harness.image import catalog

        subject = read_subject(
            self._folder / path,
            extension=self._folder / extension if extension else None,
            given=_values(self._folder, parameters, parameters_file),
        )
        return plan_events(
            subject,
            os=os or catalog.load(self._image).recipe.os,
            instance=instance,
            events=events,  # type: ignore[arg-type]
            pattern_defaults="recorded",
            strict=False,
        )


class VmRole:
    """What the fixture ``vm_role`` is."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __repr__(self) -> str:
        return f"<vm_role on {self._scene.image}>"

    def __call__(
        self,
        path: str | Path,
        *,
        parameters: Mapping[str, object] | None = None,
        parameters_file: Path | None = None,
        extension: Path | None = None,
        external_payload: Sequence[str | Path] = (),
        events: Sequence[str] = ("deploy",),
        certificates: Sequence[str | Path] = (),
        certificate_password_file: Path | None = None,
        local_resources: Sequence[str] = (),
        service_definition: Path | None = None,
        service_configuration: Path | None = None,
        service_role: str | None = None,
        computer_name: str | None = None,
        admin_password_file: Path | None = None,
        answer_file: Path | None = None,
        memory: int | None = None,
        cpus: int | None = None,
        network: Network | None = None,
        instance: int = 1,
        strict: bool = False,
        allow_unexecuted: bool = False,
        cold: bool = False,
        timeout: float | None = None,
        exact_timeouts: bool = False,
        pretend: Sequence[str] = (),
        pretend_modules: Path | None = None,
        cold_engines: bool = False,
    ) -> ScenarioRole:
        """Deploy ``path``, an extension or with ``extension`` a definition, into a machine of its own, and return a
        ``ScenarioRole``. The machine is there until the test ends.

        Paths are relative to the test's file. The arguments are the options of ``vmrole run``: ``parameters`` are
        values by name, as they are; ``certificates`` are FILE[:STORE], ``local_resources`` NAME[=MB][:keep],
        ``network`` is "none" or "nat", ``timeout`` the limit of the whole run in seconds.
        With ``exact_timeouts`` steps get the time-outs that their author wrote in an emulated guest, too.
        ``pretend`` names commands that a stand-in with PowerShell pretends to have, ``pretend_modules`` a folder with
        modules of your own for that; ``role.pretended(STEP)`` tells what was called. With ``cold_engines`` each step of
        PowerShell starts an engine of its own there.

        An extension that fails raises nothing: ask ``role.verdict``. Steps that cannot be executed on the image skip
        the test with their names, unless ``allow_unexecuted``. A host that lacks something skips it too, with what is
        lacking; with ``--strict-environment`` both are failures. A guest that fails is an error with its sentence.
        """
        __tracebackhide__ = True
        from harness.cli.reporting import reporting
        from harness.cli.run import prepare

        scene = self._scene
        given = (
            certificate_password_file, service_definition, service_configuration, admin_password_file, answer_file,
        )  # fmt: skip
        password, definition, configuration, admin, answers = (scene.folder / file if file else None for file in given)
        request = prepare(
            scene.folder / path,
            parameters=(),
            parameters_file=None,
            given=_values(scene.folder, parameters, parameters_file),
            extension=scene.folder / extension if extension else None,
            external_payload=tuple(_place(scene.folder, str(place)) for place in external_payload),
            events=tuple(events),
            image=scene.image,
            connect=scene.connect,
            keep=scene.keep,
            output=scene.output(),
            certificates=tuple(_certificate(scene.folder, str(item)) for item in certificates),
            certificate_password_file=password,
            local_resources=tuple(local_resources),
            service_definition=definition,
            service_configuration=configuration,
            service_role=service_role,
            computer_name=computer_name,
            admin_password_file=admin,
            answer_file=answers,
            memory=memory,
            cpus=cpus,
            network=network or scene.network,
            instance=instance,
            strict=strict,
            allow_unexecuted=allow_unexecuted,
            cold=cold,
            timeout=timeout,
            exact_timeouts=exact_timeouts,
            pretend=tuple(pretend),
            pretend_modules=scene.folder / pretend_modules if pretend_modules else None,
            cold_engines=cold_engines,
            case=scene.case,
        )
        _find_image(scene, request.machine)
        masker = scene.masker
        masker.add(request.secrets)
        bus, recorder = scene.stack.enter_context(reporting(masker, folder=request.output, quiet=True))
        role = scene.stack.enter_context(perform(request, bus, recorder, masker))
        scene.roles.append(role)
        scenario = ScenarioRole(role)
        scene.started(scenario)
        if isinstance(role.error, HostError):
            scene.lacking(f"this host cannot run it: {role.error}")
        if role.error and not (isinstance(role.error, VmRoleError) and role.error.blame == "extension"):
            raise role.error.with_traceback(None) from None
        if not allow_unexecuted:
            require_executed(role.result, scene.lacking)
        if role.deployed:
            _require(scene, role.deployed, role.result.accelerator)
        _scenario_phase(role, scene.stack)
        return scenario


@contextlib.contextmanager
def machine_alone(scene: Scene) -> Iterator[ScenarioGuest]:
    """A specialised machine that nothing was deployed into."""
    __tracebackhide__ = True
    from harness.cli.options import machine_request
    from harness.cli.reporting import reporting
    from harness.deadline import Deadline
    from harness.run.deploy import deploy
    from harness.run.host import hypervisor

    request = machine_request(
        image=scene.image,
        certificates=(),
        certificate_password_file=None,
        local_resources=(),
        computer_name=None,
        admin_password_file=None,
        memory=None,
        cpus=None,
        network=scene.network,
        connect=scene.connect,
    )
    masker = scene.masker
    masker.add(request.secrets)
    with contextlib.ExitStack() as stack:
        bus, recorder = stack.enter_context(reporting(masker, folder=None, quiet=True))
        deadline = Deadline(None)
        image = _find_image(scene, request)
        try:
            driver, scratch = stack.enter_context(hypervisor(request, bus))
            deployed: Deployed = stack.enter_context(
                deploy(
                    driver,
                    image,
                    request,
                    bus,
                    deadline=deadline,
                    scratch=scratch,
                    on_secrets=masker.add,
                    reading_back=False,
                )
            )
        except HostError as error:
            scene.lacking(f"this host cannot run it: {error}")
        _require(scene, deployed, recorder.result().accelerator)
        yield ScenarioGuest(deployed, bus, masker)


def _find_image(scene: Scene, request: MachineRequest) -> Image:
    """The image, built where it is missing. Some are made from media of their users, which not everybody has."""
    __tracebackhide__ = True
    from harness.deadline import Deadline
    from harness.run.events import EventBus
    from harness.run.host import find_image

    try:
        return find_image(request, EventBus(), deadline=Deadline(None))
    except (UsageError, HostError) as error:
        scene.lacking(f"the image {request.image} cannot be had: {error}")


def require_executed(result: RunResult, lacking: Callable[[str], object]) -> None:
    """Name the steps that could not be executed here."""
    __tracebackhide__ = True
    if result.verdict is Verdict.incomplete:
        steps = [step for instance in result.instances for step in instance.steps]
        left = [step for step in steps if step.outcome is Outcome.not_executable]
        told = "; ".join(f"{step.id} ({step.finding})" if step.finding else step.id for step in left)
        lacking(f"the run is incomplete: {told}")


def _require(scene: Scene, deployed: Deployed, accelerator: Accelerator | None) -> None:
    """End the test when the hypervisor lacks something that it was marked with."""
    __tracebackhide__ = True
    there = {str(able) for able in deployed.machine.capabilities}
    there |= {"fork"} if deployed.machine.origin.forked else set()
    there |= {accelerator.kind} if accelerator else set()
    missing = [need for need in scene.needs if need not in there]
    if missing:
        why = f": {accelerator.reason}" if accelerator and {"kvm", "tcg"} & set(missing) else ""
        scene.lacking(f"the hypervisor lacks {', '.join(missing)}{why}")


def _scenario_phase(role: Role, stack: contextlib.ExitStack) -> None:
    """From here to the end of the test the time is the scenario's own."""
    began = utc_now()
    role.bus.emit(PhaseStarted(name=PHASE, at=began))

    def over() -> None:
        seconds = (utc_now() - began).total_seconds()
        role.bus.emit(PhaseFinished(name=PHASE, seconds=seconds, ok=not role.keep_anyway))

    stack.callback(over)


def _values(folder: Path, parameters: Mapping[str, object] | None, file: Path | None) -> dict[str, Any]:
    from harness.package.parameters import read_values

    return {**read_values((), folder / file if file else None).values, **(parameters or {})}


def _place(folder: Path, text: str) -> str:
    return text if "://" in text else str(folder / text)


def _certificate(folder: Path, text: str) -> str:
    from harness.run.certificates import parse_certificate_option

    path, store = parse_certificate_option(text)
    return f"{folder / path}:{store}"
