# SPDX-License-Identifier: Apache-2.0
"""A command for a Linux guest as the one string that SSH can carry, and what its end means."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.guest.protocol import shortened

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""What every command sees unless it is told otherwise, whatever the guest's log-on scripts say."""

TIMED_OUT = 124
NO_FOLDER = 125
_MAX_STRING = 128 * 1024 - 1
"""MAX_ARG_STRLEN of Linux: the SSH server hands the whole command to a shell as one argument."""

# timeout(1) puts the command into a process group of its own and kills that group, itself included; its own 137 cannot
# be told from a command that was killed by somebody else, so the shell looks at the clock. What left the group but not
# the session is killed too. The shell's own standard error is closed to it: it would comment on signals there.
_TIMED = """\
[ $r = 137 ] && { read -r b _ </proc/uptime; b=${b%.*}${b#*.}; [ $((b-a)) -ge LIMIT ] && {
for d in /proc/[0-9]*; do read -r s <$d/stat || continue; s=${s##*) }; set -- $s
[ "$4" = $$ ] && [ ${d#/proc/} != $$ ] && kill -KILL ${d#/proc/}; done; r=124; }; }
"""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A POSIX shell text that runs a command exactly. It holds the environment, and with it secrets."""

    text: str = field(repr=False)
    end: bytes
    """Is written to both streams behind all that the command wrote to them itself."""
    no_folder: bytes
    """Is written to standard error when the working directory cannot be entered."""


def command_line(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: str | None = None,
    timeout: float | None = None,
) -> CommandLine:
    """The shell text that runs ``argv``.

    Its exit status is the command's, 128+N when signal N killed it, 127 when there is no such program, TIMED_OUT when
    it was killed after ``timeout`` seconds, NO_FOLDER when ``cwd`` cannot be entered. Raises UsageError for what no
    command line can carry.
    """
    if not argv:
        raise UsageError("there is no command to run")
    for name in environment:
        if not re.fullmatch(r"[^=\0]+", name):
            raise UsageError(f"{name!r} cannot be the name of an environment variable")
    if any("\0" in word for word in (*argv, *environment.values(), cwd or "")):
        raise UsageError("a command or its environment has a NUL character in it, which no command can be given")
    if timeout is not None and timeout <= 0:
        raise ValueError("a time-out is more than 0 seconds")
    nonce = secrets.token_hex(8)
    end, no_folder = f"vmrole-end-{nonce}", f"vmrole-folder-{nonce}"
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    words = f"env -i -- {variables} "
    # Without a limit (0) too where the program's name has "=" in it: env would take it for a variable. Otherwise every
    # program that is not started saves an emulated processor some 30 ms.
    if timeout is not None or "=" in argv[0]:
        words += f"timeout -s KILL -- {timeout or 0:.3f} "
    words += shlex.join(argv)
    lines = ["exec 3>&2 2>/dev/null", f"end() {{ printf {end}; printf {end} >&3; exit $1; }}"]
    if cwd is not None:
        lines.append(f"cd -- {shlex.quote(cwd)} || {{ printf {no_folder} >&3; end {NO_FOLDER}; }}")
    if timeout is not None:
        lines.append("read -r a _ </proc/uptime; a=${a%.*}${a#*.}")
    lines.append(f"{words} 2>&3 3>&-; r=$?")
    if timeout is not None:
        # Two hundredths less: both readings are cut, not rounded.
        lines.append(_TIMED.replace("LIMIT", str(int(timeout * 100) - 2)).rstrip("\n"))
    lines.append("end $r")
    text = "\n".join(lines)
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > _MAX_STRING:
        raise UsageError(
            f"the command {argv[0]} with its environment has {size} bytes, a Linux guest takes {_MAX_STRING}",
            hint="put long values into a file of the payload",
        )
    return CommandLine(text, end.encode(), no_folder.encode())


def describe(argv: Sequence[str], most: int = 200) -> str:
    """The command for a message: quoted, without its environment, and without the words from the first one on that
    goes past ``most`` characters. Whole words only: half a secret would escape the mask of whoever shows it."""
    return shortened(map(shlex.quote, argv), most)
