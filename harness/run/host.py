# SPDX-License-Identifier: Apache-2.0
"""What every command that needs a machine begins with: the image, and a hypervisor on this host."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.image.recipe import Image
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.machine.sweep import sweep
from harness.run.events import EventBus
from harness.run.request import MachineRequest
from harness.state import state_folder

IMAGE_SECONDS = 1800.0
"""To find or build the image; a build downloads a distribution's packages."""


def find_image(request: MachineRequest, bus: EventBus, *, deadline: Deadline) -> Image:
    """The image of ``request``, built if the cache lacks it. Raises HostError when another build was asked for."""
    state_folder()  # where it cannot be had, that is said before minutes are spent on an image
    with bus.phase("image", awaits="the image to be there"):
        image = ensure_image(
            request.image,
            cache=Cache.of_user(),
            deadline=deadline.within(IMAGE_SECONDS),
            progress=lambda line: bus.notice("note", line),
        )
        if request.image_key and not image.key.startswith(request.image_key):
            raise HostError(
                f"the image {request.image} is {image.key} here, and {request.image_key} was asked for",
                hint=f"leave @{request.image_key} out to take the one that is here",
            )
        return image


def sweep_first(bus: EventBus) -> None:
    """Remove what dead runs left. What stays is worth a warning, no more."""
    for item in sweep():
        bus.notice("warning" if item.left else "note", item.told)


@contextlib.contextmanager
def hypervisor(request: MachineRequest, bus: EventBus) -> Iterator[tuple[LibvirtHypervisor, Path]]:
    """The hypervisor of ``request`` and a private folder for scratch files; what dead runs left is removed first."""
    sweep_first(bus)
    with LibvirtHypervisor.open(request.connect) as driver:
        scratch = driver.scratch()
        try:
            yield driver, scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
