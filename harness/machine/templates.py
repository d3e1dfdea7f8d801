# SPDX-License-Identifier: Apache-2.0
"""The store of templates: guests frozen at the freeze point of their image, which forks start from.

CACHE/templates/KEY/{ram,state,disk.qcow2,template.json,seal.json}: RAM and device state of the frozen guest and the
overlay on its image's disk. Never written again; whoever finds a file changed throws the whole away. The times of last
use are those of the folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.image import seal
from harness.image.cache import Cache, check_owner, disk_usage
from harness.machine.checkpoints import templates_in_use
from harness.state import qemu_account

FILES = ("ram", "state", "disk.qcow2")
MOST_BYTES = 8 << 30
"""Bytes on the disk that all templates together may take; the least recently used go first."""
MOST_AGE = 14 * 24 * 3600.0
"""Seconds without use after which a template goes."""
_RECORD = "template.json"
SCHEMA = 2
"""Of what is kept of a template; templates of another one are another version's."""


@dataclass(frozen=True, slots=True)
class Template:
    """A frozen guest. ``key`` is 16 hexadecimal digits of all that a fork of it must share with it."""

    folder: Path
    key: str
    image: str
    image_key: str
    memory_mb: int
    cpus: int
    created: float
    """Seconds since 1970."""
    slowness: float | None = None
    """How many times longer than natively the guest takes; None where that was not measured."""
    accelerator: str = "tcg"
    """What its guest ran with, and its forks run with."""

    @property
    def ram(self) -> Path:
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return disk_usage(self.folder)

    @property
    def used(self) -> float:
        """When it was used last, seconds since 1970."""
        return self.folder.stat().st_mtime


class TemplateStore:
    """The templates of one user's cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.folder = cache.folder / "templates"

    @classmethod
    def of_user(cls) -> TemplateStore:
        return cls(Cache.of_user())

    def find(self, key: str, told: Callable[[str], None] = lambda _damage: None) -> Template | None:
        """The template of ``key`` if it is whole; one that is not is removed, and ``told`` gets a sentence."""
        folder = self.folder / key
        if not folder.is_dir():
            return None
        check_owner(folder)
        template = _read(folder)
        damaged = seal.broken(folder, FILES) if template else _RECORD
        if template is None or damaged:
            told(f"{damaged} of the template {key} is not what it was when it was made: it is not used")
            self.discard(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)
        return template

    def all(self) -> list[Template]:
        """Every whole template, the most recently used first."""
        folders = list(self.folder.iterdir()) if self.folder.is_dir() else []
        found = [template for folder in folders if (template := _read(folder))]
        return sorted(found, key=lambda template: template.used, reverse=True)

    def slowness(self, image_key: str) -> float | None:
        """What was measured last of guests of that image; None where nothing was."""
        mine = [each for each in self.all() if each.image_key == image_key and each.slowness is not None]
        return max(mine, key=lambda each: each.created).slowness if mine else None

    @contextlib.contextmanager
    def locked(self, key: str, deadline: Deadline, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to make the template ``key``. Raises HostError when the deadline passes first."""
        self._prepare()
        with self._cache.locked(f"template-{key}", deadline, waiting):
            yield

    @contextlib.contextmanager
    def workplace(self, key: str) -> Iterator[Path]:
        """A private folder to make the template ``key`` in, removed unless ``put`` took it."""
        with self._cache.workplace(f"template-{key}") as folder:
            self._cache.grant(folder)
            yield folder

    def put(self, work: Path, key: str, facts: Mapping[str, object]) -> Template:
        """Take what was made in ``work`` and give it its name."""
        account = qemu_account()
        for name in FILES:
            path = work / name
            # A fork opens the RAM for writing even though it maps it privately.
            path.chmod(0o600 if name == "ram" else 0o440)
            if account:
                os.chown(path, account.uid if name == "ram" else 0, account.gid)
        seal.seal(work, FILES)
        record = {"schema": SCHEMA, "key": key, "created": time.time(), **facts}
        (work / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        (work / _RECORD).chmod(0o440)
        target = self.folder / key
        self.discard(key)
        work.rename(target)
        template = _read(target)
        assert template is not None
        self.evict(sparing=key)
        return template

    def discard(self, key: str) -> None:
        """Remove a template. Forks that run keep what they have open."""
        with contextlib.suppress(FileNotFoundError), self._cache.workplace(f"template-{key}") as grave:
            (self.folder / key).rename(grave / "template")  # out of the way first: nobody finds half of one

    def evict(self, *, sparing: str | None = None) -> list[Template]:
        """Remove what was not used for long, then the least recently used until the rest fits; returns what went.

        Those that kept checkpoints need stay."""
        gone, total = [], 0
        needed = templates_in_use() | {sparing}
        for template in self.all():
            total += template.size
            old = time.time() - template.used > MOST_AGE
            if template.key not in needed and (old or total > MOST_BYTES):
                self.discard(template.key)
                gone.append(template)
        return gone

    def _prepare(self) -> None:
        self._cache.prepare()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(self.folder)
        self._cache.grant(self.folder)


def _read(folder: Path) -> Template | None:
    """The template in ``folder``, None when anything of it is missing or unreadable."""
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        if record["schema"] != SCHEMA or record["key"] != folder.name:
            return None
        if not all((folder / name).exists() for name in FILES):
            return None
        fields = {name: record[name] for name in ("key", "image", "image_key", "memory_mb", "cpus", "created")}
        more = {name: record[name] for name in ("slowness", "accelerator") if name in record}
        return Template(folder=folder, **fields, **more)
    except (OSError, ValueError, KeyError, TypeError):
        return None
