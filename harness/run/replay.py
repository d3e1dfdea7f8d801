# SPDX-License-Identifier: Apache-2.0
"""Going on from a checkpoint: what has to be remembered of a run, and the machine as it was before a step."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.deadline import Deadline
from harness.errors import HostError, UsageError
from harness.image.recipe import Image
from harness.machine.checkpoints import Kept
from harness.machine.protocol import Hypervisor, Machine, MachineSpec, Network
from harness.package.payload import Payload
from harness.plan.step import Plan
from harness.run.deploy import Deployed, network_card
from harness.run.events import EventBus, MachineChosen, SpecializationRead
from harness.run.readback import Observation
from harness.run.request import MachineRequest, Resume, RunRequest
from harness.run.result import CertificateResult, ImageFacts, InstanceResult, LocalResourceResult
from harness.run.system import Changes, system_of

_TOLD = 5


def facts_of(
    deployed: Deployed, seen: InstanceResult | None = None, request: RunRequest | None = None
) -> dict[str, Any]:
    """What goes with the checkpoints of a run; secret, for the private state folder only.

    ``seen`` is what was read back; without ``request`` nothing but a shell can go on from them.
    """
    resumption = deployed.system.resumption
    assert resumption is not None
    return {
        "how": dict(request.how) if request else {},
        "commands": _commands(request) if request else {},
        "payload": _payload_digests(request) if request else {},
        "image": {"name": deployed.image.recipe.name, "key": deployed.image.key, "built": deployed.image.built},
        "identity": resumption.remember(deployed.identity),
        "seen": seen.to_json() if seen else None,
    }


def _commands(request: RunRequest) -> dict[str, str]:
    """The command of each step by its id, in their order: what is behind a checkpoint is what comes before its step.

    A replay has behind it what the run had that it went on from, whatever its own package says."""
    now = planned_commands(request.plan)
    if request.resume is None:
        return now
    step = request.resume.step
    behind = before(request.resume.kept.facts.get("commands", {}), step)
    return {**behind, **{name: command for name, command in now.items() if name not in before(now, step)}}


def planned_commands(plan: Plan) -> dict[str, str]:
    """The command of each step for this guest by its id, masked, in their order."""
    return {step.id: step.command for step in plan.applicable}


def before(commands: Mapping[str, str], step: str) -> dict[str, str]:
    """Those of ``commands`` that come before ``step``."""
    return dict(itertools.takewhile(lambda item: item[0] != step, commands.items()))


def changed_before(kept: Kept, plan: Plan, step: str) -> list[str]:
    """A warning when ``plan`` has other commands before ``step`` than those that are behind its checkpoint.

    Run-once commands are numbered: one that is added or removed moves those after it to other ids.
    """
    if "commands" not in kept.facts:
        return []
    ran, now = before(kept.facts["commands"], step), before(planned_commands(plan), step)
    differ = [name for name in (*now, *(name for name in ran if name not in now)) if ran.get(name) != now.get(name)]
    if not differ:
        return []
    names = ", ".join(differ[:_TOLD]) + (", ..." if len(differ) > _TOLD else "")
    return [
        f"before {step} the run {kept.run} had other commands than the package has now ({names}): "
        "the machine is as those of then left it, and those of now have not run"
    ]


def _payload_digests(request: RunRequest) -> dict[str, str]:
    """Of the payload as it is in the guest: as the package had it, or as a replay changed it."""
    return request.package.payload.digests() if request.package.payload else {}


@dataclass(frozen=True, slots=True)
class GoingBack:
    """What it takes to have the machine as it was before the step ``wanted``. ``on_machine`` and ``on_secrets`` are
    called as soon as there is something to tell."""

    hypervisor: Hypervisor
    image: Image
    request: MachineRequest
    wanted: Resume
    bus: EventBus
    deadline: Deadline
    on_machine: Callable[[Machine], None] = lambda _machine: None
    on_secrets: Callable[[Sequence[str]], None] = lambda _secrets: None

    @contextlib.contextmanager
    def machine(self, changes: Changes | None = None) -> Iterator[Deployed]:
        """With entropy and clock of its own, and ``changes`` in its payload, for the time of the context.

        Raises UsageError when there is no such checkpoint, HostError and GuestError when no machine can go on from it.
        """
        kept, bus, image = self.wanted.kept, self.bus, self.image
        checkpoint = kept.before(self.wanted.step)
        system = system_of(image.recipe)
        if (resumption := system.resumption) is None:
            raise UsageError(f"machines of {image.recipe.name} do not go on from checkpoints")
        try:
            identity = resumption.recall({**kept.facts["identity"], "cold_engines": self.request.cold_engines})
        except (KeyError, TypeError, ValueError) as error:
            raise HostError(f"the checkpoints of {kept.run} are damaged", hint="run it again") from error
        self.on_secrets(identity.secrets)
        memory_mb = self.request.memory_mb or image.recipe.memory_mb
        spec = MachineSpec(
            name=f"vmrole-{secrets.token_hex(3)}",
            image=image,
            memory_mb=memory_mb,
            cpus=self.request.cpus or image.recipe.cpus,
            nics=(network_card(Network(self.request.network)),),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                self.hypervisor.turn(memory_mb, deadline=self.deadline, waiting=lambda what: bus.notice("note", what))
            )
            with bus.phase("resume", awaits="the guest to go on from its checkpoint"):
                machine = stack.enter_context(self.hypervisor.resume(spec, checkpoint, deadline=self.deadline))
                self.on_machine(machine)
                guest = resumption.go_on(machine, identity, changes, deadline=self.deadline)
                stack.callback(guest.close)
            yield Deployed(machine, guest, image, identity, system)

    @contextlib.contextmanager
    def told(self, changes: Changes | None = None) -> Iterator[Deployed]:
        """``machine``, told as the machine of a run."""
        wanted, bus = self.wanted, self.bus
        facts = ImageFacts.of(self.image)
        bus.emit(MachineChosen(image=facts, accelerator=self.hypervisor.accelerator(self.image)))
        with self.machine(changes) as deployed:
            reason = f"it goes on from the checkpoint before {wanted.step} of the run {wanted.kept.run}"
            bus.emit(MachineChosen(forked=True, fork_reason=reason))
            if seen := wanted.kept.facts.get("seen"):
                bus.notice("note", f"its specialization was read back in the run {wanted.kept.run}")
                bus.emit(_seen(seen))
            yield deployed


@contextlib.contextmanager
def resumed(back: GoingBack, payload: Payload | None, scratch: Path) -> Iterator[Deployed]:
    """The machine that a run goes on from, with the ``payload`` that its package has now."""
    kept = back.wanted.kept
    with contextlib.ExitStack() as stack:
        changes = None
        if payload:
            folder = scratch / f"payload-{secrets.token_hex(3)}"
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            payload.extract(folder)
            changes = changes_of(folder, payload, kept.facts.get("payload", {}))
        deployed = stack.enter_context(back.told(changes))
        if changes and changes.names:
            names = ", ".join(changes.names[:_TOLD]) + (", ..." if len(changes.names) > _TOLD else "")
            back.bus.notice("note", f"replaced in the payload, which is another one than in {kept.run}: {names}")
        yield deployed


def _seen(seen: Mapping[str, Any]) -> SpecializationRead:
    """What was read back when the machine was specialised."""
    return SpecializationRead(
        observations=tuple(Observation(**item) for item in seen["specialization"]),
        certificates=tuple(CertificateResult(**item) for item in seen["certificates"]),
        local_resources=tuple(LocalResourceResult(**item) for item in seen["local_resources"]),
    )


def changes_of(folder: Path, payload: Payload, before: Mapping[str, str]) -> Changes:
    """What differs between ``payload``, which is in ``folder``, and the first run's, whose digests are ``before``."""
    now = payload.digests()
    changed = sorted(name for name, digest in now.items() if before.get(name) != digest)
    return Changes(folder, tuple(changed), tuple(sorted(set(before) - set(now))))
