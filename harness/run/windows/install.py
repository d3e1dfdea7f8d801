# SPDX-License-Identifier: Apache-2.0
"""An image from an installation medium: Windows Setup makes it once, unattended, on a blank disk.

The machine has the medium in one drive and our answer file (autounattend.xml) with the integration components in the
other. Setup is mute on COM1, so that the answer file's own commands tell there how far it is; in the end sysprep
generalizes the disk, as those are that one adds, and switches the machine off. None of this ever met a real medium
(docs/verified-on-windows.md); the machine's side of it did meet one of our own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.deadline import Deadline
from harness.errors import GuestError, GuestNotReadyError, HostError, UsageError
from harness.guest.wintext import GUEST
from harness.image import added
from harness.image.build import ensure_components
from harness.image.recipe import Image
from harness.machine.protocol import Hypervisor, Machine, MachineSpec, MachineState, Medium
from harness.quoting import quoted
from harness.run.answer import random_password
from harness.run.events import EventBus, MachineChosen, StageReached
from harness.run.host import IMAGE_SECONDS, hypervisor
from harness.run.medium import write_iso
from harness.run.request import MachineRequest
from harness.run.windows.unattend import (
    MSI,
    AnswerFile,
    Command,
    SetupFile,
    encode_password,
    install_components,
    render_setup,
)

if TYPE_CHECKING:
    from harness.image.cache import Cache
    from harness.image.catalog import Source

DISK_GB: Final = 40
"""Windows Server asks for 32; the file is as large as what is written to it."""
_SECONDS = {"kvm": 2 * 3600.0, "tcg": 24 * 3600.0}
"""An emulated processor copies, and compiles .NET, many times slower."""
_LABEL: Final = "VMROLE-SETUP"
_TELL_SECONDS = 60.0
_SAVE_SECONDS = 3600.0
_TIMES: Final = 3
"""How much larger than its medium an installed Windows is, about: media are compressed."""
_KEY = re.compile(r"[A-Z0-9]{5}(-[A-Z0-9]{5}){4}")

SETUP, CONFIGURING, INSTALLING, GENERALIZING = "setup", "configuring", "installing-components", "generalizing"
_AWAITS = {
    "": "Windows Setup to start from the medium",
    SETUP: "Windows Setup to copy Windows to the disk, and Windows to start from there",
    CONFIGURING: "Windows to configure itself and to log its administrator on",
    INSTALLING: "the integration components to be installed",
    GENERALIZING: "sysprep to generalize Windows and to switch the machine off",
}
_STAGE = re.compile(r"vmrole: stage (\S+)")
_COMPONENTS = re.compile(r"vmrole: components ([0-9A-Za-z.+]{1,64})\s*$")
_FAILED = re.compile(r"vmrole: failed (.*)")


@dataclass(frozen=True, slots=True)
class Installation:
    """What the user asks for. ``edition`` is the name of an image on the medium or its number; ``timeout`` in seconds,
    None is what such a host takes. Raises UsageError for what cannot be."""

    medium: Path
    sha256: str | None
    edition: str
    product_key: str | None = field(repr=False)
    disk_gb: int
    memory_mb: int | None
    timeout: float | None

    def __post_init__(self) -> None:
        if self.product_key is not None and not _KEY.fullmatch(self.product_key.strip().upper()):
            raise UsageError("the product key is none", hint="it is five groups of five letters and digits")
        if not self.edition.strip() or not self.edition.isprintable() or len(self.edition) > 200:
            raise UsageError("the edition is no name", hint="the name of an image on the medium, or its number there")

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.product_key,) if self.product_key else ()


def install_image(
    source: Source, wanted: Installation, cache: Cache, bus: EventBus, *, on_secrets: Callable[[Sequence[str]], None]
) -> str:
    """Make the image ``source`` and return its key. Nothing is left of one that fails but the medium.

    Raises GuestNotReadyError with the stage reached, and what was awaited, for a Setup that does not end.
    """
    limit = Deadline(IMAGE_SECONDS)

    def progress(line: str) -> None:
        bus.notice("note", line)

    medium, digest = added.keep_medium(
        wanted.medium, sha256=wanted.sha256, cache=cache, deadline=limit, progress=progress
    )
    name = source.recipe.name
    key = hashlib.sha256(f"{digest}\0{wanted.edition}\0{wanted.disk_gb}".encode()).hexdigest()[:16]
    try:
        components = ensure_components(source, cache=cache, deadline=limit, progress=progress)
        added.check_room(cache, _TIMES * medium.stat().st_size, f"the image {name}")
        with contextlib.ExitStack() as stack:
            stack.enter_context(cache.locked(f"{name}-{key}", limit, lambda: progress("another process makes it")))
            work = stack.enter_context(cache.workplace(f"{name}-{key}"))
            with _blank(work / "blank.raw", wanted.disk_gb, cache) as blank:
                image = Image(source.recipe, key, blank, None, None, "", components, "", setup=medium)
                driver, _scratch = stack.enter_context(hypervisor(MachineRequest(name), bus))
                version = _installed(driver, image, wanted, work / added.DISK, bus, on_secrets)
            media = f"{wanted.medium.name}={digest}"
            added.put(cache, source, work, key, media=media, components=version)
    except BaseException:
        added.forget_media(cache)
        raise
    return key


@contextlib.contextmanager
def _blank(path: Path, size_gb: int, cache: Cache) -> Iterator[Path]:
    """An empty disk where QEMU's account reads it; it takes no room."""
    with path.open("xb") as file:
        file.truncate(size_gb << 30)
    for each in (path, path.parent):
        cache.grant(each)
    try:
        yield path
    finally:
        path.unlink()


def _installed(
    driver: Hypervisor,
    image: Image,
    wanted: Installation,
    disk: Path,
    bus: EventBus,
    on_secrets: Callable[[Sequence[str]], None],
) -> str:
    """Let Setup make ``disk``; the version of the integration components in it, "" without any."""
    accelerator = driver.accelerator(image)
    deadline = Deadline(wanted.timeout or _SECONDS[accelerator.kind])
    bus.emit(MachineChosen(accelerator=accelerator))
    # For the time of the installation only: an instance of the image gets one of its own.
    password = random_password()
    on_secrets([password, encode_password(password, "AdministratorPassword"), encode_password(password, "Password")])
    unattend = setup_answers(wanted.edition, wanted.product_key, password)

    def write(path: Path) -> None:
        write_iso(path, setup_files(unattend, image.components), now=time.time(), label=_LABEL)

    memory_mb = wanted.memory_mb or image.recipe.memory_mb
    spec = MachineSpec(f"vmrole-{secrets.token_hex(3)}", image, memory_mb, image.recipe.cpus, (), Medium(_LABEL, write))
    waiting: Callable[[str], None] = lambda what: bus.notice("note", what)  # noqa: E731
    with driver.turn(memory_mb, deadline=deadline, waiting=waiting):
        awaited = "Windows Setup to install and generalize"
        with (
            driver.machine(spec, deadline=deadline, waiting=waiting) as machine,
            bus.phase("setup", awaits=awaited, limit=deadline.timeout()),
        ):
            version = follow(machine, bus, deadline)
            bus.notice("note", f"copying the disk, {machine.disk_bytes >> 20} MiB")
            machine.save_disk(disk, deadline=Deadline(_SAVE_SECONDS))
    if not version:
        bus.notice("note", "the integration components are not in the image; each machine gets them from its medium")
    return version


def setup_answers(edition: str, product_key: str | None, password: str) -> bytes:
    """autounattend.xml: install, start, log on, install the integration components, generalize, switch off.

    Setup keeps a copy of an answer file and prefers it to the instance's own; sysprep would go on with it. So the copy
    is removed, with the password in it."""
    key = product_key.strip().upper() if product_key else None
    version = f"""for /f %v in ('"{GUEST}" version') do >\\\\.\\COM1 echo vmrole: components %v"""
    panther = "%WINDIR%\\Panther\\unattend"
    last = (
        _say(INSTALLING),
        install_components(),
        Command(f"cmd.exe /c {version}", "their version"),
        Command(f"cmd.exe /c del /q {panther}.xml {panther}-original.xml & exit 0", "each instance has its own"),
        _say(GENERALIZING),
        Command("cmd.exe /c %WINDIR%\\System32\\Sysprep\\sysprep.exe /generalize /oobe /shutdown /quiet", "the end"),
    )
    then = AnswerFile("*", password, (_say(CONFIGURING),), last, auto_logon=True)
    return render_setup(SetupFile(edition, key, begin=(_say(SETUP),)), then)


def _say(stage: str) -> Command:
    """On COM1. The redirection comes first: a digit before it would be the number of a stream. It never fails."""
    return Command(f"cmd.exe /c >\\\\.\\COM1 echo vmrole: stage {stage}& exit 0", f"stage {stage}")


def setup_files(unattend: bytes, components: Path) -> Iterator[tuple[str, int, bytes | Path | None]]:
    """The second medium. ``Autounattend.xml`` is the name that Setup looks for on media, and no later pass does."""
    yield "Autounattend.xml", 0o600, unattend
    yield MSI, 0o644, components / MSI


def follow(machine: Machine, bus: EventBus, deadline: Deadline) -> str:
    """Tell what Setup does until it has switched the machine off; the version of the components that it told."""
    stage, version, heard = "", "", 0
    began = told = changed = time.monotonic()
    written = 0
    while True:
        lines: list[str] = []
        machine.console.wait_for(lines.append, deadline=deadline.within(1.0))
        for line in lines[heard:]:
            if failed := _FAILED.match(line):
                raise GuestError(f"Windows Setup failed at stage {stage or 'power-on'}: {quoted(failed[1])}")
            if (found := _STAGE.match(line)) and found[1] in _AWAITS:
                stage = found[1]
                bus.emit(StageReached(stage=stage))
            if found := _COMPONENTS.match(line):
                version = found[1]
        heard = len(lines)
        if reason := machine.why_paused():
            raise HostError(f"{reason} (Windows Setup was at stage {stage or 'power-on'})", hint="free some disk space")
        now = time.monotonic()
        if (size := machine.disk_bytes) != written:
            written, changed = size, now
        state = machine.state()
        if state is not MachineState.running and stage == GENERALIZING:
            return version
        if state is not MachineState.running or deadline.expired:
            ended = "switched the machine off too early" if state is not MachineState.running else ""
            why = ended or f"did not end within {deadline.seconds:.0f} s"
            raise _unfinished(machine, stage, why, written, now - changed)
        if now - told >= _TELL_SECONDS:
            told = now
            still = f", nothing new for {(now - changed) / 60:.0f} min" if now - changed >= _TELL_SECONDS else ""
            bus.notice(
                "note",
                f"{(now - began) / 60:.0f} min, {written >> 20} MiB on the disk{still}: waiting for {_AWAITS[stage]}",
            )


def _unfinished(machine: Machine, stage: str, why: str, written: int, quiet: float) -> GuestNotReadyError:
    lines = [line for line in machine.console.lines() if line.strip()][-12:]
    last = f"its last console line is '{quoted(lines[-1], 160)}'" if lines else "its console is empty"
    return GuestNotReadyError(
        f"Windows Setup {why}; it reached stage {stage or 'power-on'}, awaited was {_AWAITS[stage]}, {written >> 20} "
        f"MiB were written to its disk, the last of it {quiet:.0f} s ago, and {last}",
        stage=stage or None,
        awaited=_AWAITS[stage],
        console=lines,
    )
