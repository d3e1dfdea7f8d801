# SPDX-License-Identifier: Apache-2.0
"""Archives as other packers write them, and as transfers and attackers leave them."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import HostError, PackageError
from harness.package import pack_extension, read_any, read_package
from harness.package.archive import CONTENT_TYPES
from harness.package.folder import list_folder
from harness.package.lint import lint
from harness.plan.linux import command_findings
from tests.conftest import vmrole
from tests.package.material import definition, extension, with_profile, write, zip_of
from tests.plan.test_plan import script

PART = "11111111-2222-3333-4444-555555555555"
COMPOSED, DECOMPOSED = "Gr\u00fc\u00dfe", "Gru\u0308\u00dfe"


def document(location: str = "src", folder: str = "Scripts", command: str = ".\\a.ps1") -> bytes:
    """An extension of which a script names one file of its payload."""
    step = script(ApplicationPayloadId=PART, ExecutableAndParams={"Executable": "x.exe", "Parameters": command})
    made = with_profile(windows={"ProvisioningScripts": [step]})
    made["DataPackage"] = {"Version": "1.0.0.0", "Location": location}
    made["ExtensionSettings"]["ApplicationProfile"]["ApplicationPayload"] = [{"ID": PART, "RelativePath": folder}]
    return json.dumps(made, ensure_ascii=False).encode()


def codes(path: Path) -> set[str]:
    package = read_package(path)
    found = {finding.code for finding in (*package.findings, *lint(package.document, package.payload.files))}
    return found - {"content-types-missing"}


def raw_zip(path: Path, name: bytes, data: bytes = b"1", *, flags: int = 0, extra: bytes = b"") -> Path:
    """A package whose second entry has these bytes for its name; the field ``extra`` is in the directory only."""
    zip_of(path, {"x.resext": document()})
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
        offset, count = start, len(archive.infolist()) + 1
    old = path.read_bytes()
    end = old.index(b"PK\x05\x06", start)
    common = (flags, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *common, 0) + name + data
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *common, len(extra), 0, 0, 0, 0, offset) + name + extra
    directory = old[start:end] + central
    finish = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start + len(local), 0)
    path.write_bytes(old[:start] + local + directory + finish)
    return path


def unicode_path(name: str, of: bytes) -> bytes:
    data = b"\1" + struct.pack("<I", zlib.crc32(of)) + name.encode()
    return struct.pack("<HH", 0x7075, len(data)) + data


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("packed", [COMPOSED, DECOMPOSED])
def test_accents_written_in_two_ways_are_one_name(tmp_path: Path, written: str, packed: str) -> None:
    text = document(f"{written}1", written, f".\\{written}.ps1")
    name = f"{packed}1/{packed}/{packed}.ps1"
    assert codes(zip_of(tmp_path / "x.resextpkg", {"x.resext": text, name: b"1"})) == set()
    folder = tmp_path / "folder"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"1")
    (folder / "x.resext").write_bytes(text)
    for path in (folder, folder / "x.resext", tmp_path / "x.resextpkg"):
        assert codes(path) == set()
        # in the guest the names are those of the commands
        read_package(path).payload.extract(tmp_path / path.suffix / "out")
        assert (tmp_path / path.suffix / "out" / written / f"{written}.ps1").read_bytes() == b"1"
    pack_extension(folder, tmp_path / "y.resextpkg")
    assert codes(tmp_path / "y.resextpkg") == set()


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("packed", [COMPOSED, DECOMPOSED])
def test_linux_commands_name_files_in_either_way(tmp_path: Path, written: str, packed: str) -> None:
    made = with_profile(f"/bin/sh -c $VMROLE_PAYLOAD/{written}.sh", "/bin/sh -c $VMROLE_PAYLOAD/other.sh")
    made["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    text = json.dumps(made, ensure_ascii=False).encode()
    package = read_package(zip_of(tmp_path / "x.resextpkg", {"x.resext": text, f"src/{packed}.sh": b"1"}))
    (missing,) = (found for found in command_findings(package) if found.code == "command-file-missing")
    assert "other.sh" in missing.sentence


@pytest.mark.parametrize("placeholder", ["\u8868.ps1".encode("cp932"), b"_.ps1"])
def test_the_name_of_an_entry_is_in_its_own_field(tmp_path: Path, placeholder: bytes) -> None:
    raw = b"src/Scripts/" + placeholder
    path = raw_zip(tmp_path / "x.resextpkg", raw, extra=unicode_path("src/Scripts/\u8868.ps1", raw))
    package = read_package(path)
    assert [entry.path for entry in package.payload.files] == ["Scripts/\u8868.ps1"]
    assert package.payload.read("Scripts/\u8868.ps1") == b"1"
    assert not codes(path) & {"archive-backslash", "archive-name-encoding"}


def test_a_field_of_another_name_is_not_believed(tmp_path: Path) -> None:
    raw = b"src/a.ps1"
    for extra in (unicode_path("src/b.ps1", b"other"), b"\x75\x70\x00\x00", b"\x75\x70\x08\x00\2" + bytes(7)):
        path = raw_zip(tmp_path / "x.resextpkg", raw, extra=extra)
        assert [entry.path for entry in read_package(path).payload.files] == ["a.ps1"]
    evil = raw_zip(tmp_path / "x.resextpkg", raw, extra=unicode_path("../b.ps1", raw))
    with pytest.raises(PackageError, match="leads out"):
        read_package(evil)


def test_names_without_a_mark(tmp_path: Path) -> None:
    utf8 = raw_zip(tmp_path / "mac.resextpkg", f"src/{DECOMPOSED}".encode())
    assert [entry.path for entry in read_package(utf8).payload.files] == [COMPOSED]
    assert "archive-name-encoding" not in codes(utf8)
    old = raw_zip(tmp_path / "dos.resextpkg", f"src/{COMPOSED}".encode("cp437"))
    assert [entry.path for entry in read_package(old).payload.files] == [COMPOSED]
    assert "archive-name-encoding" in codes(old)
    marked = raw_zip(tmp_path / "marked.resextpkg", f"src/{COMPOSED}".encode(), flags=0x800)
    assert "archive-name-encoding" not in codes(marked)


@pytest.mark.parametrize(
    ("method", "name"),
    [(9, "Deflate64"), (12, "BZIP2"), (14, "LZMA"), (93, "Zstandard"), (98, "PPMd"), (77, "the method 77")],
)
def test_a_method_that_packages_do_not_have_is_named(tmp_path: Path, method: int, name: str) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/large.bin": bytes(1000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 10, method)
    struct.pack_into("<H", data, data.rindex(b"PK\3\4") + 8, method)
    path.write_bytes(data)
    done = vmrole("check", path)
    assert done.code == 2
    assert f"packed with {name}, 'src/large.bin'" in done.stderr and "-mm=Deflate" in done.stderr


def flipped(data: bytearray) -> None:
    data[data.rindex(b"src/a.bin", 0, data.index(b"PK\1\2")) + 40] ^= 1


def other_size(data: bytearray) -> None:
    struct.pack_into("<I", data, data.rindex(b"PK\3\4") + 22, 7)


def other_checksum(data: bytearray) -> None:
    struct.pack_into("<I", data, data.rindex(b"PK\3\4") + 14, 7)


def other_method(data: bytearray) -> None:
    struct.pack_into("<H", data, data.rindex(b"PK\3\4") + 8, 0)


def other_name(data: bytearray) -> None:
    at = data.index(b"src/a.bin")
    data[at : at + 9] = b"src/b.bin"


def more_than_there_is(data: bytearray) -> None:
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.rindex(mark) + offset, 99_999)


def elsewhere(data: bytearray) -> None:
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 42, 5)


def no_header(data: bytearray) -> None:
    at = data.rindex(b"PK\3\4")
    data[at : at + 4] = b"XXXX"


@pytest.mark.parametrize(
    "damage",
    [flipped, other_size, other_checksum, other_method, other_name, more_than_there_is, elsewhere, no_header],
)
def test_damage_is_told_before_a_machine_starts(
    tmp_path: Path, damage: Callable[[bytearray], None], state_folder: Path
) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/a.bin": os.urandom(3000)})
    assert "payload-missing" in codes(path)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    commands: tuple[tuple[str | Path, ...], ...] = (("check", path), ("plan", path))
    if damage is flipped:
        commands += (("run", path, "--output", tmp_path / "out"),)
    for arguments in commands:
        done = vmrole(*arguments)
        assert done.code == 2, done.stdout
        assert "is damaged: " in done.stderr or "share their bytes" in done.stderr, done.stderr
    assert not (tmp_path / "out" / "console.log").exists()


def test_a_definition_with_a_damaged_text_is_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resdefpkg", {"x.resdef": json.dumps(definition()).encode(), "logo.png": bytes(999)})
    read_any(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"logo.png") + 9] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"logo\.png in x\.resdefpkg is damaged"):
        read_any(path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """As archives are made that unpack to a thousand times what their one piece of data has."""
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/a": bytes(100_000), "src/b": b"1"})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, second, start = archive.getinfo("src/a"), archive.getinfo("src/b"), archive.start_dir
    swallowing = bytearray(data)
    at = data.index(b"PK\1\2", start + 1)
    # the first one's packed bytes reach over the second entry
    longer = start - first.header_offset - 30 - len("src/a")
    struct.pack_into("<I", swallowing, at + 20, longer)
    struct.pack_into("<I", swallowing, first.header_offset + 18, longer)
    path.write_bytes(swallowing)
    assert second.header_offset > first.header_offset
    with pytest.raises(PackageError, match="share their bytes"):
        read_package(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data[: len(data) // 2], "its end is missing: it was not copied as a whole"),
        (lambda data: data[:-1], "no package"),
        (lambda data: b"PK\7\x08" + data[:-9], "several parts"),
        (lambda data: data[-22:-18] + b"\1\0\1\0" + data[-14:], "several parts"),
        (lambda data: data[-22:-18] + bytes(18), "no resource extension"),
        (lambda data: b"", "it is empty"),
    ],
)
def test_what_is_left_of_an_archive(tmp_path: Path, change: Callable[[bytes], bytes], what: str) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/Scripts/a.ps1": b"1"})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PackageError, match=what):
        read_package(path)


def test_a_part_of_an_archive_in_parts(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/Scripts/a.ps1": b"1"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 34, 1)
    path.write_bytes(data)
    with pytest.raises(PackageError, match="one part of an archive in several parts"):
        read_package(path)


def test_archives_that_are_only_unusual(tmp_path: Path) -> None:
    files: dict[str, Any] = {"x.resext": document(), "src/Scripts/a.ps1": b"1" * 99}
    path = tmp_path / "x.resextpkg"
    with zipfile.ZipFile(path, "w") as archive:  # sizes behind the content, zip64 throughout, a comment
        archive.comment = b"by hand"
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as sink:
                sink.write(data)
    assert codes(path) == set()
    whole = path.read_bytes()
    streamed = tmp_path / "streamed.resextpkg"
    with zipfile.ZipFile(cast(Any, _NoSeek(streamed)), "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert codes(streamed) == set()
    path.write_bytes(b"MZ" + bytes(998) + whole)
    assert codes(path) == {"archive-data-before"}
    zip_of(path, files | {"__MACOSX/src/._a.ps1": b"1", "._x.resext": b"1", ".DS_Store": b"1"})
    assert codes(path) == {"archive-junk"}


class _NoSeek:
    """A file that cannot be sought in: zipfile then writes the sizes behind the content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(b"")

    def write(self, data: bytes) -> int:
        with self._path.open("ab") as stream:
            return stream.write(data)

    def flush(self) -> None:
        pass


def test_deep_trees_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.resextpkg"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.resext", document())
        for number in range(3000):
            archive.writestr(f"src/{number}/{'d/' * 400}f", b"")
    package = read_package(path)
    assert len(package.payload.files) == 3000
    (long,) = (finding for finding in package.findings if finding.code == "path-long")
    assert "and 2999 others" in long.sentence


def test_a_path_that_windows_programs_cannot_open(tmp_path: Path) -> None:
    folder = "C:\\ProgramData\\VMRole\\Payload\\Scripts\\"
    fits = "a" * (259 - len(folder))
    for name, told in ((fits, set()), (fits + "a", {"path-long"})):
        files = {"x.resext": document(), "src/Scripts/a.ps1": b"1", f"src/Scripts/{name}": b"1"}
        assert codes(zip_of(tmp_path / "x.resextpkg", files)) == told
    linux = json.dumps(extension(DataPackage={"Version": "1.0.0.0", "Location": "src"})).encode()
    assert codes(zip_of(tmp_path / "x.resextpkg", {"x.resext": linux, f"src/Scripts/{fits}a": b"1"})) == set()


def test_a_payload_without_room_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = read_package(zip_of(tmp_path / "x.resextpkg", {"x.resext": document(), "src/Scripts/a.ps1": b"1"}))
    free = os.statvfs(tmp_path)
    huge = free.f_bavail * free.f_frsize + (1 << 40)
    entry = package.payload.files[0]
    payload = type(package.payload)("src", (type(entry)(entry.path, huge, False),), package.payload.source, "src/")
    with pytest.raises(HostError, match="MiB of room"):
        payload.extract(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# ---- folders


def made_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Mine"
    (folder / "src" / "Scripts").mkdir(parents=True)
    (folder / "src" / "Scripts" / "a.ps1").write_text("1")
    (folder / "x.resext").write_bytes(document())
    return folder


LEFT = (
    "vmrole-runs/1/result.json", "Mine.resextpkg", "old.resdefpkg", "src/Scripts/a.ps1~", "src/Scripts/.a.ps1.swp",
    ".vs/x.suo", ".git/config", "src/.svn/entries", "src/thumbs.db", "src/Desktop.ini", "src/.DS_Store", "._x.resext",
    "__MACOSX/x.resext", "src/#a.ps1#", "src/~$notes.docx", "src/.~lock.a.ods#", "src/Scripts/.a.ps1.swo",
)  # fmt: skip
KEPT = ("src/other.resextpkg", "src/runs/x", "src/data.bak", "src/.profile", "src/a~b", "src/git/config")


def test_what_others_left_in_a_folder_is_not_packed(tmp_path: Path) -> None:
    folder = made_folder(tmp_path)
    for name in (*LEFT, *KEPT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    (folder / ".#x.resext").symlink_to("me@host.1234")  # as an editor that has it open
    done = vmrole("pack", folder)
    assert done.code == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "Mine.resextpkg") as archive:
        assert set(archive.namelist()) == {"x.resext", "src/Scripts/a.ps1", CONTENT_TYPES, *KEPT}
    assert done.stdout.strip() == str(tmp_path / "Mine.resextpkg")
    assert "left out: .#x.resext, ._x.resext, .git, .vs, Mine.resextpkg, __MACOSX" in done.stderr
    assert "and 8 more" in done.stderr
    assert vmrole("check", folder).stdout == vmrole("check", tmp_path / "Mine.resextpkg").stdout
    (folder / "x.resext").rename(folder / "x.resdef")
    (folder / "x.resdef").write_text(json.dumps(definition()))
    assert "left out: " in vmrole("pack", folder).stderr
    with zipfile.ZipFile(tmp_path / "Mine.resdefpkg") as archive:
        assert not {name for name in archive.namelist() if name.startswith(("vmrole-runs", "Mine"))}


def test_runs_beside_the_document_change_nothing(tmp_path: Path) -> None:
    folder = made_folder(tmp_path)
    pack_extension(folder, tmp_path / "1.resextpkg")
    (folder / "vmrole-runs" / "now").mkdir(parents=True)
    (folder / "vmrole-runs" / "now" / "a:b?").write_text("1")
    pack_extension(folder, tmp_path / "2.resextpkg")
    assert (tmp_path / "1.resextpkg").read_bytes() == (tmp_path / "2.resextpkg").read_bytes()
    assert codes(folder) == set()


@pytest.mark.parametrize("name", ["what?.txt", "CON", "a.ps1.", "dir /x", "A.PS1"])
def test_folders_with_names_that_windows_does_not_have(tmp_path: Path, name: str) -> None:
    folder = made_folder(tmp_path)
    file = folder / "src" / "Scripts" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("1")
    for command in ("check", "pack"):
        done = vmrole(command, folder)
        assert done.code == 2 and ("Windows does not have" in done.stderr or "of one name" in done.stderr)


@pytest.mark.parametrize("what", ["file", "folder", "folder above", "pipe"])
def test_a_link_that_comes_after_the_check_is_not_followed(tmp_path: Path, what: str) -> None:
    folder = made_folder(tmp_path)
    secret = tmp_path / "Scripts"
    secret.mkdir()
    (secret / "a.ps1").write_text("secret of the host")
    packages = [read_package(folder), read_package(folder / "x.resext")]
    listing = list_folder(folder)
    file = folder / "src" / "Scripts" / "a.ps1"
    if what in ("file", "pipe"):
        file.unlink()
        if what == "file":
            file.symlink_to(secret / "a.ps1")
        else:
            os.mkfifo(file)
    elif what == "folder":
        file.parent.rename(tmp_path / "away")
        file.parent.symlink_to(secret)
    else:
        (folder / "src").rename(tmp_path / "away")
        (folder / "src").symlink_to(tmp_path)
    for package in packages:
        with pytest.raises(PackageError, match=r"became a link|special file"):
            package.payload.extract(tmp_path / "out")
        assert not (tmp_path / "out" / "Scripts" / "a.ps1").exists()
    with pytest.raises(PackageError, match=r"became a link|special file"):
        listing.open("src/Scripts/a.ps1")


def test_a_bare_document_reads_no_payload_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "a").write_text("1")
    made = tmp_path / "made"
    made.mkdir()
    (made / "src").symlink_to(tmp_path / "real")
    path = write(made, extension(DataPackage={"Version": "1.0.0.0", "Location": "src/deep"}))
    package = read_package(path)
    assert not package.payload and "payload-missing" in {finding.code for finding in package.findings}


@pytest.mark.parametrize("name", ["CON", "nul.txt", "Com1", "LPT9.x", "aux"])
def test_new_refuses_what_check_refuses(tmp_path: Path, name: str) -> None:
    done = vmrole("new", name, "-o", tmp_path / "x")
    assert done.code == 2 and "Windows does not have" in done.stderr and not (tmp_path / "x").exists()
