# SPDX-License-Identifier: Apache-2.0
"""What every report does to text before anybody sees it: secrets masked, nothing left that a terminal would obey."""

from __future__ import annotations

from typing import Any, Protocol

from harness.quoting import printable, strip_ansi

__all__ = ["Masker", "NoMask", "Shown", "duration", "masked", "printable", "strip_ansi"]


class Masker(Protocol):
    """Replaces secrets in a text; harness.masking has the real one."""

    def text(self, text: str) -> str: ...


class NoMask:
    """For where there are no secrets."""

    def text(self, text: str) -> str:
        return text


def masked(value: Any, masker: Masker) -> Any:
    """A JSON value with every string in it masked, before it is encoded: an escape could hide a secret.

    A secret that terminal sequences interrupt would be whole for whoever strips them later: such a text is kept
    without them.
    """
    if isinstance(value, str):
        clean = printable(value)
        if clean != value and (safe := masker.text(clean)) != clean:
            return safe
        return masker.text(value)
    if isinstance(value, dict):
        return {key: masked(item, masker) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, masker) for item in value]
    return value


class Shown:
    """Text of any origin as people may see it. Masked before it is shortened: half a secret is one too, and no mask
    would find it."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    def text(self, text: str) -> str:
        return self._masker.text(printable(text))

    def line(self, text: str, most: int = 200) -> str:
        """On one line, of at most ``most`` characters."""
        line = " ".join(self.text(text).split())
        return line if len(line) <= most else f"{line[: most - 1]}\u2026"


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``1 h 02 min``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
