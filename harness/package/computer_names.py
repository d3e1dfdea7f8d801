# SPDX-License-Identifier: Apache-2.0
"""Names of machines after the pattern of a definition or an option."""

from __future__ import annotations

import random
import re
import string
from typing import Final

from harness.errors import UsageError

MAX_COMPUTER_NAME: Final = 15
"""NetBIOS; a Windows guest cuts longer names, so a longer one would not be the name that was asked for."""
_RANDOM_PART: Final = 6
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


def computer_name(pattern: str, instance: int, rng: random.Random) -> str:
    """The name of machine number ``instance`` after ``pattern``.

    A run of ``#`` is the number, filled with zeros to the length of the run; ``*`` is a random part of up to six
    characters, fewer where 15 characters in all leave no room. Raises UsageError when no valid name comes out.
    """
    runs = re.findall(r"#+", pattern)
    if len(runs) > 1 or pattern.count("*") > 1:
        raise UsageError(
            f"the computer name pattern {pattern!r} has more than one {'run of #' if len(runs) > 1 else '*'}",
            hint="e.g. WEB-## or APP-*",
        )
    name = pattern
    if runs:
        number = str(instance).zfill(len(runs[0]))
        if len(number) > len(runs[0]):
            raise UsageError(
                f"the computer name pattern {pattern!r} has no room for instance {instance}",
                hint=f"write {'#' * len(number)} in place of {runs[0]}",
            )
        name = name.replace(runs[0], number)
    if "*" in name:
        room = min(_RANDOM_PART, MAX_COMPUTER_NAME - len(name) + 1)
        if room < 3:
            raise UsageError(
                f"the computer name pattern {pattern!r} leaves no room for a random part",
                hint=f"a computer name has at most {MAX_COMPUTER_NAME} characters, three of them for *",
            )
        # The first one is a letter: a name of digits alone is not valid.
        part = rng.choice(string.ascii_uppercase) + "".join(
            rng.choice(string.ascii_uppercase + string.digits) for _ in range(room - 1)
        )
        name = name.replace("*", part)
    check_computer_name(name)
    return name


def check_computer_name(name: str) -> None:
    """Raise UsageError unless ``name`` is a host name that Windows and Linux take, of at most 15 characters."""
    if len(name) > MAX_COMPUTER_NAME:
        raise UsageError(
            f"the computer name {name[:80]!r} has {len(name)} characters, {MAX_COMPUTER_NAME} are allowed",
            hint="use a shorter --computer-name",
        )
    if not _HOST_NAME.fullmatch(name) or name.isdigit():
        raise UsageError(
            f"{name!r} is not a valid computer name",
            hint="letters, digits and - (not first or last), and not digits alone",
        )
