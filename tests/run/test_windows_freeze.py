# SPDX-License-Identifier: Apache-2.0
"""A stand-in guest that is not as its forks have to be is not frozen: the machine boots, and says why."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from harness.image.recipe import Image
from harness.machine.templates import Template, TemplateStore
from harness.run import deploy as deploying
from harness.run.events import Event, EventBus, SpecializationRead
from harness.run.request import MachineRequest
from harness.run.windows import system
from harness.run.windows.freeze import StandInFreezePoint
from tests import machines
from tests.conftest import VMROLE

pytestmark = pytest.mark.vm

MEMORY_MB = 832
"""No other test has machines of this size: the template is made anew, whatever the cache has."""
# Not before it was started: a start that is under way would go on.
_STOP_SERVICE = r"""exec python3 -c '
import socket, time
for line in b"check", b"warm net.exe stop VMRoleGuest":
    with socket.socket(socket.AF_UNIX) as partner:
        while partner.connect_ex("/run/vmrole/partner"):
            time.sleep(0.1)
        partner.sendall(line + b"\n")
        partner.recv(1024)
'"""
# Killed alone it would be started again.
_STOP_PROGRAM = "systemctl stop vmrole-standin.service"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            _STOP_SERVICE,
            "no template could be made: the guest is not as its forks need it: the guest's service VMRoleGuest",
        ),
        pytest.param(_STOP_PROGRAM, "the stand-in guest's own program does not answer", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_frozen(before: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([VMROLE, "images", "build", "windows-stand-in"], check=True, stdin=subprocess.DEVNULL)
    store, heard = TemplateStore.of_user(), list[Event]()
    for template in _templates():
        store.discard(template.key)
    monkeypatch.setattr(deploying, "_BOOT_SECONDS", {"kvm": 60.0, "tcg": 900.0})  # this host may be a busy one
    monkeypatch.setattr(system, "StandInFreezePoint", lambda image: StandInFreezePoint(_first(before, image)))
    bus = EventBus()
    bus.subscribe(heard.append)
    with machines.machine(MachineRequest("windows-stand-in", memory_mb=MEMORY_MB), bus) as machine:
        origin = machine.machine.origin
    assert (origin.forked, _templates()) == (False, []), origin.reason
    assert said in origin.reason
    (seen,) = (event for event in heard if isinstance(event, SpecializationRead))
    (service,) = (item for item in seen.observations if item.name == "guest-service")
    assert service.ok, service


def _first(command: str, image: Image) -> Image:
    """``image`` with a recipe whose guests do that before they are frozen."""
    recipe = image.recipe.model_copy(update={"warm": (command, *image.recipe.warm)})
    return dataclasses.replace(image, recipe=recipe)


def _templates() -> list[Template]:
    return [template for template in TemplateStore.of_user().all() if template.memory_mb == MEMORY_MB]
