# SPDX-License-Identifier: Apache-2.0
"""What Windows guests offer a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.protocol import Guest
from harness.machine.protocol import Nic
from harness.quoting import Mask
from harness.run.system import Resumption
from harness.run.windows.caveats import caveat
from harness.run.windows.collect import OFFLINE, collect
from harness.run.windows.execute import WindowsExecutor
from harness.run.windows.freeze import StandInFreezePoint
from harness.run.windows.identity import WindowsIdentity
from harness.run.windows.resume import WindowsResumption

if TYPE_CHECKING:
    from harness.image.recipe import Image, Recipe
    from harness.plan import Plan
    from harness.run.request import MachineRequest


class WindowsSystem:
    """harness.run.system.System."""

    resumption: Resumption | None = WindowsResumption()
    offline: Sequence[str] = OFFLINE

    def caveat(self, recipe: Recipe) -> str | None:
        return caveat(recipe)

    def identity(
        self, request: MachineRequest, image: Image, token: str, nic: Nic, *, payload: bool, has_channel: bool
    ) -> WindowsIdentity:
        return WindowsIdentity.new(request, image, token, nic, payload=payload)

    def freeze_point(self, image: Image, nic: Nic) -> StandInFreezePoint:
        return StandInFreezePoint(image)

    def executor(self, recipe: Recipe) -> WindowsExecutor:
        return WindowsExecutor.of(recipe)

    def collect(self, guest: Guest, plan: Plan, folder: Path, *, mask: Mask, deadline: Deadline) -> list[str]:
        return collect(guest, plan, folder, mask=mask, deadline=deadline)
