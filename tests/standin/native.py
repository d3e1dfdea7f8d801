# SPDX-License-Identifier: Apache-2.0
"""The stand-in guest's WinRM listener on this computer's loopback, with the Wine of its image: no machine is needed."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.deadline import Deadline
from harness.image.windows import compile_program
from standin.auth import Account, password_hash
from standin.http import Server
from standin.places import ENVIRONMENT, LOG
from standin.runner import Runner
from standin.shells import Shells
from tests.standin.tree import copy_prefix, in_tree

TOOLS = Path(__file__).parents[2] / "images/windows-stand-in/tools"
PASSWORD = "P@ss w0rd!:é"
FILLING = r"""
#include <windows.h>
static volatile LONG pieces;
static DWORD WINAPI fill(void *to)
{
    static char piece[4096];
    for (DWORD done; WriteFile(to, piece, sizeof piece, &done, NULL);)
        InterlockedIncrement(&pieces);
    return 0;
}
int main(int argc, char **argv)
{
    LONG before = 0;
    CreateThread(NULL, 0, fill, GetStdHandle(STD_OUTPUT_HANDLE), 0, NULL);
    do {
        before = pieces;
        Sleep(500);
    } while (!before || before != pieces);
    CreateFileA(argv[argc - 1], GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    ExitProcess(before);
}
"""
"""Writes until nobody takes any more of it, and ends with the number of its pieces."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener that runs. ``certificate`` is the PEM file to trust for its HTTPS port."""

    http: int
    https: int
    certificate: Path
    shells: Shells
    runner: Runner

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http}/wsman"

    @property
    def https_url(self) -> str:
        return f"https://127.0.0.1:{self.https}/wsman"


def compile_tool(name: str, folder: Path) -> Path:
    """``tools/NAME.c`` compiled for Windows."""
    program = folder / f"{name}.exe"
    source = TOOLS / f"{name}.c"
    flags = ["-municode"] if b" wmain(" in source.read_bytes() else []
    compile_program([source], program, flags, ("ws2_32", "advapi32", "crypt32"), deadline=Deadline(120))
    return program


def wine_environment(prefix: Path) -> dict[str, str]:
    """The environment of Wine programs in ``prefix``: that of the guest, but for what Wine says of itself, which has no
    file of its own here."""
    return ENVIRONMENT | {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all"}


def in_wine(*argv: str | Path) -> list[str]:
    """The command line of a Windows program and its arguments, in the Wine of the image."""
    return in_tree("wine64", *argv)


@contextlib.contextmanager
def wine_prefix(prefix: Path) -> Iterator[dict[str, str]]:
    """The image's prefix once more, and the end of all of its processes afterwards."""
    copy_prefix(prefix)
    environment = wine_environment(prefix)
    # There is no machine to ask for what only Linux can do.
    alone = in_wine("reg", "delete", "HKLM\\SOFTWARE\\VMRole", "/v", "StandIn", "/f")
    subprocess.run(alone, env=environment, check=True, capture_output=True, timeout=300)
    # As in a guest something always runs: with its last program Wine ends its services, and starts them with the next.
    # The desktop comes with the first program that has windows, and would keep the pipes of a test's.
    held = in_wine("cmd.exe", "/c", "msiexec.exe /x {00000000-0000-0000-0000-000000000000} /qn & echo held& pause")
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(held, env=environment, stdin=pipe, stdout=pipe, stderr=none) as holder:
        assert holder.stdout is not None and holder.stdout.readline().rstrip() == b"held"
        try:
            yield environment
        finally:
            subprocess.run(in_tree("wineserver64", "-k"), env=environment, check=False)


@contextlib.contextmanager
def listening(folder: Path, environment: dict[str, str]) -> Iterator[Listener]:
    """A listener whose commands run in the prefix of ``environment``; ``folder`` is for its files."""
    log = Path(environment["WINEPREFIX"]).parent / "run" / LOG.name
    log.parent.mkdir(exist_ok=True)
    runner = Runner(in_wine(compile_tool("runner", folder)), environment, log)
    certificate, key = _certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    shells = Shells(runner.run, "C:\\")
    account = Account(password_hash(PASSWORD), "STANDIN")
    servers = [Server(("127.0.0.1", 0), lambda: account, shells, context) for context in (None, tls)]
    try:
        yield Listener(servers[0].port, servers[1].port, certificate, shells, runner)
    finally:
        for server in servers:
            server.close()
        shells.close()
        runner.stop()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "standin")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "listener.crt", folder / "listener.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
