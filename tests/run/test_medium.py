# SPDX-License-Identifier: Apache-2.0
"""The instance medium, read back with xorriso, and by the kernel's rules for Rock Ridge and Joliet."""

from __future__ import annotations

import dataclasses
import os
import resource
import stat
import subprocess
import time
from pathlib import Path

import pytest

from harness.errors import HostError, PackageError
from harness.run.certificates import Certificate
from harness.run.instance import SshKeyPair, make_ssh_keypair
from harness.run.medium import build_medium
from tests.run.test_answer import ANSWER
from tests.run.test_certificates import load_certificate, make, write


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, ...]:
    folder = tmp_path_factory.mktemp("certificates")
    both = write(folder, make().pfx(), "both")
    alone = write(folder, make("root").pem(), "alone")
    return (load_certificate(both), load_certificate(both, "Root"), load_certificate(alone, "Root"))


@pytest.fixture
def components(tmp_path: Path) -> Path:
    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "VERSION").write_text("1.2.3\n")
    (folder / "vmrole-components").write_bytes(b"\x7fELF" + bytes(100_000))
    return folder


HOST_KEY = make_ssh_keypair("host")


def xorriso(iso: Path, *command: str) -> str:
    done = subprocess.run(
        ["xorriso", "-abort_on", "WARNING", "-osirrox", "on", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def extract(iso: Path, target: Path, *options: str) -> dict[str, bytes | None]:
    """Everything on the medium: path to content, None for folders."""
    xorriso(iso, *options, "-indev", str(iso), "-extract", "/", str(target))
    found: dict[str, bytes | None] = {}
    for path in target.rglob("*"):
        found[str(path.relative_to(target))] = None if path.is_dir() else path.read_bytes()
    return found


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in root.rglob("*")}


def test_all_of_it(tmp_path: Path, components: Path, certificates: tuple[Certificate, ...]) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "run.sh").write_text("#!/bin/sh\n")
    (payload / "run.sh").chmod(0o700)
    (payload / "data").write_text("data")
    (payload / "data").chmod(0o600)
    answer = dataclasses.replace(ANSWER, certificates=certificates)
    iso = tmp_path / "x.iso"
    build_medium(iso, answer=answer, host_key=HOST_KEY, components=components, payload_root=payload)

    assert stat.S_IMODE(iso.stat().st_mode) == 0o600
    found = extract(iso, tmp_path / "out")
    one, _, two = certificates
    assert found == {
        "answer.conf": answer.render(),
        "ssh": None,
        "ssh/host_ed25519": HOST_KEY.private,
        "ssh/host_ed25519.pub": HOST_KEY.public.encode() + b"\n",
        "certificates": None,
        f"certificates/{one.thumbprint}.crt": one.crt_pem,
        f"certificates/{one.thumbprint}.prv": one.key_pem,
        f"certificates/{two.thumbprint}.crt": two.crt_pem,
        "components": None,
        "components/VERSION": b"1.2.3\n",
        "components/vmrole-components": (components / "vmrole-components").read_bytes(),
        "payload": None,
        "payload/run.sh": b"#!/bin/sh\n",
        "payload/data": b"data",
    }
    modes = {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in found}
    assert modes["payload/run.sh"] == modes["payload"] == modes["components/vmrole-components"] == 0o755
    assert modes["payload/data"] == modes["components/VERSION"] == 0o644
    assert modes["answer.conf"] == modes["ssh/host_ed25519"] == modes[f"certificates/{one.thumbprint}.prv"] == 0o600
    said = subprocess.run(["xorriso", "-indev", str(iso), "-pvd_info"], capture_output=True, text=True, check=True)
    assert "Volume Id    : VMROLE" in said.stdout
    # As Windows sees it.
    joliet = extract(iso, tmp_path / "joliet", "-read_fs", "norock")
    assert joliet == found


def test_the_key_pair_is_one(tmp_path: Path) -> None:
    private = tmp_path / "key"
    private.touch(mode=0o600)
    private.write_bytes(HOST_KEY.private)
    said = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], capture_output=True, text=True, check=True)
    assert said.stdout.split()[:2] == HOST_KEY.public.split()[:2]
    assert HOST_KEY.public.endswith(" host")
    assert "PRIVATE" not in repr(HOST_KEY)


def test_names_of_all_kinds(tmp_path: Path, components: Path) -> None:
    payload = tmp_path / "payload"
    deep = payload.joinpath(*(f"folder number {n} with a name of some length" for n in range(12)))
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("deep")
    (payload / "empty folder").mkdir()
    (payload / "empty file").touch()
    (payload / "large").write_bytes(os.urandom(5 * 1024 * 1024 + 1))
    long = "\N{GREEK SMALL LETTER ALPHA}" * 100
    names = ["Case", "case", "CASE", "a" * 100 + "1.txt", "a" * 100 + "2.txt", long + "1", long + "2", "x" * 255]
    names += [
        "LONGFILE1.TXT",
        "LONGFILE2.TXT",
        ".hidden",
        "a.b.c.",
        "trailing.",
        "blank ",
        'q"?*<>|:;\\',
        "-rf",
        "tab\t",
    ]
    names += ["new\nline", "\N{PILE OF POO}", "e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
    for number, name in enumerate(names):
        (payload / name).write_text(str(number))
    iso = tmp_path / "x.iso"
    build_medium(iso, answer=ANSWER, host_key=HOST_KEY, components=components, payload_root=payload)
    expected = tree(payload)
    found = extract(iso, tmp_path / "out")
    assert {k.removeprefix("payload/"): v for k, v in found.items() if k.startswith("payload/")} == expected
    # Joliet has shorter names, but every one of these files, and no two names that differ in case only.
    folder = tmp_path / "joliet"
    extract(iso, folder, "-read_fs", "norock")
    top = [path for path in (folder / "payload").iterdir() if path.is_file()]
    assert len({path.name.casefold() for path in top}) == len(names) + 2
    assert sorted(path.read_bytes() for path in top) == sorted(p.read_bytes() for p in payload.iterdir() if p.is_file())


def test_many_files(tmp_path: Path, components: Path) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    for number in range(1500):
        (payload / f"file-{number}").write_text(str(number))
    iso = tmp_path / "x.iso"
    build_medium(iso, answer=ANSWER, host_key=HOST_KEY, components=components, payload_root=payload)
    assert (
        tree(payload).items()
        <= {name.removeprefix("payload/"): data for name, data in extract(iso, tmp_path / "out").items()}.items()
    )


def test_the_same_answer_gives_the_same_bytes(
    tmp_path: Path, components: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    for name in ("b", "a", "ü"):
        (payload / name).write_text(name)

    def build(name: str) -> bytes:
        build_medium(tmp_path / name, answer=ANSWER, host_key=HOST_KEY, components=components, payload_root=payload)
        return (tmp_path / name).read_bytes()

    one = build("one.iso")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        time.sleep(1.1)
        two = build("two.iso")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert one == two
    assert abs(time.time() - (tmp_path / "two.iso").stat().st_mtime) < 60


def test_private_whatever_the_umask(tmp_path: Path, components: Path) -> None:
    for mask in (0o000, 0o377):
        before = os.umask(mask)
        try:
            iso = tmp_path / f"{mask}.iso"
            build_medium(iso, answer=ANSWER, host_key=HOST_KEY, components=components)
        finally:
            os.umask(before)
        assert stat.S_IMODE(iso.stat().st_mode) == 0o600


def test_what_is_there_already_is_not_touched(tmp_path: Path, components: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link.iso").symlink_to(victim)
    for path in (victim, tmp_path / "link.iso", tmp_path / "no" / "folder.iso"):
        with pytest.raises(HostError, match="cannot be made"):
            build_medium(path, answer=ANSWER, host_key=HOST_KEY, components=components)
    assert victim.read_text() == "untouched"


def test_a_file_that_cannot_grow_leaves_nothing(tmp_path: Path, components: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(HostError, match="cannot be written: File too large"):
            build_medium(tmp_path / "x.iso", answer=ANSWER, host_key=HOST_KEY, components=components)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "x.iso").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_leaves_nothing(tmp_path: Path, components: Path) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "large").write_bytes(bytes(4 * 1024 * 1024))
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(target)], check=True)
    try:
        with pytest.raises(HostError, match=r"cannot be written: No space left on device"):
            build_medium(
                target / "x.iso", answer=ANSWER, host_key=HOST_KEY, components=components, payload_root=payload
            )
        assert list(target.iterdir()) == []
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_payload_no_medium_can_carry(tmp_path: Path, components: Path) -> None:
    def refused(make: str) -> str:
        payload = tmp_path / make
        payload.mkdir()
        if make == "bytes":
            Path(os.fsdecode(os.fsencode(payload) + b"/\xff")).touch()
        elif make == "link":
            (payload / "link").symlink_to("/etc/passwd")
        else:
            os.mkfifo(payload / "pipe")
        with pytest.raises(PackageError) as caught:
            build_medium(
                tmp_path / "x.iso", answer=ANSWER, host_key=HOST_KEY, components=components, payload_root=payload
            )
        assert not (tmp_path / "x.iso").exists()
        return str(caught.value)

    assert "not UTF-8" in refused("bytes")
    assert "neither a file nor a folder" in refused("link")
    assert "neither a file nor a folder" in refused("pipe")


def test_missing_components(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="VERSION cannot be read: No such file"):
        build_medium(tmp_path / "x.iso", answer=ANSWER, host_key=SshKeyPair(b"", ""), components=tmp_path)
    assert not (tmp_path / "x.iso").exists()
