# SPDX-License-Identifier: Apache-2.0
"""Reading files from the disk of a guest that does not answer.

The host's kernel never mounts a guest's disk. debugfs reads it in user space, under the unprivileged account when we
are root, from a flat copy whose journal was replayed first.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError
from harness.process import run
from harness.state import give_to_qemu, qemu_account

_SECONDS = 60
_SIZE = re.compile(rb"Size:\s+(\d+)")


def read_files(disk: Path, paths: Sequence[str], *, limit: int, deadline: Deadline) -> Iterator[tuple[str, bytes]]:
    """(path, content) for those of ``paths`` that are regular files of at most ``limit`` bytes on the ext4 ``disk``.

    ``paths`` are chosen by the harness, never by the guest. A file system too broken to read yields nothing, and
    nothing is read after ``deadline``.
    """
    account = qemu_account()
    with tempfile.TemporaryDirectory(prefix="vmrole-disk-", dir=disk.parent) as folder:
        give_to_qemu(Path(folder), write=True)
        flat = Path(folder) / "flat"
        deadline = deadline.within(_SECONDS)
        with contextlib.suppress(CommandError):
            argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(flat)]
            run(argv, deadline=deadline, account=account)
            run(["e2fsck", "-fy", str(flat)], deadline=deadline, account=account, ok=range(0, 8))
            for path in paths:
                about = run(["debugfs", "-R", f"stat {path}", str(flat)], deadline=deadline, account=account).stdout
                size = _SIZE.search(about)
                if b"Type: regular" not in about or size is None or int(size[1]) > limit:
                    continue
                yield path, run(["debugfs", "-R", f"cat {path}", str(flat)], deadline=deadline, account=account).stdout
