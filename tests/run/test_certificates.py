# SPDX-License-Identifier: Apache-2.0
"""Certificates as their owners have them, made here with cryptography and read back with openssl."""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from harness.errors import UsageError
from harness.run.certificates import load_certificate, parse_certificate_option

PASSWORD = b"p\xc3\xa4ss word"


@dataclass
class Pair:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    def key_pem(self, password: bytes | None = None, traditional: bool = False) -> bytes:
        form = serialization.PrivateFormat.TraditionalOpenSSL if traditional else serialization.PrivateFormat.PKCS8
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(serialization.Encoding.PEM, form, encryption)

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pfx(self, password: bytes | None = None, key: bool = True, certificate: bool = True) -> bytes:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        return pkcs12.serialize_key_and_certificates(
            b"name", self.key if key else None, self.certificate if certificate else None, None, encryption
        )


def make(name: str = "test", *, starts: int = -1, ends: int = 30) -> Pair:
    key = rsa.generate_private_key(65537, 2048)
    return Pair(key, sign(key, name, starts, ends))


def sign(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: str, starts: int = -1, ends: int = 30
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(now + datetime.timedelta(days=starts))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make()


@pytest.fixture(scope="module")
def other() -> Pair:
    return make("other")


def write(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def thumbprint(path: Path) -> str:
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha1", "-in", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return said.stdout.strip().partition("=")[2].replace(":", "")


def test_pfx(pair: Pair, tmp_path: Path) -> None:
    for password in (None, PASSWORD):
        found = load_certificate(write(tmp_path, pair.pfx(password)), "my", password)
        assert found.thumbprint == thumbprint(write(tmp_path, found.crt_pem, "crt"))
        assert found.store == "My"
        assert found.subject == "CN=test"
        assert found.warnings == ()
        assert found.key_pem is not None
        assert found.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert "PRIVATE" not in repr(found)


def test_pfx_of_openssl_with_an_old_algorithm_and_an_empty_password(pair: Pair, tmp_path: Path) -> None:
    source = write(tmp_path, pair.pem() + pair.key_pem(), "both.pem")
    target = tmp_path / "old.pfx"
    subprocess.run(
        [
            *("openssl", "pkcs12", "-export", "-in", str(source), "-out", str(target), "-passout", "pass:"),
            *("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"),
        ],
        check=True,
    )
    assert load_certificate(target).key_pem


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_pem_with_key_in_any_order_among_a_chain(
    pair: Pair, other: Pair, tmp_path: Path, password: bytes | None, traditional: bool
) -> None:
    key = pair.key_pem(password, traditional)
    expected = load_certificate(write(tmp_path, pair.pfx(), "pfx"))
    for data in (key + pair.pem(), pair.pem() + key, b"text\n" + other.pem() + key + b"\r\n" + pair.pem()):
        found = load_certificate(write(tmp_path, data), "My", password)
        assert (found.thumbprint, found.key_pem) == (expected.thumbprint, expected.key_pem)


def test_certificate_alone(pair: Pair, tmp_path: Path) -> None:
    pem, der = write(tmp_path, pair.pem(), "pem"), write(tmp_path, pair.der(), "der")
    for path in (pem, der, write(tmp_path, pair.pfx(key=False), "pfx")):
        found = load_certificate(path, "root")
        assert (found.store, found.key_pem, found.secrets) == ("Root", None, ())
        assert found.thumbprint == thumbprint(pem)
        with pytest.raises(UsageError, match="not its private key, which the store My needs"):
            load_certificate(path)


def test_a_link(pair: Pair, tmp_path: Path) -> None:
    write(tmp_path, pair.pfx())
    (tmp_path / "link").symlink_to("file")
    assert load_certificate(tmp_path / "link").key_pem


def test_a_password_that_was_not_needed(pair: Pair, tmp_path: Path) -> None:
    assert load_certificate(write(tmp_path, pair.pem() + pair.key_pem()), "My", PASSWORD).key_pem


def test_elliptic_keys(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    data = pkcs12.serialize_key_and_certificates(None, key, sign(key, "ec"), None, serialization.NoEncryption())
    found = load_certificate(write(tmp_path, data))
    assert any("BEGIN EC PRIVATE KEY" in secret for secret in found.secrets)


def test_secrets_cover_every_line_of_the_key(pair: Pair, tmp_path: Path) -> None:
    found = load_certificate(write(tmp_path, pair.pfx()))
    assert found.key_pem is not None
    for form in (found.key_pem.decode(), pair.key_pem(traditional=True).decode()):
        assert form in found.secrets
        assert "".join(form.splitlines()[1:-1]) in found.secrets
        assert set(form.splitlines()[1:-2]) <= set(found.secrets)
    assert min(len(secret) for secret in found.secrets) >= 32


def test_dates_are_warnings(tmp_path: Path) -> None:
    expired = load_certificate(write(tmp_path, make(ends=-0, starts=-2).pfx()))
    assert "expired on" in expired.warnings[0]
    early = load_certificate(write(tmp_path, make(starts=5).pfx()))
    assert "is not valid before" in early.warnings[0]


def damaged(data: bytes) -> bytes:
    return data[:400] + bytes(40) + data[440:]


def refused(path: Path, password: bytes | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_certificate(path, "My", password)
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused(pair: Pair, other: Pair, tmp_path: Path) -> None:
    def said(data: bytes, password: bytes | None = None) -> str:
        return refused(write(tmp_path, data), password)

    assert "password for" in said(pair.pfx(PASSWORD), b"wrong")
    assert "is wrong" in said(pair.pfx(PASSWORD), b"\xff\xfe")
    assert "protected by a password" in said(pair.pfx(PASSWORD))
    assert "is wrong" in said(pair.pem() + pair.key_pem(PASSWORD), b"wrong")
    assert "is wrong" in said(pair.pem() + pair.key_pem(PASSWORD, traditional=True), b"wrong")
    assert "protected by a password" in said(pair.pem() + pair.key_pem(PASSWORD))
    assert "private key but no certificate" in said(pair.key_pem())
    assert "private key but no certificate" in said(pair.pfx(certificate=False))
    assert "does not belong" in said(pair.pem() + other.key_pem())
    assert "is empty" in said(b"")
    assert "is not a certificate" in said(b"hello")
    assert "is not a certificate" in said(bytes(1000))
    assert "is not a certificate" in said(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert "damaged" in said(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "damaged" in said(pair.pem() + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert "file" in said(damaged(pair.pfx()))
    assert "larger than" in said(pair.pem() + bytes(2_000_000))
    assert "does not exist" in refused(tmp_path / "absent")
    assert "is a folder" in refused(tmp_path)
    assert "does not exist" in refused(Path("/dev/zero"))
    assert "cannot be read" in refused(Path("x" * 5000))


def test_option(tmp_path: Path) -> None:
    odd = write(tmp_path, b"", "a:Root")
    assert parse_certificate_option("a.pfx") == (Path("a.pfx"), "My")
    assert parse_certificate_option("a.pfx:trustedPEOPLE") == (Path("a.pfx"), "TrustedPeople")
    assert parse_certificate_option("a:b.pfx:Own Store") == (Path("a:b.pfx"), "Own Store")
    assert parse_certificate_option("a:b/c.pfx") == (Path("a:b/c.pfx"), "My")
    assert parse_certificate_option(str(odd)) == (odd, "My")
    assert parse_certificate_option(f"{odd}:CA") == (odd, "CA")


@pytest.mark.parametrize("text", ["", ":Root", "a:", "a:x\\y", "a: x", "a:x\ny", "a:..", "a:" + "x" * 65, "a:\x1b[1m"])
def test_options_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_certificate_option(text)
