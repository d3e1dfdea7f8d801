# SPDX-License-Identifier: Apache-2.0
"""Every error the harness raises on purpose; the class says who failed.

VmRoleError
├── UsageError             the command line, an option, a parameter value            exit 2
├── PackageError           the package cannot be read or cannot work                 exit 2
├── ExtensionError         a step of the extension failed                            exit 1
├── TimeLimitError         the time that the user gave the whole of it is over       exit 3
├── GuestError             the machine misbehaves: panic, full disk, broken boot     exit 3
│   ├── GuestNotReadyError it never reached its ready marker
│   └── GuestLostError     it was ready and does not answer any more
│       └── GuestGoingError it restarts, and what it was to do has not begun
├── HostError              this computer: a tool, right, port, disk or memory        exit 3
│   └── CommandError       a process on the host failed
└── HarnessError           our own fault                                             exit 3
    └── CleanupError       something could not be undone

A message is one sentence: what is wrong, with what. ``hint`` is what to do about it.
Foreign exceptions (libvirt, paramiko, pydantic, OSError) are mapped where they arise; what arrives at the
command line as anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

Blame = Literal["package", "extension", "guest", "host", "harness"]


class VmRoleError(Exception):
    """Root of the tree; never raised itself."""

    blame: ClassVar[Blame | None] = None
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(VmRoleError):
    """The user asked for something that does not exist or does not make sense."""

    exit_code = 2


class PackageError(VmRoleError):
    """The package cannot be read, or cannot be executed as it is written."""

    blame = "package"
    exit_code = 2


class ExtensionError(VmRoleError):
    """A step of the extension failed."""

    blame = "extension"
    exit_code = 1


class TimeLimitError(VmRoleError):
    """The time that the user gave the whole run or command is over. Nobody is to blame: it may have been too little."""


class GuestError(VmRoleError):
    """The guest operating system failed or misbehaved."""

    blame = "guest"


class GuestNotReadyError(GuestError):
    """The guest did not become ready.

    ``stage`` is the last stage it announced, ``awaited`` what had to come next, ``console`` its last lines.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str | None = None,
        awaited: str | None = None,
        console: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.awaited = awaited
        self.console = tuple(console)


class GuestLostError(GuestError):
    """A guest that was ready stopped answering."""


class GuestGoingError(GuestLostError):
    """A guest that is about to restart did not begin what it was asked for."""


class HostError(VmRoleError):
    """This computer lacks something: a program, a right, memory, disk space, a free port."""

    blame = "host"


class CommandError(HostError):
    """A host process failed; carries its argv, exit code and the end of its output."""

    def __init__(
        self, message: str, *, argv: Sequence[str], returncode: int | None, stderr: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


class HarnessError(VmRoleError):
    """The harness itself is at fault."""

    blame = "harness"


class CleanupError(HarnessError):
    """Undoing failed in one or more places; ``failures`` has them all."""

    def __init__(self, failures: Sequence[BaseException]) -> None:
        what = "; ".join(str(f) for f in failures)
        super().__init__(f"could not clean up everything: {what}", hint="'vmrole sweep' removes what is left")
        self.failures = tuple(failures)
