# SPDX-License-Identifier: Apache-2.0
"""Memory and processors are handed out across processes, never more than there is."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.errors import HostError
from harness.machine import slots
from harness.machine.host import OVERHEAD_MB, memory_advice
from harness.machine.slots import capacity_mb, how_many, processors, slot
from harness.state import MachineRecord, ProcessFolder, host_boot_id
from tests.conftest import HANGS, vmrole

_HOLD = """
import sys
from harness.deadline import Deadline
from harness.machine import slots
from harness.machine.slots import slot
if sys.argv[2:]:
    slots.capacity_mb = lambda: int(sys.argv[2])
with slot(int(sys.argv[1]), deadline=Deadline(600), waiting=lambda what: print(what, flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(f"/tmp/vmt-slots-{tmp_path.name[-8:]}")
    monkeypatch.setenv("VMROLE_STATE_DIR", str(folder))
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def holder(megabytes: int, *capacity: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(megabytes), *map(str, capacity)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate("\n", timeout=HANGS)


def test_no_more_processes_work_than_there_are_processors(state: Path) -> None:
    working = [holder(1) for _ in range(processors())]
    assert [said(process) for process in working] == ["holds"] * len(working)
    late = holder(1)
    assert "no processor for one more" in said(late)
    with pytest.raises(HostError, match="no turn"), slot(1, deadline=Deadline(0.2)):
        pass
    end(working.pop())
    assert said(late) == "holds"
    end(late, *working)


def test_a_process_that_works_may_have_more(state: Path) -> None:
    others = [holder(1) for _ in range(processors() - 1)]
    assert all(said(process) == "holds" for process in others)
    with slot(1, deadline=Deadline(HANGS)), slot(1, deadline=Deadline(HANGS)), slot(1, deadline=Deadline(HANGS)):
        assert len([path for path in (state / "slots").iterdir() if "-" in path.name]) == len(others) + 3
    end(*others)


def test_a_killed_holder_frees_its_slot(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capacity = 100 + OVERHEAD_MB
    monkeypatch.setattr(slots, "capacity_mb", lambda: capacity)
    dead = holder(100, capacity)
    assert said(dead) == "holds"
    with pytest.raises(HostError, match="no turn"), slot(100, deadline=Deadline(0.2)):
        pass
    dead.kill()
    dead.communicate()
    with slot(100, deadline=Deadline(HANGS)):
        pass
    assert [path.name for path in (state / "slots").iterdir()] == ["registry"]


def test_what_this_host_can_never_give_is_refused_at_once(state: Path) -> None:
    told: list[str] = []
    limit = Deadline(HANGS)
    with pytest.raises(HostError, match="this host has"), slot(capacity_mb() + 1, deadline=limit, waiting=told.append):
        pass
    assert told == [] and not limit.expired


def test_memory_of_all_is_counted(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "capacity_mb", lambda: 2 * (100 + OVERHEAD_MB))
    told: list[str] = []
    with slot(100, deadline=Deadline(HANGS)), slot(100, deadline=Deadline(HANGS)):
        with pytest.raises(HostError, match="no turn"), slot(100, deadline=Deadline(0.2), waiting=told.append):
            pass
        assert told == [
            f"waiting for one of 2 machines to end: there is no memory for one more ({100 + OVERHEAD_MB} MiB)"
        ]
    assert how_many(100) <= 2


@pytest.mark.vm
@pytest.mark.alone
def test_more_machines_than_processors_take_turns(image: str) -> None:
    """`exec --count`: all of them run, in their order, each one its own."""
    done = vmrole("exec", "--image", image, "--count", "5", "--json", "--", "sh", "-c", "hostname; exit 3")
    assert done.code == 3, done.stderr
    told = done.json
    assert [instance["id"] for instance in told["instances"]] == ["0", "1", "2", "3", "4"]
    assert len({instance["stdout"] for instance in told["instances"]}) == 5
    assert all(instance["exit_code"] == 3 and instance["specialization"] for instance in told["instances"])


@pytest.mark.vm
@pytest.mark.alone
def test_one_that_cannot_be_had_ends_the_others(image: str) -> None:
    done = vmrole("exec", "--image", image, "--count", "3", "--timeout", "4", "--", "sleep", "100")
    assert done.code == 125 and done.stderr.startswith("vmrole: "), done


def test_what_is_kept_takes_memory_though_no_process_holds_it(state: Path) -> None:
    folder = ProcessFolder(state / "r/0a0a0a0a")
    folder.path.mkdir(parents=True)
    record = MachineRecord("m", "qemu:///embed", "i", time.time(), host_boot_id(), memory_mb=capacity_mb() - 600)
    folder.write(dataclasses.replace(record, kept_until=time.time() + 3600))
    with (
        pytest.raises(HostError, match="machines that are kept hold") as caught,
        slot(500, deadline=Deadline(HANGS)),
    ):
        pass
    assert "sweep --kept" in (caught.value.hint or "")
    folder.write(dataclasses.replace(record, kept_until=time.time() - 1))
    with slot(500, deadline=Deadline(HANGS)):
        pass


def test_a_limit_of_addresses_is_named_where_it_is_why_memory_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, said in [(resource.RLIM_INFINITY, "--memory a smaller number"), (900 << 20, "'ulimit -v' lets a pro")]:
        monkeypatch.setattr("resource.getrlimit", lambda _which, limit=limit: (limit, resource.RLIM_INFINITY))
        assert said in memory_advice()
