# SPDX-License-Identifier: Apache-2.0
"""Images from an installation medium: the answer file for Setup, and real machines with a medium of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lxml import etree

from harness.errors import UsageError
from harness.run.windows.install import Installation, setup_answers, setup_files
from harness.run.windows.unattend import (
    BIOS_DISK,
    NAMESPACE,
    UEFI_DISK,
    AnswerFile,
    SetupFile,
    render_setup,
    secrets_of,
)
from harness.run.windows.unattend import schema_problem as problem
from tests.conftest import SAMPLES, Ran, inventory
from tests.image.setup import COMPONENTS, medium
from tests.image.test_added import cache as cache
from tests.image.test_added import within

KEY = "ABCDE-12345-FGHIJ-67890-KLMNO"
NAMES = {"u": NAMESPACE}


@pytest.fixture
def parsed() -> etree._Element:
    return etree.fromstring(setup_answers("Windows Server 2022 Standard", None, "P@ssw0rd"))


def texts(root: etree._Element, path: str) -> list[str]:
    return [str(element.text) for element in root.findall(f".//u:{path.replace('/', '/u:')}", NAMES)]


def test_what_setup_is_told(parsed: etree._Element) -> None:
    assert [settings.get("pass") for settings in parsed] == ["windowsPE", "specialize", "oobeSystem"]
    assert texts(parsed, "MetaData/Key") == ["/IMAGE/NAME"]
    assert texts(parsed, "MetaData/Value") == ["Windows Server 2022 Standard"]
    assert texts(parsed, "UserData/AcceptEula") == ["true"] and not texts(parsed, "UserData/ProductKey")
    assert texts(parsed, "InstallTo/PartitionID") == ["2"] and texts(parsed, "ModifyPartition/Active") == ["true"]
    assert texts(parsed, "SetupUILanguage/UILanguage") == ["en-US"] and texts(parsed, "DynamicUpdate/Enable") == [
        "false"
    ]
    said = [*texts(parsed, "RunSynchronousCommand/Path"), *texts(parsed, "SynchronousCommand/CommandLine")]
    told = [line.rpartition("vmrole: stage ")[2].partition("&")[0] for line in said if "vmrole: stage " in line]
    assert told == ["setup", "configuring", "installing-components", "generalizing"]
    assert "msiexec.exe /i" in said[3] and "vmrole: components %v" in said[4] and "del /q" in said[5]
    assert said[-1].endswith("sysprep.exe /generalize /oobe /shutdown /quiet")
    # a digit before a redirection would be the number of a stream
    assert not any(line.partition(">")[0][-1].isdigit() for line in said if ">" in line)


def test_numbers_and_keys() -> None:
    data = setup_answers("2", KEY.lower(), "P@ssw0rd")
    root = etree.fromstring(data)
    assert texts(root, "MetaData/Key") == ["/IMAGE/INDEX"] and texts(root, "ProductKey/Key") == [KEY]
    assert {KEY, "P@ssw0rd"} <= set(secrets_of(data))
    wanted = Installation(Path("x.iso"), None, "1", KEY, 40, None, None)
    assert KEY not in repr(wanted) and wanted.secrets == (KEY,)
    for edition, key in (("1", "12345"), ("1", KEY + "-ABCDE"), ("", None), ("a\nb", None), ("x" * 201, None)):
        with pytest.raises(UsageError):
            Installation(Path("x.iso"), None, edition, key, 40, None, None)


@pytest.mark.parametrize("disk", [BIOS_DISK, UEFI_DISK])
def test_it_is_valid(disk: tuple[object, ...]) -> None:
    root = etree.fromstring(render_setup(SetupFile("1", KEY, disk), AnswerFile("*", "x")))  # type: ignore[arg-type]
    assert problem(root) == ""
    types = texts(root, "CreatePartition/Type")
    assert types == (["EFI", "MSR", "Primary"] if disk is UEFI_DISK else ["Primary", "Primary"])
    assert texts(root, "InstallTo/PartitionID") == [str(len(disk))]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<DiskID>0</DiskID>\n          <Will", "<Will"),
        ("<WillWipeDisk>true", "<WillWipeDisk>maybe"),
        ("<Type>Primary</Type>", "<Type>Secondary</Type>"),
        ("<Size>500</Size>", "<Size>0</Size>"),
        ("<PartitionID>1</PartitionID>", ""),
        ("<Format>NTFS</Format>", "<Format>ext4</Format>"),
        ("/IMAGE/INDEX", "INDEX"),
        ("<AcceptEula>true", "<AcceptEula>yes please"),
        (f"<Key>{KEY}</Key>", "<Key>12345</Key>"),
        ("<WillShowUI>Never", "<WillShowUI>Sometimes"),
        ("<SetupUILanguage>\n        <UILanguage>en-US</UILanguage>", "<SetupUILanguage>"),
    ],
)
def test_mistakes_are_found(old: str, new: str) -> None:
    text = setup_answers("1", KEY, "x").decode()
    assert old in text
    assert problem(etree.fromstring(text.replace(old, new, 1).encode())) != ""


def test_the_second_medium(tmp_path: Path) -> None:
    (tmp_path / "WaIntegrationComponents-x64.msi").write_bytes(b"msi")
    names = [name for name, _, _ in setup_files(b"<unattend/>", tmp_path)]
    assert names == ["Autounattend.xml", "WaIntegrationComponents-x64.msi"], "no unattend.xml: sysprep would take it"


def test_what_is_not_installed_from(cache: Path, tmp_path: Path) -> None:
    iso, disk, key = tmp_path / "x.iso", tmp_path / "x.raw", tmp_path / "key"
    iso.write_bytes(bytes(32769) + b"CD001" + bytes(100_000))
    disk.write_bytes(bytes(2 << 20))
    key.write_text("12345\n")
    whole = medium(tmp_path / "m")
    for file, options, said in (
        (iso, (), "is no medium that a machine starts from"),
        (whole, ("--os", "linux"), "only Windows is installed from one"),
        (whole, ("--sha256", "ab" * 32), "has the SHA-256"),
        (whole, ("--product-key-file", key), "the product key is none"),
        (disk, ("--edition", "2"), "--edition is for installation media"),
        (disk, ("--timeout", "5"), "--timeout is for installation media"),
    ):
        done = within(cache, "images", "add", "mine", file, *options)
        assert done.code == 2 and said in done.stderr, done.stderr
        assert_nothing_is_left(cache)


def assert_nothing_is_left(cache: Path) -> None:
    for folder in ("images", "building", "media", "recipes"):
        assert not list((cache / folder).glob("*")), folder


def add(cache: Path, iso: Path, *options: str | Path) -> Ran:
    return within(cache, "images", "add", "installed", iso, "--memory", "256", "--json", *options)


@pytest.mark.vm
def test_a_medium_becomes_an_image(cache: Path, tmp_path: Path, state_folder: Path) -> None:
    """The medium is started from while the disk is blank, the disk after that; what it is when the machine has been
    switched off is the image."""
    before = inventory(state_folder)
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    done = add(cache, medium(tmp_path / "m"), "--product-key-file", key)
    assert done.code == 0, done.stderr
    stages = ["setup", "configuring", "installing-components", "generalizing"]
    found = [done.stderr.find(f"the guest is at stage {stage}") for stage in stages]
    assert -1 not in found and found == sorted(found), done.stderr
    assert KEY not in done.stderr
    [record] = [json.loads(path.read_text()) for path in (cache / "images").glob("*/image.json")]
    assert (record["name"], record["key"]) == ("installed", done.json["image"]["key"])
    assert record["components_version"] == COMPONENTS and record["uefi"] is False
    [kept] = (cache / "media").iterdir()
    assert record["packages"] == [f"whole.iso={kept.stem}"]
    assert not list((cache / "building").iterdir()) and inventory(state_folder) == before
    ran = within(
        cache, "run", SAMPLES / "msi", "--image", "installed", "--memory", "256", "--output", tmp_path / "out", "--json"
    )
    assert ran.code == 3 and "this disk was installed by a test" in ran.json["summary"], ran.stderr
    assert within(cache, "images", "remove", "installed").code == 0
    assert_nothing_is_left(cache)


@pytest.mark.vm
def test_a_setup_that_does_not_end(cache: Path, tmp_path: Path, state_folder: Path) -> None:
    """It is told how far it came, what was awaited, and that both media were there."""
    before = inventory(state_folder)
    done = add(cache, medium(tmp_path / "m", "hangs"), "--timeout", "12")
    assert done.code == 3, done.stderr
    for said in (
        "Windows Setup did not end within 12 s; it reached stage setup",
        "awaited was Windows Setup to copy Windows to the disk",
        "OUR-MEDIUM",
        "VMROLE-SETUP",
    ):
        assert said in done.stderr, done.stderr
    assert_nothing_is_left(cache)
    assert inventory(state_folder) == before


@pytest.mark.vm
@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("fails", "Windows Setup failed at stage setup: there is no such edition"),
        ("early", "Windows Setup switched the machine off too early; it reached stage setup"),
    ],
)
def test_a_setup_that_gives_up(cache: Path, tmp_path: Path, state_folder: Path, manner: str, said: str) -> None:
    before = inventory(state_folder)
    done = add(cache, medium(tmp_path / "m", manner))  # type: ignore[arg-type]
    assert done.code == 3 and said in done.stderr, done.stderr
    assert_nothing_is_left(cache)
    assert inventory(state_folder) == before
