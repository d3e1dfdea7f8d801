# SPDX-License-Identifier: Apache-2.0
"""Folders of processes, while others sweep."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from harness.machine.sweep import Swept, sweep
from harness.run.events import Event, EventBus, Notice
from harness.run.host import sweep_first
from harness.state import MachineRecord, ProcessFolder, host_boot_id, make_private, new_process_folder, process_folders
from tests.conftest import HANGS

MAKE = """
from harness.state import new_process_folder
for _ in range(300):
    with new_process_folder() as folder:
        (folder.path / "file").touch()
        with folder.lock() as another:
            assert not another
        assert (folder.path / "file").exists()
"""
SWEEP = """
from harness.machine.sweep import sweep
while True:
    sweep()
"""


def test_a_sweep_leaves_alone_what_is_just_being_made() -> None:
    before = process_folders()  # that of this very process
    sweepers = [subprocess.Popen([sys.executable, "-c", SWEEP]) for _ in range(2)]
    try:
        makers = [subprocess.Popen([sys.executable, "-c", MAKE]) for _ in range(2)]
        assert [maker.wait(timeout=HANGS) for maker in makers] == [0, 0]
        assert [sweeper.poll() for sweeper in sweepers] == [None, None]
    finally:
        for sweeper in sweepers:
            sweeper.kill()
            sweeper.wait()
    assert process_folders() == before


@pytest.fixture
def silent() -> Iterator[str]:
    """The URI of a libvirt that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"qemu+tcp://127.0.0.1:{server.getsockname()[1]}/system"


def orphan(name: str, uri: str) -> ProcessFolder:
    """What a process that died left: a record of one machine."""
    with new_process_folder() as folder:
        path = folder.path
    folder = ProcessFolder(path)
    make_private(path)
    folder.write(MachineRecord(name, uri, "debian-12", time.time(), host_boot_id()))
    return folder


@pytest.fixture
def empty_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="vmrole-state-") as folder:
        monkeypatch.setenv("VMROLE_STATE_DIR", folder)
        yield


@pytest.mark.usefixtures("empty_state")
def test_a_libvirt_that_is_out_of_reach_stops_no_sweep(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.sweep._ELSEWHERE_SECONDS", 0.5)
    left = [orphan(f"vmrole-a{number}", silent) for number in range(3)]
    gone = [orphan("vmrole-b", "qemu:///embed?root=/nowhere") for _ in range(3)]
    swept = sweep()
    assert [folder.path.exists() for folder in left + gone] == [True] * 3 + [False] * 3
    told = {item.what: item.left for item in swept}
    assert told["machine vmrole-b"] == ""
    for number, folder in enumerate(left):
        sentence = told[f"machine vmrole-a{number}"]
        assert sentence.startswith(f"machine vmrole-a{number} of {silent} could not be removed: {silent} does not ans")
        assert str(folder.record(f"vmrole-a{number}")) in sentence


@pytest.mark.usefixtures("empty_state")
@pytest.mark.parametrize(
    ("uri", "why"),
    [("ftp://host/", "'ftp://host/' is not the URI of"), ("qemu+tcp://127.0.0.1:1/system", "libvirt cannot open")],
)
def test_a_libvirt_that_refuses_is_told_of(uri: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.sweep._ELSEWHERE_SECONDS", HANGS)
    folder = orphan("vmrole-a", uri)
    [item] = sweep()
    assert f"could not be removed: {why}" in item.left
    assert folder.records()


def test_a_run_goes_on_where_a_sweep_could_not_remove_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as a warning: what stays costs memory of somebody's host."""
    item = Swept("machine vmrole-a", "its owner is gone", "machine vmrole-a could not be removed")
    monkeypatch.setattr("harness.run.host.sweep", lambda: [item])
    bus, told = EventBus(), list[Event]()
    bus.subscribe(told.append)
    sweep_first(bus)
    assert [(event.severity, event.text) for event in told if isinstance(event, Notice)] == [("warning", item.left)]
