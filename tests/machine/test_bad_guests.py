# SPDX-License-Identifier: Apache-2.0
"""Guests that panic, hang, never find their medium, fill their disk or flood their console: one sentence each, the
right blame, the logs there are, and nothing left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.image.recipe import Image
from harness.machine.console import CAP
from harness.machine.protocol import Machine, MachineSpec, Medium, Network, Nic
from harness.machine.qemu.driver import LibvirtHypervisor
from harness.run.boot import await_ready
from harness.run.events import EventBus
from tests.conftest import HANGS, inventory, vmrole

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def built(image: str) -> Image:
    cache = Cache.of_user()
    return ensure_image(image, cache=cache, deadline=Deadline(900), progress=lambda _line: None)


@contextlib.contextmanager
def booted(image: Image, medium: Medium | None = None) -> Iterator[Machine]:
    nic = Nic(Network(), "52:54:00:aa:bb:cc", "10.0.2.15/24", "10.0.2.2", "10.0.2.3")
    spec = MachineSpec(f"vmrole-{secrets.token_hex(3)}", image, 512, 2, (nic,), medium)
    with LibvirtHypervisor.open() as driver, driver.machine(spec, deadline=Deadline(HANGS)) as machine:
        yield machine


def with_arguments(image: Image, more: str) -> Image:
    recipe = image.recipe.model_copy(update={"kernel_arguments": f"{image.recipe.kernel_arguments} {more}"})
    return dataclasses.replace(image, recipe=recipe)


def test_panic(built: Image, state_folder: Path) -> None:
    """Found out at once, not at the time-out."""
    before = inventory(state_folder)
    deadline = Deadline(HANGS)
    with (
        booted(with_arguments(built, "init=/no/such/init rdinit=/no/such/init root=/dev/none")) as machine,
        pytest.raises(GuestNotReadyError, match="panic") as caught,
    ):
        await_ready(machine, "none", EventBus(), deadline)
    assert not deadline.expired
    assert caught.value.blame == "guest" and caught.value.console
    assert inventory(state_folder) == before


def test_never_gets_its_medium(built: Image, state_folder: Path) -> None:
    before = inventory(state_folder)
    with booted(built) as machine:
        asks = "vmrole: stage awaiting-instance"
        assert machine.console.wait_for(lambda line: line if asks in line else None, deadline=Deadline(HANGS))
        with pytest.raises(GuestNotReadyError) as caught:
            await_ready(machine, "none", EventBus(), Deadline(2))
    assert caught.value.stage == "awaiting-instance"
    assert "to find its instance medium" in caught.value.message
    assert inventory(state_folder) == before


def test_hangs(built: Image) -> None:
    """A guest that stops before its agent: the last console lines are in the error."""
    with (
        booted(with_arguments(built, "systemd.unit=emergency.target init=/bin/sleep -- 1000")) as machine,
        pytest.raises(GuestNotReadyError, match=r"not ready after .* awaited was"),
    ):
        await_ready(machine, "none", EventBus(), Deadline(5))


def test_powers_itself_off(built: Image) -> None:
    with (
        booted(with_arguments(built, "systemd.unit=poweroff.target")) as machine,
        pytest.raises(GuestError, match="switched itself off"),
    ):
        await_ready(machine, "none", EventBus(), Deadline(HANGS))


def extension(folder: Path, *commands: str) -> Path:
    profile = {"Name": "Bad", "LinuxApplicationProfile": {"RunOnceCommands": list(commands)}}
    document = {
        "SchemaVersion": "1.0",
        "Name": "Bad",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ExtensionSettings": {"ApplicationProfile": profile},
    }
    path = folder / "bad.resext"
    path.write_text(json.dumps(document))
    return path


def test_fills_its_disk_and_floods_its_console(image: str, state_folder: Path, tmp_path: Path) -> None:
    """Both in one machine: the steps end, the logs are collected, what is kept is capped."""
    before = inventory(state_folder)
    document = extension(
        tmp_path,
        "/bin/dd if=/dev/zero of=/fill bs=1M",
        "/bin/sh -c 'yes \"a line that fills the console of this machine without end\" | head -c 12000000 >/dev/ttyS0'",
        "/bin/sh -c 'yes output | head -c 30000000'",
        "/bin/sh -c 'cd /resources/DiagnosticStore; truncate -s 8G hole; echo here >told.html'",
    )
    done = vmrole("run", document, "--output", tmp_path / "out", "--json", "--local-resource", "Small=5")
    assert done.code == 0, done.stderr
    steps = done.json["instances"][0]["steps"]
    assert [step["outcome"] for step in steps] == ["warned", "succeeded", "succeeded", "succeeded"]
    assert "No space left" in steps[0]["stderr"]
    assert (tmp_path / "out/console.log").stat().st_size < CAP + 1000
    assert "were not kept" in (tmp_path / "out/console.log").read_text(errors="replace")
    assert (tmp_path / "out/steps/run-once-3/stdout").stat().st_size <= 16 * 1024 * 1024
    assert len(steps[2]["stdout"]) < 100_000
    index = json.loads((tmp_path / "out/guest/index.json").read_text())
    assert "/resources/DiagnosticStore/told.html" in index.values(), "a file without an end keeps no other one back"
    assert "not collected: /resources/DiagnosticStore/hole is larger than 4 MiB" in done.stderr
    assert inventory(state_folder) == before


def test_stops_answering(image: str, state_folder: Path, tmp_path: Path) -> None:
    """A step that takes the machine down: the guest's fault, the console and the disk tell what they can."""
    before = inventory(state_folder)
    document = extension(tmp_path, "/bin/sh -c 'echo before; sync; echo o >/proc/sysrq-trigger; sleep 60'")
    done = vmrole("run", document, "--output", tmp_path / "out", "--json", timeout=HANGS)
    assert done.code == 3, done.stderr
    assert done.json["verdict"] == "error" and done.json["blame"] == "guest"
    assert (tmp_path / "out/console.log").stat().st_size > 0
    index = json.loads((tmp_path / "out/guest/index.json").read_text())
    assert "/etc/hostname" in index.values()
    assert inventory(state_folder) == before
