# SPDX-License-Identifier: Apache-2.0
"""What a command that failed is told to have said."""

from __future__ import annotations

import pytest

from harness.guest.protocol import GuestResult


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [
        (1, b"out", b" why\r\nand more\n", "why and more"),
        (1, b"only\tthis", b" \n", "only this"),
        (5, b"", b"", "exit code 5"),
        (None, b"", b"", "it was stopped"),
        (1, b"", b"a\x1b[2Jb", "a [2Jb"),
        (1, b"", "größer".encode("utf-16"), "größer"),
        (1, b"", b"word " * 41, "word " * 40 + "..."),
        (1, b"", b"begin " + b"x" * 300, "begin ..."),
        (1, b"", b"x" * 300, "..."),
    ],
)
def test_said(code: int | None, out: bytes, err: bytes, said: str) -> None:
    assert GuestResult(code, out, err, 0.0).said == said
