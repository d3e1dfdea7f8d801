# SPDX-License-Identifier: Apache-2.0
"""A user's session, from a pipe and from a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from harness.guest.ssh import SshGuest
from tests.conftest import HANGS


def _run(guest: SshGuest, stdin: bytes, argv: Sequence[str] | None = None) -> tuple[int, bytes, bytes]:
    feed, out, err = os.pipe(), os.pipe(), os.pipe()
    found: dict[int, bytes] = {}

    def drain(descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as file:
            found[descriptor] = file.read()

    def send() -> None:
        with os.fdopen(feed[1], "wb") as file:
            file.write(stdin)

    threads = [threading.Thread(target=drain, args=(d,)) for d in (out[0], err[0])] + [threading.Thread(target=send)]
    for thread in threads:
        thread.start()
    try:
        code = guest.interactive(argv, stdin=feed[0], stdout=out[1], stderr=err[1])
    finally:
        for descriptor in (feed[0], out[1], err[1]):
            os.close(descriptor)
        for thread in threads:
            thread.join()
    return code, found[out[0]], found[err[0]]


def test_commands_from_a_pipe(guest: SshGuest) -> None:
    code, out, err = _run(guest, b"echo out; echo err >&2\ntty\nexit 7\n")
    assert (code, out, err) == (7, b"out\nnot a tty\n", b"err\n")


def test_the_end_of_a_pipe_ends_the_session(guest: SshGuest) -> None:
    assert _run(guest, b"echo last") == (0, b"last\n", b"")


def test_large_input_with_large_output(guest: SshGuest) -> None:
    data = os.urandom(6 * 1024 * 1024)
    assert _run(guest, data, ["cat"]) == (0, data, b"")


def test_argv(guest: SshGuest) -> None:
    assert _run(guest, b"", ["printf", "%s", "a b"]) == (0, b"a b", b"")


def test_nobody_takes_the_output(guest: SshGuest) -> None:
    feed, out = os.pipe(), os.pipe()
    os.close(out[0])
    assert guest.interactive(["yes"], stdin=feed[0], stdout=out[1], stderr=out[1]) == 255
    for descriptor in (*feed, out[1]):
        os.close(descriptor)


@pytest.mark.parametrize("how", ["exit 5\r", "kill -9 $$\r"])
def test_a_terminal(guest: SshGuest, how: str, eventually: Callable[[Callable[[], bool]], None]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(theirs)
    said = bytearray()
    codes: list[int] = []

    def session() -> None:
        codes.append(guest.interactive(stdin=theirs, stdout=theirs, stderr=theirs))

    def listen() -> None:
        try:
            while data := os.read(ours, 4096):
                said.extend(data)
        except OSError:
            pass

    thread, listener = threading.Thread(target=session), threading.Thread(target=listen)
    thread.start()
    listener.start()
    try:
        os.write(ours, b"PS1=; stty size; echo first-$((1+1))\r")
        eventually(lambda: b"first-2" in said)
        assert b"33 99" in said
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 22, 77, 0, 0))

        def told() -> bool:
            os.write(ours, b"stty size\r")
            time.sleep(0.5)
            return b"22 77" in said

        eventually(told)
        os.write(ours, how.encode())
        thread.join(HANGS)
        assert not thread.is_alive()
        assert codes == [5] if "exit" in how else codes[0] != 0
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
        listener.join(HANGS)
        os.close(ours)
