# SPDX-License-Identifier: Apache-2.0
"""Where trees with many owners are built and removed: namespaces that need no root on the host and leave no mount.

As root a mount and a process namespace; as an ordinary user a user namespace as well, whose root is that user and
whose other accounts come from /etc/subuid.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import HostError
from harness.process import run, which

_IDS = 65536


def check_rights() -> None:
    """Raise HostError, with what to do, when this user cannot have files of more than one owner."""
    if os.geteuid() == 0:
        return
    user = getpass.getuser()
    if which("newuidmap") is None or which("newgidmap") is None:
        raise HostError(
            "building an image as an ordinary user needs the programs newuidmap and newgidmap",
            hint="install the package uidmap, or build as root",
        )
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        if not _has_range(file, user):
            raise HostError(
                f"the user {user} has no {_IDS} subordinate ids in {file}",
                hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    for file in (Path("/proc/sys/user/max_user_namespaces"), Path("/proc/sys/kernel/unprivileged_userns_clone")):
        if file.exists() and file.read_text("ascii").strip() == "0":
            raise HostError(f"this computer allows no user namespaces ({file} is 0)", hint="build as root")


def _has_range(file: Path, user: str) -> bool:
    """Whether ``file`` (subuid(5): NAME-OR-ID:FIRST:COUNT) grants ``user`` enough ids for a Debian."""
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text("utf-8", "replace").splitlines():
            name, _, rest = line.partition(":")
            count = rest.rpartition(":")[2].strip()
            if name in (user, str(os.getuid())) and count.isdigit() and int(count) >= _IDS:
                return True
    return False


def inside(argv: Sequence[str]) -> list[str]:
    """``argv`` in the namespaces. Its processes and mounts end with it, and it ends with the process that started it:
    a killed harness leaves nothing that still writes into a folder whose lock is free again.
    """
    mapping = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    return [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        *mapping,
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
        *argv,
    ]


def remove(folder: Path) -> None:
    """Remove a folder, whoever owns what is in it. Raises CommandError when that fails."""
    run(inside(["rm", "-rf", "--one-file-system", str(folder)]), deadline=Deadline(120))
