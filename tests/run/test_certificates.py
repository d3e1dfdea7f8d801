# SPDX-License-Identifier: Apache-2.0
"""Certificates as their owners have them, made here with cryptography and read back with openssl."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from asn1crypto import core as asn1_core
from asn1crypto import pem as asn1_pem
from asn1crypto import pkcs12 as asn1
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from harness.errors import UsageError
from harness.run.certificates import Certificate, load_certificates, parse_certificate_option
from tests.conftest import SAMPLES, vmrole

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | dsa.DSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
PASSWORD = b"p\xc3\xa4ss word"


@dataclass
class Pair:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
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


def load_certificate(path: Path, store: str = "My", password: bytes | None = None) -> Certificate:
    """The only one of a file."""
    (found,) = load_certificates(path, store, password)
    return found


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
        assert found.warnings == () or "CN=other" in found.warnings[0]
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
    assert "is a public key and not" in said(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert "damaged" in said(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "damaged" in said(pair.pem() + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert "file" in said(damaged(pair.pfx()))
    assert "larger than" in said(pair.pem() + bytes(2_000_000))
    assert "does not exist" in refused(tmp_path / "absent")
    assert "is a folder" in refused(tmp_path)
    assert "does not exist" in refused(Path("/dev/zero"))
    assert "cannot be read" in refused(Path("x" * 5000))


# ---- more than one, and what is odd


def issue(
    name: str, by: tuple[str, PrivateKey] | None = None, *, ca: bool = False, key: PrivateKey | None = None
) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate of ``name`` that ``by`` issued, its own issuer without one, and its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer, signer = by or (name, key)
    now = datetime.datetime.now(datetime.UTC)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .sign(signer, algorithm)
    )
    return certificate, key


def pem_of(*items: x509.Certificate | PrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return b"".join(
        item.public_bytes(serialization.Encoding.PEM)
        if isinstance(item, x509.Certificate)
        else item.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        for item in items
    )


@pytest.fixture(scope="module")
def chain() -> tuple[tuple[x509.Certificate, PrivateKey], ...]:
    """An end, an intermediate and a root, with their keys."""
    root, root_key = issue("root", ca=True)
    middle, middle_key = issue("middle", ("root", root_key), ca=True)
    end, end_key = issue("end", ("middle", middle_key))
    return (end, end_key), (middle, middle_key), (root, root_key)


def stores(found: Sequence[Certificate]) -> list[tuple[str, str, bool]]:
    return [(item.subject, item.store, item.key_pem is not None) for item in found]


CHAIN = [("CN=end", "My", True), ("CN=middle", "CA", False), ("CN=root", "Root", False)]


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_chain_goes_where_issuers_are_looked_for(
    chain: tuple[tuple[x509.Certificate, PrivateKey], ...], tmp_path: Path, password: bytes | None
) -> None:
    (end, key), (middle, _), (root, _) = chain
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    pfx = pkcs12.serialize_key_and_certificates(None, key, end, [root, middle], encryption)
    found = load_certificates(write(tmp_path, pfx), "My", password)
    assert stores(found) == CHAIN and not any(item.warnings for item in found)
    for data in (pem_of(key, end, middle, root), pem_of(root, middle, end, key), pem_of(root, end, middle, end, key)):
        assert stores(load_certificates(write(tmp_path, data))) == CHAIN
    own = load_certificates(write(tmp_path, pfx), "WebHosting", password)
    assert [item.store for item in own] == ["WebHosting", "CA", "Root"]


def test_a_file_without_keys_goes_into_one_store(
    chain: tuple[tuple[x509.Certificate, PrivateKey], ...], tmp_path: Path
) -> None:
    certificates = [certificate for certificate, _ in chain]
    wanted = [("CN=end", "CA", False), ("CN=middle", "CA", False), ("CN=root", "CA", False)]
    pem = serialization.Encoding.PEM
    for data in (
        pem_of(*certificates),
        pem_of(*certificates).replace(b" CERTIFICATE-", b" X509 CERTIFICATE-"),
        pkcs7.serialize_certificates(certificates, pem),
        pkcs7.serialize_certificates(certificates, serialization.Encoding.DER),
        pkcs12.serialize_key_and_certificates(None, None, None, certificates, serialization.NoEncryption()),
        pem_of(*certificates).decode().encode("utf-16"),
    ):
        assert sorted(stores(load_certificates(write(tmp_path, data), "CA"))) == wanted
    with pytest.raises(UsageError, match="not its private key"):
        load_certificates(write(tmp_path, pem_of(*certificates)))


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_every_identity_of_a_file_is_installed(tmp_path: Path, password: bytes | None) -> None:
    (one, one_key), (two, two_key) = issue("one"), issue("two", key=rsa.generate_private_key(65537, 2048))
    wanted = [("CN=one", "My", True), ("CN=two", "My", True)]
    assert stores(load_certificates(write(tmp_path, pem_of(one, one_key, two, two_key)))) == wanted
    assert stores(load_certificates(write(tmp_path, pem_of(two_key, one_key, one, two)))) == wanted
    path = pfx_of_two(tmp_path, password, (one, one_key), (two, two_key))
    found = load_certificates(path, "My", password)
    assert sorted(stores(found)) == wanted and not any(item.warnings for item in found)
    for item in found:
        key = serialization.load_pem_private_key(item.key_pem or b"", None)
        assert key.public_key() == x509.load_pem_x509_certificate(item.crt_pem).public_key()


def pfx_of_two(
    folder: Path,
    password: bytes | None,
    one: tuple[x509.Certificate, PrivateKey],
    two: tuple[x509.Certificate, PrivateKey],
) -> Path:
    """A PFX of two identities, as Windows exports several at once; no program here writes one, so two are joined."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    contents = []
    for certificate, key in (one, two):
        data = pkcs12.serialize_key_and_certificates(None, key, certificate, None, encryption)
        contents += list(asn1.Pfx.load(data).authenticated_safe)
    joined = asn1.AuthenticatedSafe(contents)
    info = {"content_type": "data", "content": joined.dump()}
    pfx = asn1.Pfx({"version": "v3", "auth_safe": info})
    if password:
        salt, rounds = b"saltsalt", 2048
        mac = hmac.new(mac_key(password, salt, rounds), joined.dump(), "sha1").digest()
        digest = {"digest_algorithm": {"algorithm": "sha1"}, "digest": mac}
        pfx["mac_data"] = {"mac": digest, "mac_salt": salt, "iterations": rounds}
    return write(folder, pfx.dump())


def mac_key(password: bytes, salt: bytes, rounds: int) -> bytes:
    """RFC 7292, appendix B.2, for SHA-1 and the first 20 bytes of the kind 3."""
    text = password.decode().encode("utf-16-be") + b"\0\0"
    block = b"\3" * 64 + (salt * 64)[:64] + (text * 64)[: -(-len(text) // 64) * 64]
    for _ in range(rounds):
        block = hashlib.sha1(block).digest()
    return block


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    (one, key), (stranger, _), (_, spare) = issue("one"), issue("stranger"), issue("spare")
    (found,) = load_certificates(write(tmp_path, pem_of(one, stranger, key, spare)))
    assert found.subject == "CN=one"
    assert "left out, since they have no key and issue no other: CN=stranger" in found.warnings[0]
    assert "left out a private key that belongs to none" in found.warnings[1]
    assert found.secrets


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate,
        ed448.Ed448PrivateKey.generate,
        lambda: dsa.generate_private_key(2048),
        lambda: rsa.generate_private_key(65537, 3072),
    ],
)
def test_kinds_of_keys(tmp_path: Path, make_key: Callable[[], PrivateKey]) -> None:
    key = make_key()
    certificate, _ = issue("kind", key=key)
    pfx = pkcs12.serialize_key_and_certificates(None, key, certificate, None, serialization.NoEncryption())
    for data in (pem_of(certificate, key), pfx):
        found = load_certificate(write(tmp_path, data))
        told = [text for text in found.warnings if "which Windows does not have" in text]
        assert bool(told) == isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        assert found.key_pem and found.key_pem.decode() in found.secrets


def with_serial(number: bytes, pair: Pair) -> bytes:
    """The pair's certificate with another serial number; its signature is not looked at."""
    certificate = asn1_x509.Certificate.load(pair.der())
    certificate["tbs_certificate"]["serial_number"] = asn1_core.Integer.load(b"\x02" + bytes([len(number)]) + number)
    armoured: bytes = asn1_pem.armor("CERTIFICATE", certificate.dump(force=True))
    return armoured + pair.key_pem()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (b"\xfb", "has the serial number -5, which is not positive: many programs refuse it"),
        (b"\x00", "has the serial number 0, which is not positive"),
        (b"\x7f" + bytes(20), "which has more than 20 bytes"),
        (b"\x7f" + bytes(19), None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_serial_numbers_are_a_sentence(tmp_path: Path, pair: Pair, number: bytes, said: str | None) -> None:
    found = load_certificate(write(tmp_path, with_serial(number, pair)))
    assert found.key_pem
    assert [said is not None and said in text for text in found.warnings] == [True] * (said is not None)


def test_a_serial_number_is_no_warning_of_a_library(tmp_path: Path, pair: Pair) -> None:
    path = write(tmp_path, with_serial(b"\xfb", pair))
    wrong = ("--local-resource", "a", "--local-resource", "A")  # looked at after the certificates
    done = vmrole(
        "run", SAMPLES / "hello-linux", "-p", "Greeting=x", "--certificate", path, *wrong, PYTHONWARNINGS="error"
    )
    assert done.code == 2 and "differs only in case" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "ryptography" not in done.stderr


def test_what_it_is_instead_is_said(pair: Pair, tmp_path: Path) -> None:
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")]))
        .sign(pair.key, hashes.SHA256())
    )
    der, pem = serialization.Encoding.DER, serialization.Encoding.PEM
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    private = serialization.PrivateFormat.PKCS8
    for data, what in (
        (request.public_bytes(der), "is a certificate request"),
        (request.public_bytes(pem), "is a certificate request"),
        (request.public_bytes(pem).replace(b" CERTIFICATE", b" NEW CERTIFICATE"), "is a certificate request"),
        (pair.key.public_key().public_bytes(der, public), "is a public key"),
        (pair.key.public_key().public_bytes(pem, public), "is a public key"),
        (pair.key.private_bytes(der, private, serialization.NoEncryption()), "is a private key without its"),
    ):
        assert what in refused(write(tmp_path, data))


@pytest.mark.parametrize("algorithm", ["PBE-SHA1-RC2-40", "PBE-SHA1-3DES", "AES-256-CBC"])
@pytest.mark.parametrize("password", ["", "geheim"])
def test_pfx_files_of_all_ages(
    chain: tuple[tuple[x509.Certificate, PrivateKey], ...], tmp_path: Path, algorithm: str, password: str
) -> None:
    (end, key), (middle, _), (root, _) = chain
    source, target = write(tmp_path, pem_of(end, key, middle, root), "all.pem"), tmp_path / "all.pfx"
    subprocess.run(
        [
            *("openssl", "pkcs12", "-export", "-legacy", "-in", source, "-out", target, "-passout", f"pass:{password}"),
            *("-keypbe", "PBE-SHA1-3DES" if algorithm.startswith("PBE") else algorithm, "-certpbe", algorithm),
        ],
        check=True,
    )
    assert stores(load_certificates(target, "My", password.encode() or None)) == CHAIN


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
