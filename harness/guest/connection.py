# SPDX-License-Identifier: Apache-2.0
"""One authenticated SSH connection to a guest whose host key is known beforehand. Only this package knows paramiko."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import paramiko
from paramiko.packet import Packetizer

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError

# It logs whole tracebacks for what are ordinary events here (a guest that is still booting), and to standard error
# when nobody has set up logging.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

_BANNER_WAIT = 1.0
"""Seconds for the server's first bytes, at the first attempt. User-mode networking accepts connections before the guest
listens; a client that stays on such a connection waits for the guest's retransmission timers."""
_BANNER_GROWS = 1.5
"""Each attempt waits that much longer: a guest on a busy host starts a process for each connection, and never gets to
speak when all of them are given up too early."""
_KEEPALIVE = 15
_MAX_PACKET = 256 * 1024
"""Bytes; what OpenSSH takes. A packet of a channel has 32 KiB at most, as we ask for."""
# What an emulated processor does quickest; later algorithms of a library are not picked up by accident.
_KEX = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
_CIPHERS = ("aes128-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256")


@dataclass(frozen=True, slots=True)
class Access:
    """Where a guest's SSH server is, who we are there, and who it must be."""

    host: str
    port: int
    username: str
    client_key: bytes = field(repr=False)
    """Private key, ed25519, in OpenSSH's format."""
    host_key: str
    """The server's public key, one line as in known_hosts without names: ``ssh-ed25519 AAAA... [comment]``."""


class _Packets(Packetizer):
    """The library believes every length that a guest writes and reads on until that is there."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > _MAX_PACKET:
            raise paramiko.SSHException(f"a packet of {n} bytes, and no SSH server sends more than {_MAX_PACKET}")
        return super().read_all(n, check_rekey)


class _HostKeyError(GuestError):
    """Not to be tried again."""


class _RefusedError(GuestError):
    """Not to be tried again."""


def connect(access: Access, *, deadline: Deadline) -> paramiko.Transport:
    """Connect and log on, trying until the deadline.

    Raises GuestError at once when the server has another host key or refuses ours, GuestNotReadyError at the deadline.
    """
    key = _client_key(access.client_key)
    tried, patience = "nothing was tried", _BANNER_WAIT
    while True:
        late = deadline.expired
        try:
            limit = Deadline(_BANNER_WAIT) if late else deadline
            return _attempt(access, key, limit, patience=max(_BANNER_WAIT, min(patience, deadline.remaining)))
        except (_HostKeyError, _RefusedError) as error:
            raise GuestError(error.message, hint=error.hint) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            tried = str(error) or type(error).__name__
        if late:
            raise GuestNotReadyError(
                f"the guest's SSH server did not answer within {deadline.seconds:.0f} s: {tried}",
                awaited="the SSH server",
            )
        patience *= _BANNER_GROWS
        time.sleep(min(0.05, deadline.remaining))


def _attempt(access: Access, key: paramiko.PKey, deadline: Deadline, *, patience: float) -> paramiko.Transport:
    with contextlib.ExitStack() as stack:
        sock = socket.create_connection((access.host, access.port), timeout=max(0.2, min(5.0, deadline.remaining)))
        stack.callback(sock.close)
        _await_banner(sock, patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock, packetizer_class=_Packets)
        stack.callback(transport.close)
        most = max(1.0, deadline.timeout(60.0) or 60.0)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = most
        options = transport.get_security_options()
        options.kex = tuple(name for name in _KEX if name in options.kex)
        options.ciphers, options.digests = _CIPHERS, _MACS
        name, data = _host_key(access.host_key)
        options.key_types = (name,)
        with closing_at(transport, Deadline(most)):
            try:
                transport.start_client(timeout=most)
            except paramiko.SSHException as error:
                # A server that has no key of our kind at all is another server.
                if "host key" in str(error):
                    raise _wrong_key(access) from None
                raise
            server = transport.get_remote_server_key()
            if server.get_name() != name or server.asbytes() != data:
                raise _wrong_key(access)
            try:
                transport.auth_publickey(access.username, key)
            except paramiko.AuthenticationException as error:
                if not transport.is_active():  # the guest went away, it did not refuse
                    raise
                raise _RefusedError(
                    f"the guest does not let {access.username} in with the key of this run: {error}",
                    hint="the specialization did not write it, or the SSH server of the image does not take keys",
                ) from None
        transport.set_keepalive(_KEEPALIVE)
        stack.pop_all()
        return transport


def _await_banner(sock: socket.socket, seconds: float) -> None:
    """Return when the server has begun to say "SSH-", without taking anything off the connection."""
    sock.settimeout(seconds)
    try:
        said = sock.recv(4, socket.MSG_PEEK)
    except TimeoutError:
        raise OSError("it accepts connections but says nothing") from None
    if not said:
        raise OSError("it closes the connection")
    if not b"SSH-".startswith(said):
        raise OSError(f"it is no SSH server, it says {said!r}")
    sock.settimeout(None)


def _wrong_key(access: Access) -> _HostKeyError:
    return _HostKeyError(
        f"the SSH server at {access.host}:{access.port} has another host key than the one made for this machine",
        hint="another machine answers there, or the guest did not take its key from the instance medium",
    )


def _client_key(private: bytes) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode("ascii")))


def _host_key(line: str) -> tuple[str, bytes]:
    name, data = line.split()[:2]
    return name, base64.b64decode(data, validate=True)


@contextlib.contextmanager
def closing_at(transport: paramiko.Transport, deadline: Deadline) -> Iterator[None]:
    """Close the connection when the deadline passes within the block.

    The library waits for some replies (to "exec", to "subsystem") without a time-out; a frozen guest never sends them.
    """
    seconds = deadline.timeout()
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def lost_when_broken(transport: paramiko.Transport, what: str, deadline: Deadline) -> Iterator[None]:
    """Within the block, whatever a dying connection raises is a GuestLostError that says ``what`` was being done."""
    began = time.monotonic()
    if not transport.is_active():
        raise GuestLostError(f"the connection to the guest is gone: could not begin to {what}")
    try:
        with closing_at(transport, deadline):
            yield
    # Not OSError in general: SFTP reports the guest's own errors by it.
    except (EOFError, paramiko.SSHException, TimeoutError) as error:
        late = deadline.expired
        why = f"did not answer within {time.monotonic() - began:.0f} s" if late else "closed the connection"
        raise GuestLostError(f"the guest {why}; it was to {what} ({str(error) or type(error).__name__})") from None
    except OSError as error:
        if transport.is_active() and not deadline.expired:
            raise
        raise GuestLostError(f"the connection to the guest broke; it was to {what} ({error})") from None
