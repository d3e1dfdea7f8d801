# SPDX-License-Identifier: Apache-2.0
"""The freeze point of the stand-in guest: waiting for its instance data, Wine started and warm."""

from __future__ import annotations

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.channel import ChannelGuest
from harness.guest.command import ENVIRONMENT
from harness.image.recipe import Image
from harness.machine.protocol import Machine
from harness.run.boot import await_stage
from harness.run.freeze import AgentFreezePoint


class StandInFreezePoint(AgentFreezePoint):
    """harness.machine.protocol.FreezePoint: the recipe has the commands for a guest that is to be frozen."""

    def __init__(self, image: Image) -> None:
        super().__init__(ENVIRONMENT, image)

    def reach(self, machine: Machine, *, deadline: Deadline) -> None:
        """See the protocol."""
        await_stage(machine, lambda stage, _more: stage == "awaiting-instance", deadline)
        with ChannelGuest(machine.channel(), environment=self._environment) as guest:
            guest.state(deadline=deadline)
            for command in self._image.recipe.warm:
                done = guest.run(["sh", "-c", command], deadline=deadline)
                if done.exit_code != 0:
                    raise GuestError(f"the guest is not as its forks need it: {done.said}")
            self.measure(machine, guest, deadline)
