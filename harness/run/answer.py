# SPDX-License-Identifier: Apache-2.0
"""The answer document: what a generalized guest is told to become (docs/instance-medium.md)."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.machine.protocol import Nic
from harness.package.computer_names import check_computer_name as check_computer_name
from harness.package.computer_names import computer_name as computer_name
from harness.package.credentials import MAX_PASSWORD_BYTES

if TYPE_CHECKING:
    from harness.run.certificates import Certificate

SCHEMA = 1
LOCALE = "en_US.UTF-8"
MAX_LOCAL_RESOURCE_MB = 65_536
_DEFAULT_LOCAL_RESOURCE_MB = 100
_MAX_LOCAL_RESOURCE_NAME = 64
_BCRYPT_ROUNDS = 6
"""Checked in an emulated guest at every log-on, and only ever stored in a disk that is thrown away."""


@dataclass(frozen=True, slots=True)
class LocalResource:
    """A folder of the machine with a size of its own. ``clean`` is whether it is emptied when the role is recycled."""

    name: str
    size_mb: int = _DEFAULT_LOCAL_RESOURCE_MB
    clean: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything ``answer.conf`` says; the keys are those of the document with underscores.

    ``instance`` is the machine's token, ``machine_id`` 32 and ``entropy`` 128 hexadecimal digits, ``time`` seconds
    since 1970 (UTC). The certificates' keys are on the medium, never in this document.
    """

    instance: str
    computer_name: str
    administrator_password_hash: str = field(repr=False)
    authorized_key: str
    machine_id: str
    entropy: str = field(repr=False)
    time: float
    nics: tuple[Nic, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    local_resources: tuple[LocalResource, ...] = ()
    payload: str | None = None
    time_zone: str = "UTC"
    locale: str = LOCALE
    automatic_updates: str = "off"
    await_ssh: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", self.machine_id) or not re.fullmatch(r"[0-9a-f]{128}", self.entropy):
            raise ValueError("machine_id is 32 and entropy 128 hexadecimal digits")
        if not re.fullmatch(r"[!-~]+", self.instance):
            raise ValueError("instance is one printable word")
        if self.payload is not None and not self.payload.startswith("/"):
            raise ValueError("payload is an absolute folder in the guest")
        check_computer_name(self.computer_name)
        for resource in self.local_resources:
            check_local_resource(resource)
        check_duplicates(self.local_resources)

    def render(self) -> bytes:
        """The document, the keys in the order of docs/instance-medium.md; the same answer gives the same bytes."""
        lines: list[tuple[str, str]] = [
            ("schema", str(SCHEMA)),
            ("instance", self.instance),
            ("computer-name", self.computer_name),
            ("time-zone", self.time_zone),
            ("locale", self.locale),
            ("automatic-updates", self.automatic_updates),
            ("administrator-password-hash", self.administrator_password_hash),
            ("authorized-key", self.authorized_key),
            ("machine-id", self.machine_id),
            ("entropy", self.entropy),
            ("time", f"{self.time:.6f}"),
            ("await-ssh", "yes" if self.await_ssh else "no"),
        ]
        for nic in self.nics:
            words = (nic.mac, nic.address, nic.gateway, nic.nameserver)
            if not all(re.fullmatch(r"[!-~]+", word) for word in words):
                raise ValueError(f"a network card's values are words, not {words}")
            lines.append(("nic", " ".join(words)))
        # The same certificate may be given twice for one store.
        pairs = dict.fromkeys((c.thumbprint, c.store) for c in self.certificates)
        lines += [("certificate", f"{thumbprint} {store}") for thumbprint, store in pairs]
        lines += [("local-resource", f"{r.size_mb} {r.name}") for r in self.local_resources]
        if self.payload is not None:
            lines.append(("payload", self.payload))
        return "".join(f"{key}={encode(value)}\n" for key, value in lines).encode("ascii")


def encode(value: str) -> str:
    """``%XX`` for ``%``, control characters and every byte of what is not ASCII."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}"
        for byte in value.encode("utf-8", "surrogateescape")
    )


def parse_local_resource(text: str) -> LocalResource:
    """``NAME[=MB][:keep]``, 100 MB where no size is given; with ``:keep`` a recycle does not empty it. Raises
    UsageError."""
    # No name has a colon in it.
    sized, colon, word = text.rpartition(":")
    if colon and word != "keep":
        raise UsageError(
            f"the local resource {text!r} has {word!r} behind its colon, where only 'keep' can be", hint="NAME=MB:keep"
        )
    name, equals, size = (sized if colon else text).rpartition("=")
    if not equals:
        name, megabytes = size, _DEFAULT_LOCAL_RESOURCE_MB
    elif re.fullmatch(r"[0-9]{1,9}", size):
        megabytes = int(size)
    else:
        raise UsageError(f"the size of the local resource {text!r} is not a number of megabytes", hint="NAME=MB")
    resource = LocalResource(name, megabytes, clean=not colon)
    check_local_resource(resource)
    return resource


def check_local_resource(resource: LocalResource) -> None:
    """Raise UsageError when the name cannot be a folder's or the size makes no sense."""
    name = resource.name
    problem = None
    if not name:
        problem = "has no name"
    elif name in (".", ".."):
        problem = "is the name of no folder of its own"
    elif any(c in "/\\:" for c in name):
        problem = "has a separator in it"
    elif not name.isprintable() or name != name.strip():
        problem = "has control characters in it, or blanks around it"
    elif len(name) > _MAX_LOCAL_RESOURCE_NAME:
        problem = f"is longer than {_MAX_LOCAL_RESOURCE_NAME} characters"
    if problem:
        raise UsageError(f"the local resource {name[:80]!r} {problem}", hint="use letters, digits, - and _")
    if not 1 <= resource.size_mb <= MAX_LOCAL_RESOURCE_MB:
        raise UsageError(
            f"the local resource {name!r} cannot have {resource.size_mb} MB",
            hint=f"between 1 and {MAX_LOCAL_RESOURCE_MB}",
        )


def check_duplicates(resources: Iterable[LocalResource]) -> None:
    """Raise UsageError for two local resources whose names differ in nothing, or only in case."""
    seen: dict[str, str] = {}
    for resource in resources:
        other = seen.get(resource.name.casefold())
        if other is not None:
            same = "twice" if other == resource.name else f"and as {other!r}, which differs only in case"
            raise UsageError(
                f"the local resource {resource.name!r} is asked for {same}", hint="give each a name of its own"
            )
        seen[resource.name.casefold()] = resource.name


def random_password(length: int = 20) -> str:
    """A password that meets the complexity rules of Windows: all four kinds of characters. A secret."""
    kinds = (string.ascii_uppercase, string.ascii_lowercase, string.digits, "-_.+=@%")
    chosen = [secrets.choice(kind) for kind in kinds]
    chosen += [secrets.choice("".join(kinds)) for _ in range(length - len(kinds))]
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def hash_password(password: str) -> str:
    """crypt(5) string of ``password`` (bcrypt). Raises UsageError when a guest could not take it."""
    import bcrypt

    data = password.encode("utf-8", "surrogateescape")
    if not data:
        raise UsageError("the administrator password is empty", hint="leave it out for a random one")
    if len(data) > MAX_PASSWORD_BYTES:
        raise UsageError(
            f"the administrator password has {len(data)} bytes, {MAX_PASSWORD_BYTES} are allowed",
            hint="use a shorter one",
        )
    if not all(c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF for c in password):
        raise UsageError(
            "the administrator password has control characters in it", hint="its file holds it on one line"
        )
    return bcrypt.hashpw(data, bcrypt.gensalt(_BCRYPT_ROUNDS)).decode("ascii")
