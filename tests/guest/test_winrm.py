# SPDX-License-Identifier: Apache-2.0
"""The WinRM transport against the stand-in guest's listener, with Wine on this computer."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, UsageError
from harness.guest.winrm import WinRmGuest
from harness.guest.wintext import decode, without_clixml
from harness.winarguments import join_arguments
from tests.conftest import HANGS, NativeWindows


@pytest.fixture(scope="module", params=["https", "http with encryption"])
def guest(native_windows: NativeWindows, request: pytest.FixtureRequest) -> Iterator[WinRmGuest]:
    if request.param == "https":
        connection = native_windows.connect()
    else:
        connection = WinRmGuest.connect(
            "127.0.0.1",
            native_windows.http,
            password=native_windows.password,
            certificate=None,
            deadline=Deadline(HANGS),
        )
    with connection as guest:
        yield guest


def _soon() -> Deadline:
    return Deadline(HANGS)


def test_exit_codes_are_32_bits(guest: WinRmGuest) -> None:
    for code in (0, 1, 3010, 9009, 4294967295, 3221225477):
        signed = code - (1 << 32) if code >= 1 << 31 else code
        assert guest.run(["cmd.exe", "/c", f"exit {signed}"], deadline=_soon()).exit_code == code


def test_streams_folder_and_environment(guest: WinRmGuest) -> None:
    done = guest.run_line(
        "cmd.exe /c echo out %GIVEN%& echo err 1>&2& cd",
        deadline=_soon(),
        env={"GIVEN": "a=b c"},
        cwd="C:\\windows",
    )
    assert done.stdout.decode().splitlines() == ["out a=b c", "C:\\windows"]
    assert done.stderr.strip() == b"err" and done.exit_code == 0


def test_a_line_goes_as_it_stands(guest: WinRmGuest) -> None:
    assert (
        guest.run_line('cmd.exe /c echo "a   b" ^& %NONE% \\"', deadline=_soon()).stdout == b'"a   b" & %NONE% \\"\r\n'
    )


def test_input_reaches_the_program_whole(guest: WinRmGuest, native_windows: NativeWindows) -> None:
    data = bytes(range(256)) * 2000
    guest.put(data, "C:\\some folder\\all bytes.bin", deadline=_soon())
    assert (native_windows.drive / "some folder/all bytes.bin").read_bytes() == data
    assert guest.get("C:\\some folder\\all bytes.bin", deadline=_soon()) == data
    assert guest.get("C:\\some folder\\all bytes.bin", deadline=_soon(), limit=3) == b"\0\1\2"
    guest.put(b"", "C:\\some folder\\all bytes.bin", deadline=_soon())
    assert (native_windows.drive / "some folder/all bytes.bin").read_bytes() == b""


def test_files_that_cannot_be(guest: WinRmGuest, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"C:\\none cannot be read in the guest: there is no such file"):
        guest.get("C:\\none", deadline=_soon())
    with pytest.raises(GuestError, match="it is a folder"):
        guest.get("C:\\windows", deadline=_soon())
    with pytest.raises(UsageError, match="too much for WinRM"):
        guest.put(bytes(9 << 20), "C:\\big", deadline=_soon())


def test_no_input_is_the_end_of_input(guest: WinRmGuest) -> None:
    assert (
        guest.run(["cmd.exe", "/c", "set /p line= & echo [%line%]"], deadline=_soon(), timeout=HANGS / 2).exit_code
        is not None
    )


def test_time_out_kills_all(guest: WinRmGuest) -> None:
    done = guest.run(
        ["cmd.exe", "/c", "echo begun& cmd.exe /c ping.exe -n 7777 127.0.0.1"], deadline=_soon(), timeout=10
    )
    assert done.timed_out and done.exit_code is None and b"begun" in done.stdout
    assert guest.run(["cmd.exe", "/c", "echo again"], deadline=_soon()).stdout == b"again\r\n"


def test_deadline(guest: WinRmGuest) -> None:
    with pytest.raises(GuestLostError, match=r"within 10 s; the connection stands; it was to run cmd\.exe"):
        guest.run(["cmd.exe", "/c", "ping.exe -n 7777 127.0.0.1"], deadline=Deadline(10))
    assert guest.connected
    assert guest.run(["cmd.exe", "/c", "echo again"], deadline=_soon()).stdout == b"again\r\n"


def test_output_is_capped(guest: WinRmGuest) -> None:
    line = "cmd.exe /c for /l %i in (1,1,3000) do @echo 0123456789012345678901234567890123456789"
    done = guest.run_line(line, deadline=_soon(), max_output=1000)
    assert len(done.stdout) == 1000 and done.truncated and done.exit_code == 0


def test_what_is_no_command(guest: WinRmGuest) -> None:
    with pytest.raises(GuestError, match=r"the guest has no such program; it was to run nothing\.exe"):
        guest.run(["nothing.exe"], deadline=_soon())
    with pytest.raises(UsageError, match="8191"):
        guest.run(["cmd.exe", "/c", "x" * 9000], deadline=_soon())
    with pytest.raises(UsageError, match="cannot be an environment variable"):
        guest.run(["cmd.exe"], deadline=_soon(), env={"A=B": "c"})
    with pytest.raises(UsageError, match="characters in it"):
        guest.run(["cmd.exe", "/c", "a\0b"], deadline=_soon())


def _session(native_windows: NativeWindows, given: bytes) -> subprocess.CompletedProcess[bytes]:
    """As a user has it, with pipes on this side."""
    program = (
        "import sys; from harness.deadline import Deadline; from harness.guest.winrm import WinRmGuest; "
        "p, port, pem = sys.argv[1:]; g = WinRmGuest.connect('127.0.0.1', int(port), password=p, "
        "certificate=pem.encode(), deadline=Deadline(600)); sys.exit(g.interactive())"
    )
    arguments = [native_windows.password, str(native_windows.https), native_windows.certificate.decode()]
    argv = [sys.executable, "-c", program, *arguments]
    return subprocess.run(argv, input=given, capture_output=True, timeout=HANGS, check=False)


def test_a_session(native_windows: NativeWindows) -> None:
    done = _session(native_windows, b"echo one two& exit 7\n")
    assert (done.returncode, done.stdout) == (7, b"one two\r\n"), done


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_line_of_a_session(native_windows: NativeWindows, end: bytes) -> None:
    """The shell and the programs it starts read one line after the other, as from a pipe on Windows and Linux."""
    lines = [
        b"echo one", b"", b"set A=5", b"echo two %A%", b"echo err 1>&2", b"set /p GIVEN=",
        b"the answer", b"echo got %GIVEN%", b"if 1==1 (", b"echo in", b"echo block", b")", b"   ", b"exit 7",
        b"echo never",
    ]  # fmt: skip
    done = _session(native_windows, end.join([*lines, b""]))
    assert (done.returncode, done.stderr) == (7, b"err \r\n"), done
    said = done.stdout.replace(b"More? ", b"")  # Wine's cmd asks so for the rest of a block, whatever it reads from
    assert said.split(b"\r\n") == [b"one", b"two 5", b"got the answer", b"in", b"block", b""]


def test_the_end_of_what_is_piped_ends_a_session(native_windows: NativeWindows) -> None:
    done = _session(native_windows, b"echo first\necho last")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"first\r\nlast\r\n", b"")


def test_much_is_piped_into_a_session(native_windows: NativeWindows) -> None:
    """More than one message has, lines across the edges of what is read at once."""
    count = 3000
    lines = b"".join(b"rem %s\n" % (b"x" * (n % 97)) for n in range(count))
    done = _session(native_windows, b"set N=0\n" + lines.replace(b"rem", b"set /a N=N+1 >nul & rem") + b"echo %N%\n")
    assert (done.returncode, done.stdout.strip()) == (0, b"%d" % count), done.stdout[-500:]


def test_a_session_that_does_not_read(native_windows: NativeWindows) -> None:
    done = _session(native_windows, b"exit 3\n" + b"echo never\n" * 20000)
    assert (done.returncode, done.stdout) == (3, b"")


def test_closing_ends_what_waits(native_windows: NativeWindows) -> None:
    guest = native_windows.connect()
    threading.Timer(1, guest.close).start()
    deadline = _soon()
    with pytest.raises(GuestLostError):
        guest.run(["cmd.exe", "/c", "ping.exe -n 7777 127.0.0.1"], deadline=deadline)
    assert not deadline.expired and not guest.connected


def test_another_password_is_refused(native_windows: NativeWindows) -> None:
    with pytest.raises(GuestError, match="does not let Administrator in with the password of this run"):
        native_windows.connect(password="wrong")


def test_another_certificate_is_refused(native_windows: NativeWindows) -> None:
    with pytest.raises(GuestError, match="another certificate than the one made for this machine"):
        native_windows.connect(certificate=_certificate(1))


def test_an_expired_certificate_is_told(native_windows: NativeWindows) -> None:
    with pytest.raises(GuestError, match=r"certificate of the guest's WinRM service expired on \d{4}-"):
        native_windows.connect(certificate=_certificate(-1))


def test_nobody_there(native_windows: NativeWindows) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = dataclasses.replace(native_windows, https=probe.getsockname()[1])
        with pytest.raises(GuestNotReadyError, match=r"did not answer within 1 s: it refuses connections"):
            nobody.connect(deadline=Deadline(1))
        probe.listen()
        with pytest.raises(GuestNotReadyError, match=r"did not answer within 1 s: "):
            nobody.connect(deadline=Deadline(1))


def _certificate(days: int) -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM)


class Relay:
    """A network between us and the listener that can be cut; ``absent`` as QEMU's is while nobody listens in the guest:
    it accepts, and closes."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.sockets: list[socket.socket] = []
        self.made: list[socket.socket] = []
        self.absent = False
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            if self.absent:
                near.close()
                self.refused += 1
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [near, far]
            self.made += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.cut()
        for end in self.made:
            end.close()

    def cut(self) -> None:
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()


def test_a_broken_network_is_gone_around(native_windows: NativeWindows) -> None:
    with contextlib.closing(Relay(native_windows.https)) as relay:
        _cut_within(native_windows, relay)


def _cut_within(native_windows: NativeWindows, relay: Relay) -> None:
    guest = dataclasses.replace(native_windows, https=relay.port).connect()
    threading.Timer(1.5, relay.cut).start()
    line = "cmd.exe /c ping.exe -n 4 127.0.0.1 & echo the end & exit 7"
    done = guest.run_line(line, deadline=_soon())
    assert done.exit_code == 7
    assert done.stdout.rstrip().endswith(b"the end") or done.truncated, "what is lost is told"
    relay.cut()
    assert guest.run(["cmd.exe", "/c", "exit 8"], deadline=_soon()).exit_code == 8
    guest.close()


def test_a_service_that_is_away_for_seconds(native_windows: NativeWindows) -> None:
    """No request has reached it: what starts something is sent again, too."""
    with contextlib.closing(Relay(native_windows.https)) as relay:
        guest = dataclasses.replace(native_windows, https=relay.port).connect()
        relay.absent = True
        relay.cut()
        back = threading.Timer(2, setattr, (relay, "absent", False))
        back.start()
        assert guest.run(["cmd.exe", "/c", "exit 8"], deadline=_soon()).exit_code == 8
        assert relay.refused > 0
        guest.close()


def test_arguments_and_texts() -> None:
    assert (
        join_arguments(["a", "b c", "", 'd"e', "f\\", "g h\\", 'i\\"j'])
        == 'a "b c" "" "d\\"e" f\\ "g h\\\\" "i\\\\\\"j"'
    )
    for text in ("plain", "ü", "日本"):
        assert decode(text.encode()) == text
        assert decode(b"\xef\xbb\xbf" + text.encode()) == text
        assert decode(b"\xff\xfe" + text.encode("utf-16-le")) == text
    assert decode("no mark".encode("utf-16-le")) == "no mark"
    assert decode("Größe über".encode("cp1252")) == "Größe über"
    assert decode("Größe über".encode("cp437")) == "Größe über"
    assert decode(bytes(range(256)))
    xml = '#< CLIXML\r\n<Objs><S S="progress">no</S><S S="Error">it &lt;broke&gt;_x000D__x000A_</S></Objs>'
    assert without_clixml(xml) == "it <broke>\r\n"
    assert without_clixml('#< CLIXML\n<Objs><S S="Error">_xD83D__xDE00_ _xD800_</S></Objs>') == "\U0001f600 \ufffd"
    assert without_clixml("plain") == "plain"
