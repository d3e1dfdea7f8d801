# SPDX-License-Identifier: Apache-2.0
"""The freeze point of the stand-in guest: waiting for its instance data, Wine started and warm."""

from __future__ import annotations

from harness.guest.command import ENVIRONMENT
from harness.run.freeze import AgentFreezePoint


class StandInFreezePoint(AgentFreezePoint):
    """harness.machine.protocol.FreezePoint."""

    def __init__(self) -> None:
        super().__init__(ENVIRONMENT, warm="/usr/lib/standin/warm")
