# SPDX-License-Identifier: Apache-2.0
"""Standard streams that take nothing: never a traceback, and never a code that means something else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import SAMPLES, VMROLE

HELLO = str(SAMPLES / "hello-linux")
FULL = ("/dev/full",)
COMMANDS = {
    "check": f"check {HELLO}",
    "a long document": f"plan {HELLO} -p Greeting=x --json",
    "schema": "schema resource-extension",
    "help": "--help",
    "help of a command": "check --help",
    "version": "--version",
    "images": "images list",
}


def shell(line: str) -> tuple[int, str]:
    """A line of bash with vmrole as ``$V``; its code, that of a pipe's first failure, and what standard error got."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        timeout=240, env=os.environ | {"V": str(VMROLE)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written(command: str) -> None:
    told = "vmrole: standard output cannot be written: {}\n"
    assert shell(f"$V {COMMANDS[command]} >/dev/full") == (3, told.format("No space left on device"))
    assert shell(f"$V {COMMANDS[command]} >&-") == (3, told.format("Bad file descriptor"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_went_away_is_no_failure(command: str) -> None:
    """The pipe has no reader from the start, and one that reads a little."""
    for reader in ("true", "head -c 1"):
        code, told = shell(f"$V {COMMANDS[command]} | {reader}")
        assert code in (0, 141) and told == "", (code, told)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("check missing", 2),
        ("check missing --json", 2),
        ("chekc", 2),
        ("run missing", 2),
        ("exec --image none -- true", 125),
        ("exec --none", 125),
        ("replay none --from x", 2),
    ],
)
def test_the_code_of_a_failure_stands_though_nobody_can_be_told(command: str, code: int) -> None:
    for streams in ("2>/dev/full", "2>&-", ">/dev/full", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
        assert shell(f"$V {command} {streams}")[0] == code, streams


def test_a_closed_stream_is_no_file_of_ours() -> None:
    """The next file that is opened would have its number, and get what is printed."""
    assert shell(f"$V check {HELLO} 2>&- | grep -q .") == (0, "")
    assert shell(f"$V check {HELLO} 0>&- | grep -q .") == (0, "")


LATE = """
import atexit, os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    atexit.register(os.kill, os.getpid(), number)
sys.argv = ["vmrole", *sys.argv[1:]]
from harness.cli.main import main
main()
"""


@pytest.mark.parametrize(("arguments", "code"), [(("--version",), 0), (("check", "/no/such"), 2)])
def test_a_signal_in_the_last_moment_does_not_change_how_it_ends(arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
