# SPDX-License-Identifier: Apache-2.0
"""Certificates a user hands to a run: PFX, or PEM/DER files, for one of the machine's certificate stores."""

from __future__ import annotations

import codecs
import contextlib
import datetime
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from asn1crypto import pkcs12 as asn1
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from harness.errors import UsageError
from harness.package.findings import one_line

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
_MAX_SERIAL = 20  # bytes [RFC 5280 4.1.2.2]
_PEM_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN ((?:X509 )?CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
_LABEL = re.compile(rb"(-----(?:BEGIN|END) )X509 CERTIFICATE-----")
_PEM_PKCS7 = re.compile(rb"-----BEGIN (PKCS7|CMS)-----.*?-----END \1-----", re.DOTALL)
_OTHER_PEM = {
    b"CERTIFICATE REQUEST": "a certificate request",
    b"NEW CERTIFICATE REQUEST": "a certificate request",
    b"X509 CRL": "a revocation list",
    b"PUBLIC KEY": "a public key",
    b"RSA PUBLIC KEY": "a public key",
    b"SSH2 PUBLIC KEY": "a public key",
    b"TRUSTED CERTIFICATE": "a certificate with OpenSSL's own notes of trust",
}
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
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey):
            forms.append(_pem(key, serialization.PrivateFormat.TraditionalOpenSSL))
        found: list[str] = []
        for form in forms:
            text = form.decode("ascii")
            lines = [line for line in text.splitlines() if line and not line.startswith("-----")]
            # A last line of a few characters would mask innocent text.
            found += [text, "".join(lines), *(line for line in lines if len(line) >= 32)]
        return tuple(dict.fromkeys(found))


def check_keys(certificates: Sequence[Certificate], image: str) -> None:
    """Raises UsageError for a private key that Wine, which ``image`` is made of, cannot import: any but RSA."""
    for certificate in certificates:
        if certificate.key_pem is None:
            continue
        if not isinstance(serialization.load_pem_private_key(certificate.key_pem, None), rsa.RSAPrivateKey):
            raise UsageError(
                f"the certificate {certificate.thumbprint} ({certificate.subject}) has a key that is not RSA, and the "
                f"stand-in {image} imports no other",
                hint="Windows takes it; here use a certificate with an RSA key",
            )


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


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a file, each once, in its order."""

    certificates: tuple[x509.Certificate, ...]
    keys: tuple[PrivateKeyTypes, ...] = ()


def load_certificates(path: Path, store: str = "My", password: bytes | None = None) -> tuple[Certificate, ...]:
    """Read a PFX, a PEM file with or without keys, a PKCS #7 or a DER certificate. Raises UsageError, one sentence.

    Certificates with their keys go into ``store``; those that issue others to CA, or to Root where they are their own
    issuers. Of a file without keys all go into ``store``. Warnings name what is left out.
    """
    store = canonical_store(store)
    data = _as_ascii(_read(path))
    with quiet() as said:
        contents = _contents(path, data, password)
        try:
            return tuple(_placed(path, contents, store, said))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{path} has a certificate that cannot be used: {one_line(str(error))[:200]}") from None


@contextlib.contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Within the block, what the library says of odd certificates is kept in the list and not printed, and is no error
    where warnings are."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said


def _contents(path: Path, data: bytes, password: bytes | None) -> _Contents:
    if b"-----BEGIN " in data:
        found = _from_pem(path, data, password)
    elif _PFX.match(data):
        found = _from_pfx(path, data, password)
    else:
        found = _from_der(path, data)
    certificates = {certificate.fingerprint(hashes.SHA1()): certificate for certificate in found.certificates}
    return _Contents(
        tuple(certificates.values()), tuple({_public(key.public_key()): key for key in found.keys}.values())
    )


def _placed(
    path: Path, contents: _Contents, store: str, said: Sequence[warnings.WarningMessage]
) -> Iterator[Certificate]:
    """The certificates of a file in their stores; the first one has the warnings about the file."""
    pairs = [
        (certificate, next((key for key in contents.keys if _belong(certificate, key)), None))
        for certificate in contents.certificates
    ]
    own = [(certificate, key) for certificate, key in pairs if key is not None]
    if contents.keys and not own:
        raise UsageError(
            f"the private key in {path} does not belong to its certificate", hint="export the two together again"
        )
    if not own and store in _NEEDS_KEY:
        raise UsageError(
            f"{path} has a certificate but not its private key, which the store {store} needs",
            hint="give a PFX or a PEM file with both, or name a store for certificates alone, e.g. "
            f"--certificate {path}:Root",
        )
    placed: list[tuple[x509.Certificate, PrivateKeyTypes | None, str]] = []
    notes: list[str] = []
    if own:
        placed += [(certificate, key, store) for certificate, key in own]
        rest = [certificate for certificate, key in pairs if key is None]
        chain = _chain([certificate for certificate, _ in own], rest)
        placed += [(item, None, "Root" if item.subject == item.issuer else "CA") for item in chain]
        lost = [_name(certificate) for certificate in rest if certificate not in chain]
        if lost:
            notes.append(f"{path}: left out, since they have no key and issue no other: {', '.join(lost)}")
        if len(contents.keys) > len(own):
            notes.append(f"{path}: left out a private key that belongs to none of its certificates")
    else:
        placed += [(certificate, None, store) for certificate, _ in pairs]
    notes += [*_misspelt(store), *_library_notes(path, said)]
    for certificate, key, place in placed:
        name = f"the certificate {path}" if len(placed) == 1 else f"the certificate {_name(certificate)} in {path}"
        yield Certificate(
            thumbprint=certificate.fingerprint(hashes.SHA1()).hex().upper(),  # the platform's identity, not security
            store=place,
            crt_pem=certificate.public_bytes(serialization.Encoding.PEM),
            key_pem=None if key is None else _pem(key, serialization.PrivateFormat.PKCS8),
            subject=certificate.subject.rfc4514_string(),
            not_after=certificate.not_valid_after_utc,
            warnings=(*_warnings(name, certificate, key), *notes),
        )
        notes = []


def _chain(own: list[x509.Certificate], others: list[x509.Certificate]) -> list[x509.Certificate]:
    """Those of ``others`` that issued one of ``own``, directly or not, in the order of the chain, and other issuers."""
    found: list[x509.Certificate] = []
    wanted = [certificate.issuer for certificate in own]
    while wanted:
        name = wanted.pop(0)
        issuers = [other for other in others if other.subject == name and other not in found]
        found += issuers
        wanted += [issuer.issuer for issuer in issuers]
    return found + [other for other in others if other not in found and _issues(other)]


def _issues(certificate: x509.Certificate) -> bool:
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    return False


def _name(certificate: x509.Certificate) -> str:
    """As sentences call it; subjects are whatever their makers wrote."""
    return one_line(certificate.subject.rfc4514_string())[:100] or f"of the serial number {certificate.serial_number}"


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


def _as_ascii(data: bytes) -> bytes:
    """PEM is ASCII; PowerShell 5 writes text as UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode("ascii", "replace")
    return data


def _from_der(path: Path, data: bytes) -> _Contents:
    with contextlib.suppress(ValueError):
        return _Contents((x509.load_der_x509_certificate(data),))
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        return _Contents(tuple(pkcs7.load_der_pkcs7_certificates(data)))
    readers: tuple[tuple[str, Callable[[], object]], ...] = (
        ("a certificate request", lambda: x509.load_der_x509_csr(data)),
        ("a revocation list", lambda: x509.load_der_x509_crl(data)),
        ("a public key", lambda: serialization.load_der_public_key(data)),
        ("a private key without its certificate", lambda: serialization.load_der_private_key(data, None)),
    )
    for what, reader in readers:
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            reader()
            raise _other(path, what)
    raise _not_one(path)


def _from_pfx(path: Path, data: bytes, password: bytes | None) -> _Contents:
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
    certificates = (*((certificate,) if certificate else ()), *more)
    if not certificates:
        raise UsageError(
            f"{path} has {'a private key but no certificate for it' if key else 'no certificate in it'}",
            hint="export the certificate together with its private key",
        )
    if key is None:
        return _Contents(certificates)
    return _Contents(certificates, (key, *(_other_keys(data, password) if more else ())))


def _other_keys(data: bytes, password: bytes | None) -> list[PrivateKeyTypes]:
    """All keys of a PFX; the library gives the first one only. Those that cannot be read are left out, and their
    certificates are told then."""
    keys: list[PrivateKeyTypes] = []
    with contextlib.suppress(ValueError, TypeError):
        for content in asn1.Pfx.load(data).authenticated_safe:
            if content["content_type"].native != "data":
                continue
            for bag in asn1.SafeContents.load(content["content"].native):
                kind, value = bag["bag_id"].native, bag["bag_value"]
                attempts = {"key_bag": (None,), "pkcs8_shrouded_key_bag": (password,) if password else (b"", None)}
                for attempt in attempts.get(kind, ()):
                    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
                        keys.append(serialization.load_der_private_key(value.untag().dump(), attempt))
                        break
    return keys


def _from_pem(path: Path, data: bytes, password: bytes | None) -> _Contents:
    keys = tuple(_pem_key(path, found.group(0), password) for found in _PEM_KEY.finditer(data))
    try:
        certificates = [
            x509.load_pem_x509_certificate(_LABEL.sub(rb"\1CERTIFICATE-----", found.group(0)))
            for found in _PEM_CERTIFICATE.finditer(data)
        ]
        for found in _PEM_PKCS7.finditer(data):
            certificates += pkcs7.load_pem_pkcs7_certificates(found.group(0))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path} has a certificate that is damaged", hint="export it again") from None
    if certificates:
        return _Contents(tuple(certificates), keys)
    if keys:
        raise UsageError(f"{path} has a private key but no certificate", hint="put the certificate into the same file")
    for label, what in _OTHER_PEM.items():
        if b"-----BEGIN " + label + b"-----" in data:
            raise _other(path, what)
    raise _not_one(path)


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
    return UsageError(f"{path} is not a certificate", hint="PFX, PEM, PKCS #7 and DER files are understood")


def _other(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is {what} and not a certificate", hint="give the certificate, with its private key")


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


def _warnings(name: str, certificate: x509.Certificate, key: PrivateKeyTypes | None) -> Iterator[str]:
    """What works here and is odd; ``name`` is what sentences call the certificate."""
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        yield f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    elif certificate.not_valid_before_utc > now:
        yield f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    number = certificate.serial_number
    if number <= 0 or number.bit_length() >= 8 * _MAX_SERIAL:
        how = "which is not positive" if number <= 0 else f"which has more than {_MAX_SERIAL} bytes"
        yield f"{name} has the serial number {str(number)[:60]}, {how}: many programs refuse it"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        kind = "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed448"
        yield f"{name} has a key of the kind {kind}, which Windows does not have"


def _library_notes(path: Path, said: Sequence[warnings.WarningMessage]) -> Iterator[str]:
    """Other oddities that the library noticed, its first sentence about each; numbers have a sentence of ours."""
    for text in dict.fromkeys(str(item.message).partition(". ")[0] for item in said):
        if "serial number" not in text:
            yield f"a certificate in {path} is odd: {one_line(text)[:200]}"
