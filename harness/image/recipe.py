# SPDX-License-Identifier: Apache-2.0
"""An image recipe (what images/NAME/recipe.toml declares) and a built image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_SLOWNESS = 40.0
"""A bound: a step that hangs has to be stopped some time."""


class Recipe(BaseModel):
    """images/NAME/recipe.toml, the authored description of a guest image.

    ``family`` and ``version`` are the platform's ``Family:Version`` (ResourceDefinition, OSVirtualHardDiskImage);
    ``tags`` what ResourceRequirements.OSVirtualHardDiskRequirements may ask for. ``freeze_point`` is where a template
    of it may be taken; ``renews`` what a fork of it can renew (entropy, clock, host-key, name).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,40}$")
    os: Literal["linux", "windows"]
    family: str
    version: str = Field(pattern=r"^\d+(\.\d+){3}$")
    tags: tuple[str, ...] = ()
    stand_in: bool = False
    freeze_point: Literal["awaiting-instance", "specialised"]
    renews: tuple[Literal["entropy", "clock", "host-key", "name"], ...] = ()
    cannot: tuple[Literal["powershell", "run-as", "features", "programs-32"], ...] = ()
    """What its guest cannot do; a step that needs it is not executable (docs/windows-guest.md)."""
    devices: Literal["virtio", "plain"] = "virtio"
    """plain: SATA and an e1000e card, for which every Windows Server has drivers; no channel to an agent then."""
    bootstrap: Literal["agent", "cloud-init"] = "agent"
    """What takes the instance medium: our agent in the image, or cloud-init, which finds its seed on it (NoCloud)."""
    builder: str
    """Name of the module in harness.image.builders that builds it."""
    suite: str
    """Release of the distribution."""
    packages: tuple[str, ...]
    disk_mb: int = Field(default=4096, ge=512)
    memory_mb: int = Field(default=512, ge=128)
    """Default memory of a machine of this image."""
    cpus: int = Field(default=2, ge=1, le=64)
    """Default number of its processors."""
    patience: int = Field(default=1, ge=1)
    """How many times as long as others its guest may take to become ready."""
    slowness: float = Field(default=12, ge=1, le=MOST_SLOWNESS)
    """How many times longer than natively an emulated guest takes, where that was not measured."""
    work: str = ""
    """A small mix of what steps are made of, a shell command: the processor times that it takes in the tree when the
    image is built and in a guest that is to be frozen are compared (harness.image.work). "" for what cannot be measured
    so."""
    kernel_arguments: str = ""
    first_modules: tuple[str, ...] = ()
    """Kernel modules that the initramfs loads before it mounts the root disk; what they need comes by itself."""
    second_modules: tuple[str, ...] = ()
    """Kernel modules that it loads while the service manager starts."""
    base: str | None = None
    """Image that it is built upon: it shares that one's agent, overlay, customize and masked units, and where it says
    nothing the suite, disk, kernel arguments and modules of its recipe."""
    warm: tuple[str, ...] = ()
    """Shell commands that run in a generalized guest before it is frozen: what forks will need is in memory then. A
    guest where one fails is not frozen."""
    wheels: tuple[str, ...] = ()
    """Python packages for the guest that its distribution lacks, 'NAME==VERSION --hash=sha256:...', pure Python."""
    sources: tuple[str, ...] = ()
    """Source packages that a part of the guest is compiled from, 'pool/PATH --hash=sha256:...' on the mirror."""
    powershell: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the PowerShell that the user supplied for a stand-in (harness.image.powershell); "" for none."""
    masked: tuple[str, ...] = ()
    """'system/UNIT' and 'system-generators/NAME' that are linked to /dev/null below /etc/systemd."""

    @property
    def lacks_programs_32(self) -> bool:
        """Whether it stands in for Windows without 32-bit programs."""
        return self.stand_in and "programs-32" in self.cannot

    @property
    def hint_32(self) -> str:
        """How an image that is the same, but has 32-bit programs, is made."""
        zipped = " --powershell ZIP" if self.powershell else ""
        plain = self.name.removesuffix("-powershell") if zipped else self.name
        return f"'vmrole images build {plain} --programs-32{zipped}' makes an image that can"

    @property
    def lacks_powershell(self) -> bool:
        """Whether it stands in for Windows without a PowerShell."""
        return self.stand_in and "powershell" in self.cannot


@dataclass(frozen=True, slots=True)
class Image:
    """A built image in the user's cache: read-only for ever. Paths are host paths, for hypervisor drivers only."""

    recipe: Recipe
    key: str
    """Hash of everything that went into it: recipe, guest sources, builder."""
    disk: Path
    """Raw sparse disk, the backing file of every overlay."""
    kernel: Path | None
    initrd: Path | None
    components_version: str
    """Version of the integration components inside."""
    components: Path
    """The folder with the integration components of the harness that goes on the instance medium."""
    built: str
    """UTC ISO 8601."""
    packages: tuple[str, ...] = field(default=())
    """What it contains, 'name=version'."""
    work_seconds: float | None = None
    """Processor time of the recipe's work natively; None where it was not measured."""
    uefi: bool = False
    """Whether it starts with UEFI and not with a BIOS."""
    setup: Path | None = None
    """An installation medium that machines start from for as long as their disk starts nothing; of images that are
    being made."""

    @property
    def wanted_components(self) -> str:
        """Version of the integration components of the harness: what every machine is to have."""
        return components_in(self.components)


def components_in(folder: Path) -> str:
    """Version of the integration components that were built into ``folder`` (harness.image.components)."""
    return (folder / "VERSION").read_text("utf-8").strip()
