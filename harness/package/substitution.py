# SPDX-License-Identifier: Apache-2.0
"""``[Param.Name]`` in strings.

The prefix is read without case, names exactly; ``[[`` is a literal ``[``; any other ``[`` stands for itself, so that
``[1-9][0-9]*`` and the guide's ``[[1-9][[0-9]*`` are the same pattern [GUIDE 18275]. What was inserted is not looked at
again. Evidence: spec section 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r"\[\[|\[param\.([^\[\]\x00-\x1f]{1,200})\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Substituted:
    """A string with its parameters filled in.

    ``masked`` is the same with secrets shown as ``__**__``; ``unresolved`` are the names that had no value, each once,
    in order: their placeholders stay in the text.
    """

    text: str
    masked: str
    unresolved: tuple[str, ...] = ()


def placeholders(text: str) -> tuple[str, ...]:
    """Names of the parameters that a string uses, each once, in order."""
    return tuple(dict.fromkeys(match.group(1) for match in _TOKEN.finditer(text) if match.group(1) is not None))


def place(text: str, name: str) -> int | None:
    """Where a string first uses the parameter ``name``."""
    return next((match.start() for match in _TOKEN.finditer(text) if match.group(1) == name), None)


def substitute(text: str, values: Mapping[str, str], masked: Mapping[str, str] | None = None) -> Substituted:
    """Fill ``values`` in; ``masked`` has what to show instead of the values that are secret."""
    shown = masked or {}
    plain: list[str] = []
    safe: list[str] = []
    missing: dict[str, None] = {}
    at = 0
    for match in _TOKEN.finditer(text):
        before = text[at : match.start()]
        at = match.end()
        name = match.group(1)
        value = "[" if name is None else values.get(name)
        if value is None:
            assert name is not None
            missing[name] = None
            value = match.group()
        plain += (before, value)
        safe += (before, shown.get(name, value) if name is not None else value)
    plain.append(text[at:])
    safe.append(text[at:])
    return Substituted("".join(plain), "".join(safe), tuple(missing))
