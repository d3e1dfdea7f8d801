# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.package import Package, read_package
from harness.package.external import Places, with_external
from tests.package.material import SAMPLES, extension, write, zip_of

DATA = b"an installer"
HASH = hashlib.sha256(DATA).hexdigest()


def package(folder: Path, *items: dict[str, Any], files: dict[str, bytes] | None = None) -> Package:
    document = extension(DataPackage={"Version": "1.0.0.0", "Location": "src", "ExternalPayload": list(items)})
    where = folder / "package"
    where.mkdir()
    write(where, document)
    for name, data in (files or {"a.sh": b""}).items():
        (where / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (where / "src" / name).write_bytes(data)
    return read_package(where)


def allowed(folder: Path, **files: bytes) -> Path:
    where = folder / "allowed"
    where.mkdir()
    for name, data in files.items():
        (where / name).write_bytes(data)
    return where


def codes(read: Package) -> list[str]:
    return [finding.code for finding in read.findings]


def test_a_file_that_is_there_is_verified(tmp_path: Path) -> None:
    read = package(tmp_path, {"RelativePath": "Setup\\A.msi", "Hash": HASH.upper()}, files={"setup/a.msi": DATA})
    assert codes(with_external(read)) == []
    (tmp_path / "package/src/setup/a.msi").write_bytes(b"another")
    (finding,) = with_external(read).findings
    assert (finding.code, finding.severity) == ("external-hash", "error")
    assert finding.pointer == "/DataPackage/ExternalPayload/0/Hash" and finding.line == 1


@pytest.mark.parametrize("digest", [HASH, None, "..."])
def test_a_missing_file_comes_from_the_allowed_folder_only(tmp_path: Path, digest: str | None) -> None:
    read = package(tmp_path, {"RelativePath": "setup/a.msi", "Hash": digest, "URLHint": "http://example.org/a.msi"})
    odd = ["external-hash-format"] if digest == "..." else []
    assert sorted(codes(with_external(read))) == [*odd, "external-missing"]
    folder = allowed(tmp_path)
    assert sorted(codes(with_external(read, Places((folder,))))) == [*odd, "external-missing"]
    (folder / "a.msi").write_bytes(DATA)
    whole = with_external(read, Places((folder,)))
    assert codes(whole) == odd
    assert [entry.path for entry in whole.payload.files] == ["a.sh", "setup/a.msi"]
    assert whole.payload.read("setup/a.msi") == DATA and whole.payload.read("a.sh") == b""
    whole.payload.extract(tmp_path / "out")
    assert (tmp_path / "out/setup/a.msi").read_bytes() == DATA


def test_archives_and_packages_without_any_other_payload(tmp_path: Path) -> None:
    folder = allowed(tmp_path, **{"a.msi": DATA})
    read = package(tmp_path, {"RelativePath": "a.msi", "Hash": HASH})
    packed = zip_of(tmp_path / "a.resextpkg", {"small.resext": read.text.encode(), "[Content_Types].xml": b""})
    whole = with_external(read_package(packed), Places((folder,)))
    assert whole.payload.read("a.msi") == DATA
    assert "external-missing" not in codes(whole)


def test_what_is_not_taken(tmp_path: Path) -> None:
    folder = allowed(tmp_path, **{"a.msi": b"another", "c.msi": DATA})
    (tmp_path / "secret").write_bytes(DATA)
    (folder / "link.msi").symlink_to(tmp_path / "secret")
    (folder / "inside.msi").symlink_to(folder / "c.msi")
    items = [
        {"RelativePath": "a.msi", "Hash": HASH},
        {"RelativePath": "../secret"},
        {"RelativePath": "/etc/passwd"},
        {"RelativePath": "c:\\x"},
        {"RelativePath": "link.msi"},
        {"RelativePath": "inside.msi", "Hash": HASH},
        {"Hash": HASH},
    ]
    read = package(tmp_path, *items)
    whole = with_external(read, Places((folder,)))
    assert sorted(codes(whole)) == sorted(
        ["external-hash", "payload-path", "payload-path", "payload-path", "external-missing", "missing-field"]
    )
    assert [entry.path for entry in whole.payload.files] == ["a.sh", "inside.msi"]
    with pytest.raises(UsageError, match="there is no folder"):
        Places.of([str(tmp_path / "none")])


def test_nothing_external_changes_nothing(tmp_path: Path) -> None:
    read = read_package(write(tmp_path, extension()))
    assert with_external(read, Places((SAMPLES,))) is read
