# SPDX-License-Identifier: Apache-2.0
"""A PowerShell that the user brings for the stand-in guest. None for Windows could be had here: a program of our own,
which tells the command line that reached it, stands where the engine would be, and nothing more is claimed."""

from __future__ import annotations

import stat
import subprocess
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.catalog import Source, load
from harness.image.powershell import variant, version_of
from harness.image.windows import compile_program
from harness.run.windows.caveats import caveat
from harness.run.windows.execute import WindowsExecutor
from tests.conftest import HANGS
from tests.image.test_added import cache as cache
from tests.image.test_added import within


def zipped(folder: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    target = folder / "x.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return target


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


PROGRAM = b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86"
OLD = "ProductVersion\0\0006.2.7 SHA: abc\0".encode("utf-16-le")
OTHER = PROGRAM[:-2] + b"\x4c\x01"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ((("README.txt", b"x"),), "has no pwsh.exe at its top"),
        ((("PowerShell/pwsh.exe", PROGRAM),), "has no pwsh.exe at its top"),
        ((("pwsh.exe", b"#!/bin/sh\n"),), "is no program for 64-bit Windows"),
        ((("pwsh.exe", OTHER),), "is no program for 64-bit Windows"),
        ((("pwsh.exe", PROGRAM),), "has no coreclr.dll, the runtime that its engine needs"),
        ((("pwsh.exe", PROGRAM), ("pwsh.dll", OLD), ("coreclr.dll", b"x")), "has PowerShell 6.2.7, and 7 or later"),
        ((("pwsh.exe", PROGRAM), ("../../etc/x", b"x")), "leads out of"),
        ((("pwsh.exe", PROGRAM), ("/etc/x", b"x")), "absolute path"),
        ((("pwsh.exe", PROGRAM), ("C:\\x", b"x")), "absolute path"),
        ((("pwsh.exe", PROGRAM), (link("x"), b"/etc/passwd")), "a link"),
        ((("pwsh.exe", PROGRAM), ("PWSH.EXE", PROGRAM)), "two entries of one name"),
        ((("pwsh.exe", PROGRAM), ("a\x01b", b"x")), "a control character"),
    ],
)
def test_what_is_not_taken(
    cache: Path, tmp_path: Path, entries: tuple[tuple[str | zipfile.ZipInfo, bytes], ...], said: str
) -> None:
    file = zipped(tmp_path, *entries)
    done = within(cache, "images", "build", "windows-stand-in", "--powershell", file)
    assert done.code == 2 and said in done.stderr, done.stderr
    assert f"the PowerShell zip {file}" in done.stderr and "package" not in done.stderr
    for folder in ("images", "building", "media", "recipes"):
        assert not list((cache / folder).glob("*")), folder


def test_what_takes_none(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    for name, file, said in (
        (
            "windows-stand-in",
            tmp_path / "none.zip",
            f"the PowerShell zip {tmp_path}/none.zip cannot be read: No such file",
        ),
        ("windows-stand-in", tmp_path / "text.zip", f"the PowerShell zip {tmp_path}/text.zip cannot be read as a zip"),
        ("windows-stand-in", tmp_path, f"the PowerShell zip {tmp_path} cannot be read: Is a directory"),
        ("debian-12", zipped(tmp_path, ("pwsh.exe", PROGRAM)), "only a stand-in for Windows takes a PowerShell"),
    ):
        done = within(cache, "images", "build", name, "--powershell", file)
        assert done.code == 2 and said in done.stderr and "package" not in done.stderr, done.stderr


@pytest.fixture
def supplied(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Source]:
    from harness.image.cache import Cache

    monkeypatch.setenv("VMROLE_CACHE_DIR", str(cache))

    def make(more: bytes, name: str = "windows-stand-in") -> Source:
        file = zipped(tmp_path, ("pwsh.exe", PROGRAM + more), ("coreclr.dll", b"x"))
        source = variant(name, file, cache=Cache.of_user(), deadline=Deadline(HANGS))
        return load(source)

    return make


def test_it_is_another_image(supplied: Callable[[bytes], Source]) -> None:
    """Its key has the engine's hash in it, it cannot do less, and every result says whose engine it was."""
    from harness.image.build import image_key

    plain, one, other = load("windows-stand-in"), supplied(b"one"), supplied(b"other")
    assert one.recipe.name == other.recipe.name == "windows-stand-in-powershell"
    assert len({image_key(source) for source in (plain, one, other)}) == 3
    assert set(plain.recipe.cannot) - set(one.recipe.cannot) == {"powershell"}
    assert one.recipe.stand_in and one.layers == plain.layers
    assert "the PowerShell in it is one that was supplied, and runs on Wine" in caveat(one.recipe)
    assert "supplied" not in caveat(plain.recipe)
    assert WindowsExecutor.of(one.recipe).supplied and not WindowsExecutor.of(plain.recipe).supplied


def test_one_with_32_bit_programs_takes_a_powershell_too(supplied: Callable[..., Source]) -> None:
    both = supplied(b"one", "windows-stand-in-32")
    assert both.recipe.name == "windows-stand-in-32-powershell" and both.recipe.powershell
    assert both.recipe.cannot == ("run-as", "features") and both.layers == load("windows-stand-in").layers
    with_it = supplied(b"one").recipe
    assert with_it.lacks_programs_32 and "windows-stand-in --programs-32 --powershell ZIP" in with_it.hint_32


def test_one_that_is_not_in_the_cache_any_more(supplied: Callable[[bytes], Source], cache: Path) -> None:
    supplied(b"one")
    [kept] = (cache / "media").iterdir()
    assert tomllib.loads((cache / "recipes/windows-stand-in-powershell/recipe.toml").read_text()) == {
        "like": "windows-stand-in", "name": "windows-stand-in-powershell", "powershell": kept.stem, "patience": 6,
    }  # fmt: skip
    kept.unlink()
    done = within(cache, "images", "build", "windows-stand-in-powershell")
    assert done.code == 3 and "is not in the cache any more" in done.stderr, done.stderr


def test_the_version_is_what_the_program_says(tmp_path: Path) -> None:
    resource = '1 VERSIONINFO { BLOCK "StringFileInfo" { BLOCK "040904b0" { VALUE "FileVersion", "7.4.6.500" '
    resource += 'VALUE "ProductVersion", "7.4.6-rc.1 SHA: abc" } } }'
    (tmp_path / "version.rc").write_text(resource)
    subprocess.run(["x86_64-w64-mingw32-windres", "version.rc", "version.o"], cwd=tmp_path, check=True)
    (tmp_path / "pwsh.c").write_text("int main(void) { return 0; }")
    program = tmp_path / "pwsh.exe"
    compile_program([tmp_path / "pwsh.c"], program, [], (), deadline=Deadline(HANGS))
    assert version_of(tmp_path) is None
    sources = [tmp_path / "pwsh.c", tmp_path / "version.o"]
    compile_program(sources, program, [], (), deadline=Deadline(HANGS))
    assert version_of(tmp_path) == "7.4.6-rc.1"
