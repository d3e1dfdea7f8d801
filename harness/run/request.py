# SPDX-License-Identifier: Apache-2.0
"""What a user asks for: a machine, and what is to be run in it. Complete and checked; nothing is looked up later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.machine.protocol import DataDisk
from harness.run.answer import LocalResource

if TYPE_CHECKING:
    from harness.machine.checkpoints import Kept
    from harness.package.findings import Finding
    from harness.package.reader import Package
    from harness.plan import Plan
    from harness.run.certificates import Certificate

DIAGNOSTICS = LocalResource("DiagnosticStore", 100, clean=False)
"""The system local storage that diagnostic data goes to ([DOC]: "the components also create ..."; its name, its size
and that a recycle leaves it alone are [INFER] from worker roles)."""

NAME_PATTERN = "VMROLE-*"

Keep = Literal["always", "failed", "never"]

KEEP_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """A specialised machine. ``administrator_password`` None is a random one; ``memory_mb`` and ``cpus`` None
    are the image's own."""

    image: str
    memory_mb: int | None = None
    cpus: int | None = None
    network: Literal["none", "nat"] = "none"
    computer_name: str = NAME_PATTERN
    administrator_password: str | None = None
    certificates: tuple[Certificate, ...] = ()
    local_resources: tuple[LocalResource, ...] = ()
    instance: int = 1
    connect: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Configuration settings of the service configuration."""
    secret_settings: tuple[str, ...] = field(default=(), repr=False)
    data_disks: tuple[DataDisk, ...] = ()
    answer_file: bytes | None = field(default=None, repr=False)
    """The user's own answer file for Windows, into which ours is merged."""
    cold: bool = False
    """Boot from power-on instead of forking a template."""
    cold_engines: bool = False
    """End what stands by to run steps of PowerShell: each step starts its own engine."""
    image_key: str | None = None
    """The only build of the image that will do; None is whichever is there."""
    warnings: tuple[str, ...] = ()
    """Sentences about what was asked for."""
    notes: tuple[str, ...] = ()

    @property
    def all_local_resources(self) -> tuple[LocalResource, ...]:
        """Those asked for and the diagnostics store, unless that was asked for in another way."""
        asked = {resource.name.lower() for resource in self.local_resources}
        return self.local_resources if DIAGNOSTICS.name.lower() in asked else (*self.local_resources, DIAGNOSTICS)

    @property
    def secrets(self) -> tuple[str, ...]:
        own: tuple[str, ...] = (self.administrator_password,) if self.administrator_password else ()
        if self.answer_file:
            from harness.run.windows.unattend import secrets_of

            own += tuple(secrets_of(self.answer_file))
        return (
            own
            + self.secret_settings
            + tuple(secret for certificate in self.certificates for secret in certificate.secrets)
        )


@dataclass(frozen=True, slots=True)
class Pretence:
    """Commands that a stand-in for Windows is to pretend: ``names`` of the image's table, and those of modules of the
    user, which are ``folders`` by their names."""

    names: tuple[str, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.names or self.folders)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run of ``package`` after ``plan``; ``output`` is its run directory, ``timeout`` its limit in seconds."""

    machine: MachineRequest
    package: Package
    plan: Plan
    output: Path
    name: str
    """Unique; the default name of the run directory."""
    keep: Keep = "never"
    strict: bool = False
    allow_unexecuted: bool = False
    timeout: float | None = None
    pretence: Pretence = field(default_factory=Pretence)
    exact_timeouts: bool = False
    """Whether steps get the time-outs that their author wrote in an emulated guest, too."""
    secrets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    case: str = ""
    """What tells this run from others of the same package, e.g. the scenario that asked for it."""
    again: tuple[str, ...] = ()
    """The command line that asks for exactly this; without secrets."""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    """About the definition and its use; those about the package and the plan are theirs."""
    checkpoints: bool = True
    """Whether the machine is saved before each step, where that can be."""
    how: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a replay needs to ask for the same again; JSON values, secret ones too."""
    resume: Resume | None = None
    """Go on from a checkpoint instead of starting a machine."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The checkpoint before ``step`` of the run ``kept``."""

    kept: Kept
    step: str
