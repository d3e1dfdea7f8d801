# SPDX-License-Identifier: Apache-2.0
"""The one way to run a process on the host: an argv list, no shell, no inherited standard input."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError

_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host that a process runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_account(name: str) -> Account | None:
    """The account ``name``, or None when this host has no such user."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(g.gr_gid for g in grp.getgrall() if name in g.gr_mem)
    return Account(name, entry.pw_uid, entry.pw_gid, groups)


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished host process; streams as bytes, decoded by whoever knows their encoding."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


def which(program: str) -> str | None:
    """Path of ``program``, looked for in the administrator's folders too (Debian users lack them in PATH)."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok: Sequence[int] = (0,),
    output: Path | None = None,
    account: Account | None = None,
) -> Completed:
    """Run ``argv`` to its end and return it.

    ``env`` is added to a minimal environment (PATH, HOME, LANG=C.UTF-8, TMPDIR). ``output`` is a log file that receives
    both streams instead of the result. ``account`` drops root's rights first. Secrets go through ``stdin`` or files,
    never through argv.
    Raises CommandError when the program is missing, exits with a code outside ``ok``, or outlives ``deadline``
    (its whole process group is then killed).
    """
    program = which(argv[0])
    if program is None:
        raise CommandError(
            f"the program {argv[0]} is not installed",
            argv=argv,
            returncode=127,
            hint="run 'vmrole doctor' to see which package has it",
        )
    keep = {name: os.environ[name] for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR") if name in os.environ}
    full = {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin", "LANG": "C.UTF-8"} | keep
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(output.open("ab")) if output else subprocess.PIPE
        process = stack.enter_context(
            subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT if output else subprocess.PIPE,
                env=full | dict(env or {}),
                cwd=cwd,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=account.groups if account else None,
            )
        )
        try:
            stdout, stderr = process.communicate(stdin, timeout=deadline.timeout() if deadline else None)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandError(
                    f"{argv[0]} did not finish within {error.timeout:.0f} s: {shlex.join(argv)}",
                    argv=argv,
                    returncode=None,
                ) from None
            raise
    done = Completed(tuple(argv), process.returncode, stdout or b"", stderr or b"")
    if done.returncode not in ok:
        said = _tail(output.read_bytes() if output else done.stderr or done.stdout)
        raise CommandError(
            f"{argv[0]} failed with exit code {done.returncode}: {said or 'it said nothing'}",
            argv=argv,
            returncode=done.returncode,
            stderr=said,
            hint=f"the command was: {shlex.join(argv)}",
        )
    return done


def _tail(data: bytes) -> str:
    cut = "..." if len(data) > _TAIL else ""
    return cut + data[-_TAIL:].decode("utf-8", "replace").strip()
