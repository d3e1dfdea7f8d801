# SPDX-License-Identifier: Apache-2.0
"""Who may talk to WinRM: the administrator, by Basic (over TLS), NTLM or Negotiate; and the messages those encrypt.

Only the hash that NTLM computes with is kept of the password, as Windows itself does.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import struct
from pathlib import Path

import spnego
from spnego._ntlm_raw.crypto import ntowfv1
from spnego.exceptions import SpnegoError

ADMINISTRATOR = "Administrator"
_SCHEME = re.compile(r"(Negotiate|NTLM|Basic)\s+(\S+)", re.IGNORECASE)
_BOUNDARY = "Encrypted Boundary"
_ENCRYPTED = re.compile(
    rb'multipart/encrypted\s*;\s*protocol="application/HTTP-SPNEGO-session-encrypted"', re.IGNORECASE
)
_PART = re.compile(
    rb"\A--Encrypted Boundary\r\n[ \t]*Content-Type:[ \t]*application/HTTP-SPNEGO-session-encrypted\r\n"
    rb"[ \t]*OriginalContent:[ \t]*type=application/soap\+xml;[ \t]*charset=([\w-]+);[ \t]*Length=(\d{1,9})\r\n"
    rb"--Encrypted Boundary\r\n[ \t]*Content-Type:[ \t]*application/octet-stream\r\n"
    rb"(.*)--Encrypted Boundary--(?:\r\n)?\Z",
    re.IGNORECASE | re.DOTALL,
)


class Denied(Exception):
    """Somebody who is not the administrator, or says so in no way that is understood."""


class Account:
    """The administrator of a machine called ``computer``: the hash of the password, and where NTLM looks it up."""

    def __init__(self, nt_hash: bytes, computer: str) -> None:
        self._hash = nt_hash
        # In memory: pyspnego reads a file of the form that smbpasswd has, by name.
        file = os.memfd_create("standin-account")
        names = (ADMINISTRATOR, f".\\{ADMINISTRATOR}", f"{computer}\\{ADMINISTRATOR}")
        for name in names:
            os.write(file, f"{name}:500:{'0' * 32}:{nt_hash.hex().upper()}:[U]:LCT-00000000\n".encode())
        self._names = {name.lower() for name in names}
        os.environ["NTLM_USER_FILE"] = f"/proc/self/fd/{file}"

    def check(self, name: str, password: str) -> bool:
        """Whether ``password`` is the one of the account ``name``."""
        return hmac.compare_digest(ntowfv1(password), self._hash) and name.lower() in self._names


def password_hash(password: str) -> bytes:
    """What is kept of a password."""
    return bytes(ntowfv1(password))


def read_hash(path: Path) -> bytes:
    """The hash that ``write_hash`` left. Raises OSError or ValueError."""
    return bytes.fromhex(path.read_text("ascii"))


def write_hash(path: Path, nt_hash: bytes) -> None:
    """Keep ``nt_hash`` for later boots, for root alone."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 (a descriptor)
        file.write(nt_hash.hex())
    temporary.rename(path)


class Session:
    """What one connection has proved so far."""

    def __init__(self, account: Account, *, tls: bool) -> None:
        self._account = account
        self._tls = tls
        self._context: spnego.ContextProxy | None = None
        self._scheme = ""
        self._known = False

    @property
    def offers(self) -> list[str]:
        """The values of WWW-Authenticate; Basic tells the password to whoever listens, so only inside TLS."""
        return ["Negotiate", "NTLM", *(['Basic realm="WSMAN"'] if self._tls else [])]

    def authenticate(self, header: str | None) -> tuple[bool, str | None]:
        """Go on with the header Authorization: whether the client is known now, and what WWW-Authenticate answers.

        Raises Denied.
        """
        if not header:
            # NTLM and Negotiate prove a connection, Basic each request.
            if self._known and self._context is not None:
                return True, None
            raise Denied
        found = _SCHEME.fullmatch(header.strip())
        if found is None:
            raise Denied
        scheme = found[1].lower()
        try:
            token = base64.b64decode(found[2], validate=True)
        except (binascii.Error, ValueError):
            raise Denied from None
        if scheme == "basic":
            return self._basic(token), None
        if self._context is None or self._known or scheme != self._scheme:
            self._known, self._scheme = False, scheme
            self._context = spnego.server(protocol="negotiate", options=spnego.NegotiateOptions.use_negotiate)
        try:
            answer = self._context.step(token)
        except (SpnegoError, ValueError, IndexError, struct.error, NotImplementedError):
            self._context = None
            raise Denied from None
        self._known = self._context.complete
        text = f"{found[1]} {base64.b64encode(answer).decode()}" if answer else None
        return self._known, text

    @property
    def encrypts(self) -> bool:
        """Whether messages can be encrypted on this connection."""
        return self._known and self._context is not None

    def unwrap(self, content_type: str, body: bytes) -> bytes | None:
        """The message in an encrypted ``body``, None when it is not encrypted. Raises Denied for a broken one."""
        if not _ENCRYPTED.match(content_type.encode("utf-8", "replace")):
            return None
        part = _PART.match(body)
        if part is None or self._context is None or not self._known or len(part[3]) < 4:
            raise Denied
        (size,) = struct.unpack("<I", part[3][:4])
        header, data = part[3][4 : 4 + size], part[3][4 + size :]
        try:
            message = self._context.unwrap_winrm(header, data)
        except (SpnegoError, ValueError, IndexError, struct.error):
            raise Denied from None
        if len(message) != int(part[2]):
            raise Denied
        return bytes(message)

    def wrap(self, message: bytes) -> tuple[str, bytes]:
        """``message`` encrypted, with its content type."""
        assert self._context is not None
        wrapped = self._context.wrap_winrm(message)
        length = len(message) + wrapped.padding_length
        body = (
            f"--{_BOUNDARY}\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n"
            f"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={length}\r\n"
            f"--{_BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n"
        ).encode()
        body += struct.pack("<I", len(wrapped.header)) + wrapped.header + wrapped.data
        body += f"--{_BOUNDARY}--\r\n".encode()
        kind = f'multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="{_BOUNDARY}"'
        return kind, body

    def _basic(self, token: bytes) -> bool:
        # No standard says which of the two it is; clients differ.
        for encoding in ("utf-8", "latin-1"):
            name, colon, password = token.decode(encoding, "replace").partition(":")
            if self._tls and colon and self._account.check(name, password):
                return True
        raise Denied
