# SPDX-License-Identifier: Apache-2.0
"""How big a machine is and what it is called, of all who say so: options, a definition, a service definition."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harness.errors import UsageError
from harness.machine.protocol import DataDisk

if TYPE_CHECKING:
    from harness.package.machine_settings import DataDisk as WantedDisk
    from harness.package.machine_settings import MachineSettings
    from harness.package.service import Service

_SHARE: Final = 0.5
"""Of this host's memory, what a size profile may ask for: sizes are a hosting provider's, and this is a desk."""
_STEP_MB: Final = 128
_LUNS: Final = 64


@dataclass(slots=True)
class Wishes:
    """What was asked for so far; None is nothing. Whoever comes first wins. ``least_mb`` is the image's own memory."""

    least_mb: int
    memory_mb: int | None = None
    cpus: int | None = None
    computer_name: str | None = None
    administrator_password: str | None = field(default=None, repr=False)
    data_disks: dict[int, DataDisk] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_options(self, *, memory_mb: int | None, cpus: int | None, computer_name: str | None) -> None:
        self.memory_mb, self.cpus, self.computer_name = memory_mb, cpus, computer_name

    def add_definition(self, settings: MachineSettings, instance: int) -> None:
        """A resource definition. Its time zone is told as the finding ``timezone-kept-utc``."""
        if settings.cpus and settings.memory_mb:
            self._size(settings.vm_size or "", settings.cpus, settings.memory_mb)
        if self.computer_name is None:
            self.computer_name = settings.computer_name_pattern
        if self.administrator_password is None:
            self.administrator_password = settings.admin_password
        if settings.domain:
            raise UsageError(
                f"the definition joins the machine to the domain {settings.domain[:60]!r}, and there is none here",
                hint="give it a workgroup instead of DomainJoin",
            )
        if len(settings.adapters) > 1:
            raise UsageError(
                f"the definition has {len(settings.adapters)} network adapters, and a machine has one here",
                hint="leave one in its NetworkProfile",
            )
        for disk in settings.data_disks:
            self._add_disk(disk)
        if settings.dns_domain_name:
            self.warnings.append(f"the DNS domain {settings.dns_domain_name[:60]!r} of the definition is not set")
        if settings.ssh_public_key:
            self.warnings.append("the SSH public key of the definition is not installed; 'vmrole shell' has its own")
        most = settings.instances.maximum
        if most is not None and instance > most:
            self.warnings.append(f"the definition has at most {most} instances, and instance {instance} is asked for")

    def add_service(self, service: Service) -> None:
        """A service definition of 2011 with its configuration."""
        from harness.package.sizes import size_of

        size = size_of(service.role.vm_size)
        if size:
            self._size(service.role.vm_size or "", *size)
        for finding in service.findings:
            place = ":".join(str(part) for part in (finding.file, finding.line, finding.column) if part)
            self.warnings.append(f"{place}: {finding.sentence} [{finding.code}]")

    def _add_disk(self, wanted: WantedDisk) -> None:
        """An empty disk by its logical unit number: its image is not here."""
        lun = wanted.lun if wanted.lun is not None else next(n for n in range(_LUNS) if n not in self.data_disks)
        if lun in self.data_disks or not 0 <= lun < _LUNS:
            what = "two data disks" if lun in self.data_disks else "a data disk"
            raise UsageError(
                f"the definition has {what} at the logical unit number {lun}", hint=f"0 to {_LUNS - 1}, each once"
            )
        self.data_disks[lun] = DataDisk(lun)
        if wanted.image:
            self.warnings.append(f"the data disk {lun} is empty: the image {wanted.image[:60]} is not here")

    def _size(self, name: str, cpus: int, memory_mb: int) -> None:
        """A size profile, as far as this host has it."""
        have_cpus = len(os.sched_getaffinity(0))
        have_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        most_mb = int(have_mb * _SHARE) // _STEP_MB * _STEP_MB
        if self.cpus is None:
            self.cpus = min(cpus, have_cpus)
            if self.cpus < cpus:
                self.notes.append(
                    f"the size {name} has {cpus} processors; the machine gets {self.cpus}, as this host has"
                )
        if self.memory_mb is None:
            self.memory_mb = max(self.least_mb, min(memory_mb, most_mb))
            if self.memory_mb != memory_mb:
                why = "half of what this host has" if self.memory_mb < memory_mb else "the least that the image needs"
                self.notes.append(f"the size {name} has {memory_mb} MB; the machine gets {self.memory_mb} MB, {why}")
