# SPDX-License-Identifier: Apache-2.0
"""The machine around Wine: WinRM's two ports once there is a certificate, the power switch, the one account."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence

from standin import places
from standin.auth import ADMINISTRATOR, Account, password_hash, read_hash, write_hash
from standin.control import Refusal
from standin.http import HTTP_PORT, HTTPS_PORT, Server
from standin.runner import Runner
from standin.shells import Shells

_DEFAULT_DELAY = 30.0
"""Seconds until a shutdown that says no time."""


class Machine:
    """The parts that WinRM and the programs of the guest reach."""

    def __init__(self, runner: Runner) -> None:
        self._shells = Shells(runner.run, places.HOME)
        self._servers: list[Server] = []
        self._lock = threading.Lock()
        self._shutdown: threading.Timer | None = None
        self._account: Account | None = None

    def open_account(self) -> None:
        """Take the password that is on record. Raises OSError or ValueError when there is none."""
        self._account = Account(read_hash(places.PASSWORD), socket.gethostname())

    def open_winrm(self) -> None:
        """Listen, with the certificate and the account on record."""
        assert self._account is not None
        with self._lock:
            if self._servers:
                return
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(places.CERTIFICATE)
            # HTTPS last: who finds that port open finds everything.
            for port, context in ((HTTP_PORT, None), (HTTPS_PORT, tls)):
                self._servers.append(Server(("0.0.0.0", port), self._account_of, self._shells, context))

    def _account_of(self) -> Account:
        assert self._account is not None
        return self._account

    def winrm(self, words: Sequence[str]) -> str:
        """``winrm THUMBPRINT``, by the integration components: now."""
        if not places.CERTIFICATE.exists() or self._account is None:
            raise Refusal("there is no certificate or no password for WinRM")
        self.open_winrm()
        return ""

    def power(self, words: Sequence[str]) -> str:
        """``power reboot|poweroff [SECONDS]`` or ``power cancel``."""
        action = words[0] if words else ""
        with self._lock:
            if action == "cancel":
                if self._shutdown is None:
                    raise Refusal(
                        "Unable to abort the system shutdown because no shutdown was in progress.(1116)", 1116
                    )
                self._shutdown.cancel()
                self._shutdown = None
                places.RESTARTING.unlink(missing_ok=True)
                return ""
            if action not in ("reboot", "poweroff"):
                raise Refusal("only reboot, poweroff and cancel are known")
            if self._shutdown is not None:
                raise Refusal("A system shutdown has already been scheduled.(1190)", 1190)
            delay = float(words[1]) if len(words) > 1 and words[1].isdecimal() else _DEFAULT_DELAY
            if action == "reboot":
                places.RESTARTING.parent.mkdir(parents=True, exist_ok=True)
                places.RESTARTING.write_text(f"{delay:.0f}\n", "ascii")
            # Even at once the program that asked has to end before its machine does.
            self._shutdown = threading.Timer(max(delay, 0.2), _systemctl, [action])
            self._shutdown.daemon = True
            self._shutdown.start()
        return ""

    def recycle(self, words: Sequence[str]) -> str:
        """``recycle NAME...``: the agent empties these local resources at the next boot."""
        if any("\n" in word for word in words):
            raise Refusal("a local resource has no such name")
        beside = places.RECYCLE.with_suffix(".new")
        beside.write_text("".join(f"{word}\n" for word in words), "utf-8")
        beside.replace(places.RECYCLE)
        return ""

    def password(self, words: Sequence[str]) -> str:
        """``password NAME PASSWORD``."""
        if len(words) != 2 or words[0].lower() != ADMINISTRATOR.lower():
            raise Refusal("The user name could not be found.\n\nMore help is available by typing NET HELPMSG 2221.", 2)
        write_hash(places.PASSWORD, password_hash(words[1]))
        self.open_account()
        return "The command completed successfully.\n"


def _systemctl(action: str) -> None:
    subprocess.run(["/usr/bin/systemctl", "--no-block", action], check=False)
