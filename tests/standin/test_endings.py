# SPDX-License-Identifier: Apache-2.0
"""What a process says is followed to its end, whenever the processor comes to those who read it."""

from __future__ import annotations

import contextlib
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.windows import compile_program
from harness.run.windows.job import read_ending
from standin.runner import Runner
from tests.conftest import HANGS, REPOSITORY
from tests.standin.native import in_wine

_LATE = 3.0
"""Seconds: more than what is left running is listened to."""
_LAST = r"""
#include <stdio.h>
int main(void)
{
    fputs("the very last", stdout);
    fputs("and of this", stderr);
    return 7;
}
"""


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("last")
    source, program = folder / "says-its-last.c", folder / "says-its-last.exe"
    source.write_text(_LAST)
    compile_program([source], program, [], (), deadline=Deadline(HANGS))
    return program


def _windows(path: Path) -> str:
    return f"Z:{path}".replace("/", "\\")


def _held(source: str, folder: Path, *flags: str) -> tuple[Path, Path]:
    """A program of ours whose readers wait as long as there is a file, which there is, and that file."""
    program, hold = folder / "held.exe", folder / "hold"
    hold.touch()
    name = _windows(hold).replace("\\", "\\\\")
    flags = (f'-DHOLD="{name}"', "-include", str(Path(__file__).with_name("held.h")), *flags)
    compile_program([REPOSITORY / source], program, [*flags], ("ws2_32", "advapi32"), deadline=Deadline(HANGS))
    return program, hold


def _await_end(program: Path) -> None:
    """Until no process of this computer is ``program``."""

    def runs() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().split(b"\0")[0].endswith(program.name.encode()):
                    return True
        return False

    assert Deadline(HANGS).poll(lambda: not runs() or None)


@pytest.fixture
def runner(wine: dict[str, str], tmp_path: Path) -> Iterator[tuple[Runner, Path]]:
    program, hold = _held("images/windows-stand-in/tools/runner.c", tmp_path)
    runner = Runner(in_wine(program), wine)
    yield runner, hold
    runner.stop()


def test_the_runner_s_readers_get_no_processor(runner: tuple[Runner, Path], last: Path) -> None:
    process = runner[0].run(_windows(last))  # which returns when it runs
    _await_end(last)
    assert process.take(_LATE, 65536) == ([], None), "an end was told before all that comes before it"
    runner[1].unlink()
    said: dict[str, bytes] = {}
    code: int | None = None
    while code is None:
        pieces, code = process.take(HANGS, 65536)
        for stream, data in pieces:
            said[stream] = said.get(stream, b"") + data
    process.close()
    assert (said, code) == ({"stdout": b"the very last", "stderr": b"and of this"}, 7)


def test_the_helper_s_readers_get_no_processor(wine: dict[str, str], last: Path, tmp_path: Path) -> None:
    helper, hold = _held("images/windows-components/run/vmrole-run.c", tmp_path, "-municode")
    begun = Path(wine["WINEPREFIX"]) / "drive_c/ProgramData/VMRole/begun"
    begun.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        in_wine(helper, "run"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=wine
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(f"nonce=n-1\nline={_windows(last)}\n\n".encode())
        process.stdin.close()
        assert Deadline(HANGS).poll(lambda: (begun.exists() and begun.read_bytes() == b"n-1") or None)
        _await_end(last)
        told, _, _ = select.select([process.stderr], [], [], _LATE)
        hold.unlink()
        assert not told, "an end was told before all that comes before it"
        out, err = process.stdout.read(), process.stderr.read()
    own, ending = read_ending("n-1", err)
    assert (out, own, ending.exit_code) == (b"the very last", b"and of this", 7)
    assert ending.is_whole(len(out), len(own)) and not ending.cut
    assert not ending.is_whole(len(out) - 1, len(own)) and not ending.is_whole(len(out), len(own) - 1)
    cut = [err[:size] for size in range(err.index(b"n-1 "), len(err))]
    assert not any(read_ending("n-1", part)[1].is_whole(1 << 20, 1 << 20) for part in cut)
