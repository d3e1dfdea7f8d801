# SPDX-License-Identifier: Apache-2.0
"""Shells and their commands: the operations of WinRM's cmd resource, with the quotas of Windows."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Protocol

from standin import soap
from standin.runner import Process, StartError
from standin.soap import CMD, SHELL, TRANSFER, Fault, Request

MOST_SHELLS = 30
"""Of one user, MaxShellsPerUser of Windows since 2012."""
MOST_COMMANDS = 25
"""That run in one shell, MaxProcessesPerShell of Windows since 2012."""
_MOST_LINE = 8191
"""Characters that cmd takes."""
_IDLE = 7200.0
"""Seconds without a message after which a shell ends, IdleTimeout of Windows."""
_ENVELOPE = 2048
"""Bytes of an answer that are not output."""
_NOT_FOUND = 2
_INVALID_FOLDER = 267
_NO_RUNNER = 1053
"""ERROR_SERVICE_REQUEST_TIMEOUT; not 1359, which Wine gives itself."""

_TERMINATE = f"{SHELL}/signal/terminate"
_SIGNALS = (_TERMINATE, f"{SHELL}/signal/ctrl_c", f"{SHELL}/signal/ctrl_break")


class Start(Protocol):
    """What starts a command (Runner.run)."""

    def __call__(
        self, line: str, folder: str = "", environment: Mapping[str, str] | None = None, page: int = 0
    ) -> Process: ...


class Client(Protocol):
    """Who asks, as far as an operation has to know."""

    undo: Callable[[], None] | None
    """What is done when the answer cannot be sent."""

    def connected(self) -> bool:
        """Whether it is still there."""


class _Shell:
    """One shell of a user: what its commands have in common."""

    def __init__(self, identifier: str, request: Request, content: ET.Element) -> None:
        self.id = identifier
        self.folder = (content.findtext(f"{{{SHELL}}}WorkingDirectory") or "").strip()
        self.idle = soap.seconds(content.findtext(f"{{{SHELL}}}IdleTimeOut") or "", _IDLE)
        self.environment = {
            name: variable.text or ""
            for variable in soap.find_all(content, "rsp:Environment/rsp:Variable")
            if (name := variable.get("Name", "")) and "\0" not in f"{name}{variable.text}"
        }
        page = request.options.get("WINRS_CODEPAGE", "")
        self.page = int(page) if re.fullmatch(r"\d{1,5}", page) else 0
        self.commands: dict[str, Process] = {}
        self.used = time.monotonic()
        self.busy = 0
        """Operations that are under way."""


_GATHER = 0.1
"""Seconds that an answer with output waits for more of it."""


class Shells:
    """All shells; ``start`` starts their commands, in ``home`` unless a shell says another folder."""

    def __init__(self, start: Start, home: str) -> None:
        self._start = start
        self._home = home
        self._lock = threading.Lock()
        self._shells: dict[str, _Shell] = {}
        self._operations: dict[str, Callable[[Request], bytes]] = {
            f"{TRANSFER}/Create": self._create,
            f"{TRANSFER}/Delete": self._delete,
            f"{TRANSFER}/Get": self._get,
            f"{SHELL}/Command": self._command,
            f"{SHELL}/Send": self._send,
            f"{SHELL}/Signal": self._signal,
        }

    def answer(self, client: Client, request: Request) -> bytes:
        """Do what ``request`` of ``client`` asks. Raises Fault."""
        operation = self._operations.get(request.action)
        if request.action == f"{SHELL}/Receive":
            operation = functools.partial(self._receive, client)
        if operation is None:
            message = f"The action {request.action[:200]} is not supported."
            raise Fault(2150858753, message, "a:ActionNotSupported")
        known = request.resource == soap.CONFIG if operation == self._get else request.resource == CMD
        if not known:
            message = f"The resource URI {request.resource[:200]} is not known here."
            raise Fault(2150858751, message, "a:DestinationUnreachable")
        self._end_idle()
        return operation(request)

    def close(self) -> None:
        """End every shell."""
        with self._lock:
            shells, self._shells = list(self._shells.values()), {}
        for shell in shells:
            _end(shell)

    def _get(self, request: Request) -> bytes:
        size = soap.MOST_ENVELOPE // 1024
        body = (
            f'<cfg:Config xmlns:cfg="{soap.CONFIG}"><cfg:MaxEnvelopeSizekb>{size}</cfg:MaxEnvelopeSizekb></cfg:Config>'
        )
        return soap.response(request, f"{TRANSFER}/GetResponse", body)

    def _create(self, request: Request) -> bytes:
        content = soap.find(request.body, "rsp:Shell")
        if content is None:
            raise soap.invalid("The message creates no shell.")
        wanted = content.get("ShellId", "")
        shell = _Shell(wanted.upper() or str(uuid.uuid4()).upper(), request, content)
        with self._lock:
            if len(self._shells) >= MOST_SHELLS:
                message = (
                    "The maximum number of concurrent shells for this user has been exceeded. "
                    "Close existing shells or raise the quota for this user."
                )
                raise Fault(2150859173, message, "w:QuotaLimit")
            if shell.id in self._shells:
                raise Fault(2150858812, f"The shell {shell.id} exists already.", "w:AlreadyExists")
            self._shells[shell.id] = shell
        identifier = soap.text(shell.id)
        body = (
            f"<x:ResourceCreated><a:Address>{soap.ANONYMOUS}</a:Address><a:ReferenceParameters>"
            f"<w:ResourceURI>{CMD}</w:ResourceURI><w:SelectorSet>"
            f'<w:Selector Name="ShellId">{identifier}</w:Selector></w:SelectorSet>'
            f"</a:ReferenceParameters></x:ResourceCreated>"
            f"<rsp:Shell><rsp:ShellId>{identifier}</rsp:ShellId><rsp:ResourceUri>{CMD}</rsp:ResourceUri>"
            f"<rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams>"
            f"<rsp:IdleTimeOut>PT{shell.idle:.3f}S</rsp:IdleTimeOut></rsp:Shell>"
        )
        return soap.response(request, f"{TRANSFER}/CreateResponse", body)

    def _delete(self, request: Request) -> bytes:
        with self._lock:
            shell = self._shells.pop(self._shell_of(request).id)
        _end(shell)
        return soap.response(request, f"{TRANSFER}/DeleteResponse", "")

    def _command(self, request: Request) -> bytes:
        shell = self._used(request)
        content = soap.find(request.body, "rsp:CommandLine")
        if content is None:
            raise soap.invalid("The message has no command line.")
        words = [content.findtext(f"{{{SHELL}}}Command") or ""]
        words += [argument.text or "" for argument in soap.find_all(content, "rsp:Arguments")]
        line = " ".join(words)
        if not line.strip() or "\0" in line:
            raise soap.invalid("The command line is empty.")
        if len(line) > _MOST_LINE:
            raise soap.invalid(f"The command line has {len(line)} characters, at most {_MOST_LINE} are possible.")
        if request.options.get("WINRS_SKIP_CMD_SHELL", "").upper() != "TRUE":
            # cmd takes the outer quotes away and leaves those between them alone.
            line = f'cmd.exe /c "{line}"'
        identifier = (content.get("CommandId") or str(uuid.uuid4())).upper()
        with self._lock:
            if sum(process.exit_code is None for process in shell.commands.values()) >= MOST_COMMANDS:
                message = "The maximum number of concurrent commands for this shell has been exceeded."
                raise Fault(2150859241, message, "w:QuotaLimit")
            if identifier in shell.commands:
                raise Fault(2150858812, f"The command {identifier} exists already.", "w:AlreadyExists")
        try:
            process = self._start(line, shell.folder or self._home, shell.environment, shell.page)
        except StartError as error:
            what = {_NOT_FOUND: "The system cannot find the file specified.", _INVALID_FOLDER: "The folder is invalid."}
            raise Fault(error.code, what.get(error.code, f"Windows error {error.code}."), sender=False) from None
        except OSError as error:
            raise Fault(_NO_RUNNER, f"No command can be started: {error}.", sender=False) from None
        with self._lock:
            shell.commands[identifier] = process
        body = f"<rsp:CommandResponse><rsp:CommandId>{soap.text(identifier)}</rsp:CommandId></rsp:CommandResponse>"
        return soap.response(request, f"{SHELL}/CommandResponse", body)

    def _send(self, request: Request) -> bytes:
        streams = soap.find_all(request.body, "rsp:Send/rsp:Stream")
        if not streams:
            raise soap.invalid("The message sends nothing.")
        for stream in streams:
            process = self._process_of(request, stream)[1]
            if stream.get("Name") != "stdin":
                raise soap.invalid("Only stdin can be sent.")
            try:
                data = base64.b64decode("".join((stream.text or "").split()), validate=True)
            except (binascii.Error, ValueError):
                raise soap.invalid("What is sent is not base64.") from None
            process.write(data, end=stream.get("End", "").lower() in ("true", "1"))
        return soap.response(request, f"{SHELL}/SendResponse", "<rsp:SendResponse/>")

    def _receive(self, client: Client, request: Request) -> bytes:
        desired = soap.find(request.body, "rsp:Receive/rsp:DesiredStream")
        if desired is None:
            raise soap.invalid("The message receives nothing.")
        identifier, process = self._process_of(request, desired)
        shell = self._shell_of(request)
        shell.busy += 1
        try:
            # Base64 makes four characters of three bytes, and an encrypted answer is somewhat longer still.
            limit = (request.envelope - _ENVELOPE) // 4 * 3 - 1024
            pieces, code = process.take(request.timeout, limit, client.connected, _GATHER)
        finally:
            shell.busy -= 1
            shell.used = time.monotonic()
        if not pieces and code is None:
            message = (
                "The WS-Management service cannot complete the operation within the time specified in OperationTimeout."
            )
            raise Fault(2150858793, message, "w:TimedOut", sender=False)
        client.undo = lambda: process.put_back(pieces)
        mark = f"CommandId={soap.attribute(identifier)}"
        body = "".join(
            f'<rsp:Stream Name="{stream}" {mark}>{base64.b64encode(data).decode()}</rsp:Stream>'
            for stream, data in pieces
        )
        if code is not None:
            body += f'<rsp:Stream Name="stdout" {mark} End="true"/><rsp:Stream Name="stderr" {mark} End="true"/>'
            body += f'<rsp:CommandState {mark} State="{SHELL}/CommandState/Done"><rsp:ExitCode>{code}</rsp:ExitCode>'
            body += "</rsp:CommandState>"
        else:
            body += f'<rsp:CommandState {mark} State="{SHELL}/CommandState/Running"/>'
        body = f"<rsp:ReceiveResponse>{body}</rsp:ReceiveResponse>"
        return soap.response(request, f"{SHELL}/ReceiveResponse", body)

    def _signal(self, request: Request) -> bytes:
        signal = soap.find(request.body, "rsp:Signal")
        if signal is None:
            raise soap.invalid("The message signals nothing.")
        identifier, process = self._process_of(request, signal)
        code = (signal.findtext(f"{{{SHELL}}}Code") or "").strip()
        if code not in _SIGNALS:
            raise soap.invalid(f"The signal {code[:200]} is not known.")
        if process.exit_code is None:
            process.terminate()
        if code == _TERMINATE:  # it also ends what the command left running, and its output
            with self._lock:
                self._shell_of(request).commands.pop(identifier, None)
            process.close()
        return soap.response(request, f"{SHELL}/SignalResponse", "<rsp:SignalResponse/>")

    def _shell_of(self, request: Request) -> _Shell:
        shell = self._shells.get(request.selectors.get("ShellId", "").upper())
        if shell is None:
            message = "The request for the Windows Remote Shell failed because the specified ShellId was not found."
            raise Fault(2150858843, message, "w:InvalidSelectors")
        return shell

    def _used(self, request: Request) -> _Shell:
        shell = self._shell_of(request)
        shell.used = time.monotonic()
        return shell

    def _process_of(self, request: Request, element: ET.Element) -> tuple[str, Process]:
        shell = self._used(request)
        identifier = element.get("CommandId", "").upper()
        process = shell.commands.get(identifier)
        if process is None:
            message = "The request for the Windows Remote Shell failed because the specified CommandId was not found."
            raise Fault(2150858843, message, "w:InvalidSelectors")
        return identifier, process

    def _end_idle(self) -> None:
        now = time.monotonic()
        with self._lock:
            idle = [shell for shell in self._shells.values() if not shell.busy and now - shell.used > shell.idle]
            for shell in idle:
                del self._shells[shell.id]
        for shell in idle:
            _end(shell)


def _end(shell: _Shell) -> None:
    for process in list(shell.commands.values()):
        process.close()
