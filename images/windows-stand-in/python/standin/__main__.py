# SPDX-License-Identifier: Apache-2.0
"""The stand-in guest's resident program, started at boot: it waits for the agent to say which machine this is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from pathlib import Path

from standin import engines, kernel, places
from standin.control import Control
from standin.machine import Machine
from standin.runner import Process, Runner
from standin.setup import SetupError, specialize

_SERVICE_SECONDS = 30.0
"""How long the service of the components may take to run: Windows' services start beside everything else."""
_TOLD = 1 << 20
"""Bytes of what a command says that are looked at."""
_READ_BACK = "C:\\Program Files\\VMRole\\vmrole-guest.exe read-back"


class Partner:
    """Answers the resident agent (images/debian-12/agent/partner.c)."""

    def __init__(self) -> None:
        self.runner = Runner([places.WINE, str(places.PROGRAMS / "runner.exe")], places.ENVIRONMENT, places.LOG)
        self.machine = Machine(self.runner)
        self._engines: list[Process] = []
        """Of PowerShell, that stand by."""

    def serve(self) -> None:
        places.PARTNER.parent.mkdir(mode=0o700, exist_ok=True)
        kernel.follow()
        places.PARTNER.unlink(missing_ok=True)
        places.RESTARTING.unlink(missing_ok=True)  # it came, or who was to do it is gone
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(places.PARTNER))
            listener.listen(4)
            # Wine comes up beside the rest of the boot.
            threading.Thread(target=self._start_wine, daemon=True).start()
            machine = self.machine
            if places.READY.exists():  # this program was started again, in a machine that was ready
                self._answer("restore")
            Control(
                {
                    "winrm": machine.winrm,
                    "power": machine.power,
                    "password": machine.password,
                    "recycle": machine.recycle,
                }
            )
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    line = connection.makefile("r", encoding="utf-8").readline(4096)
                    connection.sendall(f"{self._answer(line)}\n".encode())

    def _start_wine(self) -> None:
        with contextlib.suppress(OSError):  # told when a command is wanted
            self.runner.start()

    def _answer(self, line: str) -> str:
        what, _, rest = line.strip().partition(" ")
        try:
            if what == "specialize":
                specialize(Path(rest), self.runner, self.machine.open_account)
            elif what == "restore":
                self.machine.open_account()
                self.machine.open_winrm()
            elif what == "warm":
                self.runner.start()
                for command in rest.split(";"):
                    process = self.runner.run(command, places.SYSTEM)
                    while process.take(60.0, 65536)[1] is None:
                        pass
                    process.close()
            elif what == "engines":
                if engines.are_there():
                    self._engines += engines.stand_by_all(self.runner)
            elif what == "check":
                self._check_service()
            else:
                return f"the stand-in guest does not know how to {what}"
        except (SetupError, engines.EngineError) as error:
            return " ".join(str(error).split())
        except Exception as error:  # the agent has to hear something
            with places.LOG.open("a") as log:
                traceback.print_exc(file=log)
            return f"the stand-in guest's own program failed: {' '.join(str(error).split())}"
        return "ok"

    def _check_service(self) -> None:
        """Wait for the service of the integration components, which Windows gives up when its start takes too long."""
        limit = time.monotonic() + _SERVICE_SECONDS
        while b"\nservice=running " not in self._told(_READ_BACK, limit):
            if time.monotonic() > limit:
                raise SetupError("the guest's service VMRoleGuest does not run")

    def _told(self, command: str, limit: float) -> bytes:
        """What a command said until it ended, or until ``limit``."""
        said, _code = self.runner.run(command, places.SYSTEM).finish(limit - time.monotonic(), _TOLD)
        return said.replace(b"\r", b"")


if __name__ == "__main__":
    Partner().serve()
