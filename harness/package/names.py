# SPDX-License-Identifier: Apache-2.0
"""Names of files in packages: which are paths at all, which Windows can have, which other programs left there."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

from harness.errors import PackageError

MAX_PATH: Final = 259
"""Characters of a path that Windows programs can open, unless they ask for more in a way that few know."""
_LONGEST: Final = 1000  # bytes of a path in a package
_PIECE: Final = 255  # bytes of one name on Linux; on Windows they are characters
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')
_DEVICE: Final = re.compile(  # of a path in small letters with a slash before it
    r"/(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\.[^/]*)?(?=/|\Z)"
)
_LONG: Final = re.compile(r"[^/]{64,}")  # of which one may have more than _PIECE bytes
RUNS: Final = "vmrole-runs"
#: What version control, editors and desktops leave in folders, in small letters; never part of a package.
_JUNK: Final = frozenset(
    f".git .svn .hg .bzr cvs .vs .vscode .idea __pycache__ .mypy_cache .ruff_cache .pytest_cache __macosx .ds_store "
    f".appledouble .lsoverride .spotlight-v100 .trashes .fseventsd .directory thumbs.db ehthumbs.db desktop.ini "
    f"$recycle.bin {RUNS}".split()
) | {"system volume information"}
_JUNK_PATTERNS: Final = re.compile(
    "|".join(
        map(
            translate,
            ("*~", ".*.sw[a-p]", ".#*", "#*#", "._*", "~$*", ".~lock.*#", ".nfs*", ".fuse_hidden*", "*.kate-swp"),
        )
    )
)
_PACKAGES: Final = (".resextpkg", ".resdefpkg")


def safe_name(name: str, where: str) -> str:
    """``name`` as a relative path with forward slashes, composed (NFC).

    Raises PackageError for absolute and drive paths, ``..``, and names that some file system reads differently.
    """
    path = composed(name.replace("\\", "/"))
    shown = ascii(name[:100])
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        raise PackageError(f"{where} has an entry with an absolute path, {shown}", hint="pack relative paths only")
    plain = path.rstrip("/")
    if ".." in plain and ".." in plain.split("/"):
        raise PackageError(f"{where} has an entry that leads out of it, {shown}")
    size = len(path.encode("utf-8", "replace"))
    if not plain or size > _LONGEST or "//" in plain or "/./" in f"/{plain}/":
        raise PackageError(f"{where} has an entry whose name is no path, {shown}")
    if not path.isprintable() and _CONTROL.search(path):
        raise PackageError(f"{where} has an entry with a control character in its name, {shown}")
    wrong = not_on_windows(plain)
    if wrong:
        raise PackageError(f"{where} has an entry with {wrong}, {shown}", hint="rename it")
    return path


def not_on_windows(path: str) -> str | None:
    """Why Windows cannot have a file of this relative path: "a name that ..."; None when it can."""
    if found := _FORBIDDEN.search(path):
        return f"a name that Windows does not have, because of its {found[0]}"
    if _DEVICE.search("/" + path.lower()) or any(len(found[0].encode()) > _PIECE for found in _LONG.finditer(path)):
        return "a name that Windows does not have"
    if path.endswith((".", " ")) or "./" in path or " /" in path:
        return "a name that Windows does not have: it drops the dot or blank at the end"
    return None


def composed(name: str) -> str:
    """``name`` as Windows and Linux write it: macOS takes letters and their accents apart."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spelt_as(text: str) -> Literal["NFC", "NFD"]:
    """The Unicode form, NFC or NFD, that ``text`` is written in; NFC for what is in both or in neither."""
    decomposed = not unicodedata.is_normalized("NFC", text) and unicodedata.is_normalized("NFD", text)
    return "NFD" if decomposed else "NFC"


def folded(name: str) -> str:
    """The same text for all names that are one file on some file system."""
    return name.lower() if name.isascii() else composed(composed(name).casefold())


@lru_cache(4096)
def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left by another program and was not put there by an author."""
    small = name.lower()
    return small in _JUNK or _JUNK_PATTERNS.match(small) is not None


def is_package(name: str) -> bool:
    """Whether it is a package; one at the root of a folder is an older one of the folder itself."""
    return name.lower().endswith(_PACKAGES)


class Tree:
    """Paths of files, and by them of their folders. ``in`` compares without case and how accents are written."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._ordered = sorted(map(_key, paths))

    def __contains__(self, path: str) -> bool:
        key = _key(path)
        at = bisect_left(self._ordered, key)  # what lies below a folder comes right after it
        return at < len(self._ordered) and (self._ordered[at] + "\0").startswith(key + "\0")


def _key(path: str) -> str:
    """The slash as the first of all characters: paths sort as the trees that they are."""
    return folded(path).replace("/", "\0")


def check_clashes(names: Iterable[str], where: str, noun: str) -> None:
    """Raise PackageError where two of ``names`` are one file on some file system, or one is a file and a folder.

    Folders end with a slash. ``noun`` is what the names are of. Linear but for a sort, whatever the depth.
    """
    found: dict[str, str] = {}
    for name in names:
        key = _key(name.rstrip("/"))
        if key in found:
            raise PackageError(
                f"{where} has two {noun} of one name, {found[key][:100]!a} and {name[:100]!a}",
                hint="names must differ in more than upper and lower case, or how their accents are written",
            )
        found[key] = name
    ordered = sorted(found)
    for one, other in pairwise(ordered):  # what lies below a file comes right after it
        if not found[one].endswith("/") and other.startswith(one + "\0"):
            raise PackageError(f"{where} has {found[one][:100]!a} both as a file and as a folder")
