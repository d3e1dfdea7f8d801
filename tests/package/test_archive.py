# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import PackageError, UsageError, VmRoleError
from harness.package import archive as archive_module
from harness.package import pack_extension, read_package
from harness.package.archive import CONTENT_TYPES
from harness.package.names import safe_name
from harness.package.pack import content_types
from tests.package.material import SAMPLES, extension, published_folders, write, zip_of

DOCUMENT = json.dumps(extension(DataPackage={"Version": "1.0.0.0", "Location": "src"})).encode()
PROFILE = b"\xef\xbb\xbf" + DOCUMENT.replace(b"{", b"{\r\n", 1)


def info_of(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def test_an_archive_as_they_are(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "With Blank - NVGRE.resextpkg",
        {"other name.resext": PROFILE, "src/Scripts/en-US/": b"", "src/Scripts/en-US/a.psd1": b"1", CONTENT_TYPES: b""},
    )
    package = read_package(path)
    assert (package.kind, package.name, package.document.file) == ("archive", "Small", "other name.resext")
    assert [entry.path for entry in package.payload.files] == ["Scripts/en-US/a.psd1"]
    assert package.payload.read("Scripts/en-US/a.psd1") == b"1"
    assert package.findings == ()
    assert package.text.startswith("{\r\n")


def test_the_executable_bit_comes_from_unix_archives(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info_of("src/run.sh", stat.S_IFREG | 0o755), "exit 0\n")
        archive.writestr(info_of("src/read.me", stat.S_IFREG | 0o644), "hello\n")
    package = read_package(path)
    assert {entry.path: entry.executable for entry in package.payload.files} == {"run.sh": True, "read.me": False}
    package.payload.extract(tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out" / "run.sh").stat().st_mode) == 0o755
    assert (tmp_path / "out" / "read.me").read_text() == "hello\n"
    assert "content-types-missing" in {finding.code for finding in package.findings}


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "src/../../evil",
        "..\\evil",
        "/etc/passwd",
        "\\windows\\system32",
        "c:/evil",
        "c:evil",
        "src//a",
        "a/./b",
        "src/\na",
        "src/a\0b",
        "src/a:b",
        "src/NUL",
        "src/com1.txt",
        "src/con .txt",
        "CONIN$/a",
        "src/conout$",
        "src/COM\u00b9.log",
        "src/what?",
        "src/a*b",
        "src/<a>",
        "src/a|b",
        'src/"a"',
        "src/a.ps1.",
        "src/dir /x",
        "src/dir./x",
        "src/a ",
        "src/...",
        "x" * 300,
    ],
)
def test_hostile_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError) as caught:
        safe_name(name, "x.resextpkg")
    assert "x.resextpkg" in caught.value.message and "\n" not in caught.value.message
    path = tmp_path / "x.resextpkg"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.resext", DOCUMENT)
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"")
    with pytest.raises(PackageError):
        read_package(path)


@pytest.mark.parametrize(
    "pair",
    [
        ("src/a", "src/A"),
        ("src/a", "src/a"),
        ("src/\u00e4", "src/\u00c4"),
        ("src/\u00e4", "src/a\u0308"),
        ("src/stra\u00dfe", "src/STRASSE"),
        ("src/a", "src/a/b"),
        ("src/a/b/c/d", "src/A"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide(tmp_path: Path, pair: tuple[str, str]) -> None:
    path = tmp_path / "x.resextpkg"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.resext", *pair):
            archive.writestr(name, DOCUMENT)
    with pytest.raises(PackageError, match=r"two entries|both as a file"):
        read_package(path)


@pytest.mark.parametrize(("mode", "what"), [(stat.S_IFLNK | 0o777, "link"), (stat.S_IFIFO | 0o644, "special")])
def test_links_and_special_files(tmp_path: Path, mode: int, what: str) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info_of("src/a", mode), "/etc/passwd")
    with pytest.raises(PackageError, match=what):
        read_package(path)


def test_encrypted_entries(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] | 1)
    path.write_bytes(data)
    with pytest.raises(PackageError, match="encrypted"):
        read_package(path)


def test_a_preallocated_file_is_payload(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT, "src/empty.mdf": bytes(80 * 1024**2)})
    assert path.stat().st_size * 200 < 80 * 1024**2
    assert read_package(path).payload.size == 80 * 1024**2


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TOTAL", 1000)
    path = zip_of(tmp_path / "total.resextpkg", {"x.resext": DOCUMENT, "src/zeros": bytes(1001)})
    with pytest.raises(PackageError, match="unpacks to"):
        read_package(path)
    monkeypatch.setattr(archive_module, "MAX_ENTRIES", 5)
    path = zip_of(tmp_path / "many.resextpkg", {"x.resext": DOCUMENT} | {f"src/{i}": b"" for i in range(5)})
    with pytest.raises(PackageError, match="entries"):
        read_package(path)


def test_a_size_that_lies_is_damage(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT, "src/a": bytes(50_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 50_000), struct.pack("<I", 10)))
    with pytest.raises(PackageError, match="damaged"):
        read_package(path)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda folder: folder / "missing.resextpkg", UsageError, "there is no"),
        (lambda folder: _file(folder / "a.resextpkg", b"hello"), PackageError, "no package"),
        (lambda folder: _file(folder / "a.resextpkg", b"PK\x03\x04"), PackageError, "no package"),
        (lambda folder: _file(folder / "a.resextpkg", b""), PackageError, "no package"),
        (lambda folder: zip_of(folder / "a.resextpkg", {"b.txt": b""}), PackageError, "no resource extension"),
        (lambda folder: zip_of(folder / "a.zip", {"a.resext": b"{}", "b.resext": b"{}"}), PackageError, "2 resource"),
        (lambda folder: zip_of(folder / "a.zip", {"a.resdef": b"{}"}), PackageError, "is wanted here"),
        (lambda folder: _file(folder / "a.resdefpkg", b""), PackageError, "is wanted here"),
        (lambda folder: _file(folder / "a.resdef", b"{}"), PackageError, "is wanted here"),
        (lambda folder: _file(folder / "a.json", b'{"IntrinsicSettings": {}}'), PackageError, "is wanted here"),
        (lambda folder: folder / "missing.resdef", UsageError, "there is no"),
        (lambda folder: folder, PackageError, "no resource extension"),
        (lambda folder: _file(folder / "a.resext", b"[]"), PackageError, "not a JSON object"),
        (lambda folder: _file(folder / "a.resext", b"{}"), PackageError, "no ExtensionSettings"),
        (lambda folder: _file(folder / "a.resext", b'{"a"'), PackageError, "a.resext, line 1, column 5"),
        (lambda folder: _file(folder / "a.resext", b"\x7fELF\x80"), PackageError, "line 1"),
    ],
)
def test_what_is_no_package_is_one_sentence(tmp_path: Path, make, error, match: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=match) as caught:
        read_package(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_folders_with_several_documents_or_links(tmp_path: Path) -> None:
    write(tmp_path, extension(), "a.resext")
    write(tmp_path, extension(), "b.resext")
    with pytest.raises(PackageError, match=r"a\.resext, b\.resext"):
        read_package(tmp_path)
    (tmp_path / "b.resext").unlink()
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(PackageError, match="is a link"):
        read_package(tmp_path)


@pytest.mark.parametrize("location", ["..", "../x", "/etc", "a/../../b", "c:\\x"])
def test_a_payload_location_outside_the_package(tmp_path: Path, location: str) -> None:
    document = extension(DataPackage={"Version": "1.0.0.0", "Location": location})
    with pytest.raises(PackageError, match="leads out"):
        read_package(write(tmp_path, document))


def test_a_location_in_other_letters_or_with_backslashes(tmp_path: Path) -> None:
    document = json.dumps(extension(DataPackage={"Version": "1.0.0.0", "Location": "SRC\\Deep\\"})).encode()
    package = read_package(zip_of(tmp_path / "a.resextpkg", {"a.resext": document, "src/deep/x": b"1"}))
    assert package.payload.read("x") == b"1"


def test_a_bare_document_takes_the_payload_beside_it(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("1")
    (tmp_path / "unrelated").symlink_to("/etc")
    package = read_package(_file(tmp_path / "a.json", DOCUMENT))
    assert [entry.path for entry in package.payload.files] == ["a"]
    with package.payload.open("a") as stream:
        assert stream.read() == b"1"
    with pytest.raises(PackageError, match="no file"):
        package.payload.read("../a.json")


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_archives_are_refused_or_read(tmp_path: Path, noise: bytes, at: int, grow: bool) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": DOCUMENT, "src/a": b"hello" * 10, CONTENT_TYPES: b"x"})
    data = path.read_bytes()
    at = min(at, len(data))
    path.write_bytes(data[:at] + noise + data[at if grow else at + len(noise) :])
    try:
        package = read_package(path)
        for entry in package.payload.files:
            package.payload.read(entry.path)
    except VmRoleError as error:
        assert error.exit_code == 2


# ---- packing


def test_the_packed_sample_is_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "hello-linux.resextpkg"
    pack_extension(SAMPLES / "hello-linux", target)
    assert target.read_bytes() == (SAMPLES / "hello-linux.resextpkg").read_bytes()


def test_packing_is_reproducible_and_reads_back(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "src" / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("junk")
    _file(folder / "zz.resext", DOCUMENT)
    _file(folder / "src" / "b" / "run", b"#!/bin/sh\n").chmod(0o700)
    _file(folder / "src" / "a.ps1", b"x" * 1000)
    pack_extension(folder, tmp_path / "one.resextpkg")
    (folder / "src" / "a.ps1").touch()
    pack_extension(folder, tmp_path / "two.resextpkg")
    assert (tmp_path / "one.resextpkg").read_bytes() == (tmp_path / "two.resextpkg").read_bytes()
    package = read_package(tmp_path / "one.resextpkg")
    with zipfile.ZipFile(tmp_path / "one.resextpkg") as archive:
        assert archive.namelist() == ["zz.resext", "src/a.ps1", "src/b/run", CONTENT_TYPES]
        assert b'<Override PartName="/src/b/run"' in archive.read(CONTENT_TYPES)
    package.payload.extract(tmp_path / "out" / "src")
    _file(tmp_path / "out" / "zz.resext", DOCUMENT)
    pack_extension(tmp_path / "out", tmp_path / "three.resextpkg")
    assert (tmp_path / "three.resextpkg").read_bytes() == (tmp_path / "one.resextpkg").read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in", "out", "one.resextpkg", "two.resextpkg", "three.resextpkg"}, "nothing half-made is left"


def test_digests_need_no_room(tmp_path: Path) -> None:
    """A folder and a package of it have the same, with the modes that its files get in a guest."""
    (tmp_path / "in" / "src").mkdir(parents=True)
    _file(tmp_path / "in" / "zz.resext", DOCUMENT)
    _file(tmp_path / "in" / "src" / "run", b"#!/bin/sh\n").chmod(0o700)
    _file(tmp_path / "in" / "src" / "a.ps1", b"x" * 3_000_000)
    pack_extension(tmp_path / "in", tmp_path / "one.resextpkg")
    package = read_package(tmp_path / "one.resextpkg")
    package.payload.extract(tmp_path / "out")
    found = package.payload.digests()
    assert found == read_package(tmp_path / "in").payload.digests() and len(found) == 2
    for name, digest in found.items():
        path = tmp_path / "out" / name
        assert digest == f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode:o}"


def test_content_types_are_those_of_the_published_packages() -> None:
    for folder in published_folders():
        names = [line.split("\t")[0] for line in (folder / "ENTRIES.tsv").read_text("utf-8").splitlines()]
        ours = content_types(iter([n for n in names if not n.endswith("/") and n != CONTENT_TYPES]))
        theirs = (folder / CONTENT_TYPES).read_bytes()
        assert sorted(ours.split(b"<")) == sorted(theirs.split(b"<")), folder.name
