# SPDX-License-Identifier: Apache-2.0
"""Reading back: the real script in the real shell, in a namespace where the files of a guest are put in place."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.guest.protocol import MAX_OUTPUT, GuestResult, RestartToCome
from harness.run.answer import Answer, LocalResource
from harness.run.certificates import Certificate
from harness.run.instance import make_ssh_keypair
from harness.run.readback import Components, Observation, components_observation, fingerprint, read_back
from tests.run.test_answer import ANSWER
from tests.run.test_certificates import load_certificate, make, write

HOST_KEY = make_ssh_keypair()
COMPONENTS = Components("1+new", "1+new")
HASH = "$2b$06$abcdefghijklmnopqrstuv"

_PLACE = r"""
set -e
hostname "$NAME"
mount -t tmpfs -o mode=755 tmpfs /mnt
cd /mnt
mkdir -p usr etc proc dev bin resources var/lib/waagent
cp "$ROOT/bin/systemctl" .
for name in bin sbin lib lib64; do rm -rf $name; ln -s usr/$name $name; done
for name in usr proc dev; do mount --rbind /$name $name; done
mount --bind "$ROOT/etc" etc
cp "$ROOT"/waagent/* var/lib/waagent/
chmod 600 var/lib/waagent/*
mkdir -m 0700 -p var/lib/vmrole var/lib/vmrole/payload resources/Work "resources/a  b ü"
mount -t tmpfs -o size=10m,mode=700 tmpfs resources/Work
mount -t tmpfs -o size=5m,mode=700 tmpfs "resources/a  b ü"
mkdir -p run/vmrole; echo "token ${WRONG:+0}1+new boot" >run/vmrole/ready
[ -z "$WRONG" ] || { umount resources/Work; chmod 755 "resources/a  b ü"; chmod 644 var/lib/waagent/*; }
PATH=/:$PATH exec chroot /mnt "$@"
"""


class NamespaceGuest:
    """harness.guest.protocol.Guest, as far as reading back needs it."""

    def __init__(self, root: Path, name: str, wrong: bool = False) -> None:
        self.root, self.name, self.wrong = root, name, wrong

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        timeout: float | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> GuestResult:
        done = subprocess.run(
            ["unshare", "--mount", "--uts", "sh", "-c", _PLACE, "sh", *argv],
            input=stdin,
            capture_output=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "ROOT": str(self.root),
                "NAME": self.name,
                "WRONG": "yes" if self.wrong else "",
                "LANG": "C.UTF-8",
            },
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return GuestResult(0, done.stdout, done.stderr, 0.1)

    def put(self, source: Path | bytes, path: str, *, deadline: Deadline, mode: int = 0o600) -> None:
        raise NotImplementedError

    def get(self, path: str, *, deadline: Deadline, limit: int = MAX_OUTPUT) -> bytes:
        raise NotImplementedError

    def boot_id(self, *, deadline: Deadline) -> str:
        raise NotImplementedError

    def reboot(self, *, deadline: Deadline) -> str:
        raise NotImplementedError

    def restarting(self, *, deadline: Deadline) -> bool:
        raise NotImplementedError

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        raise NotImplementedError

    connected = True
    last_boot = ""

    def reconnect(self, *, deadline: Deadline) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class SayingGuest(NamespaceGuest):
    """Says what it likes: guests are not trusted."""

    def __init__(self, says: bytes) -> None:
        self.says = says

    def run(self, argv: Sequence[str], **_: object) -> GuestResult:
        return GuestResult(0, self.says, b"", 0.1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, ...]:
    folder = tmp_path_factory.mktemp("certificates")
    both = write(folder, make().pfx(), "both")
    return (load_certificate(both), load_certificate(write(folder, make("root").pem(), "root"), "Root"))


@pytest.fixture(scope="module")
def answer(certificates: tuple[Certificate, ...]) -> Answer:
    return dataclasses.replace(
        ANSWER,
        certificates=certificates,
        administrator_password_hash=HASH,
        locale="C.UTF-8",
        local_resources=(LocalResource("Work", 10), LocalResource("a  b ü", 5)),
    )


@pytest.fixture
def root(tmp_path: Path, answer: Answer, certificates: tuple[Certificate, ...]) -> Path:
    """What a specialised guest has in its files."""
    files = {
        "etc/hostname": "WEB-01\n",
        "etc/timezone": "UTC\n",
        "etc/machine-id": f"{answer.machine_id}\n",
        "etc/ssh/ssh_host_ed25519_key.pub": HOST_KEY.public + "\n",
        "etc/default/locale": "# comment\nLANG=C.UTF-8\n",
        "etc/shadow": f"daemon:*:1:::::\nroot:{HASH}:1:0:99999:7:::\n",
        "etc/passwd": Path("/etc/passwd").read_text(),
        "etc/ld.so.cache": "",
        "bin/systemctl": "#!/bin/sh\nshift; for u; do echo inactive; done; exit 3\n",
        "etc/ssl/certs/ca-certificates.crt": "".join(c.crt_pem.decode() for c in certificates),
    }
    for certificate in certificates:
        files[f"waagent/{certificate.thumbprint}.crt"] = certificate.crt_pem.decode()
        if certificate.key_pem:
            files[f"waagent/{certificate.thumbprint}.prv"] = certificate.key_pem.decode()
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "root/etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    (tmp_path / "root/bin/systemctl").chmod(0o755)
    system = tmp_path / "root/etc/systemd/system"
    system.mkdir(parents=True)
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"):
        (system / unit).symlink_to("/dev/null")
    return tmp_path / "root"


def look(guest: NamespaceGuest, answer: Answer) -> dict[str, Observation]:
    seen = read_back(guest, answer, host_key=HOST_KEY.public, components=COMPONENTS, deadline=Deadline(20))
    assert len({o.name for o in seen}) == len(seen)
    return {o.name: o for o in seen}


needs_namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="only root can put other files in place")


@needs_namespaces
def test_as_wanted(root: Path, answer: Answer) -> None:
    seen = look(NamespaceGuest(root, "WEB-01"), answer)
    assert [o for o in seen.values() if not o.ok] == []
    assert seen["computer-name"].observed == "WEB-01"
    assert seen["time-zone"].observed == "UTC (UTC +0000)"
    assert seen["administrator-password"] == Observation("administrator-password", "set", "set", True)
    assert seen["ssh-host-key"].observed.startswith("SHA256:")
    assert seen["automatic-updates"].observed == "off"
    assert seen["local-resource a  b ü"].observed == "5 MB, for root only"
    assert not seen["entropy"].provable
    assert [o.name for o in seen.values() if not o.provable] == ["entropy"]
    assert HASH not in repr(seen)


@needs_namespaces
def test_nothing_as_wanted(root: Path, answer: Answer, certificates: tuple[Certificate, ...]) -> None:
    etc = root / "etc"
    (etc / "hostname").write_text("other\n")
    (etc / "timezone").write_text("Europe/Berlin\n")
    (etc / "machine-id").write_text("")
    (etc / "ssh/ssh_host_ed25519_key.pub").write_text(make_ssh_keypair().public)
    (etc / "default/locale").write_text("LANG=xx_XX.UTF-8\n")
    (etc / "shadow").write_text("root:!:1::::::\n")
    (etc / "ssl/certs/ca-certificates.crt").write_text("")
    (root / "bin/systemctl").write_text("#!/bin/sh\necho inactive\necho active\necho inactive\n")
    (root / "waagent" / f"{certificates[0].thumbprint}.prv").write_text("other")
    seen = look(NamespaceGuest(root, "WEB-01", wrong=True), answer)
    said = {name: o.observed for name, o in seen.items() if not o.ok}
    one, two = certificates
    assert said.pop("ssh-host-key") != fingerprint(HOST_KEY.public)
    assert said == {
        "computer-name": "other",
        "time-zone": "UTC (UTC +0000), on file Europe/Berlin",
        "locale": "xx_XX.UTF-8, which it does not have",
        "automatic-updates": "on: apt-daily-upgrade.timer",
        "administrator-password": "locked",
        "machine-id": "nothing",
        "integration-components": "01+new",
        "certificate My": "its private key is missing or another one",
        "certificate Root": "the system does not trust it",
        "local-resource Work": "is not a file system of its own, has "
        + said["local-resource Work"].rpartition(" has ")[2],
        "local-resource a  b ü": "has the mode and owner 755 0 0",
    }
    assert one.thumbprint != two.thumbprint


@needs_namespaces
def test_an_empty_guest(root: Path, answer: Answer) -> None:
    for path in sorted((root / "etc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    (root / "etc" / "shadow").write_text("root::1::::::\n")
    for path in (root / "waagent").iterdir():
        path.write_text("")
    seen = look(NamespaceGuest(root, "other"), answer)
    assert seen["administrator-password"].observed == "empty"
    assert seen["certificate My"].observed == "missing"
    assert seen["computer-name"].observed == "other"


def test_a_guest_that_says_nothing_or_too_much(answer: Answer) -> None:
    for says in (b"", b"\xff\n=\n===\0\n", b"date=\nfree=1\nstat=\ncrt-x=\n", b"name=" + b"x" * 100_000):
        seen = look(SayingGuest(says), answer)
        assert [o.name for o in seen.values() if o.ok] == ["entropy"]
        assert all(len(o.observed) <= 210 and o.observed.isprintable() and o.observed for o in seen.values())
    hostile = look(SayingGuest(b"name=\x1b[31mred\nhostname-file=WEB-01\n"), answer)
    assert hostile["computer-name"].observed == "?[31mred"


@pytest.mark.parametrize(("off", "ok"), [(0.0, True), (1.5, True), (-1.5, True), (60.0, False), (-3600.0, False)])
def test_clock(answer: Answer, off: float, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # of this host, which may be a slow one
    seen = look(SayingGuest(f"date=UTC +0000 {now + off:.9f}\n".encode()), answer)
    assert seen["clock"].ok is ok
    assert abs(float(seen["clock"].observed.removesuffix(" s")) - off) < 0.1


@pytest.mark.parametrize(
    ("of_image", "seen", "observed", "ok"),
    [
        ("1+new", "1+new", "1+new", True),
        ("1+old", "1+new", "1+new, from the instance medium: the image has 1+old", True),
        ("", "1+new", "1+new, from the instance medium: the image has none", True),
        ("1+old", "1+old", "1+old", False),
        ("1+old", "", "nothing", False),
    ],
)
def test_components(of_image: str, seen: str, observed: str, ok: bool) -> None:
    told = components_observation(Components("1+new", of_image), seen)
    assert told == Observation("integration-components", "1+new", observed, ok)


def test_fingerprint(tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text(HOST_KEY.public + "\n")
    said = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == fingerprint(HOST_KEY.public)
    assert fingerprint("nonsense") == fingerprint("") == fingerprint("ssh-ed25519 !!!") == ""
