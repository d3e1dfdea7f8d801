# SPDX-License-Identifier: Apache-2.0
"""What one instance is given beside its answer document: keys, certificates, payload (docs/instance-medium.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HostError, PackageError
from harness.run.answer import Answer


@dataclass(frozen=True, slots=True)
class SshKeyPair:
    """An SSH key: ``private`` in OpenSSH's own PEM format (a secret), ``public`` as one line."""

    private: bytes = field(repr=False)
    public: str


def make_ssh_keypair(comment: str = "") -> SshKeyPair:
    """A new ed25519 key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return SshKeyPair(private, f"{public.decode('ascii')} {comment}".strip())


def instance_files(
    answer: Answer, host_key: SshKeyPair, payload_root: Path | None = None
) -> Iterator[tuple[str, int, bytes | Path | None]]:
    """What is on a medium but the components, as names, modes and contents for the agent's channel; folders have None.

    The answer document is last: its time is of this moment. Raises PackageError for a payload no guest can take.
    """
    yield "ssh/host_ed25519", 0o600, host_key.private
    yield "ssh/host_ed25519.pub", 0o644, host_key.public.encode() + b"\n"
    for name, data in sorted(certificate_files(answer).items()):
        yield f"certificates/{name}", 0o600, data
    if payload_root is not None:
        yield "payload/", 0o755, None
        yield from payload_files("payload", payload_root)
    yield "answer.conf", 0o600, answer.render()


def payload_files(name: str, source: Path) -> Iterator[tuple[str, int, bytes | Path | None]]:
    """The tree ``source`` below ``name``, as ``instance_files`` has it."""
    for entry, mode in payload_entries(source):
        below = f"{name}/{entry.name}"
        if stat.S_ISDIR(mode):
            yield f"{below}/", 0o755, None
            yield from payload_files(below, Path(entry.path))
        else:
            yield below, 0o755 if mode & 0o111 else 0o644, Path(entry.path)


def certificate_files(answer: Answer) -> dict[str, bytes]:
    """File names and contents; the same certificate may go into several stores, with its key for one of them."""
    files: dict[str, bytes] = {}
    for certificate in answer.certificates:
        files[f"{certificate.thumbprint}.crt"] = certificate.crt_pem
        if certificate.key_pem is not None:
            files[f"{certificate.thumbprint}.prv"] = certificate.key_pem
    return files


def payload_entries(source: Path) -> Iterator[tuple[os.DirEntry[str], int]]:
    """The files and folders in ``source`` with their modes; links were refused when the package was read, so that one
    here is a change behind our back."""
    try:
        with os.scandir(source) as entries:
            # By bytes: the order must not depend on the host's file system or locale.
            found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in found:
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise PackageError(
                    f"the payload has {entry.path}, which is neither a file nor a folder", hint="take it out"
                )
            yield entry, mode
    except OSError as error:
        raise HostError(f"the payload {source} cannot be read: {error.strerror}") from None
