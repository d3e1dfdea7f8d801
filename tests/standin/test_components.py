# SPDX-License-Identifier: Apache-2.0
"""The integration components' installer, made from its sources and really installed, by Wine on this computer."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from urllib.parse import quote

import pycdlib
import pytest

import harness
from harness.deadline import Deadline
from harness.image.catalog import images_folder
from harness.image.windows import INSTALLER, ISO, build_installer
from harness.run.windows.unattend import SERVICE, install_components
from tests.conftest import HANGS
from tests.standin.native import in_wine

PROGRAM = "C:\\Program Files\\VMRole\\vmrole-guest.exe"


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory, wine: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("components")
    build_installer(images_folder() / "windows-components", folder, "1.2.3+test", deadline=Deadline(HANGS))
    # The image has its own, which would keep the files that it shares with another product.
    _wine(wine, "msiexec", "/x", _told(wine)["msi"].partition(" ")[0], "/qn")
    return folder


def _told(wine: dict[str, str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _wine(wine, PROGRAM, "read-back").splitlines())


def _wine(wine: dict[str, str], *argv: str) -> str:
    done = subprocess.run(in_wine(*argv), env=wine, capture_output=True, timeout=HANGS, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout.decode("cp1252").replace("\r\n", "\n")


def _install(wine: dict[str, str], folder: Path) -> None:
    """As an answer file does, with ``folder`` as the medium."""
    medium = Path(wine["WINEPREFIX"]) / "dosdevices/d:"
    medium.unlink(missing_ok=True)
    medium.symlink_to(folder)
    _wine(wine, *(word.strip('"') for word in install_components().line.split(" ", 2)))


def test_the_iso_holds_the_installer(installer: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.open(str(installer / ISO))
    held = io.BytesIO()
    iso.get_file_from_iso_fp(held, joliet_path=f"/{INSTALLER}")
    iso.close()
    assert held.getvalue() == (installer / INSTALLER).read_bytes()


def test_it_installs_a_service_a_record_and_the_answer_file(installer: Path, wine: dict[str, str]) -> None:
    _install(wine, installer)
    assert _wine(wine, PROGRAM, "version") == "1.2.3+test\n"
    told = _told(wine)
    assert told["service"] == "running 2"
    product, _, versions = told["msi"].partition(" ")
    assert versions.split() == [harness.__version__, "1.2.3+test"]
    assert product.startswith("{")
    assert "marker" not in told  # it is no machine of its own yet
    assert told["stand-in"] == "no"
    drive = Path(wine["WINEPREFIX"]) / "drive_c"
    assert b"urn:schemas-microsoft-com:unattend" in (drive / "unattend.xml").read_bytes()
    assert (drive / "Program Files/VMRole/vmrole-run.exe").exists()
    _wine(wine, "msiexec", "/x", product, "/qn")
    assert not (drive / "Program Files/VMRole/vmrole-guest.exe").exists()
    done = subprocess.run(in_wine("net", "start", SERVICE), env=wine, capture_output=True, timeout=HANGS, check=False)
    assert done.returncode != 0


def test_another_version_takes_the_place_of_one_that_runs(
    installer: Path, wine: dict[str, str], tmp_path: Path
) -> None:
    build_installer(images_folder() / "windows-components", tmp_path, "1.2.4+test", deadline=Deadline(HANGS))
    for folder in (installer, tmp_path):
        _install(wine, folder)
    told = _told(wine)
    assert (told["version"], told["service"]) == ("1.2.4+test", "running 2")
    assert told["msi"].split()[2] == "1.2.4+test"


def test_its_service_empties_what_a_recycle_noted(installer: Path, wine: dict[str, str]) -> None:
    """What Windows would do; links are left out, as Wine has none that are Windows'."""
    _install(wine, installer)
    drive = Path(wine["WINEPREFIX"]) / "drive_c"
    state, resources = drive / "ProgramData/VMRole", drive / "Resources"
    state.mkdir(parents=True, exist_ok=True)
    names = ("Work", "With blanks", "Removed", "Kept")
    lines = ["schema=1", "instance=a", *(f"local-resource=5 {quote(name)}" for name in names)]
    (state / "instance.conf").write_text("".join(f"{line}\n" for line in lines))
    deep = resources / "Work" / "/".join(["folder"] * 200)
    deep.mkdir(parents=True)
    for path in (deep / "file", resources / "Work/readonly", resources / "With blanks/a b", resources / "Kept/file"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    (resources / "Work/readonly").chmod(0o444)
    done = subprocess.run(
        in_wine(PROGRAM, "recycle", "Other"), env=wine, capture_output=True, timeout=HANGS, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"Other is no local resource of this machine\r\n")
    try:
        _wine(wine, PROGRAM, "recycle", *names[:3])
        assert (state / "recycle").read_text("utf-8").splitlines() == list(names[:3])

        def emptied() -> bool | None:
            # Refused while it still stops.
            subprocess.run(in_wine("net", "start", SERVICE), env=wine, capture_output=True, timeout=HANGS, check=False)
            return not (state / "recycle").exists() or None

        _wine(wine, "net", "stop", SERVICE)
        assert Deadline(HANGS).poll(emptied), "the service did not do it"
        assert [sorted(path.name for path in (resources / name).iterdir()) for name in names] == [[], [], [], ["file"]]
    finally:
        (state / "instance.conf").unlink()


ANSWERS = """<?xml version="1.0"?>
<unattend xmlns:u="x">
  <!-- <Password>of a comment</Password> -->
  <AdministratorPassword><Value>SECRET</Value><PlainText>true</PlainText></AdministratorPassword>
  <u:Password><!-- kept --> <u:Value><![CDATA[SECRET]]></u:Value></u:Password>
  <Credentials><Domain>kept</Domain><Password u:action="add">SECRET</Password><Username>kept</Username></Credentials>
  <UserData><ProductKey><Key>SECRET</Key><WillShowUI>Never</WillShowUI></ProductKey></UserData>
  <ProductKey>SECRET</ProductKey><ProductKey/><Password></Password>
  <MetaData><Key>kept</Key><Value>kept</Value></MetaData>
</unattend>
"""
DELETED = "*SENSITIVE*DATA*DELETED*"


def test_answer_files_keep_no_secrets(installer: Path, wine: dict[str, str], tmp_path: Path) -> None:
    _install(wine, installer)
    own = Path(wine["WINEPREFIX"]) / "drive_c/windows/system32/sysprep/unattend.xml"
    own.parent.mkdir(exist_ok=True)
    instance = Path(wine["WINEPREFIX"]) / "drive_c/ProgramData/VMRole/instance.conf"

    def left() -> list[str]:
        lines = _wine(wine, PROGRAM, "read-back").splitlines()
        return [line for line in lines if line.startswith("password-left=")]

    try:
        # Each of them alone is one.
        for at in range(ANSWERS.count("SECRET")):
            parts = ANSWERS.split("SECRET")
            text = DELETED.join(parts[: at + 1]) + "SECRET" + DELETED.join(parts[at + 1 :])
            own.write_text(text)
            assert left() == ["password-left=C:\\Windows\\System32\\Sysprep\\unattend.xml"], text
        own.write_text(ANSWERS)
        (tmp_path / "unattend.xml").write_text(ANSWERS)
        (tmp_path / "answer.conf").write_text("schema=1\ninstance=a\n")
        # What comes next fails: there is no WinRM here to wait for.
        instance.mkdir(parents=True)
        argv = in_wine(PROGRAM, "specialize", f"Z:{tmp_path}".replace("/", "\\"))
        done = subprocess.run(argv, env=wine, capture_output=True, timeout=HANGS, check=False)
        assert done.returncode == 1 and b"instance.conf" in done.stderr, done
        scrubbed = ANSWERS.replace("<![CDATA[SECRET]]>", DELETED).replace("SECRET", DELETED)
        assert own.read_text() == scrubbed
        assert (Path(wine["WINEPREFIX"]) / "drive_c/unattend.xml").read_text() == scrubbed
        assert left() == []
    finally:
        own.unlink()
        instance.rmdir()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("schema=2\ninstance=a\n", "the answer document has schema 2, these components know schema 1"),
        ("schema=1\n", "the answer document has no instance, or one that is not a token"),
        ("schema=1\ninstance=a\ncertificate=12 My\n", "certificate is not '<thumbprint> <store>'"),
        ("schema=1\ninstance=a\nlocal-resource=5 a%5Cb\n", "has a name that cannot be a folder"),
        ("schema=1\ninstance=a\npayload=relative\n", "payload is not an absolute folder"),
        ("schema=1\ninstance=a%0\n", "has a broken escape in instance"),
    ],
)
def test_bad_instance_data_is_one_sentence(
    installer: Path, wine: dict[str, str], tmp_path: Path, lines: str, sentence: str
) -> None:
    _install(wine, installer)
    (tmp_path / "answer.conf").write_text(lines)
    folder = f"Z:{tmp_path}".replace("/", "\\")
    done = subprocess.run(
        in_wine(PROGRAM, "specialize", folder), env=wine, capture_output=True, timeout=HANGS, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert sentence in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
