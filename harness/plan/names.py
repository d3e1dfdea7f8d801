# SPDX-License-Identifier: Apache-2.0
"""Words made of the author's words: titles, parts of identifiers, arguments."""

from __future__ import annotations

import re


def short(text: str) -> str:
    """A name of one line."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."


def powershell_word(text: str) -> str:
    """A name as one argument of PowerShell, whatever is in it; with a dash in front it would be a parameter."""
    return (
        text if re.fullmatch(r"\w[\w-]*", text) else "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", text) + "'"
    )


def kebab(name: str) -> str:
    """OnProvisionFirst -> on-provision-first, PreInstall -> preinstall."""
    words = re.sub(r"^On(?=[A-Z])", "on-", name)
    words = re.sub(r"(?<=[a-z])(First|Rest|Last)$", r"-\1", words)
    return words.lower()
