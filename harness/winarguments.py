# SPDX-License-Identifier: Apache-2.0
"""A command line of Windows as the C run-time library of a program takes it apart: backslashes count only before a
quotation mark, and there they are doubled."""

from __future__ import annotations

import re
from collections.abc import Sequence


def join_arguments(argv: Sequence[str]) -> str:
    """``argv`` as the one line that a program's C run-time library splits into the same words again."""
    return " ".join(_quoted(word) for word in argv)


def between_quotes(text: str) -> str:
    """``text`` as it has to stand between two quotation marks; the one that follows it counts for its last backslashes,
    too."""
    return re.sub(r"(\\+)\Z", r"\1\1", re.sub(r'(\\*)"', r'\1\1\\"', text))


def _quoted(word: str) -> str:
    return word if word and not re.search(r'[\s"]', word) else f'"{between_quotes(word)}"'
