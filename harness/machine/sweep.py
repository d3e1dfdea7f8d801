# SPDX-License-Identifier: Apache-2.0
"""Removing what dead harness processes left: machines, overlays, media, ports. Never what a living one owns."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.machine.elsewhere import remove_elsewhere
from harness.state import MachineRecord, ProcessFolder, process_folders, remove_folder

_ELSEWHERE_SECONDS = 15.0
"""All that one sweep spends on machines of other hosts: a run does not wait long for what dead ones left."""


@dataclass(frozen=True, slots=True)
class Swept:
    """One thing that was removed, a machine by name or a process folder without any, or that could not be.

    ``left`` says why it is still there, with what to do; the next sweep tries again.
    """

    what: str
    why: str
    left: str = ""

    @property
    def told(self) -> str:
        """One sentence."""
        return self.left or f"removed {self.what}: {self.why}"


def sweep(*, kept: bool = False) -> list[Swept]:
    """Remove orphans and expired kept machines; with ``kept`` those that were kept as well."""
    done: list[Swept] = []
    others = _Others(Deadline(_ELSEWHERE_SECONDS))
    for folder in process_folders():
        with folder.lock() as ours:
            if ours:
                done += _sweep_folder(folder, others, kept=kept)
    return done


def kept_machines() -> list[tuple[ProcessFolder, MachineRecord]]:
    """Every machine that was kept and can still be reached, newest first."""
    found = [(folder, record) for folder in process_folders() for record in folder.records() if record.kept]
    return sorted(found, key=lambda item: item[1].created, reverse=True)


def end_machines(folder: ProcessFolder) -> None:
    """Kill what still runs of this process's own machines when it ends, but for kept ones.

    An interruption comes between any two instructions, also between libvirt's making a domain and our knowing of it.
    """
    if folder.owner != os.getpid():
        return
    kept = {record.name for record in folder.records() if record.kept}
    for pid_file in (folder.path / "run/qemu").glob("*.pid"):
        if pid_file.stem not in kept:
            _kill(folder, pid_file.stem)


class _Others:
    """Other libvirts during one sweep. One that did not do what it was asked for is not asked again."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._refusals: dict[str, str] = {}

    def remove(self, record: MachineRecord) -> str:
        """Remove the machine of ``record``; why that could not be, or ""."""
        if record.uri not in self._refusals:
            if self._deadline.expired:
                return "there was no time left to ask for it"
            volumes = {volume for _pool, volume in record.volumes} | {f"{record.name}.qcow2", f"{record.name}.iso"}
            try:
                remove_elsewhere(record.uri, record.name, sorted(volumes), deadline=self._deadline.within(None))
            except HostError as error:
                self._refusals[record.uri] = error.message
        return self._refusals.get(record.uri, "")


def _sweep_folder(folder: ProcessFolder, others: _Others, *, kept: bool) -> list[Swept]:
    done = []
    staying = set()
    for record in folder.records():
        if record.kept and not kept and (not _is_local(record) or _pid_of(folder, record.name) is not None):
            staying.add(record.name)
            continue
        why = "was kept" if record.kept else "kept too long" if record.kept_until else "its owner is gone"
        left = _remove(folder, record, others)
        if left:
            staying.add(record.name)
        done.append(Swept(f"machine {record.name}", why, left))
    # A domain that was created but not yet recorded: whatever else still runs in this root is nobody's.
    for pid_file in (folder.path / "run/qemu").glob("*.pid"):
        if pid_file.stem not in staying and _kill(folder, pid_file.stem):
            done.append(Swept(f"machine {pid_file.stem}", "its owner is gone"))
    if staying:
        return done
    if not done:
        done.append(Swept(f"folder {folder.path.name}", "its owner is gone"))
    remove_folder(folder.path)
    return done


def _remove(folder: ProcessFolder, record: MachineRecord, others: _Others) -> str:
    """Remove one machine and forget it; a sentence when it may still be there."""
    if _is_local(record):
        _kill(folder, record.name)
        for path in (folder.path / "disks").glob(f"{record.name}.*"):
            path.unlink(missing_ok=True)
    elif why := others.remove(record):
        return (
            f"machine {record.name} of {record.uri.split('?')[0]} could not be removed: {why}; the next sweep tries "
            f"again, or remove {folder.record(record.name)} if that host is no more"
        )
    folder.forget(record.name)
    return ""


def _is_local(record: MachineRecord) -> bool:
    return record.uri.startswith("qemu:///embed")


def _pid_of(folder: ProcessFolder, name: str) -> int | None:
    """The QEMU process of ``name`` in this root, if it is alive and really ours: pids are used again."""
    try:
        pid = int((folder.path / "run/qemu" / f"{name}.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if f"guest={name}".encode() in command and os.fsencode(folder.path) in command else None


def _kill(folder: ProcessFolder, name: str) -> bool:
    pid = _pid_of(folder, name)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _pid_of(folder, name) != pid:  # looked at again with the pid pinned
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 10)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
    return True
