# SPDX-License-Identifier: Apache-2.0
"""Other people's WinRM clients, as they are, against the stand-in guest's listener with Wine behind it."""

from __future__ import annotations

import contextlib
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import winrm
import winrm.protocol
from pypsrp.exceptions import AuthenticationError
from pypsrp.shell import Process, WinRS
from pypsrp.wsman import WSMan
from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError, WSManFaultError

from harness.deadline import Deadline
from harness.image.windows import compile_program
from tests.conftest import HANGS
from tests.standin.native import FILLING, PASSWORD, Listener

_Connect = Callable[..., winrm.Session]


def _basic(listener: Listener, password: str = PASSWORD) -> winrm.Session:
    return winrm.Session(
        listener.https_url,
        auth=("Administrator", password),
        transport="basic",
        server_cert_validation="validate",
        ca_trust_path=str(listener.certificate),
    )


def _ntlm(listener: Listener, password: str = PASSWORD) -> winrm.Session:
    return winrm.Session(
        listener.https_url,
        auth=("Administrator", password),
        transport="ntlm",
        server_cert_validation="validate",
        ca_trust_path=str(listener.certificate),
    )


def _encrypted(listener: Listener, password: str = PASSWORD) -> winrm.Session:
    return winrm.Session(
        listener.http_url, auth=("Administrator", password), transport="ntlm", message_encryption="always"
    )


def _wsman(listener: Listener, auth: str, *, ssl: bool, password: str = PASSWORD) -> WSMan:
    port = listener.https if ssl else listener.http
    trusted = str(listener.certificate) if ssl else False
    return WSMan(
        "127.0.0.1",
        port=port,
        ssl=ssl,
        username="Administrator",
        password=password,
        auth=auth,
        cert_validation=trusted,  # type: ignore[arg-type]  # a bundle too
    )


def _await_output(protocol: winrm.protocol.Protocol, shell: str, command: str, wanted: bytes) -> None:
    """Receive, of a command that goes on running, until it has written ``wanted``."""
    said = b""
    while len(said) < len(wanted):
        out, _, _, done = protocol.get_command_output_raw(shell, command)
        assert not done
        said += out
    assert said == wanted


@pytest.mark.parametrize("connect", [_basic, _ntlm, _encrypted])
def test_pywinrm_runs_commands(listener: Listener, connect: _Connect) -> None:
    session = connect(listener)
    done = session.run_cmd("echo out& echo err>&2& exit 3010")
    assert (done.std_out, done.std_err, done.status_code) == (b"out\r\n", b"err\r\n", 3010)


@pytest.mark.parametrize(
    ("auth", "ssl"), [("basic", True), ("ntlm", True), ("negotiate", True), ("ntlm", False), ("negotiate", False)]
)
def test_pypsrp_runs_commands(listener: Listener, auth: str, ssl: bool) -> None:
    with _wsman(listener, auth, ssl=ssl) as wsman, WinRS(wsman) as shell:
        process = Process(shell, "cmd.exe", ["/c", "echo", "hi&", "exit", "7"])
        process.invoke()
        assert (process.stdout, process.stderr, process.rc) == (b"hi\r\n", b"", 7)


@pytest.mark.parametrize("connect", [_basic, _ntlm, _encrypted])
def test_a_wrong_password_is_refused(listener: Listener, connect: _Connect) -> None:
    with pytest.raises(InvalidCredentialsError):
        connect(listener, "wrong").run_cmd("ver")


def test_another_account_is_refused(listener: Listener) -> None:
    with pytest.raises(AuthenticationError):
        WSMan("127.0.0.1", port=listener.http, ssl=False, username="Guest", password=PASSWORD, auth="ntlm").create(
            "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd", ET.Element("Shell")
        )


def test_messages_in_the_clear_are_refused(listener: Listener) -> None:
    session = winrm.Session(
        listener.http_url, auth=("Administrator", PASSWORD), transport="ntlm", message_encryption="never"
    )
    with pytest.raises(InvalidCredentialsError):
        session.run_cmd("ver")
    # Nor is Basic offered where it would show the password.
    plain = winrm.Session(listener.http_url, auth=("Administrator", PASSWORD), transport="plaintext")
    with pytest.raises(InvalidCredentialsError):
        plain.run_cmd("ver")


@pytest.mark.parametrize("code", [0, 1, 259, 3010, 9009, 2147483647, -1, -1073741819])
def test_exit_codes_have_32_bits(listener: Listener, code: int) -> None:
    assert _basic(listener).run_cmd(f"exit {code}").status_code == code & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('echo a "b c" ^& d', b'a "b c" & d\r\n'),
        ('"C:\\windows\\system32\\cmd.exe" /c "echo "x  y""', b'"x  y"\r\n'),
        ("echo %OS%", b"Windows_NT\r\n"),
        ("for /f \"tokens=2\" %i in (\"one two\") do @echo %i", b"two\r\n"),
    ],
)  # fmt: skip
def test_lines_reach_cmd_as_they_are(listener: Listener, line: str, said: bytes) -> None:
    assert _basic(listener).run_cmd(line).std_out == said


def test_shells_have_a_folder_an_environment_and_standard_input(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shell = protocol.open_shell(working_directory="C:\\windows", env_vars={"A B": "1 2", "TEMP": "C:\\elsewhere"})
    command = protocol.run_command(shell, 'cd& set /p x=& call echo [%x%] "%A B%" %TEMP%')
    protocol.send_command_input(shell, command, "from here\r\n", end=True)
    out, err, code = protocol.get_command_output(shell, command)
    protocol.cleanup_command(shell, command)
    protocol.close_shell(shell)
    assert (out, err, code) == (b'C:\\windows\r\n[from here] "1 2" C:\\elsewhere\r\n', b"", 0)


def test_output_comes_while_the_command_runs(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shell = protocol.open_shell()
    command = protocol.run_command(shell, "echo first& set /p x=")
    _await_output(protocol, shell, command, b"first\r\n")
    protocol.send_command_input(shell, command, "second\r\n", end=True)  # an empty line would be exit code 1
    assert protocol.get_command_output(shell, command)[2] == 0
    protocol.close_shell(shell)


def test_a_receive_without_news_times_out_and_goes_on(listener: Listener) -> None:
    protocol = winrm.protocol.Protocol(
        listener.http_url,
        transport="ntlm",
        username="Administrator",
        password=PASSWORD,
        read_timeout_sec=30,
        operation_timeout_sec=1,
    )
    shell = protocol.open_shell()
    command = protocol.run_command(shell, "set /p x=& exit 5")
    with pytest.raises(WinRMOperationTimeoutError):
        protocol.get_command_output_raw(shell, command)
    protocol.send_command_input(shell, command, "\r\n", end=True)
    assert protocol.get_command_output(shell, command)[2] == 5
    protocol.close_shell(shell)


def test_much_output_comes_whole(listener: Listener) -> None:
    line = "for /l %i in (1,1,6000) do @echo %i " + "x" * 200
    said = _encrypted(listener).run_cmd(line).std_out
    assert said == b"".join(b"%d %s\r\n" % (i, b"x" * 200) for i in range(1, 6001))


def test_terminate_ends_everything_that_was_started(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shell = protocol.open_shell()
    # Two generations; the mark is in their command lines, as Linux sees them.
    command = protocol.run_command(shell, "echo go& cmd /c for /l %i in (0,0,1) do @ver the-mark>nul")
    _await_output(protocol, shell, command, b"go\r\n")
    assert Deadline(HANGS).poll(lambda: True if _processes("the-mark") >= 2 else None)
    protocol.cleanup_command(shell, command)
    assert Deadline(HANGS).poll(lambda: None if _processes("the-mark") else True)
    with pytest.raises(WSManFaultError) as fault:
        protocol.get_command_output_raw(shell, command)
    assert fault.value.wsman_fault_code == 2150858843
    protocol.close_shell(shell)


def _processes(mark: str) -> int:
    """How many processes of this computer have ``mark`` in their command line."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += mark.encode() in path.read_bytes()
    return found


def test_thirty_shells_and_no_more(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shells = [protocol.open_shell() for _ in range(30)]
    try:
        with pytest.raises(WSManFaultError) as fault:
            protocol.open_shell()
        assert fault.value.wsman_fault_code == 2150859173
    finally:
        for shell in shells:
            protocol.close_shell(shell, close_session=False)
    protocol.close_shell(protocol.open_shell())


def test_a_shell_that_is_idle_for_too_long_ends(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shell = protocol.open_shell(idle_timeout=1)
    time.sleep(1.2)  # to be idle is all it does, and asking it would end that
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command(shell, "cmd.exe", skip_cmd_shell=True)
    assert fault.value.wsman_fault_code == 2150858843


def test_twenty_five_commands_in_a_shell_and_no_more(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    shell = protocol.open_shell()
    commands = [protocol.run_command(shell, "cmd.exe", skip_cmd_shell=True) for _ in range(25)]
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command(shell, "cmd.exe", skip_cmd_shell=True)
    assert fault.value.wsman_fault_code == 2150859241
    protocol.cleanup_command(shell, commands[0])
    protocol.run_command(shell, "cmd.exe", skip_cmd_shell=True)
    protocol.close_shell(shell)


def test_faults_say_what_is_wrong(listener: Listener) -> None:
    protocol = _basic(listener).protocol
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command("11111111-1111-1111-1111-111111111111", "ver")
    assert fault.value.wsman_fault_code == 2150858843
    shell = protocol.open_shell()
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command(shell, "nonesuch.exe", skip_cmd_shell=True)
    assert fault.value.wsman_fault_code == 2
    assert "cannot find the file" in fault.value.reason
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command(shell, "x" * 8192)
    assert "8192 characters" in fault.value.reason
    protocol.close_shell(shell)


def test_the_runner_that_was_ended_comes_back(listener: Listener) -> None:
    done = _basic(listener).run_cmd("taskkill /f /im runner.exe")
    assert done.status_code != 0  # it took this very command with it
    assert _basic(listener).run_cmd("echo again").std_out == b"again\r\n"


def test_many_clients_at_once(listener: Listener) -> None:
    said: dict[int, bytes] = {}

    def run(number: int) -> None:
        said[number] = _ntlm(listener).run_cmd(f"echo {number}").std_out

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: b"%d\r\n" % number for number in range(8)}


def test_what_a_program_wrote_comes_before_its_end(listener: Listener, tmp_path: Path) -> None:
    """It ends with full pipes, while its client fetches nothing: what waits there is nevertheless told."""
    program, ended = tmp_path / "filling.exe", tmp_path / "ended"
    (tmp_path / "filling.c").write_text(FILLING)
    compile_program([tmp_path / "filling.c"], program, [], (), deadline=Deadline(HANGS))
    process = listener.runner.run(" ".join(f"Z:{path}".replace("/", "\\") for path in (program, ended)))
    assert Deadline(HANGS).poll(lambda: ended.exists() or None)
    time.sleep(2)
    got, code = 0, None
    while code is None:
        pieces, code = process.take(60, 4 << 20)
        got += sum(len(data) for _, data in pieces)
        time.sleep(0.35)
    process.close()
    assert code > 100 and got >= code * 4096
