# SPDX-License-Identifier: Apache-2.0
"""What Linux guests offer a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.command import ENVIRONMENT
from harness.guest.protocol import Guest
from harness.machine.protocol import Nic
from harness.quoting import Mask
from harness.run.answer import LOCALE
from harness.run.collect import OFFLINE, collect
from harness.run.freeze import AgentFreezePoint
from harness.run.linux.execute import LinuxExecutor
from harness.run.linux.identity import LinuxIdentity
from harness.run.linux.resume import LinuxResumption
from harness.run.system import Greeting, Resumption

if TYPE_CHECKING:
    from harness.image.recipe import Image, Recipe
    from harness.plan import Plan
    from harness.run.request import MachineRequest


class LinuxSystem:
    """harness.run.system.System."""

    resumption: Resumption | None = LinuxResumption()
    offline: Sequence[str] = OFFLINE

    def caveat(self, recipe: Recipe) -> str | None:
        return None

    def identity(
        self, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, has_channel: bool
    ) -> LinuxIdentity:
        return LinuxIdentity.new(request, image, token, nic, payload=payload, await_ssh=not has_channel)

    def freeze_point(self, image: Image, nic: Nic) -> Greeting:
        return AgentFreezePoint({**ENVIRONMENT, "LANG": LOCALE}, image)

    def executor(self, recipe: Recipe) -> LinuxExecutor:
        return LinuxExecutor()

    def collect(self, guest: Guest, plan: Plan, folder: Path, *, mask: Mask, deadline: Deadline) -> list[str]:
        return collect(guest, folder, mask=mask, deadline=deadline)
