# SPDX-License-Identifier: Apache-2.0
"""What is on disk of a night, so that nothing is lost when the process or the computer dies.

OUTPUT/nightly.json is whole at every moment and says of each run whether it waits, was begun, or is finished;
the run directories lie beside it. The folder is locked while a night is at work in it: the lock is the kernel's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, TypeAdapter

from harness.errors import HostError, UsageError
from harness.files import replace_file
from harness.nightly.matrix import Job

SCHEMA = 1
ATTEMPTS = 3
"""How often a run is begun whose process, or the computer, dies in it: it may be what kills them."""
_RUN = re.compile(r"(\d{8}T\d{6}Z)-[A-Za-z0-9._-]+-[0-9a-f]{6}(\.log)?")
_STAMP = "%Y%m%dT%H%M%SZ"


def _a_run(name: str) -> str:
    """A path is made of it, and what is old is removed: nothing else may be called so."""
    if not _RUN.fullmatch(name) or name.endswith(".log"):
        raise ValueError("that is no name of a run")
    return name


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that was begun. ``run`` is its directory's name; ``ended`` is None as far as anybody knows, "" when it came
    to its end, else why it was cut off. ``counts`` is whether it speaks against the run."""

    run: Annotated[str, AfterValidator(_a_run)]
    ended: str | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A run of the matrix, and what became of it; ``exit_code`` is None until it is finished."""

    key: str
    package: str
    case: str
    image: str
    attempts: tuple[Attempt, ...] = ()
    exit_code: int | None = None
    verdict: str = ""
    blame: str | None = None
    summary: str = ""
    seconds: float | None = None

    @property
    def title(self) -> str:
        return f"{self.package} {f'[{self.case}] ' if self.case else ''}on {self.image}"

    @property
    def run(self) -> str | None:
        """The directory of the attempt that counts, the last one."""
        return self.attempts[-1].run if self.attempts else None

    @property
    def cut_off(self) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.ended)

    @property
    def hopeless(self) -> bool:
        """Whether it was cut off so often that it is not begun again."""
        return sum(attempt.counts for attempt in self.cut_off) >= ATTEMPTS

    def with_last(self, ended: str, *, counts: bool = True) -> Entry:
        """With the last attempt ended."""
        last = replace(self.attempts[-1], ended=ended, counts=counts)
        return replace(self, attempts=(*self.attempts[:-1], last))


@dataclass(slots=True)
class Night:
    """A night in ``folder``; every change is on disk before anything follows from it."""

    folder: Path
    started: datetime
    entries: dict[str, Entry] = field(default_factory=dict)
    finished: datetime | None = None

    @property
    def complete(self) -> bool:
        return all(entry.exit_code is not None for entry in self.entries.values())

    def put(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        self.save()

    def begin(self, key: str, package: str) -> Path:
        """Note that a run begins; returns the directory that it gets."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", package).strip("-.")[:40] or "extension"
        name = f"{datetime.now(UTC).strftime(_STAMP)}-{slug}-{secrets.token_hex(3)}"
        entry = self.entries[key]
        self.put(replace(entry, attempts=(*entry.attempts, Attempt(name))))
        return self.folder / name

    def save(self) -> None:
        document = {
            "schema": SCHEMA,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat() if self.finished else None,
            "runs": [asdict(entry) for entry in self.entries.values()],
        }
        replace_file(_file(self.folder), json.dumps(document, indent=1) + "\n", mode=None, durable=True)


@dataclass(frozen=True, slots=True)
class _Saved:
    """nightly.json."""

    schema: Literal[1]
    started: AwareDatetime
    finished: AwareDatetime | None
    runs: tuple[Entry, ...]


_SAVED = TypeAdapter(_Saved)


def new_night(folder: Path, jobs: Sequence[Job]) -> Night:
    """A night of ``jobs`` in which nothing has been done yet."""
    night = Night(
        folder, datetime.now(UTC), {job.key: Entry(job.key, job.package, job.case, job.image) for job in jobs}
    )
    night.save()
    return night


def read_night(folder: Path) -> Night | None:
    """The last night in ``folder``, None when there is none. Raises UsageError for a file that is something else."""
    path = _file(folder)
    try:
        saved = _SAVED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise UsageError(
            f"{path} is no state of a nightly that can be read", hint="remove it, or name another folder with --output"
        ) from None
    return Night(folder, saved.started, {entry.key: entry for entry in saved.runs}, saved.finished)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold it. Raises HostError when another night is at work there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".nightly.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"the output folder {folder} cannot be used: {error.strerror}", hint="name another one with --output"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(
                f"another nightly is at work in {folder}", hint="wait for it, or name another folder with --output"
            ) from None
        yield
    finally:
        os.close(descriptor)


def remove_old(folder: Path, days: int, *, now: datetime, keep: frozenset[str] = frozenset()) -> list[str]:
    """Remove the run directories that are older than ``days``, but for ``keep``; returns their names.

    Only what bears the name of a run and lies directly in ``folder``: links and everything else stays.
    """
    gone = []
    for path in sorted(folder.iterdir()):
        named = _RUN.fullmatch(path.name)
        if not named or path.name.removesuffix(".log") in keep or path.is_symlink():
            continue
        with contextlib.suppress(ValueError, OSError):
            if now - datetime.strptime(named[1], _STAMP).replace(tzinfo=UTC) <= timedelta(days=days):
                continue
            if path.is_dir():
                shutil.rmtree(path)
                gone.append(path.name)
            elif named[2]:
                path.unlink()
    return gone


def _file(folder: Path) -> Path:
    return folder / "nightly.json"
