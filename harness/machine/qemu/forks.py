# SPDX-License-Identifier: Apache-2.0
"""Forks: machines that continue where a template was frozen (docs/forks.md).

The template's RAM is a file that every fork maps privately, its disk a backing file, its devices a small state that
QEMU loads; nothing is copied.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.machine.accelerator import EMULATOR
from harness.machine.checkpoints import Checkpoint, link
from harness.machine.protocol import Accelerator, DataDisk, FreezePoint, MachineSpec, Origin
from harness.machine.qemu import processor
from harness.machine.qemu.connection import Connection
from harness.machine.qemu.domain import DomainFiles, domain_xml
from harness.machine.qemu.machine import LibvirtMachine, new_machine, socket_of
from harness.machine.qemu.storage import LocalFiles, Volumes
from harness.machine.templates import SCHEMA, Template, TemplateStore
from harness.process import run, which
from harness.state import give_to_qemu

_FIRMWARE = ("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin", "/usr/share/qemu-kvm/bios-256k.bin")


def firmware() -> str | None:
    """The file of QEMU's own firmware (SeaBIOS), None when this host has it elsewhere."""
    return next((path for path in _FIRMWARE if Path(path).is_file()), None)


_UEFI = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)


def uefi() -> tuple[str, str]:
    """The files of UEFI's code and variables. Raises HostError when this host has none."""
    for pair in _UEFI:
        if all(Path(path).is_file() for path in pair):
            return pair
    raise HostError("the image starts with UEFI, and this host has no UEFI for its machines", hint="install ovmf")


def blank_disks(storage: LocalFiles | Volumes, spec: MachineSpec, deadline: Deadline) -> tuple[tuple[int, str], ...]:
    """An empty disk for each data disk of ``spec``: its logical unit number and where it is."""
    return tuple(
        (disk.lun, storage.blank(f"{spec.name}.lun{disk.lun}", disk.size_mb, deadline=deadline))
        for disk in spec.data_disks
    )


class Forks:
    """Templates and their forks on the in-process driver."""

    def __init__(self, connection: Connection, storage: LocalFiles, accelerator: Accelerator) -> None:
        self._connection = connection
        self._storage = storage
        self._accelerator = accelerator
        self._store = TemplateStore.of_user()

    def discard(self, template: Template) -> None:
        self._store.discard(template.key)

    def template(
        self, spec: MachineSpec, freeze: FreezePoint, deadline: Deadline, waiting: Callable[[str], None]
    ) -> tuple[Template, bool]:
        """The template that ``spec`` can be forked from, and whether it was made just now."""
        key = self._key(spec)
        if found := self._store.find(key, waiting):
            return found, False
        name = spec.image.recipe.name

        def other() -> None:
            waiting(f"another process is making the template of {name}")

        with self._store.locked(key, deadline, other):
            if found := self._store.find(key, waiting):
                return found, False
            waiting(f"making the template of {name}, once")
            # Half of what a boot may take: a machine whose template cannot be made has to be booted yet.
            return self._make(spec, key, freeze, deadline.within(deadline.remaining / 2)), True

    def fork(
        self, spec: MachineSpec, template: Template, freeze: FreezePoint, deadline: Deadline, how: str
    ) -> LibvirtMachine:
        """A fork that answers. Raises HostError or GuestError when there is none; then nothing is left of it."""
        origin = Origin(True, f"the template {template.key} was {how}", template.key, template.created)
        machine = new_machine(self._connection, self._storage, spec, origin)
        try:
            disk = self._storage.overlay_on(spec.name, str(template.disk), "qcow2", deadline=deadline)
            files = replace(self._files(spec, disk), ram=str(template.ram), incoming=True, firmware=firmware())
            # Nothing had written to those of the template.
            files = replace(files, data_disks=blank_disks(self._storage, spec, deadline))
            machine.start(files, domain_xml(spec, files, self._accelerator), state=template.state, deadline=deadline)
            freeze.recall(template.folder)
            freeze.greet(machine, deadline=deadline)
        except BaseException:
            machine.close()
            raise
        return machine

    def resume(self, spec: MachineSpec, checkpoint: Checkpoint, deadline: Deadline) -> LibvirtMachine:
        """A machine that goes on from ``checkpoint``. Raises HostError when that cannot be, and nothing is left."""
        checkpoint.check()
        saved = checkpoint.facts
        spec = replace(spec, data_disks=tuple(DataDisk(lun, size) for lun, size, _layer in saved.data_disks))
        template = self._store.find(saved.template)
        if template and template.accelerator != self._accelerator.kind:
            kind, here = template.accelerator.upper(), self._accelerator
            raise HostError(
                f"the checkpoint before {checkpoint.step} was taken with {kind}, and guests run with "
                f"{here.kind.upper()} here: {here.reason}",
                hint="run it again",
            )
        if template is None or template.key != self._key(spec):
            raise HostError(
                f"the template that the checkpoint before {checkpoint.step} is based on is gone",
                hint="the image, QEMU, the machine's size or this host's processor changed since; run it again",
            )
        check_same(template, saved.made, checkpoint.step)
        # The layers are in the machine's own folder too: it is to outlive the checkpoint, and may be saved itself.
        layers = [link(layer, self._storage.folder) for layer in sorted(checkpoint.layers.iterdir())]
        how = f"it goes on from the checkpoint before {checkpoint.step}"
        origin = Origin(True, how, template.key, template.created)
        machine = new_machine(self._connection, self._storage, spec, origin)
        try:
            disk = self._storage.overlay_on(spec.name, saved.disk, "qcow2", deadline=deadline)
            data = tuple(
                (lun, self._storage.overlay_on(f"{spec.name}.lun{lun}", layer, "qcow2", deadline=deadline))
                for lun, _size, layer in saved.data_disks
            )
            files = replace(self._files(spec, disk), ram=str(template.ram), incoming=True, firmware=firmware())
            files = replace(files, data_disks=data)
            xml = domain_xml(spec, files, self._accelerator)
            state, pages = checkpoint.folder / "state", checkpoint.folder / "ram"
            machine.start(files, xml, state=state, pages=pages, layers=layers, deadline=deadline)
        except BaseException:
            machine.close()
            raise
        return machine

    def _make(self, spec: MachineSpec, key: str, freeze: FreezePoint, deadline: Deadline) -> Template:
        """Boot a machine without an instance to its freeze point, and keep it frozen."""
        spec = replace(spec, name=f"vmrole-t{secrets.token_hex(3)}", medium=freeze.medium)
        with self._store.workplace(key) as work:
            ram = work / "ram"
            with ram.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.truncate(spec.memory_mb << 20)
            give_to_qemu(ram, write=True)
            machine = new_machine(self._connection, self._storage, spec, Origin(False, "it becomes a template"))
            try:
                disk = self._storage.overlay_on(
                    spec.name, str(spec.image.disk), "raw", deadline=deadline, path=work / "disk.qcow2"
                )
                medium = self._storage.medium(spec.name, spec.medium) if spec.medium else None
                files = replace(self._files(spec, disk), ram=str(ram), firmware=firmware(), medium=medium)
                files = replace(files, data_disks=blank_disks(self._storage, spec, deadline))
                machine.start(files, domain_xml(spec, files, self._accelerator), deadline=deadline)
                freeze.reach(machine, deadline=deadline)
                machine.freeze(work / "state")
                # Pages that the guest has zeroed are holes: they cost no room, and no time when the file is sealed.
                run(["fallocate", "--dig-holes", str(ram)], deadline=deadline)
                freeze.keep(work)
                image = spec.image
                facts = {
                    "image": image.recipe.name,
                    "image_key": image.key,
                    "memory_mb": spec.memory_mb,
                    "cpus": spec.cpus,
                    "slowness": freeze.slowness if self._accelerator.kind == "tcg" else None,
                    "accelerator": self._accelerator.kind,
                }
                return self._store.put(work, key, facts)
            finally:
                machine.close()

    def _files(self, spec: MachineSpec, disk: str) -> DomainFiles:
        image = spec.image
        return DomainFiles(
            emulator=self._connection.emulator,
            kernel=str(image.kernel) if image.kernel else None,
            initrd=str(image.initrd) if image.initrd else None,
            disk=disk,
            medium=None,
            console=socket_of(self._connection, spec, "console"),
            channel=socket_of(self._connection, spec, "channel"),
        )

    def _processor(self) -> tuple[str, ...]:
        """What a state depends on beside its domain: with KVM the host's processor, of which QEMU compares nothing."""
        return processor.identity() if self._accelerator.kind == "kvm" else ()

    def _key(self, spec: MachineSpec) -> str:
        """The whole domain without names, paths and ports, the image as it was built, the program QEMU, the processor,
        and what a template has."""
        plain = replace(spec, name="template", medium=None)
        data = tuple((disk.lun, f"{disk.size_mb} MiB") for disk in spec.data_disks)
        files = DomainFiles(
            "qemu", "kernel", "initrd", "disk", None, "console", "channel", "ram", firmware=firmware(), data_disks=data
        )
        # Not the connection's emulator: that may be a program of ours that starts this one.
        emulator = Path(which(EMULATOR) or "").stat()
        parts = [domain_xml(plain, files, self._accelerator), spec.image.key, spec.image.built, spec.image.disk]
        parts += [emulator.st_size, emulator.st_mtime_ns, SCHEMA, *self._processor()]
        return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:16]


def check_same(template: Template, made: float, step: str) -> None:
    """Raise HostError when the checkpoint before ``step`` was taken of a template that was ``made`` at another time."""
    if template.created != made:
        raise HostError(
            f"the template that the checkpoint before {step} is based on was made anew since",
            hint="what the checkpoint holds does not fit the new one; run it again",
        )
