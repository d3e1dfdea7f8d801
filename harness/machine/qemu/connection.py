# SPDX-License-Identifier: Apache-2.0
"""Connections to libvirt: the in-process driver with a root of our own, or any URI the user names.

Facts (measured with libvirt 9.0): one embed root per process; the first domain of a fresh root
costs 2-3 s of capability probing, which a copied ``cache`` folder saves; root needs ``stdio_handler = "file"``.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

import libvirt

from harness.deadline import Deadline
from harness.errors import HostError, UsageError
from harness.files import replace_file
from harness.machine.accelerator import EMULATOR
from harness.machine.qemu.calls import undisturbed
from harness.machine.qemu.tunnel import is_this_host
from harness.machine.sweep import end_machines
from harness.process import Account, run, which
from harness.state import ProcessFolder, new_process_folder, qemu_account, state_folder

EMBED = "embed"
"""The URI a user writes (or leaves out) for the in-process driver."""

_ENDS_SECONDS = 30.0

_lock = threading.Lock()
_loop_started = False


@dataclass(frozen=True, slots=True)
class Connection:
    """An open libvirt connection. ``embed`` is the in-process driver, whose files are all in ``folder``."""

    raw: libvirt.virConnect
    uri: str
    embed: bool
    folder: ProcessFolder
    emulator: str | None

    @property
    def host(self) -> str | None:
        """The libvirt host when it is another computer (or reached as one), None when it is this one."""
        return urlsplit(self.uri).hostname


@contextlib.contextmanager
def connect(uri: str | None) -> Iterator[Connection]:
    """Open ``uri`` for the time of the context; None is the in-process driver.

    libvirt allows a process one in-process root for its whole life, so that one is opened once, shared, and closed when
    the process ends. Raises HostError when libvirt refuses, with what to do.
    """
    start_event_loop()
    if uri is None or uri == EMBED:
        with _lock:
            embedded = _embedded()
        yield embedded
        return
    raw = open_libvirt(uri)
    try:
        # A daemon of this host meets the same trap as the in-process driver; only root can see it, and avoid it.
        account = qemu_account()
        trapped = account and is_this_host(urlsplit(uri).hostname) and reprobing_trap(account)
        yield Connection(raw, uri, False, process_folder(), _emulator(account) if trapped else None)
    finally:
        raw.close()


@cache
def _embedded() -> Connection:
    folder = process_folder()
    emulator = prepare_root(folder.path)
    uri = f"qemu:///embed?root={quote(str(folder.path))}"
    connection = Connection(open_libvirt(uri), uri, True, folder, emulator)

    kept = _kept_capabilities()

    def close() -> None:
        # First, because libvirt closes only when none of its threads waits for an answer of a QEMU any more.
        end_machines(folder)
        _keep_capabilities(folder.path, kept)
        # libvirt's threads write to the folder, which is about to be removed, until they have seen every end.
        Deadline(_ENDS_SECONDS).poll(lambda: None if _ending(connection.raw) else True, every=0.005)
        connection.raw.close()

    atexit.register(close)
    return connection


_ended: list[str] = []
"""Names of domains whose process was ended without libvirt."""


def ended(name: str) -> None:
    """The process of the domain ``name`` was ended without libvirt, which will see that in its own time."""
    _ended.append(name)


def await_end(connection: Connection, name: str) -> None:
    """Wait until libvirt has seen the end of the process of ``name`` too, if it was ended: the name is free then."""
    if name in _ended:
        Deadline(_ENDS_SECONDS).poll(lambda: None if _ending(connection.raw) else True, every=0.005)


def _ending(raw: libvirt.virConnect) -> bool:
    """Whether libvirt still has a domain whose process has ended."""
    for name in _ended:
        with contextlib.suppress(libvirt.libvirtError):
            raw.lookupByName(name)
            return True
    return False


@cache
def process_folder() -> ProcessFolder:
    """This process's part of the state folder, until the process ends."""
    stack = contextlib.ExitStack()
    folder = stack.enter_context(new_process_folder())
    stack.callback(end_machines, folder)
    atexit.register(stack.close)
    return folder


def check_uri(uri: str) -> None:
    """Raises UsageError for what can be no ``--connect``."""
    try:
        scheme = urlsplit(uri).scheme
    except ValueError:
        scheme = ""
    if uri != EMBED and scheme.partition("+")[0] != "qemu":
        raise UsageError(f"{uri!r} is not the URI of a QEMU libvirt", hint="e.g. --connect qemu:///system")


def open_libvirt(uri: str) -> libvirt.virConnect:
    """Open a connection or say in one sentence why not."""
    check_uri(uri)
    # libvirt loads its drivers for everybody to see, the system's libxml2 with them: an lxml that is loaded later takes
    # that for the one it was made with, both run into each other's functions, and the process crashes or hangs. One
    # that is there already keeps its own.
    importlib.import_module("lxml.etree")
    try:
        return undisturbed(lambda: libvirt.open(uri))
    except libvirt.libvirtError as error:
        shown = uri.split("?")[0]
        raise HostError(
            f"libvirt cannot open {shown}: {error.get_error_message()}", hint=_advice(error, shown)
        ) from error


def _advice(error: libvirt.libvirtError, uri: str) -> str:
    text = (error.get_error_message() or "").lower()
    if "no connection driver" in text or "cannot load" in text or "unsupported" in text:
        return "install libvirt-daemon-driver-qemu; 'vmrole doctor' shows what is missing"
    if "permission denied" in text or "authentication" in text:
        return "you need the right to use it: group libvirt for qemu:///system, or leave --connect out"
    if "failed to connect socket" in text or "no such file" in text:
        return f"is its daemon running? 'virsh -c {uri} version' tells"
    return f"'virsh -c {uri} version' should work first; leave --connect out to need no daemon"


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread of this process, once, and keep its messages off our standard error."""
    global _loop_started
    with _lock:
        if _loop_started:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()

        def loop() -> None:
            while True:
                with contextlib.suppress(libvirt.libvirtError):
                    libvirt.virEventRunDefaultImpl()

        threading.Thread(target=loop, name="libvirt-events", daemon=True).start()
        _loop_started = True


def prepare_root(root: Path) -> str | None:
    """Lay out an embed root; returns the emulator that domains in it must name, None for libvirt's own choice."""
    etc = root / "etc"
    etc.mkdir(mode=0o700, exist_ok=True)
    account = qemu_account()
    settings = ['stdio_handler = "file"']
    if account:
        settings += [
            f'user = "{account.name}"',
            f'group = "+{account.gid}"',
            "dynamic_ownership = 0",
            "remember_owner = 0",
            'security_driver = "none"',
            "namespaces = []",
            "cgroup_controllers = []",
        ]
    (etc / "qemu.conf").write_text("\n".join(settings) + "\n")
    kept = _kept_capabilities()
    if kept.is_dir():
        shutil.copytree(kept, root / "cache/qemu/capabilities", copy_function=shutil.copy2)
    return _emulator(account)


def _emulator(account: Account | None) -> str | None:
    """libvirt's re-probing trap, and the way around it.

    libvirt probes QEMU's capabilities with root's right to pass by file modes, but checks their validity with the plain
    rights of the account that QEMU runs under. Where only the first may open /dev/kvm, it finds its own answer invalid
    and probes again, about 5 s at every single look-up (measured: 44 s for one domain). A program that takes ``kvm``
    out of the probe's question makes both answers agree; domains started through it are not changed.
    """
    path = which(EMULATOR)
    if path is None:
        raise HostError(f"{EMULATOR} is not installed", hint="install the package qemu-system-x86")
    if account is None or not reprobing_trap(account):
        return path
    status = Path(path).stat()
    script = (
        "#!/bin/sh\n"
        'for argument do\n  shift\n  [ "$argument" = none,accel=kvm:tcg ] && argument=none,accel=tcg\n'
        f'  set -- "$@" "$argument"\ndone\nexec {path} "$@"\n'
    )
    # libvirt keeps capabilities per program and its change time, so another QEMU must be another program here too.
    digest = hashlib.sha256(f"{script}{status.st_mtime_ns}{status.st_size}".encode()).hexdigest()[:8]
    wrapper = state_folder() / f"qemu-{digest}"
    if not wrapper.exists():
        replace_file(wrapper, script, mode=0o755)
    return str(wrapper)


def reprobing_trap(account: Account | None) -> bool:
    """Whether /dev/kvm is there but closed to the account that QEMU runs under."""
    if account is None or not Path("/dev/kvm").exists():
        return False
    return run(["test", "-r", "/dev/kvm", "-a", "-w", "/dev/kvm"], ok=(0, 1), account=account).returncode == 1


def _kept_capabilities() -> Path:
    return state_folder() / "capabilities"


def _keep_capabilities(root: Path, kept: Path) -> None:
    """Keep what libvirt found out about QEMU for the next process; it checks by itself whether it still holds."""
    source = root / "cache/qemu/capabilities"
    with contextlib.suppress(OSError):
        fresh = {p.name: p.stat().st_mtime_ns for p in source.glob("*.xml")}
        if not fresh or (kept.is_dir() and fresh == {p.name: p.stat().st_mtime_ns for p in kept.glob("*.xml")}):
            return
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copytree(source, temporary, copy_function=shutil.copy2)
        shutil.rmtree(kept, ignore_errors=True)
        temporary.rename(kept)
