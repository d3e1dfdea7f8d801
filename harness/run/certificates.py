# SPDX-License-Identifier: Apache-2.0
"""Certificates a user hands to a run: PFX, or PEM/DER files, for one of the machine's certificate stores."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs12

from harness.errors import UsageError

STORES = (
    "My",
    "Root",
    "CA",
    "Trust",
    "Disallowed",
    "TrustedPeople",
    "TrustedPublisher",
    "AuthRoot",
    "AddressBook",
)
"""The platform's predefined stores; a name of one's own makes a store of one's own."""

_NEEDS_KEY = ("My",)
_MAX_BYTES = 1024 * 1024
"""Far above any certificate with its chain; a larger file is a mistake (a disk, a log)."""
_MAX_STORE = 64
_PEM_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# PFX ::= SEQUENCE { version INTEGER (3), ... }: tells a PFX with a wrong password from what is no PFX at all.
# Lengths in DER of every size, and BER's indefinite one, which old Windows tools write.
_PFX = re.compile(rb"\A\x30(?:\x80|\x81.|\x82..|\x83...|[\x00-\x7f])\x02\x01\x03", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate and the store it goes into.

    ``thumbprint`` is its SHA-1 in upper-case hex. ``key_pem`` is PKCS#8, unencrypted, a secret. ``warnings`` are
    sentences about what works but is odd, e.g. that it has expired.
    """

    thumbprint: str
    store: str
    crt_pem: bytes
    key_pem: bytes | None = field(repr=False)
    subject: str
    not_after: datetime.datetime
    warnings: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown of it: the key as text, as one base64 string, and line by line.

        A key is also written in the older form of its algorithm by many programs, so that form is included.
        """
        if self.key_pem is None:
            return ()
        forms = [self.key_pem]
        key = serialization.load_pem_private_key(self.key_pem, None)
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            forms.append(_pem(key, serialization.PrivateFormat.TraditionalOpenSSL))
        found: list[str] = []
        for form in forms:
            text = form.decode("ascii")
            lines = [line for line in text.splitlines() if line and not line.startswith("-----")]
            # A last line of a few characters would mask innocent text.
            found += [text, "".join(lines), *(line for line in lines if len(line) >= 32)]
        return tuple(dict.fromkeys(found))


def parse_certificate_option(text: str) -> tuple[Path, str]:
    """``FILE[:STORE]`` as (file, store); the store is My where none is given.

    File names may hold colons: a text that is the name of an existing file is just that file. Raises UsageError.
    """
    if not text:
        raise UsageError("--certificate needs the name of a file")
    whole = Path(text)
    name, colon, store = text.rpartition(":")
    if not colon or _exists(whole):
        return whole, "My"
    if not name:
        raise UsageError(f"--certificate {text!r} names a store but no file", hint="write FILE:STORE")
    if "/" in store:  # the colon belongs to a folder's name
        return whole, "My"
    return Path(name), canonical_store(store)


def canonical_store(name: str) -> str:
    """The store's name as the platform spells it. Raises UsageError when it cannot be the name of a store."""
    if not name:
        raise UsageError("the name of a certificate store is empty", hint=f"predefined are {', '.join(STORES)}")
    for known in STORES:
        if known.casefold() == name.casefold():
            return known
    bad = any(c in '/\\:"' or not c.isprintable() for c in name) or name != name.strip() or name in (".", "..")
    if bad or len(name) > _MAX_STORE:
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a certificate store",
            hint=f"use one of {', '.join(STORES)}, or at most {_MAX_STORE} printable characters without separators",
        )
    return name


def load_certificate(path: Path, store: str = "My", password: bytes | None = None) -> Certificate:
    """Read a PFX, a PEM file with or without its key, or a DER certificate. Raises UsageError, one sentence."""
    store = canonical_store(store)
    data = _read(path)
    if b"-----BEGIN " in data:
        certificate, key = _from_pem(path, data, password)
    elif _PFX.match(data):
        certificate, key = _from_pfx(path, data, password)
    else:
        certificate, key = _from_der(path, data), None
    if key is None and store in _NEEDS_KEY:
        raise UsageError(
            f"{path} has a certificate but not its private key, which the store {store} needs",
            hint="give a PFX or a PEM file with both, or name a store for certificates alone, e.g. "
            f"--certificate {path}:Root",
        )
    try:
        return Certificate(
            thumbprint=certificate.fingerprint(hashes.SHA1()).hex().upper(),  # the platform's identity, not security
            store=store,
            crt_pem=certificate.public_bytes(serialization.Encoding.PEM),
            key_pem=None if key is None else _pem(key, serialization.PrivateFormat.PKCS8),
            subject=certificate.subject.rfc4514_string(),
            not_after=certificate.not_valid_after_utc,
            warnings=(*_warnings(path, certificate), *_misspelt(store)),
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} has a certificate that cannot be used: {error}") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a folder, not a certificate" if path.is_dir() else "does not exist or is not a file"
            raise UsageError(f"the certificate {path} {what}", hint="--certificate FILE[:STORE]")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the certificate {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not data:
        raise UsageError(f"the certificate {path} is empty")
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_BYTES // 1024} KiB and no certificate")
    return data


def _from_der(path: Path, data: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except ValueError:
        raise _not_one(path) from None


def _from_pfx(path: Path, data: bytes, password: bytes | None) -> tuple[x509.Certificate, PrivateKeyTypes | None]:
    # Programs write "no password" in two ways, as none and as an empty one.
    for attempt in (password,) if password else (None, b""):
        try:
            key, certificate, more = pkcs12.load_key_and_certificates(data, attempt)
            break
        except UnsupportedAlgorithm as error:
            raise UsageError(f"{path} is encrypted in a way that is not supported: {error}") from None
        except (ValueError, TypeError):
            continue
    else:
        _refuse_password(path, password)
    if certificate is None and more and key is None:
        certificate = more[0]
    if certificate is None:
        raise UsageError(
            f"{path} has {'a private key but no certificate for it' if key else 'no certificate in it'}",
            hint="export the certificate together with its private key",
        )
    _check_pair(path, certificate, key)
    return certificate, key


def _from_pem(path: Path, data: bytes, password: bytes | None) -> tuple[x509.Certificate, PrivateKeyTypes | None]:
    keys = [_pem_key(path, found.group(0), password) for found in _PEM_KEY.finditer(data)]
    try:
        certificates = [x509.load_pem_x509_certificate(found) for found in _PEM_CERTIFICATE.findall(data)]
    except ValueError:
        raise UsageError(f"{path} has a certificate that is damaged", hint="export it again") from None
    if not certificates:
        if keys:
            raise UsageError(
                f"{path} has a private key but no certificate", hint="put the certificate into the same file"
            )
        raise _not_one(path)
    if not keys:
        return certificates[0], None
    # A file with its chain, in any order: the one that the key belongs to is meant.
    for certificate in certificates:
        for key in keys:
            if _belong(certificate, key):
                return certificate, key
    _check_pair(path, certificates[0], keys[0])
    return certificates[0], keys[0]


def _pem_key(path: Path, block: bytes, password: bytes | None) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(block, password or None)
    except UnsupportedAlgorithm as error:
        raise UsageError(f"the private key in {path} is of a kind that is not supported: {error}") from None
    except TypeError:
        if password:  # the key is not encrypted; the password was for another file
            return _pem_key(path, block, None)
        _refuse_password(path, None)
    except ValueError:
        if password and (b"ENCRYPTED" in block):
            _refuse_password(path, password)
        raise UsageError(f"the private key in {path} is damaged or not of a kind that is supported") from None


def _refuse_password(path: Path, password: bytes | None) -> NoReturn:
    if password:
        raise UsageError(
            f"the password for {path} is wrong, or the file is damaged", hint="check --certificate-password-file"
        )
    raise UsageError(
        f"{path} is protected by a password", hint="put it into a file and name it with --certificate-password-file"
    )


def _not_one(path: Path) -> UsageError:
    return UsageError(f"{path} is not a certificate", hint="PFX, PEM and DER files are understood")


def _check_pair(path: Path, certificate: x509.Certificate, key: PrivateKeyTypes | None) -> None:
    if key is not None and not _belong(certificate, key):
        raise UsageError(
            f"the private key in {path} does not belong to its certificate", hint="export the two together again"
        )


def _belong(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    try:
        return _public(certificate.public_key()) == _public(key.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return False


def _public(key: object) -> bytes:
    done: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return done


def _pem(key: PrivateKeyTypes, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _misspelt(store: str) -> tuple[str, ...]:
    """A store of one's own is legal, so a name that is nearly a predefined one is only a warning."""
    if store in STORES:
        return ()
    near = get_close_matches(store.casefold(), [known.casefold() for known in STORES], n=1, cutoff=0.7)
    known = next((known for known in STORES if near and known.casefold() == near[0]), None)
    return (f"the certificate store {store!r} is none of the predefined ones; did you mean {known}?",) if known else ()


def _warnings(path: Path, certificate: x509.Certificate) -> tuple[str, ...]:
    now = datetime.datetime.now(datetime.UTC)
    said: Sequence[str] = ()
    if certificate.not_valid_after_utc < now:
        said = (f"the certificate {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",)
    elif certificate.not_valid_before_utc > now:
        said = (f"the certificate {path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}",)
    return tuple(said)
