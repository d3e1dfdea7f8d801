# SPDX-License-Identifier: Apache-2.0
"""The programs that stand where Wine has silent stubs, run by Wine on this computer."""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.image.catalog import load
from tests.conftest import HANGS
from tests.standin.native import TOOLS, Listener, compile_tool, in_wine

UNAVAILABLE = 9150


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs, compiled, on drive C: of a prefix."""

    environment: dict[str, str]

    @property
    def drive(self) -> Path:
        return Path(self.environment["WINEPREFIX"]) / "drive_c"

    @property
    def log(self) -> str:
        path = self.drive / "windows/vmrole-unavailable.log"
        return path.read_text() if path.exists() else ""

    def run(self, name: str, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """A program by its full name, so that Wine's own of that name does not come first; its code has 8 bits here."""
        argv = in_wine(f"C:\\tools\\{name}.exe", *arguments)
        done = subprocess.run(
            argv, env=self.environment, input=stdin, capture_output=True, timeout=HANGS, cwd=self.drive, check=False
        )
        return done.returncode, done.stdout.decode().replace("\r\n", "\n"), done.stderr.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def tools(wine: dict[str, str], listener: Listener) -> Tools:
    listener.runner.start()  # as in a guest, where it keeps the machine's root certificates
    tools = Tools(wine)
    folder = tools.drive / "tools"
    folder.mkdir()
    for file in TOOLS.glob("*.c"):
        compile_tool(file.stem, folder)
    for name in ("powershell", "netsh"):
        (folder / f"{name}.exe").write_bytes((folder / "unavailable.exe").read_bytes())
    (tools.drive / "text.txt").write_bytes(b"alpha one\r\nBeta two\r\ngamma.three\r\n")
    return tools


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["powershell", "-Command", "exit 0"], "powershell"),
        (["netsh", "advfirewall"], "netsh"),
        (["net", "localgroup", "Administrators"], "net localgroup"),
        (["net", "user", "guest", "/add"], "net user"),
        (["sc", "failure", "x", "reset=", "0"], "sc failure"),
        (["tzutil", "/s", "Pacific Standard Time"], "tzutil /s"),
        (["certutil", "-urlcache", "-f", "http://x/"], "certutil -urlcache"),
        (["wmic", "product", "get", "name"], "wmic product"),
        (["shutdown", "/l"], "shutdown /l"),
        (["findstr", "/s", "x", "*.txt"], "findstr /s"),
        (["setx", "A", "B", "/s"], "setx /s"),
        (["tasklist", "/svc"], "tasklist /svc"),
    ],
)
def test_what_is_not_there_fails_loudly(tools: Tools, argv: list[str], name: str) -> None:
    before = tools.log
    code, out, err = tools.run(*argv)
    assert (code, out, err) == (UNAVAILABLE & 0xFF, "", f"{name} is not available on the stand-in guest\n")
    assert tools.log == f"{before}{name}\n"


def test_wine_says_it_is_the_windows_of_the_recipe(tools: Tools) -> None:
    options = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\ProductOptions"
    argv = in_wine("cmd", "/c", f"ver& reg query {options} /v ProductType")
    done = subprocess.run(argv, env=tools.environment, capture_output=True, timeout=HANGS, check=False)
    version = load("windows-stand-in").recipe.version.removesuffix(".0")
    assert f"Microsoft Windows {version}\r\n" in done.stdout.decode()
    assert b"ServerNT" in done.stdout


def test_a_batch_file_that_swallows_the_code_is_seen(tools: Tools) -> None:
    before = tools.log
    (tools.drive / "swallow.cmd").write_bytes(b"@C:\\tools\\powershell.exe -File x.ps1 >nul 2>nul\r\n@exit /b 0\r\n")
    done = subprocess.run(in_wine("cmd", "/c", "C:\\swallow.cmd"), env=tools.environment, timeout=HANGS, check=False)
    assert done.returncode == 0
    assert tools.log == f"{before}powershell\n"


def test_the_exit_code_is_one_that_a_batch_file_notices(tools: Tools) -> None:
    line = "C:\\tools\\netsh.exe 2>nul& if errorlevel 9150 if not errorlevel 9151 echo distinct"
    done = subprocess.run(
        in_wine("cmd", "/c", line), env=tools.environment, capture_output=True, timeout=HANGS, check=False
    )
    assert done.stdout.split() == [b"distinct"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["one", "text.txt"], b"", 0, "alpha one\n"),
        (["one two", "text.txt"], b"", 0, "alpha one\nBeta two\n"),
        (["/c:one two", "text.txt"], b"", 1, ""),
        (["/c:alpha one", "text.txt"], b"", 0, "alpha one\n"),
        (["/i", "BETA", "text.txt"], b"", 0, "Beta two\n"),
        (["BETA", "text.txt"], b"", 1, ""),
        (["/v", "alpha", "text.txt"], b"", 0, "Beta two\ngamma.three\n"),
        (["/n", "two", "text.txt"], b"", 0, "2:Beta two\n"),
        (["/r", "^g.*e$", "text.txt"], b"", 0, "gamma.three\n"),
        (["/r", "[a-c]lpha", "text.txt"], b"", 0, "alpha one\n"),
        (["/l", "a.t", "text.txt"], b"", 0, "gamma.three\n"),
        (["/b", "/c:two", "text.txt"], b"", 1, ""),
        (["/e", "/c:two", "text.txt"], b"", 0, "Beta two\n"),
        (["/x", "/c:Beta two", "text.txt"], b"", 0, "Beta two\n"),
        (["/m", "two", "*.txt"], b"", 0, "text.txt\n"),
        (["b"], b"a\r\nb\r\n", 0, "b\n"),
        (["two", "missing.txt"], b"", 1, ""),
    ],
)
def test_findstr(tools: Tools, arguments: list[str], stdin: bytes, code: int, said: str) -> None:
    assert tools.run("findstr", *arguments, stdin=stdin)[:2] == (code, said)


def test_setx_is_seen_by_reg(tools: Tools) -> None:
    assert tools.run("setx", "VMROLE_A", "one two", "/m")[0] == 0
    done = subprocess.run(
        in_wine(
            "reg",
            "query",
            "HKLM\\System\\CurrentControlSet\\Control\\Session Manager\\Environment",
            "/v",
            "VMROLE_A",
        ),
        env=tools.environment,
        capture_output=True,
        timeout=HANGS,
        check=False,
    )
    assert b"REG_SZ    one two" in done.stdout


def test_sc_configures_and_shows_services(tools: Tools) -> None:
    assert tools.run("sc", "create", "VmroleTest", "binPath=", "C:\\none.exe", "start=", "demand")[0] == 0
    code, out, _ = tools.run("sc", "config", "VmroleTest", "start=", "disabled", "DisplayName=", "A test")
    assert (code, out) == (0, "[SC] ChangeServiceConfig SUCCESS\n")
    code, out, _ = tools.run("sc", "qc", "VmroleTest")
    assert code == 0
    assert "START_TYPE         : 4   DISABLED\n" in out
    assert "BINARY_PATH_NAME   : C:\\none.exe\n" in out
    assert "DISPLAY_NAME       : A test\n" in out
    code, out, _ = tools.run("sc", "query")
    assert code == 0
    assert "SERVICE_NAME: PlugPlay\n" in out
    assert tools.run("sc", "config", "NoSuchService", "start=", "auto")[0] == 1060 & 0xFF
    assert tools.run("sc", "delete", "VmroleTest")[0] == 0


def test_tasklist_shows_what_runs(tools: Tools) -> None:
    code, out, _ = tools.run("tasklist", "/fo", "csv", "/nh", "/fi", "IMAGENAME eq services.exe")
    assert code == 0
    assert out.startswith('"services.exe","') and out.count("\n") == 1


def test_timeout_does_as_windows_without_a_console(tools: Tools) -> None:
    code, _, err = tools.run("timeout", "/t", "1")
    assert (code, err[:36]) == (1, "ERROR: Input redirection is not supp")


def test_where_finds_programs(tools: Tools) -> None:
    assert tools.run("where", "cmd")[:2] == (0, "C:\\windows\\system32\\cmd.exe\n")
    assert tools.run("where", "/q", "nonesuch")[0] == 1


def test_certutil_keeps_the_machines_stores(tools: Tools) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tool test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (tools.drive / "a.cer").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()
    assert tools.run("certutil", "-f", "-addstore", "Root", "a.cer")[0] == 0
    code, out, _ = tools.run("certutil", "-store", "Root", thumbprint)
    assert code == 0
    assert f"Cert Hash(sha1): {thumbprint}\n" in out and "Subject: CN=tool test\n" in out
    assert tools.run("certutil", "-delstore", "Root", thumbprint)[0] == 0
    assert tools.run("certutil", "-store", "Root", thumbprint)[0] != 0
    code, out, _ = tools.run("certutil", "-hashfile", "a.cer", "SHA256")
    digest = hashes.Hash(hashes.SHA256())
    digest.update((tools.drive / "a.cer").read_bytes())
    assert (code, out.splitlines()[1]) == (0, digest.finalize().hex())
