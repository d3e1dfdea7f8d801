# SPDX-License-Identifier: Apache-2.0
"""Whether large files of the cache are what they were when they were made, told in a millisecond.

seal.json beside them has of each its status (size, times of content and of status), the SHA-256 of all that is not
zero, and one of pages here and there. Whoever writes into a file changes its status, whatever time is set afterwards;
where only that differs, as after a copy of the cache, all of the file is read once. The pages tell of what the file
system lost without a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import HostError
from harness.files import replace_file

NAME = "seal.json"
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_PAGE = 4096
_PAGES = 256
"""At most that many are read of each file every time."""


def seal(folder: Path, names: Iterable[str]) -> None:
    """Write down what the files ``names`` of ``folder`` are. Raises HostError when that cannot be written."""
    _write(folder, {name: _facts(folder / name) for name in names})


def is_sealed(folder: Path) -> bool:
    return (folder / NAME).exists()


def broken(folder: Path, names: Iterable[str]) -> str | None:
    """The first of the files ``names`` in ``folder`` that is not what was sealed, None when all are."""
    try:
        sealed = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return NAME
    copied = False
    for name in names:
        try:
            known, path = sealed[name], folder / name
            if _status(path) == known["status"]:
                whole = _digest(_pages(path, known["pages"])) == known["sampled"]
            else:
                whole = _digest(_content(path)) == known["sha256"]
                known["status"], copied = _status(path), True
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            return name
    if copied:
        with contextlib.suppress(HostError):  # it costs the time of reading all of it again, no more
            _write(folder, sealed)
    return None


def _write(folder: Path, sealed: dict[str, Any]) -> None:
    replace_file(folder / NAME, json.dumps(sealed) + "\n")


def _facts(path: Path) -> dict[str, Any]:
    status, pages = _status(path), list[int]()

    def noted() -> Iterator[tuple[int, bytes]]:
        for offset, chunk in _content(path):
            starts = range(0, len(chunk), _PAGE)
            # Those with something in them: a loss makes zeros.
            pages.extend(offset + at for at in starts if chunk[at : at + _PAGE] != _ZEROS[:_PAGE])
            yield offset, chunk

    sha256 = _digest(noted())
    pages = pages[:: len(pages) // _PAGES + 1]
    return {"status": status, "sha256": sha256, "pages": pages, "sampled": _digest(_pages(path, pages))}


def _status(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest(parts: Iterable[tuple[int, bytes]]) -> str:
    digest = hashlib.sha256()
    for offset, data in parts:
        digest.update(b"%d:" % offset)
        digest.update(data)
    return digest.hexdigest()


def _content(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of every stretch of ``path`` that is not all zero, and of its end."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // _CHUNK * _CHUNK
            except OSError:  # nothing but a hole until its end
                break
            chunk = os.pread(file.fileno(), _CHUNK, offset)
            if chunk != _ZEROS[: len(chunk)]:
                yield offset, chunk
            offset += _CHUNK
    yield size, b""


def _pages(path: Path, offsets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    with path.open("rb", buffering=0) as file:
        for offset in offsets:
            yield offset, os.pread(file.fileno(), _PAGE, offset)
