# SPDX-License-Identifier: Apache-2.0
"""Where a machine's files are: folders of our own for the in-process driver, storage volumes for any other libvirt."""

from __future__ import annotations

import contextlib
import errno
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import libvirt

from harness.deadline import Deadline
from harness.errors import CommandError, HostError
from harness.image.recipe import Image
from harness.machine.protocol import Medium
from harness.machine.qemu.connection import Connection
from harness.process import run
from harness.state import give_to_qemu

_CHUNK = 4 * 1024 * 1024


class Storage(Protocol):
    """Files for one machine; everything it made is gone when its context ends, images stay."""

    def image_file(self, path: Path, key: str) -> str:
        """Path, on the libvirt host, of a file of the image cache."""

    def overlay(self, name: str, backing: str, image: Image, *, deadline: Deadline) -> str: ...

    def medium(self, name: str, medium: Medium) -> str: ...

    def blank(self, name: str, size_mb: int, *, deadline: Deadline) -> str:
        """An empty disk."""

    def remove(self, path: str) -> None: ...


class LocalFiles:
    """Files in the private folder of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image_file(self, path: Path, key: str) -> str:
        return str(path)

    def overlay(self, name: str, backing: str, image: Image, *, deadline: Deadline) -> str:
        return self.overlay_on(name, backing, "raw", deadline=deadline)

    def overlay_on(self, name: str, backing: str, kind: str, *, deadline: Deadline, path: Path | None = None) -> str:
        """An overlay on ``backing`` of the format ``kind``; ``path`` is where, if not with the machine's files."""
        path = path or self.folder / f"{name}.qcow2"
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", kind, str(path)]
        try:
            run(argv, deadline=deadline)
        except CommandError as error:
            if "No space left" in error.stderr:
                raise _full(self.folder) from error
            raise
        path.chmod(0o600)
        give_to_qemu(path, write=True)
        return str(path)

    def blank(self, name: str, size_mb: int, *, deadline: Deadline) -> str:
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{size_mb}M"], deadline=deadline)
        path.chmod(0o600)
        give_to_qemu(path, write=True)
        return str(path)

    def medium(self, name: str, medium: Medium) -> str:
        path = self.folder / f"{name}.iso"
        path.unlink(missing_ok=True)
        medium.write(path)
        give_to_qemu(path, write=True)
        return str(path)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)


class Volumes:
    """Storage volumes in a pool of our own, uploaded through libvirt: works for a daemon that cannot read our folders
    and for a host that is not this one."""

    POOL = "vmrole"

    def __init__(self, connection: Connection, scratch: Path) -> None:
        self._connection = connection
        self._scratch = scratch
        self._pool = self._open_pool()
        self.made: list[str] = []

    def _open_pool(self) -> libvirt.virStoragePool:
        raw = self._connection.raw
        try:
            with contextlib.suppress(libvirt.libvirtError):
                pool = raw.storagePoolLookupByName(self.POOL)
                if not pool.isActive():
                    pool.create(0)
                pool.refresh(0)
                return pool
            pool_xml = ET.Element("pool", type="dir")
            ET.SubElement(pool_xml, "name").text = self.POOL
            target = ET.SubElement(pool_xml, "target")
            ET.SubElement(target, "path").text = self._target()
            mode = ET.SubElement(target, "permissions")
            ET.SubElement(mode, "mode").text = "0711"
            return raw.storagePoolCreateXML(
                ET.tostring(pool_xml, encoding="unicode"), libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD
            )
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt cannot provide the storage pool '{self.POOL}': {error.get_error_message()}",
                hint="install libvirt-daemon-driver-storage-... (libvirt-daemon) on its host, or leave --connect out",
            ) from error

    def _target(self) -> str:
        if self._connection.uri.rstrip("/").split("?")[0].endswith("/session"):
            return f"/var/tmp/vmrole-session-{os.getuid()}"
        return "/var/lib/libvirt/images/vmrole"

    def image_file(self, path: Path, key: str) -> str:
        """Upload once per image key. The empty volume ``.ok`` is made last, so a cut-off upload is never used."""
        name = f"{key}-{path.name}"
        with contextlib.suppress(libvirt.libvirtError):
            self._pool.storageVolLookupByName(f"{name}.ok")
            return str(self._pool.storageVolLookupByName(name).path())
        with contextlib.suppress(libvirt.libvirtError):
            self._pool.storageVolLookupByName(name).delete(0)
        volume = self._create(name, "raw", path.stat().st_size)
        self._upload(volume, path)
        self._create(f"{name}.ok", "raw", 0)
        return str(volume.path())

    def overlay(self, name: str, backing: str, image: Image, *, deadline: Deadline) -> str:
        volume = self._create(f"{name}.qcow2", "qcow2", image.disk.stat().st_size, backing=backing)
        self.made.append(volume.name())
        return str(volume.path())

    def blank(self, name: str, size_mb: int, *, deadline: Deadline) -> str:
        volume = self._create(f"{name}.qcow2", "qcow2", size_mb << 20, mode="0600")
        self.made.append(volume.name())
        return str(volume.path())

    def medium(self, name: str, medium: Medium) -> str:
        path = self._scratch / f"{name}.iso"
        path.unlink(missing_ok=True)
        try:
            medium.write(path)
            with contextlib.suppress(libvirt.libvirtError):
                self._pool.storageVolLookupByName(path.name).delete(0)
            volume = self._create(path.name, "raw", path.stat().st_size, mode="0600")
            self.made.append(volume.name())
            self._upload(volume, path)
        finally:
            path.unlink(missing_ok=True)
        return str(volume.path())

    def remove(self, path: str) -> None:
        name = Path(path).name
        with contextlib.suppress(libvirt.libvirtError):
            self._pool.storageVolLookupByName(name).delete(0)
        if name in self.made:
            self.made.remove(name)

    def _create(
        self, name: str, format_: str, size: int, *, backing: str | None = None, mode: str = "0644"
    ) -> libvirt.virStorageVol:
        xml = ET.Element("volume")
        ET.SubElement(xml, "name").text = name
        ET.SubElement(xml, "capacity", unit="bytes").text = str(size)
        ET.SubElement(xml, "allocation", unit="bytes").text = "0"
        target = ET.SubElement(xml, "target")
        ET.SubElement(target, "format", type=format_)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = mode if not backing else "0600"
        if backing:
            store = ET.SubElement(xml, "backingStore")
            ET.SubElement(store, "path").text = backing
            ET.SubElement(store, "format", type="raw")
        try:
            return self._pool.createXML(ET.tostring(xml, encoding="unicode"), 0)
        except libvirt.libvirtError as error:
            raise HostError(f"libvirt cannot make the volume {name}: {error.get_error_message()}") from error

    def _upload(self, volume: libvirt.virStorageVol, path: Path) -> None:
        """Send ``path``, holes as holes."""
        stream = self._connection.raw.newStream(0)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            volume.upload(stream, 0, path.stat().st_size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            stream.sparseSendAll(
                lambda _s, size, _o: os.read(descriptor, min(size, _CHUNK)),
                lambda _s, _o: _extent(descriptor),
                lambda _s, size, _o: os.lseek(descriptor, size, os.SEEK_CUR),
                None,
            )
            stream.finish()
        except libvirt.libvirtError as error:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()
            with contextlib.suppress(libvirt.libvirtError):
                volume.delete(0)
            raise HostError(f"libvirt cannot take {path.name}: {error.get_error_message()}") from error
        finally:
            os.close(descriptor)


def _extent(descriptor: int) -> tuple[bool, int]:
    """(in data, bytes until that changes) at the current offset, which stays; libvirt's hole handler."""
    here = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        data = os.lseek(descriptor, here, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False, os.lseek(descriptor, 0, os.SEEK_END) - os.lseek(descriptor, here, os.SEEK_SET)
    try:
        if data > here:
            return False, data - here
        return True, os.lseek(descriptor, here, os.SEEK_HOLE) - here
    finally:
        os.lseek(descriptor, here, os.SEEK_SET)


def _full(folder: Path) -> HostError:
    return HostError(
        f"the disk of {folder} is full", hint="free some space; 'vmrole images list' and 'vmrole sweep' help"
    )


@contextlib.contextmanager
def storage_for(connection: Connection) -> Iterator[LocalFiles | Volumes]:
    """The storage that fits ``connection``."""
    if connection.embed:
        folder = connection.folder.path / "disks"
        folder.mkdir(mode=0o700, exist_ok=True)
        give_to_qemu(folder, write=False)
        if folder.stat().st_mode & 0o040:
            folder.chmod(0o710)
        yield LocalFiles(folder)
    else:
        yield Volumes(connection, connection.folder.path)
