# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: machines as they were just before a step, to go on from later.

While a run goes on its checkpoints are in the private folder of its process and die with it; those of a failed run are
moved to STATE/checkpoints/RUN and live for a day. A folder has ``layers`` (the disks, each on top of the one before),
one folder a checkpoint (what its driver wrote: RAM that differs from the template's, state of the devices), and in the
end ``kept.json``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import HostError, UsageError
from harness.files import replace_file
from harness.image import seal
from harness.image.cache import disk_usage
from harness.state import ProcessFolder, make_private, state_folder

MOST_BYTES = 2 << 30
"""What the checkpoints of one run may take; the oldest go first."""
LIFE_HOURS = 24.0
_RECORD = "kept.json"
_LAYERS = "layers"
_FACTS = "checkpoint.json"
_SCHEMA = 1


class Source(Protocol):
    """A running machine that can be saved (Capability.checkpoint)."""

    def checkpoint(self, folder: Path, layers: Path) -> float:
        """Save it in the empty private ``folder``, its disks as they are in ``layers``. It goes on.

        Returns for how many seconds it stood still."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The machine just before ``step``."""

    step: str
    folder: Path
    layers: Path

    @property
    def size(self) -> int:
        """Bytes on the disk, without the layers, which it shares with others."""
        return disk_usage(self.folder)

    @property
    def files(self) -> list[str]:
        """What a machine goes on from, below the folder that all checkpoints of the run are in."""
        paths = [*sorted(self.folder.iterdir()), *sorted(self.layers.iterdir())]
        return [str(path.relative_to(self.folder.parent)) for path in paths]

    def check(self) -> None:
        """Raise HostError when it was kept and is not what it was."""
        kept = self.folder.parent
        if seal.is_sealed(kept) and (damaged := seal.broken(kept, self.files)):
            what = f"the checkpoint before {self.step} is damaged: {damaged} is not what it was"
            raise HostError(what, hint="run it again")

    @property
    def facts(self) -> Facts:
        """Raises HostError when they cannot be read."""
        try:
            return Facts(**json.loads((self.folder / _FACTS).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise HostError(f"the checkpoint before {self.step} is damaged", hint="run it again") from error


@dataclass(frozen=True, slots=True)
class Facts:
    """What a driver has to know of a checkpoint that it made: the layer that was the disk, the template's key, when
    that very template was made, and of each data disk the logical unit number, the size in MiB and the layer."""

    disk: str
    template: str
    made: float = 0.0
    data_disks: Sequence[tuple[int, int, str]] = ()

    def write(self, folder: Path) -> None:
        replace_file(folder / _FACTS, json.dumps(asdict(self)))


class Recording:
    """The checkpoints of a run that goes on."""

    def __init__(self, folder: Path, *, most: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._steps: list[Checkpoint] = []
        self._taken = 0

    @property
    def steps(self) -> tuple[Checkpoint, ...]:
        """Those that are there, the oldest first."""
        return tuple(self._steps)

    @property
    def size(self) -> int:
        """Bytes on the disk of all of them."""
        return disk_usage(self._folder)

    def take(self, machine: Source, step: str) -> float | None:
        """Save ``machine`` before ``step``; for how many seconds it stood still, None when that alone is more than all
        may take. Raises what it raises."""
        self._taken += 1
        taken = Checkpoint(step, self._folder / f"{self._taken:03d}", self._folder / _LAYERS)
        for folder in (taken.layers, taken.folder):
            make_private(folder)
        try:
            paused = machine.checkpoint(taken.folder, taken.layers)
        except BaseException:
            shutil.rmtree(taken.folder, ignore_errors=True)
            raise
        self._steps.append(taken)
        while self._steps and self.size > self._most:
            shutil.rmtree(self._steps.pop(0).folder)
        return paused if self._steps else None

    def now(self, run: str, facts: Mapping[str, Any]) -> Kept:
        """Those of ``run`` as they are, for this process alone."""
        return Kept(self._folder, run, time.time(), math.inf, self.steps, facts)

    def keep(self, run: str, facts: Mapping[str, Any]) -> Kept | None:
        """Let them outlive this process, with ``facts`` (secret ones too) for whoever goes on from them."""
        if not self._steps:
            return None
        target = _home() / run
        now = time.time()
        record = {
            "schema": _SCHEMA,
            "run": run,
            "created": now,
            "expires": now + LIFE_HOURS * 3600,
            "steps": {taken.step: taken.folder.name for taken in self._steps},
            "facts": dict(facts),
        }
        replace_file(self._folder / _RECORD, json.dumps(record))
        seal.seal(self._folder, {name: None for taken in self._steps for name in taken.files})
        self._folder.rename(target)
        self._steps = []
        return _read(target)


@contextlib.contextmanager
def recording(folder: ProcessFolder, name: str) -> Iterator[Recording]:
    """A place for the checkpoints of the machine ``name``; what is not kept goes with the context."""
    parent = folder.path / "checkpoints"
    make_private(parent)
    place = parent / name
    make_private(place)
    try:
        yield Recording(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept checkpoints of a run. ``created`` and ``expires`` in seconds since 1970; ``facts`` may be secret."""

    folder: Path
    run: str
    created: float
    expires: float
    steps: tuple[Checkpoint, ...]
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return disk_usage(self.folder)

    @property
    def expired(self) -> bool:
        return time.time() > self.expires

    def before(self, step: str) -> Checkpoint:
        """The checkpoint before ``step``. Raises UsageError when there is none."""
        for taken in self.steps:
            if taken.step == step:
                return taken
        known = ", ".join(taken.step for taken in self.steps)
        raise UsageError(
            f"the run {self.run} has no checkpoint before step {step!r}", hint=f"it has some before {known}"
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def kept_checkpoints() -> list[Kept]:
    """Those of every run, the newest first."""
    found = [kept for folder in _home().iterdir() if (kept := _read(folder))]
    return sorted(found, key=lambda kept: kept.created, reverse=True)


def find(run: str) -> Kept:
    """The checkpoints of ``run``, by its name. Raises UsageError when there are none (any more)."""
    for kept in kept_checkpoints():
        if kept.run == run and not kept.expired:
            return kept
    raise UsageError(
        f"there are no checkpoints of the run {run}",
        hint=f"a failed run's are kept for {LIFE_HOURS:.0f} h, those of other runs go with them",
    )


def sweep_checkpoints(*, kept: bool = False) -> list[tuple[str, str]]:
    """Remove those that have expired or are no checkpoints; with ``kept`` all. What went, and why."""
    gone = []
    for folder in _home().iterdir():
        found = _read(folder)
        if found is None or found.expired or kept:
            shutil.rmtree(folder, ignore_errors=True)
            why = "expired" if found and found.expired else "were kept" if found else "are not complete"
            gone.append((f"checkpoints of {folder.name}", why))
    return gone


def templates_in_use() -> frozenset[str]:
    """Keys of the templates that kept checkpoints need."""
    keys = set()
    for kept in kept_checkpoints():
        for taken in kept.steps:
            with contextlib.suppress(HostError):
                keys.add(taken.facts.template)
    return frozenset(keys)


def _home() -> Path:
    folder = state_folder() / "checkpoints"
    make_private(folder)
    return folder


def _read(folder: Path) -> Kept | None:
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        if record["schema"] != _SCHEMA:
            return None
        steps = tuple(
            Checkpoint(step, folder / name, folder / _LAYERS)
            for step, name in record["steps"].items()
            if re.fullmatch(r"\d+", name) and (folder / name).is_dir()
        )
        return Kept(folder, record["run"], record["created"], record["expires"], steps, record["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def link(source: Path, folder: Path) -> Path:
    """A second name for the file ``source``, of the same name in ``folder``. Raises HostError."""
    target = folder / source.name
    try:
        if not target.exists():
            os.link(source, target)
    except OSError as error:
        raise HostError(f"{source.name} cannot be kept: {error.strerror}") from error
    return target
