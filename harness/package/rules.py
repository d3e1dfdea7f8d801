# SPDX-License-Identifier: Apache-2.0
"""The rules of a view's fields, applied to values as the portal did before it sent them [GUIDE 18273, PKG].

A pattern matches when it is found anywhere in the value [GUESS: the published packages have only empty ones]; a limit
of 0 is none [PKG]. Nothing here shows a value: it may be secret.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.package.view_models import ViewParameter

#: Seconds for one pattern on one value.
SECONDS: Final = 0.5
_NUMBERS: Final = frozenset({"int", "number"})
#: Fields whose value is chosen by the portal from a list, or has two parts: lengths and patterns do not apply.
_CHOSEN: Final = frozenset(
    {"credential", "boolean", "bool", "osvirtualharddisk", "datavirtualharddisk", "network", "vmsize", "ostimezone"}
)


class Patience:
    """How long the patterns of one view may take together: many slow ones must not add up."""

    __slots__ = ("left",)

    def __init__(self, seconds: float = 2.0) -> None:
        self.left = seconds


def broken_rule(field: ViewParameter, value: str, patience: Patience) -> str:
    """Which rule ``value`` breaks, as the end of a sentence ("is longer than 15 characters"), or ""."""
    kind = (field.type or "string").lower()
    rules = field.rules
    text = value.strip()
    if not text:
        return "is empty, and a value is required" if field.required else ""
    if kind in _NUMBERS:
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            return "is not a whole number"
        low, high = rules.min_range, rules.max_range
        if isinstance(low, int) and int(text) < low and (low or high):
            return f"is less than {low}"
        if isinstance(high, int) and int(text) > high and (low or high):
            return f"is more than {high}"
        return ""
    if kind in ("boolean", "bool"):
        return "" if text.lower() in ("true", "false") else "is not true or false"
    if kind == "option" and field.choices:
        return "" if value in field.choices.values() else "is none of its options"
    if kind in _CHOSEN:
        return ""
    if isinstance(rules.min_length, int) and len(value) < rules.min_length:
        return f"is shorter than {rules.min_length} characters"
    if isinstance(rules.max_length, int) and rules.max_length > 0 and len(value) > rules.max_length:
        return f"is longer than {rules.max_length} characters"
    if rules.pattern and found(rules.pattern, value, patience) is False:
        return "does not match its pattern"
    return ""


def pattern_problem(pattern: str) -> str:
    """Why a pattern cannot be used, as the end of a sentence; "" when it can, or when there is none."""
    if not pattern.strip():
        return ""
    from harness.package.dotnet import PatternError, compile_pattern

    try:
        compile_pattern(pattern)
    except PatternError as error:
        return str(error)
    return ""


def found(pattern: str, value: str, patience: Patience) -> bool | None:
    """Whether ``pattern`` is in ``value``; None when it is invalid, takes longer than SECONDS, or patience is over."""
    from harness.package.dotnet import PatternError, compile_pattern

    if patience.left <= 0:
        return None
    start = time.monotonic()
    try:
        return compile_pattern(pattern).search(value, timeout=SECONDS) is not None
    except (PatternError, TimeoutError):
        return None
    finally:
        patience.left -= time.monotonic() - start
