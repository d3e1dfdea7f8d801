# SPDX-License-Identifier: Apache-2.0
"""Commands and connections, against a real SSH server."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, UsageError
from harness.guest.connection import _Packets
from harness.guest.protocol import Guest, GuestResult
from harness.guest.ssh import SshGuest
from harness.run.instance import make_ssh_keypair
from tests.conftest import HANGS
from tests.guest.conftest import Server, free_port, start_server, stop_server

# In a command: above it the shell around it, and the server's process of this connection.
_SESSION = "$(ps -o ppid= -p $(ps -o ppid= -p $$))"


def soon() -> Deadline:
    return Deadline(HANGS)


def test_it_is_a_guest(guest: SshGuest) -> None:
    as_protocol: Guest = guest
    assert as_protocol.boot_id(deadline=soon()) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_argv_arrives_exactly(guest: SshGuest) -> None:
    words = ["a b", "'", '"', "$HOME", "*", "", "\\", "new\nline", "ü", "-n", "`id`", "#"]
    result = guest.run(["printf", "%s\\0", *words], deadline=soon())
    assert result.stdout.split(b"\0")[:-1] == [word.encode() for word in words]
    assert (result.exit_code, result.stderr, result.timed_out, result.truncated) == (0, b"", False, False)


def test_a_program_with_an_equals_sign_is_a_program(guest: SshGuest, tmp_path: Path) -> None:
    program = tmp_path / "a=b"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    assert guest.run(["./a=b"], cwd=str(tmp_path), deadline=soon()).stdout == b"ran\n"


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize(
    ("script", "code"),
    [
        *((f"exit {code}", code) for code in (0, 1, 124, 125, 255)),
        *((f"kill -{name} $$", 128 + number) for name, number in (("TERM", 15), ("KILL", 9), ("SEGV", 11))),
    ],
)
def test_exit_codes_are_exact_and_nothing_is_added_to_the_streams(
    guest: SshGuest, script: str, code: int, timeout: float | None
) -> None:
    result = guest.run(["sh", "-c", script], timeout=timeout, deadline=soon())
    assert (result.exit_code, result.timed_out, result.stdout, result.stderr) == (code, False, b"", b"")


def test_a_missing_program_is_127_and_an_unusable_one_126(guest: SshGuest) -> None:
    missing = guest.run(["no-such-program"], deadline=soon())
    assert missing.exit_code == 127
    assert b"no-such-program" in missing.stderr
    assert guest.run(["/etc/passwd"], deadline=soon()).exit_code == 126


def test_streams_are_separate_and_stdin_is_empty_unless_given(guest: SshGuest) -> None:
    both = guest.run(["sh", "-c", "echo out; echo err >&2"], deadline=soon())
    assert (both.stdout, both.stderr) == (b"out\n", b"err\n")
    assert guest.run(["cat"], deadline=soon()).stdout == b""
    data = bytes(range(256)) * 20_000
    assert guest.run(["cat"], stdin=data, deadline=soon()).stdout == data


def test_stdin_that_nobody_reads_does_not_hang(guest: SshGuest) -> None:
    assert guest.run(["true"], stdin=bytes(8 * 1024 * 1024), deadline=soon()).exit_code == 0


def test_environment_is_exactly_what_was_given(guest: SshGuest) -> None:
    result = guest.run(["env"], env={"A": "x y", "B": "new\nline", "-C": "'"}, deadline=soon())
    assert result.stdout.decode() == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "HOME=/root\nLANG=C.UTF-8\nA=x y\nB=new\nline\n-C='\n"
    )
    assert guest.run(["printenv", "HOME"], env={"HOME": "/x"}, deadline=soon()).stdout == b"/x\n"


def test_folder(guest: SshGuest, tmp_path: Path) -> None:
    odd = tmp_path / "-a 'b'"
    odd.mkdir()
    assert guest.run(["pwd"], cwd=str(odd), deadline=soon()).stdout.decode() == f"{odd}\n"
    with pytest.raises(GuestError, match="has no folder /no/such"):
        guest.run(["pwd"], cwd="/no/such", deadline=soon())


def test_time_out_kills_everything(guest: SshGuest, eventually: Callable[[Callable[[], bool]], None]) -> None:
    # One child stays in the group, one leaves it but not the session; both have a number that finds them.
    script = "sleep 4711.1 & setsid -f sleep 0.1; set -m; sleep 4711.2 & echo begun; wait"
    result = guest.run(["bash", "-c", script], timeout=5.0, deadline=soon())
    assert (result.exit_code, result.timed_out, result.stdout) == (None, True, b"begun\n")
    assert result.seconds >= 5.0
    eventually(lambda: guest.run(["pgrep", "-f", "sleep 4711[.]"], deadline=soon()).stdout == b"")


def test_what_is_left_running_does_not_hang_us(guest: SshGuest) -> None:
    result = guest.run(["sh", "-c", "sleep 4713 & echo $!"], deadline=soon())
    assert result.exit_code == 0
    # It was not killed: a command may start a service.
    assert guest.run(["kill", result.stdout.decode().strip()], deadline=soon()).exit_code == 0


def test_a_command_that_closes_its_streams_is_waited_for(guest: SshGuest) -> None:
    result = guest.run(["sh", "-c", "exec >&- 2>&-; sleep 1; exit 3"], deadline=soon())
    assert (result.exit_code, result.seconds >= 1) == (3, True)


def test_endless_output_is_capped(guest: SshGuest) -> None:
    result = guest.run(["sh", "-c", "yes >&2 & yes"], timeout=5.0, max_output=1000, deadline=soon())
    assert (len(result.stdout), len(result.stderr)) == (1000, 1000)
    assert result.truncated
    assert result.timed_out


def test_output_at_the_cap_is_not_truncated(guest: SshGuest) -> None:
    result = guest.run(["head", "-c", "1000", "/dev/zero"], max_output=1000, deadline=soon())
    assert (len(result.stdout), result.truncated) == (1000, False)


def test_the_deadline_is_the_guests_fault(guest: SshGuest) -> None:
    with pytest.raises(GuestLostError, match=r"did not run sleep 4714 to its end within 5 s; the connection stands"):
        guest.run(["sleep", "4714"], env={"SECRET": "hunter2"}, deadline=Deadline(5))
    assert guest.run(["true"], deadline=soon()).exit_code == 0


def test_many_commands_at_once(guest: SshGuest) -> None:
    found: dict[int, bytes] = {}

    def one(number: int) -> None:
        found[number] = guest.run(["sh", "-c", f"sleep 0.2; echo {number}"], deadline=soon()).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n".encode() for number in range(6)}


@pytest.mark.parametrize(
    ("argv", "env"),
    [([], {}), (["a\0b"], {}), (["a"], {"A=B": "c"}), (["a"], {"": "c"}), (["x" * 200_000], {})],
)
def test_impossible_commands(guest: SshGuest, argv: list[str], env: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        guest.run(argv, env=env, deadline=soon())


def test_another_host_key_is_refused_at_once(server: Server) -> None:
    # At once: it does not ask again until its deadline.
    deadline = Deadline(HANGS)
    with pytest.raises(GuestError, match="another host key"):
        server.connect(host_key=make_ssh_keypair().public, deadline=deadline)
    assert not deadline.expired


def test_another_kind_of_host_key_is_refused(server: Server) -> None:
    kind = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA=="
    with pytest.raises(GuestError, match="another host key"):
        server.connect(host_key=kind)


def test_another_client_key_is_refused_at_once(server: Server) -> None:
    with pytest.raises(GuestError, match="does not let root in"):
        server.connect(client_key=make_ssh_keypair().private)


def test_a_port_without_a_server() -> None:
    keys = make_ssh_keypair()
    with pytest.raises(GuestNotReadyError, match="did not answer within 1 s"):
        SshGuest.connect("127.0.0.1", free_port(), client_key=keys.private, host_key=keys.public, deadline=Deadline(1))


def test_a_port_that_accepts_and_says_nothing_is_left_for_the_real_server(tmp_path: Path) -> None:
    """What user-mode networking does while the guest boots."""
    server = start_server(tmp_path)
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(8)
            said = threading.Event()

            def serve() -> None:
                silent, _ = listener.accept()
                time.sleep(1.5)
                silent.close()
                closed, _ = listener.accept()
                closed.close()
                said.set()
                real, _ = listener.accept()
                with real, socket.create_connection(("127.0.0.1", server.port)) as other:
                    back = threading.Thread(target=_pump, args=(other, real), daemon=True)
                    back.start()
                    _pump(real, other)
                    back.join(HANGS)

            thread = threading.Thread(target=serve, daemon=True)  # which hangs when the guest does
            thread.start()
            with SshGuest.connect(
                "127.0.0.1",
                listener.getsockname()[1],
                client_key=server.client_key.private,
                host_key=server.host_key.public,
                deadline=Deadline(HANGS),
            ) as guest:
                assert said.is_set()
                assert guest.run(["echo", "hello"], deadline=soon()).stdout == b"hello\n"
            thread.join(HANGS)
    finally:
        stop_server(server)


def test_a_server_that_is_slow_to_speak_is_waited_for(tmp_path: Path) -> None:
    """A busy guest is, on every connection anew."""
    server = start_server(tmp_path)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(client: socket.socket) -> None:
                time.sleep(3)
                with client, socket.create_connection(("127.0.0.1", server.port)) as other:
                    threading.Thread(target=_pump, args=(other, client), daemon=True).start()
                    _pump(client, other)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            slow = dataclasses.replace(server, port=listener.getsockname()[1])
            with slow.connect(deadline=Deadline(60)) as guest:
                assert guest.run(["echo", "hello"], deadline=soon()).stdout == b"hello\n"
            listener.shutdown(socket.SHUT_RDWR)
    finally:
        stop_server(server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """What one side says, and its end: a reset is one, too."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_no_ssh_server_at_all() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.sendall(b"HTTP/1.0 400\r\n")
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        keys = make_ssh_keypair()
        with pytest.raises(GuestNotReadyError, match="no SSH server"):
            SshGuest.connect(
                "127.0.0.1",
                listener.getsockname()[1],
                client_key=keys.private,
                host_key=keys.public,
                deadline=Deadline(1),
            )
        listener.shutdown(socket.SHUT_RDWR)


_WINDOW = 64 * 32768
"""Bytes that the library lets a server send before it has told it that some were taken."""
_MORE = 16 * 1024


class Way:
    """A way to a server on which what the client says can be held back, and which can be cut."""

    def __init__(self, server: Server) -> None:
        self.open = threading.Event()
        self.open.set()
        self.cut = False
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # The server may not be there yet.
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port)) as other:
            threading.Thread(target=_pump, args=(other, client), daemon=True).start()
            while data := client.recv(65536):
                self.open.wait(HANGS)
                if self.cut:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                other.sendall(data)


def _last_words(tmp_path: Path, *, left: str = "", cut: bool = False) -> GuestResult:
    """A command that says more than its reader has told that it takes: its end is heard of before the last of that."""
    server = start_server(tmp_path)
    way = Way(server)
    shell, go = tmp_path / "shell", tmp_path / "go"

    def hold_back() -> None:
        pid = soon().poll(lambda: (shell.exists() and shell.read_text().strip()) or None)
        way.open.clear()
        go.touch()
        status = Path(f"/proc/{pid}/stat")
        soon().poll(lambda: not status.exists() or status.read_text().rpartition(") ")[2][0] == "Z" or None)
        time.sleep(1)  # the silence that no patience is to take for the end
        way.cut = cut
        way.open.set()

    try:
        with dataclasses.replace(server, port=way.port).connect() as guest:
            threading.Thread(target=hold_back, daemon=True).start()
            script = f"{left} echo $PPID >{shell}; until [ -e {go} ]; do sleep 0.05; done; "
            script += f"head -c {_WINDOW + _MORE} /dev/zero; echo the last words; echo and these >&2; exit 3"
            return guest.run(["sh", "-c", script], deadline=soon())
    finally:
        stop_server(server)


@pytest.mark.parametrize("left", ["", "sleep 4715 &"])
def test_the_last_words_of_a_command_are_waited_for(tmp_path: Path, guest: SshGuest, left: str) -> None:
    """Also where something that it left running holds the streams open."""
    try:
        result = _last_words(tmp_path, left=left)
    finally:
        guest.run(["pkill", "-f", "sleep 471[5]"], deadline=soon())
    assert (result.exit_code, result.stderr, result.truncated) == (3, b"and these\n", False)
    assert (len(result.stdout), result.stdout[-15:]) == (_WINDOW + _MORE + 15, b"the last words\n")


def test_last_words_that_are_lost_are_seen(tmp_path: Path) -> None:
    """The connection breaks when the exit code is there and the rest is not."""
    with pytest.raises(GuestLostError, match=r"lost on its way; it was to run sh|closed the connection"):
        _last_words(tmp_path, cut=True)


def test_a_packet_that_claims_to_be_huge_is_not_read() -> None:
    taken = 0

    def serve() -> None:
        nonlocal taken
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(b"SSH-2.0-Huge\r\n" + struct.pack(">I", (2 << 30) - 4))
            while taken < 512 << 20:
                taken += connection.send(bytes(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        keys = make_ssh_keypair()
        with pytest.raises(GuestNotReadyError):
            SshGuest.connect(
                "127.0.0.1",
                listener.getsockname()[1],
                client_key=keys.private,
                host_key=keys.public,
                deadline=Deadline(5),
            )
        thread.join(60)
    assert taken < 32 << 20  # what the system's own buffers took
    here, there = socket.socketpair()
    with here, there:
        there.sendall(struct.pack(">I", (2 << 30) - 4) + bytes(64))
        with pytest.raises(paramiko.SSHException, match="a packet of 2147483"):
            _Packets(here).read_message()


@pytest.mark.parametrize(("said", "is_going"), [("running", False), ("degraded", False), ("stopping", True)])
def test_a_guest_that_is_about_to_restart(server: Server, tmp_path: Path, said: str, is_going: bool) -> None:
    manager = tmp_path / "systemctl"
    manager.write_text(f'#!/bin/sh\n[ "$*" = is-system-running ] && echo {said}; exit {said != "running":d}\n')
    manager.chmod(0o755)
    with server.connect(environment={"PATH": f"{tmp_path}:/usr/bin:/bin"}) as guest:
        assert guest.restarting(deadline=soon()) == is_going


def test_a_guest_that_goes_away(tmp_path: Path) -> None:
    server = start_server(tmp_path)
    try:
        with server.connect() as guest:
            with pytest.raises(GuestLostError, match="closed the connection while it was to run sh"):
                guest.run(["sh", "-c", f"kill -KILL {_SESSION}"], deadline=soon())
            assert not guest.connected
            with pytest.raises(GuestLostError, match="connection to the guest is gone"):
                guest.run(["true"], deadline=soon())
            with pytest.raises(GuestLostError, match="connection to the guest is gone"):
                guest.get("/etc/passwd", deadline=soon())
            guest.reconnect(deadline=soon())
            assert guest.run(["true"], deadline=soon()).exit_code == 0
    finally:
        stop_server(server)


def test_a_frozen_guest_meets_the_deadline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is stopped: connected, but no reply to anything, not even to "open a channel"."""
    server = start_server(tmp_path)
    try:
        with server.connect() as guest:
            session = int(guest.run(["sh", "-c", f"echo {_SESSION}"], deadline=soon()).stdout)
            os.kill(session, signal.SIGSTOP)
            try:
                with pytest.raises(GuestLostError, match=r"did not answer within 1 s; it was to run true"):
                    guest.run(["true"], deadline=Deadline(1))
            finally:
                os.kill(session, signal.SIGCONT)
    finally:
        stop_server(server)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
