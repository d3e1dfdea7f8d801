# SPDX-License-Identifier: Apache-2.0
"""One WS-Management conversation with a Windows guest. Only this module knows pywinrm.

What it adds to the library: the pinned certificate, deadlines, verbatim command lines, standard input of any size,
retries over a broken network, and errors that say who failed.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import requests
import requests.adapters
import spnego.exceptions
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import winrm.exceptions
from winrm.protocol import Protocol as WinRm

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, UsageError
from harness.quoting import quoted

T = TypeVar("T")

MAX_LINE = 8191
"""Characters of a command line that Windows' remote shell takes."""
_OPERATION_SECONDS = 5
"""How long the guest may hold a request for output open; also how soon a closed connection is noticed."""
_ANSWER_SECONDS = 60
"""How long an answer may take beyond that; an emulated guest that is busy takes seconds."""
_START_SECONDS = 180.0
"""How long the guest may take to start a command: the first one after a restart waits for all of Windows."""
_RETRY_SECONDS = 30.0
"""How long a guest may be out of reach within a command before it counts as lost."""
_PART = 96 * 1024
"""Bytes of standard input in one envelope: as base64 below the smallest limit of any Windows, 150 KB."""
_CODE_PAGE = 65001
_GONE = frozenset({2150858843, 0x80338045})
"""WSManFault codes: no such shell or command, which a restart of the guest or its service causes."""
_FULL = 2150859174
"""That a shell took all the commands that Windows lets it; those that ended count, so another one is opened."""
_UNSTARTABLE = {
    2: "has no such program",
    3: "has no such folder or program",
    5: "denies access to the program",
    193: "cannot start what is no program for it",
    267: "has no such folder",
}
"""Errors of Windows, bare or as a HRESULT, for a program that cannot be started."""
_UNREADABLE = (
    StopIteration,
    SyntaxError,
    AttributeError,
    TypeError,
    ValueError,
    AssertionError,
    LookupError,
    PermissionError,
    struct.error,
    spnego.exceptions.SpnegoError,
    urllib3.exceptions.HTTPError,
)
"""What the library's own reading of an answer that is none ends with."""
_MOST_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer; Windows keeps to the client's limit, which is 150 KB."""
_ROUNDS = 2.0
"""How many times as long as one answer the whole of a request may take."""
_GRACE_SECONDS = 10.0
"""Beyond the deadline, for what is under way."""
_AGAIN_SECONDS = 0.2
_TOO_MANY = {2150859173: "shells of one user", 2150859241: "commands of one shell"}


@dataclass(frozen=True, slots=True)
class Access:
    """Where a guest's WinRM service is, who we are there, and who it must be.

    ``certificate`` (PEM) is the only one accepted; None is HTTP, where NTLM encrypts the messages.
    """

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    certificate: bytes | None = None

    @property
    def origin(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}:{self.port}/"

    @property
    def url(self) -> str:
        return f"{self.origin}wsman"


class ShellGoneError(Exception):
    """The guest does not know the shell or command any more: it, or its WinRM service, was started anew."""


class ShellFullError(ShellGoneError):
    """The guest takes no more commands in this shell."""


class Client:
    """Requests, one at a time; a broken connection is made anew."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._fingerprint = _fingerprint(access.certificate) if access.certificate else None
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._opened: list[_Connection | _PlainConnection] = []
        """The connection that was made last: requests go one after the other."""
        self.repeated = 0
        """Requests that were sent again although the guest may have answered them before: output may be missing."""
        self._protocol = WinRm(
            access.url,
            transport="ntlm",
            username=access.username,
            password=access.password,
            message_encryption="never",  # in the first moment: it is set up once the session is ours
            server_cert_validation="ignore",  # by the certificate authorities of this host: it is pinned instead
            read_timeout_sec=_ANSWER_SECONDS,
            operation_timeout_sec=_OPERATION_SECONDS,
            proxy=None,
        )

    def another(self) -> Client:
        """A second conversation with the same guest."""
        return Client(self._access)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """End it, from any thread, and a request that is under way."""
        self._closed.set()
        self._cut()
        if self._lock.acquire(timeout=0):
            try:
                self._protocol.transport.close_session()
            finally:
                self._lock.release()

    def open_shell(self, *, folder: str | None, environment: Mapping[str, str], deadline: Deadline) -> str:
        """A shell on the guest, its identifier; ``environment`` is added to the guest's own."""
        return self._ask(
            "open a shell",
            lambda: self._protocol.open_shell(
                working_directory=folder, env_vars=dict(environment) or None, noprofile=True, codepage=_CODE_PAGE
            ),
            deadline,
            again=True,
        )

    def close_shell(self, shell: str, *, deadline: Deadline) -> None:
        """End a shell and everything in it; a shell that is gone is just that."""
        with contextlib.suppress(ShellGoneError, GuestError):
            self._ask("end a shell", lambda: self._protocol.close_shell(shell, close_session=False), deadline)

    def start(self, shell: str, line: str, *, deadline: Deadline) -> str:
        """Start ``line`` as it stands, without a command interpreter; the identifier of the command."""
        program, rest = _program(line)
        return self._ask(
            "start a command",
            lambda: self._protocol.run_command(
                shell, program, [rest] if rest else [], console_mode_stdin=False, skip_cmd_shell=True
            ),
            deadline,
            most=_START_SECONDS,
        )

    def feed(self, shell: str, command: str, data: bytes, *, deadline: Deadline) -> None:
        """All of standard input, and its end."""
        for at in range(0, max(1, len(data)), _PART):
            self.feed_part(shell, command, data[at : at + _PART], last=at + _PART >= len(data), deadline=deadline)

    def feed_part(self, shell: str, command: str, data: bytes, *, last: bool, deadline: Deadline) -> None:
        """Some of standard input, as it comes."""

        def send() -> None:
            self._protocol.send_command_input(shell, command, data, end=last)

        self._ask("send standard input", send, deadline)

    def receive(self, shell: str, command: str, *, deadline: Deadline) -> tuple[bytes, bytes, int | None]:
        """What the command wrote since the last time, and its exit code when it has ended (unsigned, 32 bits)."""

        def ask() -> tuple[bytes, bytes, int | None]:
            try:
                out, err, code, over = self._protocol.get_command_output_raw(shell, command)
            except winrm.exceptions.WinRMOperationTimeoutError:
                return b"", b"", None
            return out, err, code & 0xFFFFFFFF if over else None

        return self._ask("give the output of a command", ask, deadline, again=True)

    def end(self, shell: str, command: str, *, deadline: Deadline) -> None:
        """End a command and what it started, and forget it."""
        with contextlib.suppress(ShellGoneError):
            self._ask(
                "end a command",
                lambda: self._protocol.cleanup_command(shell, command),
                deadline,
                again=True,
            )

    def await_answer(self, *, deadline: Deadline) -> str:
        """Open a shell as soon as the guest answers, trying until the deadline.

        Raises GuestError at once when the guest has another certificate or refuses the password, GuestNotReadyError at
        the deadline.
        """
        tried = "nothing was tried"
        while True:
            late = deadline.expired
            try:
                return self._once(
                    lambda: self._protocol.open_shell(noprofile=True, codepage=_CODE_PAGE), deadline, most=10.0
                )
            except (_BrokenError, ShellGoneError) as error:
                tried = str(error)
            if self.closed:
                raise GuestLostError("the connection to the guest was closed")
            if late or deadline.expired:
                raise GuestNotReadyError(
                    f"the guest's WinRM service did not answer within {deadline.seconds:.0f} s: {tried}",
                    awaited="the WinRM service",
                )
            time.sleep(min(0.1, deadline.remaining))

    def _ask(
        self,
        what: str,
        request: Callable[[], T],
        deadline: Deadline,
        *,
        again: bool = False,
        most: float = _ANSWER_SECONDS,
    ) -> T:
        """One request. ``again`` whether it may be repeated where nobody knows if the guest got it: one that starts
        something may not. ``most`` seconds for its answer."""
        began = time.monotonic()
        tries = deadline.within(_RETRY_SECONDS)
        while True:
            if self.closed:
                raise GuestLostError(f"the connection to the guest is gone: it was to {what}")
            try:
                return self._once(request, deadline, most=most)
            except _BrokenError as error:
                if tries.expired or not (again or error.unsent):
                    seconds = time.monotonic() - began
                    raise GuestLostError(f"the guest did not {what} within {seconds:.0f} s: {error}") from None
                self.repeated += not error.unsent
            time.sleep(min(0.2, tries.remaining))

    def _once(self, request: Callable[[], T], deadline: Deadline, *, most: float = _ANSWER_SECONDS) -> T:
        with self._lock:
            transport = self._protocol.transport
            hold = max(1, round(min(_OPERATION_SECONDS, deadline.remaining)))
            self._protocol.operation_timeout_sec = hold
            # Beyond the deadline by as much as a guest needs to say that it has nothing to say.
            patience = min(most, deadline.remaining + hold) + 1.0
            transport.read_timeout_sec = patience  # type: ignore[assignment]
            # That is for each piece of an answer, and a guest may send it byte by byte. Logging on takes more requests.
            late = threading.Event()

            def cut() -> None:
                late.set()
                self._cut()
                while not watchdog.finished.wait(_AGAIN_SECONDS):  # it may have been between two connections
                    self._cut()

            watchdog = threading.Timer(min(_ROUNDS * patience, deadline.remaining + hold + _GRACE_SECONDS), cut)
            watchdog.daemon = True
            watchdog.start()
            try:
                with _mapped(self._access):
                    if transport.session is None:
                        self._connect()
                    return request()
            except BaseException as error:
                # A connection in an unknown state, or a session that lacks its encryption, is of no use.
                transport.close_session()
                if late.is_set() and isinstance(error, GuestError):
                    # What was cut off may look like an answer that is none.
                    raise _BrokenError("its answer does not end", unsent=False) from None
                raise
            finally:
                watchdog.cancel()

    def _cut(self) -> None:
        """End the connections under whoever waits for them."""
        for connection in self._opened[:]:
            # A copy: what is encrypted takes no calls from another thread. Or it is closed by now.
            with (
                contextlib.suppress(OSError, AttributeError),
                socket.socket(fileno=os.dup(connection.sock.fileno())) as plain,
            ):
                plain.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> None:
        """A session that sees nothing of this host's environment and accepts the pinned certificate only."""
        if self._access.certificate:
            _check_expiry(self._access.certificate)
        session = self._protocol.transport.build_session()
        session.trust_env = False
        session.headers["Accept-Encoding"] = "identity"
        # What a guest has us remember would grow with every answer.
        session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        session.adapters.clear()
        session.mount(self._access.origin, _Adapter(self._fingerprint, self._opened))
        if not self._access.certificate:
            self._protocol.transport.setup_encryption(session)


class _Adapter(requests.adapters.HTTPAdapter):
    """Accepts the certificate with one fingerprint (SHA-256), whoever signed it and whatever name it has, and answers
    of bounded size that lead nowhere else. ``opened`` gets the connection that was made last."""

    def __init__(self, fingerprint: str | None, opened: list[_Connection | _PlainConnection]) -> None:
        self._pin = fingerprint
        self._opened = opened
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        if self._pin:
            options |= {"assert_fingerprint": self._pin, "assert_hostname": False}
        super().init_poolmanager(*arguments, **options)
        connection = type("_Connection", (_Connection,), {"opened": self._opened})
        plain = type("_PlainConnection", (_PlainConnection,), {"opened": self._opened})
        self.poolmanager.pool_classes_by_scheme = {
            "https": type("_Pool", (urllib3.connectionpool.HTTPSConnectionPool,), {"ConnectionCls": connection}),
            "http": type("_PlainPool", (urllib3.connectionpool.HTTPConnectionPool,), {"ConnectionCls": plain}),
        }

    def build_response(self, request: requests.PreparedRequest, answer: Any) -> requests.Response:
        if 300 <= answer.status < 400:
            raise GuestError(
                f"the guest's WinRM service leads elsewhere, where nobody goes (HTTP status {answer.status})"
            )
        # Nothing but identity was offered, and a few bytes of another one may unpack to any size.
        if (coding := answer.headers.get("Content-Encoding", "identity")).strip().lower() != "identity":
            raise GuestError(f"the guest's WinRM service answers in an encoding nobody asked for: {_shown(coding)}")
        return super().build_response(request, answer)


class _Stream(socket.SocketIO):
    """What one answer is read from, its head too: the guest is untrusted, and the library reads lines of any length."""

    taken = 0

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self.taken += count or 0
        if self.taken > _MOST_ANSWER:
            raise GuestError(
                f"the guest's WinRM service gives an answer that is none: it is longer than {_MOST_ANSWER >> 20} MiB"
            )
        return count


class _Answer(http.client.HTTPResponse):
    """One that ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Its class, not another one around it: the library asks it for its socket.
        self.fp.raw.__class__ = _Stream


class _PlainConnection(urllib3.connection.HTTPConnection):
    response_class = _Answer
    opened: ClassVar[list[Any]]

    def connect(self) -> None:
        super().connect()
        self.opened[:] = [self]


class _Connection(urllib3.connection.HTTPSConnection):
    """Tells one that was never made from one that broke: QEMU's network accepts a connection before the guest does, and
    closes it where nobody listens."""

    response_class = _Answer
    opened: ClassVar[list[Any]]

    def connect(self) -> None:
        try:
            super().connect()
            self.opened[:] = [self]
        except (urllib3.exceptions.HTTPError, OSError) as error:
            told = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
            if isinstance(error, told) or "fingerprint" in str(error).lower():
                raise
            raise urllib3.exceptions.NewConnectionError(self, f"no encrypted connection: {error}") from error


class _BrokenError(Exception):
    """The network or the service broke; ``unsent`` says that the guest surely never got the request."""

    def __init__(self, message: str, *, unsent: bool) -> None:
        super().__init__(message)
        self.unsent = unsent


@contextlib.contextmanager
def _mapped(access: Access) -> Iterator[None]:
    """The library's exceptions as ours."""
    try:
        yield
    except winrm.exceptions.InvalidCredentialsError:
        raise GuestError(
            f"the guest does not let {access.username} in with the password of this run",
            hint="its answer file did not set it, or WinRM was asked before the specialization had ended",
        ) from None
    except winrm.exceptions.WSManFaultError as error:
        code = error.wsman_fault_code
        if code == _FULL:
            raise ShellFullError("the guest takes no more commands in this shell") from None
        if code in _GONE:
            raise ShellGoneError("the guest does not know the shell any more") from None
        if code is not None and (system := code & 0xFFFF) in _UNSTARTABLE and code in (system, 0x80070000 | system):
            raise GuestError(f"the guest {_UNSTARTABLE[system]}") from None
        if code in _TOO_MANY:
            raise GuestError(f"the guest allows no more {_TOO_MANY[code]}") from None
        raise GuestError(f"the guest's WinRM service refuses: {_shown(error.reason)} (fault {code})") from None
    except winrm.exceptions.WinRMTransportError as error:
        if error.code in (404, 405, 501):
            raise GuestError(f"what answers at {access.host}:{access.port} is no WinRM service") from None
        raise _BrokenError(f"its WinRM service answers with HTTP status {error.code}", unsent=False) from None
    except winrm.exceptions.WinRMError as error:
        raise GuestError(f"the guest's WinRM service cannot be used: {_shown(str(error))}") from None
    except requests.exceptions.SSLError as error:
        if "fingerprint" in str(error).lower():
            raise GuestError(
                f"the WinRM service at {access.host}:{access.port} has another certificate than the one made for this "
                "machine",
                hint="another machine answers there, or the guest did not take its certificate",
            ) from None
        raise _BrokenError("the encrypted connection broke", unsent=False) from None
    except requests.exceptions.ConnectTimeout:
        raise _BrokenError("it does not accept connections", unsent=True) from None
    except requests.exceptions.ReadTimeout:
        raise _BrokenError("it accepts connections but does not answer", unsent=False) from None
    except requests.exceptions.ConnectionError as error:
        # Where the connection was never made the library has wrapped why.
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        unsent = isinstance(reason, urllib3.exceptions.NewConnectionError)
        said = "it closes the connection"
        if "refused" in str(error):
            said = "it refuses connections"
        elif "timed out" in str(error):
            said = "it accepts connections but does not answer"
        raise _BrokenError(said, unsent=unsent) from None
    except requests.exceptions.RequestException as error:
        raise _BrokenError(type(error).__name__, unsent=False) from None
    except _UNREADABLE as error:
        raise GuestError(f"the guest's WinRM service gives an answer that is none: {_shown(str(error))}") from None


def _program(line: str) -> tuple[str, str]:
    """A command line as program and rest, each as it stands: the two are put together again with one blank."""
    if not line.strip():
        raise UsageError("there is no command to run")
    if len(line) > MAX_LINE:
        raise UsageError(
            f"the command line has {len(line)} characters, Windows' remote shell takes {MAX_LINE}",
            hint="put long texts into a file of the payload",
        )
    if any((ord(c) < 32 and c != "\t") or 0xD800 <= ord(c) <= 0xDFFF or c in "\ufffe\uffff" for c in line):
        raise UsageError("the command line has characters in it that no command can be given")
    end = line.find('"', 1) + 1 if line.startswith('"') else line.find(" ")
    if end <= 0 or end >= len(line) or line[end] != " ":
        return line, ""
    return line[:end], line[end + 1 :]


def _fingerprint(certificate: bytes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def _check_expiry(certificate: bytes) -> None:
    import datetime

    from cryptography import x509

    end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    if end < datetime.datetime.now(datetime.UTC):
        raise GuestError(
            f"the certificate of the guest's WinRM service expired on {end:%Y-%m-%d}",
            hint="a machine kept for so long cannot be reached any more; make a new one",
        )


def _shown(text: str) -> str:
    return quoted(text, 200)


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise UsageError for what cannot be an environment variable."""
    for name, value in environment.items():
        if not name or "=" in name or any(ord(c) < 32 for c in name + value):
            raise UsageError(f"{name!r} cannot be an environment variable of a remote shell")
