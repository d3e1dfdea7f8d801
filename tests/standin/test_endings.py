# SPDX-License-Identifier: Apache-2.0
"""What a process says is followed to its end, whenever the processor comes to those who read it."""

from __future__ import annotations

import select
import subprocess
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.windows import compile_program
from harness.run.windows.job import read_ending
from tests.conftest import NativeWindows
from tests.standin.held import held, threads_of
from tests.standin.native import Listener, in_wine, wine_environment

_LATE = 2.0
"""Seconds: more than what is left running is listened to."""
_LAST = r"""
#include <windows.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    while (GetFileAttributesA(argv[argc - 1]) == INVALID_FILE_ATTRIBUTES)
        Sleep(10);
    fputs("the very last", stdout);
    fputs("and of this", stderr);
    return 7;
}
"""
"""Speaks and ends once there is the file that its argument names."""


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("last")
    source, program = folder / "last.c", folder / "last.exe"
    source.write_text(_LAST)
    compile_program([source], program, [], (), deadline=Deadline(120))
    return program


def _line(program: Path, go: Path) -> str:
    return " ".join(f"Z:{path}".replace("/", "\\") for path in (program, go))


def _await_end(program: Path) -> None:
    """Until no process of this computer is ``program``."""
    name = program.name.encode()

    def gone() -> bool | None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes().split(b"\0")[0].endswith(name):
                    return None
            except OSError:
                continue
        return True

    assert Deadline(60).poll(gone)


def test_the_runner_s_readers_get_no_processor(listener: Listener, last: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    listener.runner.start()
    pid = listener.runner.pid
    before = set(threads_of(pid))
    process = listener.runner.run(_line(last, go))
    # Who serves, who writes, two who read, who awaits the end.
    threads = Deadline(60).poll(
        lambda: new if len(new := [t for t in threads_of(pid) if t not in before]) == 5 else None
    )
    assert threads
    with held(threads[2:4]):
        go.touch()
        _await_end(last)
        assert process.take(_LATE, 65536) == ([], None), "an end was told before all that comes before it"
    said: dict[str, bytes] = {}
    code: int | None = None
    while code is None:
        pieces, code = process.take(60.0, 65536)
        for stream, data in pieces:
            said[stream] = said.get(stream, b"") + data
    process.close()
    assert (said, code) == ({"stdout": b"the very last", "stderr": b"and of this"}, 7)


def test_the_helper_s_readers_get_no_processor(native_windows: NativeWindows, last: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    helper = native_windows.drive / "Program Files/VMRole/vmrole-run.exe"
    with subprocess.Popen(
        in_wine(helper, "run"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=wine_environment(native_windows.drive.parent),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(f"nonce=n-1\nline={_line(last, go)}\n\n".encode())
        process.stdin.close()
        begun = native_windows.drive / "ProgramData/VMRole/begun"
        assert Deadline(60).poll(lambda: begun.exists() or None)
        # Who feeds it has nothing to give and is gone.
        assert Deadline(60).poll(lambda: len(threads_of(process.pid)) == 3 or None)
        with held(threads_of(process.pid)[1:]):
            go.touch()
            _await_end(last)
            told, _, _ = select.select([process.stderr], [], [], _LATE)
            if told:
                process.kill()
            assert not told, "an end was told before all that comes before it"
        out, err = process.stdout.read(), process.stderr.read()
    own, ending = read_ending("n-1", err)
    assert (out, own, ending.exit_code) == (b"the very last", b"and of this", 7)
    assert ending.is_whole(len(out), len(own)) and not ending.cut
    assert not ending.is_whole(len(out) - 1, len(own)) and not ending.is_whole(len(out), len(own) - 1)
    cut = [err[:size] for size in range(err.index(b"n-1 "), len(err))]
    assert not any(read_ending("n-1", part)[1].is_whole(1 << 20, 1 << 20) for part in cut)
