# SPDX-License-Identifier: Apache-2.0
"""The libvirt domain of a machine. A pure function of its arguments: no connection, no files touched."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from harness.machine.protocol import Accelerator, MachineSpec

NETDEV = "vmrole{index}"
"""Identifier of our own `-netdev user`; monitor commands that forward ports name it."""

CD = "sda"
CD_PLAIN = "sdb"
CHANNEL = "org.vmrole.agent.0"
"""Name of the virtio-serial port that the guest's agent serves (docs/guest-channel.md)."""

_QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"


_DATA_TARGET = "1"
"""Of the SCSI controller; target 0 is the CD drive."""


@dataclass(frozen=True, slots=True)
class DomainFiles:
    """Paths as the libvirt host sees them. ``console`` is a socket to listen on, None for a pty."""

    emulator: str | None
    kernel: str | None
    initrd: str | None
    disk: str
    medium: str | None
    console: str | None
    channel: str | None = None
    """Socket to listen on, the host's end of the agent's channel; None for no channel."""
    ram: str | None = None
    """File with the guest's RAM; None for anonymous memory."""
    incoming: bool = False
    """Whether it is a fork: ``ram`` is mapped privately, and the device state comes by the monitor."""
    firmware: str | None = None
    """File with the firmware; None for where QEMU has it."""
    uefi: tuple[str, str] | None = None
    """UEFI's code and the template of its variables; None for a BIOS."""
    data_disks: tuple[tuple[int, str], ...] = ()
    """Logical unit number and path."""
    setup: str | None = None
    """A medium in a drive of its own, which is started from where the disk starts nothing."""


def domain_xml(spec: MachineSpec, files: DomainFiles, accelerator: Accelerator) -> str:
    """The domain XML of ``spec``.

    Everything a guest does not need costs boot time under TCG, so there is no graphics, USB, option ROM or balloon;
    q35 starts about a second faster than pc (measured, images/debian-12/README.md).
    ``-netdev user,restrict=on`` is ours because libvirt's <interface type='user'> has no ``restrict`` and would let the
    guest reach the host's loopback at 10.0.2.2 (measured).
    """
    domain = ET.Element("domain", type="kvm" if accelerator.kind == "kvm" else "qemu")
    _text(domain, "name", spec.name)
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    _text(domain, "vcpu", str(spec.cpus))
    os_ = ET.SubElement(domain, "os")
    _text(os_, "type", "hvm", arch="x86_64", machine="q35")
    if files.uefi:
        code, variables = files.uefi
        _text(os_, "loader", code, readonly="yes", type="pflash")
        ET.SubElement(os_, "nvram", template=variables)
    if files.kernel:
        _text(os_, "kernel", files.kernel)
        if files.initrd:
            _text(os_, "initrd", files.initrd)
        _text(os_, "cmdline", spec.image.recipe.kernel_arguments)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    _cpu(domain, accelerator)
    clock = ET.SubElement(domain, "clock", offset="utc")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    # A guest that powers itself off, reboots or panics stays visible to whoever waits for it.
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "preserve")
    devices = ET.SubElement(domain, "devices")
    if files.emulator:
        _text(devices, "emulator", files.emulator)
    plain = spec.image.recipe.devices == "plain"
    disk = _disk(devices, files.disk, plain=plain)
    if not plain:
        _on_root_bus(ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi"), 3)
    _cdrom(devices, files.medium, plain=plain)
    for number, (lun, path) in enumerate(files.data_disks):
        _data_disk(devices, number, lun, path, plain=plain)
    if files.setup:
        drive = _cdrom(devices, files.setup, plain=plain, target=f"sd{chr(ord('c') + len(files.data_disks))}")
        for order, device in enumerate((disk, drive), 1):
            ET.SubElement(device, "boot", order=str(order))
    ET.SubElement(devices, "controller", type="usb", model="none")
    _serial(devices, files.console)
    if files.channel and not plain:
        _on_root_bus(ET.SubElement(devices, "controller", type="virtio-serial", index="0"), 4)
        _channel(devices, files.channel)
    if plain:
        # Nobody looks at it, but Windows and its Setup start on no machine that cannot show anything.
        ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga", vram="16384")
    ET.SubElement(devices, "memballoon", model="none")
    _command_line(domain, [*_network(spec), *_memory(spec, files)])
    _without_slow_questions(domain)
    return ET.tostring(domain, encoding="unicode")


def cdrom_xml(medium: str | None, *, plain: bool = False) -> str:
    """The CD drive holding ``medium`` (or empty), for an update of the running domain."""
    return ET.tostring(_cdrom(ET.Element("devices"), medium, plain=plain), encoding="unicode")


def _cpu(domain: ET.Element, accelerator: Accelerator) -> None:
    """With KVM the host's own, without its time stamp counter for a clock, which does not go on from a saved state as
    kvm-clock does. Under TCG a plain model: guests use what they find, and AVX2 above all is slow to emulate."""
    if accelerator.kind == "kvm":
        host = ET.SubElement(domain, "cpu", mode="host-passthrough", check="none")
        for name in accelerator.without:
            ET.SubElement(host, "feature", policy="disable", name=name)
        return
    cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
    _text(cpu, "model", "Nehalem", fallback="allow")
    ET.SubElement(cpu, "feature", policy="require", name="rdrand")


def _disk(devices: ET.Element, path: str, *, plain: bool) -> ET.Element:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    # The overlay is thrown away: never flush. A full host disk pauses the guest, which we see and report.
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", error_policy="enospace", discard="unmap")
    ET.SubElement(disk, "source", file=path)
    if plain:
        # The controller of the chipset, for which every Windows has a driver.
        ET.SubElement(disk, "target", dev="sda", bus="sata")
        return disk
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    _on_root_bus(disk, 2)
    return disk


def _data_disk(devices: ET.Element, number: int, lun: int, path: str, *, plain: bool) -> None:
    """At its logical unit number; ports of a SATA controller have none, so that there the serial number tells it."""
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", error_policy="enospace", discard="unmap")
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=f"sd{chr(ord('c') + number)}", bus="sata" if plain else "scsi")
    _text(disk, "serial", f"lun-{lun}")
    if not plain:
        ET.SubElement(disk, "address", type="drive", controller="0", bus="0", target=_DATA_TARGET, unit=str(lun))


def disk_devices(luns: Sequence[int]) -> list[str]:
    """libvirt's names of the disk and of the data disks at ``luns``; not of those of plain controllers."""
    return ["virtio-disk0", *(f"scsi0-0-{_DATA_TARGET}-{lun}" for lun in luns)]


def _on_root_bus(device: ET.Element, slot: int) -> None:
    """Without an address libvirt puts it behind a root port of its own, which firmware and kernel then enumerate."""
    ET.SubElement(device, "address", type="pci", domain="0x0000", bus="0x00", slot=f"{slot:#04x}", function="0x0")


def _cdrom(devices: ET.Element, path: str | None, *, plain: bool, target: str | None = None) -> ET.Element:
    disk = ET.SubElement(devices, "disk", type="file", device="cdrom")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    if path:
        ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=target or (CD_PLAIN if plain else CD), bus="sata" if plain else "scsi")
    ET.SubElement(disk, "readonly")
    return disk


def _serial(devices: ET.Element, socket: str | None) -> None:
    serial = ET.SubElement(devices, "serial", type="unix" if socket else "pty")
    if socket:
        ET.SubElement(serial, "source", mode="bind", path=socket)
    ET.SubElement(serial, "target", type="isa-serial", port="0")


def _channel(devices: ET.Element, socket: str) -> None:
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind", path=socket)
    ET.SubElement(channel, "target", type="virtio", name=CHANNEL)


def _memory(spec: MachineSpec, files: DomainFiles) -> list[str]:
    """RAM in a file, and the start of a fork.

    libvirt's own <memoryBacking> puts the file where it likes, under a number that it gives the domain later. What QEMU
    writes to save devices carries no description of the machine when it is asked to leave that out, and a start with
    ``-incoming`` is one that leaves RAM alone: any other start copies kernel and firmware into it anew.
    """
    if not files.ram:
        return []
    share = "off" if files.incoming else "on"
    size = f"{spec.memory_mb}M"
    backend = f"memory-backend-file,id=vmrole.ram,size={size},mem-path={files.ram.replace(',', ',,')},share={share}"
    arguments = ["-object", backend, "-machine", "memory-backend=vmrole.ram"]
    arguments += ["-global", "migration.send-configuration=off"]
    if files.firmware:
        # Firmware in read-only memory is part of what an incoming guest is sent, and is not in the state of devices: a
        # fork would have none when it reboots. A flash chip reads its file at every start.
        firmware = files.firmware.replace(",", ",,")
        arguments += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={firmware}"]
    return [*arguments, "-incoming", "defer"] if files.incoming else arguments


def _network(spec: MachineSpec) -> list[str]:
    arguments: list[str] = []
    for index, nic in enumerate(spec.nics):
        name = NETDEV.format(index=index)
        restrict = "on" if nic.network.kind == "none" else "off"
        # Slots from 0x10 up are far from those that libvirt hands out.
        card = "e1000e" if spec.image.recipe.devices == "plain" else "virtio-net-pci"
        device = f"{card},netdev={name},mac={nic.mac},romfile=,bus=pcie.0,addr={0x10 + index:#x}"
        arguments += ["-netdev", f"user,id={name},ipv6=off,restrict={restrict}", "-device", device]
    return arguments


def _command_line(domain: ET.Element, arguments: Sequence[str]) -> None:
    ET.register_namespace("qemu", _QEMU_NS)
    line = ET.SubElement(domain, f"{{{_QEMU_NS}}}commandline")
    for argument in arguments:
        ET.SubElement(line, f"{{{_QEMU_NS}}}arg", value=argument)


def _without_slow_questions(domain: ET.Element) -> None:
    """Keep libvirt from asking QEMU for every feature of the processor by a question of its own: 380 of them take 0.3 s
    at each start (measured). It asks once for all where QEMU does not know which features are unavailable."""
    capabilities = ET.SubElement(domain, f"{{{_QEMU_NS}}}capabilities")
    ET.SubElement(capabilities, f"{{{_QEMU_NS}}}del", capability="cpu-unavailable-features")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
