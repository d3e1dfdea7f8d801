# SPDX-License-Identifier: Apache-2.0
"""How big a machine is and what it is called, of all who say so: options, a definition, a service definition."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.package.machine_settings import MachineSettings
    from harness.package.service import Service

_SHARE: Final = 0.5
"""Of this host's memory, what a size profile may ask for: sizes are a hosting provider's, and this is a desk."""
_STEP_MB: Final = 128


@dataclass(slots=True)
class Wishes:
    """What was asked for so far; None is nothing. Whoever comes first wins. ``least_mb`` is the image's own memory."""

    least_mb: int
    memory_mb: int | None = None
    cpus: int | None = None
    computer_name: str | None = None
    administrator_password: str | None = field(default=None, repr=False)
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
            self.warnings.append(f"the machine does not join the domain {settings.domain[:60]!r}: there is none here")
        if disks := len(settings.data_disks):
            disks_are = (
                "1 data disk of the definition is" if disks == 1 else f"{disks} data disks of the definition are"
            )
            self.warnings.append(f"the {disks_are} not attached")
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
