# SPDX-License-Identifier: Apache-2.0
"""What a definition says of the machine: its IntrinsicSettings with parameters filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.package.credentials import password
from harness.package.sizes import size_of

if TYPE_CHECKING:
    from harness.package.definition_models import IntrinsicSettings
    from harness.package.models import Credential
    from harness.package.parameters import Parameters


@dataclass(frozen=True, slots=True)
class DataDisk:
    """A data disk: the image as ``Family:Version``, and its logical unit number."""

    image: str | None
    lun: int | None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A network adapter and the network that it is in, as the platform calls it; no network of the emulator."""

    name: str | None
    network: str | None


@dataclass(frozen=True, slots=True)
class Instances:
    """How many instances there are at the start, at least and at most, and in how many upgrade domains."""

    initial: int = 1
    minimum: int | None = None
    maximum: int | None = None
    upgrade_domains: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """A machine as its definition wants it; None is what the definition does not say, or what has no value yet.

    ``cpus`` and ``memory_mb`` are those of the default size profile ``vm_size``, None for a size of another name.
    ``time_zone`` is an identifier of tzutil; the emulator's machines stay on UTC. ``os`` is the profile that is not
    null; without any the image is used unchanged [DOC dn249737]. Passwords are not in the representation.
    """

    vm_size: str | None = None
    cpus: int | None = None
    memory_mb: int | None = None
    os: Literal["windows", "linux"] | None = None
    os_disk: str | None = None
    data_disks: tuple[DataDisk, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    instances: Instances = Instances()
    computer_name_pattern: str | None = None
    time_zone: str | None = None
    admin_user: str | None = None
    admin_password: str | None = field(default=None, repr=False)
    workgroup: str | None = None
    domain: str | None = None
    domain_user: str | None = None
    domain_password: str | None = field(default=None, repr=False)
    dns_domain_name: str | None = None
    ssh_public_key: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.admin_password, self.domain_password) if secret)


def machine_settings(intrinsic: IntrinsicSettings, values: Parameters) -> tuple[MachineSettings, tuple[str, ...]]:
    """The settings with ``values`` filled in, and the parameters without one that the emulator's machine would need.

    Networks, disks' images and domains are told as far as they are known; the emulator has none of them.
    """
    needed: dict[str, None] = {}

    def text(written: str | None, *, need: bool = False) -> str | None:
        if written is None:
            return None
        filled = values.fill(written)
        if filled.unresolved:
            needed.update(dict.fromkeys(filled.unresolved if need else ()))
            return None
        return filled.text or None

    def number(written: int | str | None) -> int | None:
        filled = (text(written) or "") if isinstance(written, str) else written
        if isinstance(filled, str):
            stripped = filled.strip()
            return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 10 else None
        return filled

    def account(written: Credential | str | None, *, need: bool = False) -> tuple[str | None, str | None]:
        if written is None:
            return None, None
        if not isinstance(written, str):
            return text(written.user_name, need=need), text(written.password, need=need)
        whole = text(written, need=need)
        return (None, None) if whole is None else (whole.partition(":")[0] or None, password(whole))

    hardware, storage = intrinsic.hardware_profile, intrinsic.storage_profile
    system = intrinsic.operating_system_profile
    size = text(hardware.vm_size, need=True) if hardware else None
    cpus, memory = size_of(size) or (None, None)
    windows = system.windows_operating_system_profile if system else None
    linux = system.linux_operating_system_profile if system else None
    join = windows.domain_join if windows else None
    admin_user, admin_password = account(system.admin_credential, need=True) if system else (None, None)
    domain_user, domain_password = account(join.domain_join_credentials) if join else (None, None)
    scale = intrinsic.scale_out_settings
    settings = MachineSettings(
        vm_size=size,
        cpus=cpus,
        memory_mb=memory,
        os="linux" if linux is not None and windows is None else "windows" if windows is not None else None,
        os_disk=text(storage.os_virtual_hard_disk_image) if storage else None,
        data_disks=tuple(
            DataDisk(text(disk.data_virtual_hard_disk_image), number(disk.lun))
            for disk in (storage.data_virtual_hard_disks if storage else ())
        ),
        adapters=tuple(
            Adapter(text(adapter.name), text(adapter.network_ref))
            for adapter in (intrinsic.network_profile.network_adapters if intrinsic.network_profile else ())
        ),
        instances=Instances(
            number(scale.initial_instance_count) or 1,
            number(scale.minimum_instance_count),
            number(scale.maximum_instance_count),
            number(scale.upgrade_domain_count),
        )
        if scale
        else Instances(),
        computer_name_pattern=text(system.computer_name_pattern, need=True) if system else None,
        time_zone=text(system.time_zone) if system else None,
        admin_user=admin_user,
        admin_password=admin_password,
        workgroup=text(windows.workgroup_name) if windows else None,
        domain=text(join.domain_to_join) if join else None,
        domain_user=domain_user,
        domain_password=domain_password,
        dns_domain_name=text(linux.dns_domain_name) if linux else None,
        ssh_public_key=text(linux.ssh_public_key) if linux else None,
    )
    return settings, tuple(needed)
