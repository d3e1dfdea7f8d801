# SPDX-License-Identifier: Apache-2.0
"""What builds an image: one module per kind of guest, named by the recipe's ``builder``.

A builder module has the function of the protocol ``Build``; it runs in a temporary folder of the cache, so it may leave
anything behind there when it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.deadline import Deadline
from harness.image.catalog import Source

Progress = Callable[[str], None]
"""Told what is happening now, one short line without an end."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The files of a freshly built image, all inside the folder that the builder was given."""

    disk: Path
    kernel: Path | None
    initrd: Path | None
    packages: tuple[str, ...]
    """'name=version', sorted."""
    work_seconds: float | None = None
    """Processor time of the recipe's work natively (harness.image.work); None where it could not be measured."""


class Build(Protocol):
    """``build`` of a builder module."""

    def __call__(
        self, source: Source, components: Path, folder: Path, *, deadline: Deadline, progress: Progress
    ) -> Parts:
        """Build ``source`` in the empty ``folder``; ``components`` holds VERSION and vmrole-components.

        Raises HostError when this computer lacks something, CommandError when a program fails.
        """
