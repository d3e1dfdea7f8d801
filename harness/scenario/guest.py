# SPDX-License-Identifier: Apache-2.0
"""The guest of a scenario: what its author makes it do, asks of it and waits for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, VmRoleError
from harness.guest.command import describe
from harness.guest.protocol import GuestResult
from harness.masking import Masker
from harness.quoting import quoted
from harness.run.deploy import Deployed
from harness.run.events import EventBus, ScenarioActed
from harness.run.watch import trouble, watched
from harness.scenario import probes

T = TypeVar("T")

COMMAND_SECONDS = 120.0
"""How long a guest command of a scenario may take unless it says otherwise."""
WAIT_SECONDS = 60.0
"""How long a scenario waits for something unless it says otherwise."""
REBOOT_SECONDS = 300.0

_GRACE = 30.0
"""Seconds beyond a command's own limit in which the guest has to tell of its end."""
_FIRST, _MOST = 0.05, 0.5
"""Seconds between two tries: short at first, most things are there at once."""
_SHOWN = 500
"""Characters of a stream that a failure shows, its last ones."""
_TOLD = 4 * _SHOWN
"""Characters of what an author's own assertion says that the events of the run have."""


class ScenarioGuest:
    """A guest, for the time of a test.

    Commands are words, not lines of a shell: ``guest.succeed("systemctl", "is-active", "nginx")``; where a shell is
    wanted, ``guest.succeed("sh", "-c", "ls /srv | wc -l")``. They run as the administrator. Whatever takes time has a
    ``timeout`` in seconds. It is the same for every guest, however it is reached.
    """

    def __init__(self, deployed: Deployed | None, bus: EventBus, masker: Masker | None = None) -> None:
        self._deployed = deployed
        self._bus = bus
        self._masker = masker or Masker()
        self._off = "there is no machine: the run did not get that far" if deployed is None else ""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> GuestResult:
        """Run ``argv`` and return what came of it, whatever that is: ``exit_code`` (None at its time-out), ``stdout``
        and ``stderr`` in bytes, ``seconds``, ``timed_out``."""
        __tracebackhide__ = True
        with self._acting(f"run {describe(argv)}"):
            return self._run(argv, timeout, stdin=stdin, env=env, cwd=cwd)

    def succeed(self, *argv: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run ``argv``, require exit code 0, return what it wrote to standard output."""
        __tracebackhide__ = True
        with self._acting(f"succeed {describe(argv)}"):
            done = self._run(argv, timeout)
            if done.exit_code != 0:
                raise AssertionError(f"{describe(argv)} was to succeed, but {self._told(done, argv)}")
            return _text(done.stdout)

    def fail(self, *argv: str, timeout: float = COMMAND_SECONDS) -> GuestResult:
        """Run ``argv``, require that it fails, return the result. A time-out is no failure: that is an error."""
        __tracebackhide__ = True
        with self._acting(f"fail {describe(argv)}"):
            done = self._run(argv, timeout)
            if done.exit_code == 0 or done.timed_out:
                raise AssertionError(f"{describe(argv)} was to fail, but {self._told(done, argv)}")
            return done

    def wait_until_succeeds(self, *argv: str, timeout: float = WAIT_SECONDS) -> str:
        """Run ``argv`` again and again until its exit code is 0; return what it wrote to standard output then."""
        __tracebackhide__ = True
        return _text(self._until(argv, "to succeed", lambda done: done.exit_code == 0, timeout).stdout)

    def wait_until_fails(self, *argv: str, timeout: float = WAIT_SECONDS) -> GuestResult:
        """Run ``argv`` again and again until its exit code is another than 0; return the result."""
        __tracebackhide__ = True
        return self._until(argv, "to fail", lambda done: done.exit_code != 0 and not done.timed_out, timeout)

    def wait_for_port(self, port: int, *, timeout: float = WAIT_SECONDS) -> None:
        """Wait until something in the guest listens on TCP ``port``. GuestError on the Windows stand-in, which has no
        netstat to ask."""
        __tracebackhide__ = True

        def look(run: probes.Run) -> tuple[bool, str]:
            ports = probes.listening_ports(run, self._os)
            shown = ", ".join(str(number) for number in sorted(ports)) or "none"
            return port in ports, f"the ports that something listens on are {shown}"

        self._wait(f"port {port} to be listened on", look, timeout)

    def wait_for_file(self, path: str, *, timeout: float = WAIT_SECONDS) -> None:
        """Wait until there is a file or folder ``path`` in the guest."""
        __tracebackhide__ = True

        def look(run: probes.Run) -> tuple[bool, str]:
            return probes.file_exists(run, self._os, path), "there is nothing of that name"

        self._wait(f"the file {path}", look, timeout)

    def reboot(self, *, timeout: float = REBOOT_SECONDS) -> str:
        """Reboot in an orderly way, wait until the guest is ready again, return the new boot's id."""
        __tracebackhide__ = True
        with self._acting("reboot"):
            return self._there().guest.reboot(deadline=Deadline(timeout))

    def recycle(self, *, timeout: float = REBOOT_SECONDS) -> str:
        """Recycle the role: it is shut down and the guest restarted, as by ``reboot``, but local resources are empty
        afterwards, as cleanOnRoleRecycle says; those with ``:keep`` and the diagnostics store have what they had.
        Returns the new boot's id. No step runs again."""
        __tracebackhide__ = True
        with self._acting("recycle"):
            deployed = self._there()
            return deployed.identity.recycle(deployed.guest, deadline=Deadline(timeout))

    def crash(self) -> None:
        """Cut the power. The guest is not told, and nothing can be asked of it afterwards."""
        __tracebackhide__ = True
        with self._acting("crash"):
            deployed = self._there()
            deployed.machine.crash()
            deployed.guest.close()
            self._off = "the guest is off: the scenario cut its power"

    def block_network(self) -> None:
        """Pull the cables of all network cards. A guest that is reached over the network cannot be asked anything until
        ``unblock_network``; one that is reached by its agent's channel can."""
        __tracebackhide__ = True
        with self._acting("block the network"):
            self._there().machine.connect_network(False)

    def unblock_network(self) -> None:
        """Plug the cables in again."""
        __tracebackhide__ = True
        with self._acting("unblock the network"):
            self._there().machine.connect_network(True)

    def endpoint(self, port: int) -> tuple[str, int]:
        """Where the test itself reaches TCP ``port`` of the guest: host and port of this computer. It works whatever
        the guest may reach; a connection is refused as long as nothing listens."""
        __tracebackhide__ = True
        with self._acting(f"forward port {port}"):
            return self._there().machine.endpoint(port)

    def put(
        self, source: Path | bytes | str, path: str, *, mode: int = 0o600, timeout: float = COMMAND_SECONDS
    ) -> None:
        """Write one file in the guest, whole or not at all: a file of this computer when ``source`` is a Path, else
        the content itself. Its folder must be there."""
        __tracebackhide__ = True
        with self._acting(f"put {path}"):
            content = source.encode() if isinstance(source, str) else source
            self._there().guest.put(content, path, deadline=Deadline(timeout), mode=mode)

    def get(self, path: str, *, timeout: float = COMMAND_SECONDS) -> bytes:
        """Read one file of the guest. GuestError when it is not there."""
        __tracebackhide__ = True
        with self._acting(f"get {path}"):
            return self._there().guest.get(path, deadline=Deadline(timeout))

    @property
    def console(self) -> str:
        """The last lines of what the guest wrote on its console since power-on."""
        if self._deployed is None:
            raise GuestError(self._off)
        return "\n".join(self._deployed.machine.console.lines())

    @property
    def _os(self) -> probes.System:
        return self._there().image.recipe.os

    def _there(self) -> Deployed:
        __tracebackhide__ = True
        if self._off or self._deployed is None:
            raise GuestError(self._off)
        return self._deployed

    def _run(
        self,
        argv: Sequence[str],
        timeout: float,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> GuestResult:
        __tracebackhide__ = True
        deadline = Deadline(timeout + _GRACE)
        there = self._there()
        with watched(there.machine, there.guest):
            return there.guest.run(argv, deadline=deadline, timeout=timeout, stdin=stdin, env=env, cwd=cwd)

    def _until(
        self, argv: Sequence[str], what: str, enough: Callable[[GuestResult], bool], timeout: float
    ) -> GuestResult:
        __tracebackhide__ = True
        last: list[GuestResult] = []

        def look(run: probes.Run) -> tuple[bool, str]:
            last[:] = [run(argv)]
            return enough(last[0]), self._told(last[0], argv)

        self._wait(f"{describe(argv)} {what}", look, timeout)
        return last[0]

    def _wait(self, what: str, look: Callable[[probes.Run], tuple[bool, str]], timeout: float) -> None:
        """Try until it is so, once more after the time is over, and then say what the last try saw: the last whole one,
        where the end of the time cut one short."""
        __tracebackhide__ = True
        with self._acting(f"wait for {what}"):
            deadline, pause, tries, saw = Deadline(timeout), _FIRST, 0, ""
            while True:
                late = deadline.expired
                tries += 1
                run = _Within(self._run, max(1.0, deadline.remaining))
                try:
                    there, seen = look(run)
                except GuestLostError as error:  # it restarts, perhaps
                    there, seen = False, error.message
                    self._return(deadline)
                if not (run.cut and saw):
                    saw = seen
                if there:
                    return
                if late:
                    times = "once" if tries == 1 else f"{tries} times"
                    raise AssertionError(f"waited {timeout:g} s for {what}, looked {times}; the last time {saw}")
                time.sleep(min(pause, deadline.remaining))
                pause = min(_MOST, pause * 1.5)

    def _return(self, deadline: Deadline) -> None:
        """A guest that restarted by itself is there again after a while; a machine that is off never is."""
        __tracebackhide__ = True
        deployed = self._there()
        if reason := trouble(deployed.machine):
            raise reason
        with contextlib.suppress(VmRoleError):
            deployed.guest.reconnect(deadline=deadline)

    @contextlib.contextmanager
    def _acting(self, what: str) -> Iterator[None]:
        """Tell the run's reports what is done, how long it took, and what was seen where it went wrong."""
        __tracebackhide__ = True
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            told = error.message if isinstance(error, VmRoleError) else str(error) or type(error).__name__
            told = quoted(told, _TOLD, mask=self._masker.bytes)
            self._bus.emit(ScenarioActed(what=what, seconds=time.monotonic() - began, ok=False, told=told))
            raise
        self._bus.emit(ScenarioActed(what=what, seconds=time.monotonic() - began))

    def _told(self, done: GuestResult, argv: Sequence[str]) -> str:
        """How a command ended and the end of what it said."""
        ended = "it was stopped at its time-out" if done.timed_out else f"it ended with {done.exit_code}"
        streams = [("stdout", self._end(done.stdout)), ("stderr", self._end(done.stderr))]
        said = "".join(f"; {name}: {text}" for name, text in streams if text) or " and said nothing"
        if done.exit_code == 127 and len(argv) == 1 and " " in argv[0]:
            said += "; give each word of a command as an argument of its own"
        return ended + said

    def _end(self, stream: bytes) -> str:
        text = _text(self._masker.beginning(stream)).strip()
        return text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"


class _Within:
    """Runs commands for so many seconds each; ``cut`` when one was stopped at them."""

    def __init__(self, run: Callable[[Sequence[str], float], GuestResult], seconds: float) -> None:
        self._run, self._seconds, self.cut = run, seconds, False

    def __call__(self, argv: Sequence[str]) -> GuestResult:
        done = self._run(argv, self._seconds)
        self.cut = self.cut or done.timed_out
        return done


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
