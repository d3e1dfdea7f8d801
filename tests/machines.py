# SPDX-License-Identifier: Apache-2.0
"""Machines for tests of what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.deadline import Deadline
from harness.run.deploy import Deployed, deploy
from harness.run.events import EventBus
from harness.run.host import find_image, hypervisor
from harness.run.request import MachineRequest


@contextlib.contextmanager
def machine(request: MachineRequest, bus: EventBus | None = None, **more: Any) -> Iterator[Deployed]:
    """What ``request`` asks for, as a run has it; ``more`` is for ``deploy``."""
    bus, deadline = bus or EventBus(), Deadline(1800)
    built = find_image(request, bus, deadline=deadline)
    with (
        hypervisor(request, bus) as (driver, scratch),
        deploy(driver, built, request, bus, deadline=deadline, scratch=scratch, **more) as deployed,
    ):
        yield deployed
