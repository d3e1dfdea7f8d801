# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver: makes throwaway QEMU machines."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError, HostError
from harness.image.recipe import Image
from harness.machine.accelerator import choose_accelerator
from harness.machine.checkpoints import Checkpoint, Recording, recording
from harness.machine.host import check_means
from harness.machine.protocol import Accelerator, FreezePoint, MachineSpec, Origin
from harness.machine.qemu.connection import Connection, connect
from harness.machine.qemu.domain import DomainFiles, domain_xml
from harness.machine.qemu.forks import Forks, blank_disks, firmware, uefi
from harness.machine.qemu.machine import LibvirtMachine, new_machine, socket_of
from harness.machine.qemu.storage import LocalFiles, Volumes, storage_for
from harness.machine.qemu.tunnel import is_this_host
from harness.machine.slots import slot
from harness.machine.templates import TemplateStore


class LibvirtHypervisor:
    """The protocol's Hypervisor on one libvirt connection."""

    def __init__(self, connection: Connection, storage: LocalFiles | Volumes) -> None:
        self._connection = connection
        self._storage = storage
        self._accelerators: dict[Path, Accelerator] = {}
        self._probing = threading.Lock()

    @classmethod
    @contextlib.contextmanager
    def open(cls, uri: str | None = None) -> Iterator[LibvirtHypervisor]:
        """Connect to ``uri``; None is the in-process driver, which needs no daemon and no rights."""
        with connect(uri) as connection, storage_for(connection) as storage:
            yield cls(connection, storage)

    @property
    def uri(self) -> str:
        return self._connection.uri

    @property
    def has_channel(self) -> bool:
        """The in-process driver's machines have one."""
        return self._connection.embed

    def scratch(self) -> Path:
        """A private folder of this process for files on their way to a machine."""
        folder = self._connection.folder.path / "scratch"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def accelerator(self, image: Image) -> Accelerator:
        """What will execute guests of ``image``: KVM is probed with its kernel."""
        # An image without a kernel of its own is no less able: any kernel tells what this host can.
        kernel = image.kernel or next(iter(sorted(image.disk.parent.parent.glob("*/kernel"))), None)
        if not is_this_host(self._connection.host):
            return Accelerator("tcg", f"KVM on {self._connection.host} is not probed from here")
        if kernel is None:
            return Accelerator("tcg", "there is no kernel to probe KVM with; 'vmrole images build debian-12' makes one")
        with self._probing:
            if kernel not in self._accelerators:
                self._accelerators[kernel] = choose_accelerator(kernel)
            return self._accelerators[kernel]

    def slowness(self, image: Image) -> float:
        """See the protocol: measured when a template was made (harness.image.work), else what the recipe says."""
        if self.accelerator(image).kind == "kvm":
            return 1.0
        return TemplateStore.of_user().slowness(image.key) or image.recipe.slowness

    def turn(
        self, memory_mb: int, *, deadline: Deadline, waiting: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[None]:
        """See protocol.Hypervisor; what another libvirt host has is not known here."""
        if not self._connection.embed:
            return contextlib.nullcontext()
        return slot(memory_mb, deadline=deadline, waiting=waiting)

    @contextlib.contextmanager
    def machine(
        self,
        spec: MachineSpec,
        *,
        deadline: Deadline,
        freeze: FreezePoint | None = None,
        waiting: Callable[[str], None] = lambda _for: None,
    ) -> Iterator[LibvirtMachine]:
        """See protocol.Hypervisor."""
        if self._connection.embed:
            check_means(spec.memory_mb, self._connection.folder.path)
        machine = self._forked_or_cold(spec, freeze, deadline, waiting)
        try:
            yield machine
        finally:
            machine.close()

    def recording(self, name: str) -> contextlib.AbstractContextManager[Recording]:
        """See protocol.Hypervisor."""
        return recording(self._connection.folder, name)

    @contextlib.contextmanager
    def resume(self, spec: MachineSpec, checkpoint: Checkpoint, *, deadline: Deadline) -> Iterator[LibvirtMachine]:
        """See protocol.Hypervisor."""
        if not isinstance(self._storage, LocalFiles):
            raise HostError("checkpoints are there for machines of the in-process driver only")
        forks = Forks(self._connection, self._storage, self.accelerator(spec.image))
        machine = forks.resume(spec, checkpoint, deadline)
        try:
            yield machine
        finally:
            machine.close()

    def _forked_or_cold(
        self, spec: MachineSpec, freeze: FreezePoint | None, deadline: Deadline, waiting: Callable[[str], None]
    ) -> LibvirtMachine:
        why = "a cold boot was asked for" if freeze is None else self._why_cold(spec)
        if freeze is None or why:
            return self._cold(spec, Origin(False, why or ""), deadline)
        assert isinstance(self._storage, LocalFiles)
        forks = Forks(self._connection, self._storage, self.accelerator(spec.image))
        # A template that does not work is made anew once: a damaged one must not cost more than that.
        for attempt in (1, 2):
            try:
                template, made = forks.template(spec, freeze, deadline, waiting)
            except GuestError as error:
                return self._cold(spec, Origin(False, f"no template could be made: {error.message}"), deadline)
            try:
                return forks.fork(spec, template, freeze, deadline, "made for it" if made else "there already")
            except (HostError, GuestError) as error:
                forks.discard(template)
                why = f"the fork did not work: {error.message}"
                waiting(f"{why}; " + ("making a new template" if attempt == 1 else "booting instead"))
                if deadline.expired:
                    raise
        return self._cold(spec, Origin(False, why or ""), deadline)

    def _why_cold(self, spec: MachineSpec) -> str | None:
        """Why machines like ``spec`` cannot be forked here, None when they can."""
        image = spec.image
        needed = {"entropy", "clock", "host-key", "name"}
        if not self._connection.embed:
            return "forks are made by the in-process driver only"
        if lacking := needed - set(image.recipe.renews):
            return f"the image {image.recipe.name} cannot renew {', '.join(sorted(lacking))} after a fork"
        if image.uefi:
            return "what UEFI keeps of a machine is not saved with a template"
        if firmware() is None:
            return "QEMU's firmware bios-256k.bin is not where this is known to be"
        return None

    def _cold(self, spec: MachineSpec, origin: Origin, deadline: Deadline) -> LibvirtMachine:
        connection, storage, image = self._connection, self._storage, spec.image
        machine = new_machine(connection, storage, spec, origin)
        try:
            backing = storage.image_file(image.disk, image.key)
            files = DomainFiles(
                emulator=connection.emulator,
                kernel=storage.image_file(image.kernel, image.key) if image.kernel else None,
                initrd=storage.image_file(image.initrd, image.key) if image.initrd else None,
                disk=storage.overlay(spec.name, backing, image, deadline=deadline),
                medium=storage.medium(spec.name, spec.medium) if spec.medium else None,
                console=socket_of(connection, spec, "console"),
                channel=socket_of(connection, spec, "channel"),
                uefi=uefi() if image.uefi else None,
                data_disks=blank_disks(storage, spec, deadline),
                setup=storage.image_file(image.setup, image.key) if image.setup else None,
            )
            machine.start(files, domain_xml(spec, files, self.accelerator(image)), deadline=deadline)
        except BaseException:
            machine.close()
            raise
        return machine
