# SPDX-License-Identifier: Apache-2.0
"""Removing what dead harness processes left: machines, overlays, media, ports. Never what a living one owns."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from harness.state import MachineRecord, ProcessFolder, process_folders, remove_folder


@dataclass(frozen=True, slots=True)
class Swept:
    """One thing that was removed: a machine by name, or a process folder without any."""

    what: str
    why: str


def sweep(*, kept: bool = False) -> list[Swept]:
    """Remove orphans and expired kept machines; with ``kept`` those that were kept as well."""
    done: list[Swept] = []
    for folder in process_folders():
        with folder.lock() as ours:
            if ours:
                done += _sweep_folder(folder, kept=kept)
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


def _sweep_folder(folder: ProcessFolder, *, kept: bool) -> list[Swept]:
    done = []
    staying = False
    for record in folder.records():
        if record.kept and not kept and (not _is_local(record) or _pid_of(folder, record.name) is not None):
            staying = True
            continue
        why = "was kept" if record.kept else "kept too long" if record.kept_until else "its owner is gone"
        _remove(folder, record)
        done.append(Swept(f"machine {record.name}", why))
    if staying:
        return done
    # A domain that was created but not yet recorded: whatever still runs in this root is nobody's.
    for pid_file in (folder.path / "run/qemu").glob("*.pid"):
        if _kill(folder, pid_file.stem):
            done.append(Swept(f"machine {pid_file.stem}", "its owner is gone"))
    if not done:
        done.append(Swept(f"folder {folder.path.name}", "its owner is gone"))
    remove_folder(folder.path)
    return done


def _remove(folder: ProcessFolder, record: MachineRecord) -> None:
    if _is_local(record):
        _kill(folder, record.name)
        for path in (folder.path / "disks").glob(f"{record.name}.*"):
            path.unlink(missing_ok=True)
    else:
        _remove_elsewhere(record)
    folder.forget(record.name)


def _is_local(record: MachineRecord) -> bool:
    return record.uri.startswith("qemu:///embed")


def _remove_elsewhere(record: MachineRecord) -> None:
    """A domain and its volumes in another libvirt than the in-process one."""
    import libvirt

    from harness.machine.qemu.connection import open_libvirt, start_event_loop

    start_event_loop()
    connection = open_libvirt(record.uri)
    with contextlib.closing(connection):
        with contextlib.suppress(libvirt.libvirtError):
            connection.lookupByName(record.name).destroy()
        with contextlib.suppress(libvirt.libvirtError):
            pool = connection.storagePoolLookupByName("vmrole")
            for name in {volume for _pool, volume in record.volumes} | {f"{record.name}.qcow2", f"{record.name}.iso"}:
                with contextlib.suppress(libvirt.libvirtError):
                    pool.storageVolLookupByName(name).delete(0)


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
