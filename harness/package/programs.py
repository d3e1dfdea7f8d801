# SPDX-License-Identifier: Apache-2.0
"""Programs of the payload, and which of them a 64-bit Windows without its 32-bit half does not execute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness import winprogram
from harness.package.findings import Finding
from harness.package.names import folded

if TYPE_CHECKING:
    from harness.image.recipe import Recipe
    from harness.package.jsontree import Node
    from harness.package.reader import Package

_PROGRAMS: Final = 500
_WORD: Final = re.compile(r"[\w.-]+")
_TEXTS: Final = ("Executable", "Parameters", "ScriptBlock")


def without_programs_32(package: Package, recipe: Recipe) -> Iterator[Finding]:
    """Where a command line names a 32-bit program of the payload, each such program once, for an image without them.

    Only the beginnings of files are read. Raises PackageError for a damaged one.
    """
    payload, document = package.payload, package.document
    programs = [entry for entry in payload.files if entry.path.lower().endswith(".exe")][:_PROGRAMS]
    named: dict[str, Node] = {}
    for node in document.root.walk() if programs else ():
        if node.key in _TEXTS and isinstance(node.value, str):
            for word in _WORD.findall(folded(node.value)):
                named.setdefault(word.removesuffix(".exe"), node)
    if not named:
        return
    with payload.source.opened() as open_file:
        for entry in programs:
            # Of a name with blanks the end, which commands have, too.
            words = _WORD.findall(folded(entry.path).removesuffix(".exe"))
            if not words or words[-1] not in named:
                continue
            node = named[words[-1]]
            with open_file(payload.prefix + entry.path) as stream:
                head = stream.read(winprogram.HEAD)
            if winprogram.is_32_bit(head):
                what = f"{entry.path[-60:]!r} is a 32-bit program, which the image {recipe.name} cannot execute"
                yield Finding(
                    "warning", "image-32-bit", what, recipe.hint_32, document.file, node.pointer, node.line, node.column
                )  # fmt: skip
