# SPDX-License-Identifier: Apache-2.0
"""The answer document of a Windows guest (docs/windows-guest.md), and the files that go with it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.machine.protocol import Nic
from harness.run.answer import SCHEMA, LocalResource, check_duplicates, check_local_resource, encode
from harness.run.certificates import quiet
from harness.run.instance import payload_files

if TYPE_CHECKING:
    from harness.guest.channel import File
    from harness.run.certificates import Certificate

LOCALE = "en-US"
_PFX_ROUNDS = 2000
"""As old Windows writes them; the password is as random as the key."""
_CERTIFICATE_DAYS = 7
"""A machine is kept for a day at most; its clock may be a little off."""


@dataclass(frozen=True, slots=True)
class WinRmCertificate:
    """The certificate of one machine's WinRM service, made for it alone."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def new(cls, computer_name: str) -> WinRmCertificate:
        """RSA: what every Windows takes from a PFX for its HTTPS listener."""
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, computer_name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(computer_name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: str, key: str) -> WinRmCertificate:
        """From PEM. Raises ValueError for what is none."""
        loaded = serialization.load_pem_private_key(key.encode(), None)
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise ValueError("the key of a WinRM service is an RSA key")
        return cls(x509.load_pem_x509_certificate(certificate.encode()), loaded)

    @property
    def thumbprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> str:
        """Secret."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii")

    def pfx(self, password: str) -> bytes:
        return _pfx(self.key, self.certificate, password)


@dataclass(frozen=True, slots=True)
class WindowsAnswer:
    """Everything ``answer.conf`` says; the keys are those of the document with underscores.

    ``instance`` is the machine's token, ``machine_id`` 32 and ``entropy`` 128 hexadecimal digits, ``time`` seconds
    since 1970 (UTC). ``pfx_password`` opens every PFX on the medium.
    """

    instance: str
    computer_name: str
    machine_id: str
    entropy: str = field(repr=False)
    time: float
    nics: tuple[Nic, ...]
    certificates: tuple[Certificate, ...]
    pfx_password: str = field(repr=False)
    winrm_certificate: str
    local_resources: tuple[LocalResource, ...]
    payload: str | None

    def __post_init__(self) -> None:
        for resource in self.local_resources:
            check_local_resource(resource)
        check_duplicates(self.local_resources)

    def render(self) -> bytes:
        """The document, the keys in the order of docs/windows-guest.md; the same answer gives the same bytes."""
        lines = [
            ("schema", str(SCHEMA)),
            ("instance", self.instance),
            ("computer-name", self.computer_name),
            ("time-zone", "UTC"),
            ("locale", LOCALE),
            ("automatic-updates", "off"),
            ("machine-id", self.machine_id),
            ("entropy", self.entropy),
            ("time", f"{self.time:.6f}"),
            ("await-ssh", "no"),
            *(("nic", f"{nic.mac} {nic.address} {nic.gateway} {nic.nameserver}") for nic in self.nics),
            ("pfx-password", self.pfx_password),
            ("winrm-certificate", self.winrm_certificate),
        ]
        pairs = dict.fromkeys((c.thumbprint, c.store) for c in self.certificates)
        lines += [("certificate", f"{thumbprint} {store}") for thumbprint, store in pairs]
        lines += [("local-resource", f"{r.size_mb} {r.name}") for r in self.local_resources]
        if self.payload is not None:
            lines.append(("payload", self.payload))
        return "".join(f"{key}={encode(value)}\n" for key, value in lines).encode("ascii")


def instance_files(
    answer: WindowsAnswer, unattend: bytes, winrm: WinRmCertificate, payload: Path | None
) -> Iterator[File]:
    """What is on a medium but the components, as names, modes and contents; folders have no content. The answer
    document is last. Raises PackageError for a payload that no guest can take."""
    yield "unattend.xml", 0o600, unattend
    yield f"certificates/{winrm.thumbprint}.pfx", 0o600, winrm.pfx(answer.pfx_password)
    for certificate in {c.thumbprint: c for c in answer.certificates}.values():
        same = [c.key_pem for c in answer.certificates if c.thumbprint == certificate.thumbprint and c.key_pem]
        with quiet():  # what is odd about it was told
            public = x509.load_pem_x509_certificate(certificate.crt_pem)
        if same:
            key = serialization.load_pem_private_key(same[0], None)
            name, data = f"{certificate.thumbprint}.pfx", _pfx(key, public, answer.pfx_password)
        else:
            name, data = f"{certificate.thumbprint}.cer", public.public_bytes(serialization.Encoding.DER)
        yield f"certificates/{name}", 0o600, data
    if payload is not None:
        yield "payload/", 0o755, None
        yield from payload_files("payload", payload)
    yield "answer.conf", 0o600, answer.render()


def _pfx(key: object, certificate: x509.Certificate, password: str) -> bytes:
    """A PFX in the one form that Windows up to Server 2016 reads too: PBE-SHA1-3DES, and a SHA-1 MAC."""
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_PFX_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())
        .build(password.encode())
    )
    done: bytes = pkcs12.serialize_key_and_certificates(None, key, certificate, None, encryption)  # type: ignore[arg-type]
    return done
