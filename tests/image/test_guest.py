# SPDX-License-Identifier: Apache-2.0
"""The Debian 12 image and its agent in real machines: docs/instance-medium.md from the guest's side."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.deadline import Deadline
from harness.image import catalog
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.image.components import build_components
from harness.image.recipe import Image
from harness.process import run
from tests.conftest import HANGS
from tests.image.machine import PASSWORD, Machine, Medium, command, started

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def image() -> Image:
    return ensure_image("debian-12", cache=Cache.of_user(), deadline=Deadline(600), progress=lambda _: None)


def certificate(name: str) -> tuple[str, bytes, bytes]:
    """A self-signed authority: SHA-1 thumbprint, certificate, key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    thumbprint = made.fingerprint(hashes.SHA1()).hex().upper()
    return thumbprint, made.public_bytes(serialization.Encoding.PEM), private


class Specialised:
    """A machine that got everything a medium can carry, with its ISO in the drive from power-on."""

    def __init__(self, image: Image, machine: Machine, medium: Medium, trusted: str, own: str) -> None:
        self.image = image
        self.machine = machine
        self.medium = medium
        self.trusted = trusted
        self.own = own
        self.ready = machine.await_line("^vmrole: (stage ready|failed)")
        self.client: paramiko.SSHClient = machine.connect(medium)

    def __call__(self, line: str, code: int = 0) -> str:
        return command(self.client, line, code=code)


@pytest.fixture(scope="module")
def guest(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Specialised]:
    folder = tmp_path_factory.mktemp("guest")
    trusted, own = certificate("Trusted Authority"), certificate("web-01")
    medium = Medium(
        image.components,
        lines=[
            f"certificate={trusted[0]} root",
            f"certificate={own[0]} My",
            "local-resource=64 DiagnosticStore",
            "local-resource=20 My%20D%C3%A4ta",
        ],
        files={
            f"certificates/{trusted[0]}.crt": trusted[1],
            f"certificates/{own[0]}.crt": own[1],
            f"certificates/{own[0]}.prv": own[2],
            "payload/bin/go.sh": b"#!/bin/sh\necho gone\n",
            "payload/data.txt": b"x" * 100_000,
        },
    )
    with started(image, folder, medium.write(folder / "medium.iso")) as machine:
        specialised = Specialised(image, machine, medium, trusted[0], own[0])
        yield specialised
        specialised.client.close()


def test_stages_and_marker(guest: Specialised) -> None:
    boot = guest("cat /proc/sys/kernel/random/boot_id")
    assert guest.ready == f"vmrole: stage ready tok-1 {boot}"
    assert guest.machine.stages == ["booting", "specializing", "ready"]
    assert guest("cat /run/vmrole/ready") == f"tok-1 {guest.image.components_version} {boot}"


def test_identity_and_settings(guest: Specialised) -> None:
    assert guest("hostname; cat /etc/hostname; getent hosts web-01").split() == ["web-01"] * 2 + ["127.0.1.1", "web-01"]
    assert guest("cat /etc/machine-id /var/lib/dbus/machine-id").split() == [guest.medium.machine_id] * 2
    assert guest("readlink -f /etc/localtime; cat /etc/timezone; date +%Z").split()[1:] == ["UTC", "UTC"]
    assert "LANG=en_US.UTF-8" in guest("locale")
    assert guest("LC_ALL=en_US.UTF-8 locale charmap") == "UTF-8"
    units = "apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service"
    assert guest(f"systemctl is-enabled {units}", code=1).split() == ["masked"] * 4
    assert 'APT::Periodic::Enable "0"' in guest("apt-config dump")
    before = time.time()
    assert before - 5 < float(guest("date +%s")) < time.time() + 5


def test_administrator(guest: Specialised) -> None:
    guest.machine.connect(guest.medium, password=PASSWORD).close()
    with pytest.raises(paramiko.AuthenticationException):
        guest.machine.connect(guest.medium, password="wrong")
    assert guest("stat -c '%U:%G %a' /etc/shadow /root/.ssh/authorized_keys /etc/ssh/ssh_host_ed25519_key") == (
        "root:shadow 640\nroot:root 600\nroot:root 600"
    )
    assert guest("ls /etc/ssh/ssh_host_*").split() == [
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_ed25519_key.pub",
    ]


def test_certificates(guest: Specialised) -> None:
    listing = guest("stat -c '%a %U %n' /var/lib/waagent /var/lib/waagent/*").splitlines()
    names = sorted([f"{guest.trusted}.crt", f"{guest.own}.crt", f"{guest.own}.prv"])
    assert listing == ["700 root /var/lib/waagent", *(f"600 root /var/lib/waagent/{name}" for name in names)]
    trusted, own = f"/var/lib/waagent/{guest.trusted}.crt", f"/var/lib/waagent/{guest.own}.crt"
    for store in ("-CApath /etc/ssl/certs", "-CAfile /etc/ssl/certs/ca-certificates.crt"):
        assert guest(f"openssl verify -no-CAfile -no-CApath {store} {trusted}").endswith("OK")
        guest(f"openssl verify {store} {own}", code=2)
    assert guest("ls -d /usr/local/share/ca-certificates/*") == (
        f"/usr/local/share/ca-certificates/vmrole-{guest.trusted}.crt"
    )


def test_local_resources(guest: Specialised) -> None:
    for name, megabytes in (("DiagnosticStore", 64), ("My Däta", 20)):
        folder = f"'/resources/{name}'"
        assert guest(f"stat -c '%a %U' {folder}; ls -A {folder}") == "700 root"
        assert guest(f"findmnt -n -o FSTYPE {folder}") == "ext4"
        guest(f"dd if=/dev/zero of={folder}/all bs=1M count={megabytes} status=none && rm {folder}/all")
        said = guest(f"dd if=/dev/zero of={folder}/more bs=1M count={megabytes + 4} status=none", code=1)
        assert "No space left" in said
        guest(f"rm {folder}/more")


def test_payload(guest: Specialised) -> None:
    assert guest("stat -c '%a %U' /var/lib/vmrole/payload") == "700 root"
    assert guest("/var/lib/vmrole/payload/bin/go.sh; wc -c < /var/lib/vmrole/payload/data.txt") == "gone\n100000"
    assert guest("stat -c %a /var/lib/vmrole/payload/data.txt /var/lib/vmrole/payload/bin/go.sh") == "644\n755"


def test_nothing_of_the_medium_is_left(guest: Specialised) -> None:
    assert "iso9660" not in guest("cat /proc/mounts")
    assert guest("ls -A /run/vmrole | sort") == "ready\nstart-ssh"
    assert sorted(guest("ls -A /var/lib/vmrole").split()) == [
        "components-version",
        "instance.conf",
        "payload",
        "resources",
    ]
    assert "$2b$" not in guest("cat /var/lib/vmrole/instance.conf; journalctl --no-pager; dmesg")
    assert guest("cd / && find . -xdev -name '*.vmrole-new'") == ""


def test_a_real_debian(guest: Specialised) -> None:
    assert guest("systemctl is-system-running --wait") == "running"
    assert guest("systemctl --failed --no-legend --plain") == ""
    assert "Started" in guest("journalctl --no-pager -u ssh.service")
    assert guest("dpkg --audit; apt-get -s check >/dev/null && echo fine") == "fine"
    assert guest("systemd-run --wait -q -p StandardOutput=null true") == ""
    assert guest("systemctl show -p Id --value dbus systemd-logind systemd-udevd | sort -u | wc -l")


def test_no_way_out(guest: Specialised) -> None:
    assert "10.0.2.15/24" in guest("ip -4 -o address show dev eth0")
    assert "default via 10.0.2.2" in guest("ip route")
    assert guest("cat /etc/resolv.conf") == "nameserver 10.0.2.3"


def test_second_boot(guest: Specialised) -> None:
    before = len(guest.machine.lines)
    guest("tee '/resources/My Däta/kept' > /resources/DiagnosticStore/kept <<< kept")
    guest("systemctl reboot")
    guest.client.close()
    again = guest.machine.await_line("^vmrole: (stage ready|failed)", after=before)
    assert again.startswith("vmrole: stage ready tok-1 ") and again != guest.ready
    assert guest.machine.stages[3:] == ["booting", "ready"]
    guest.client = guest.machine.connect(guest.medium)
    boot = guest("cat /proc/sys/kernel/random/boot_id")
    assert again == f"vmrole: stage ready tok-1 {boot}"
    assert guest("cat /run/vmrole/ready").endswith(boot)
    assert guest("cat '/resources/My Däta/kept' /resources/DiagnosticStore/kept; hostname") == "kept\nkept\nweb-01"
    assert guest("cat /etc/machine-id") == guest.medium.machine_id
    guest("systemctl poweroff")
    guest.client.close()
    guest.machine.process.wait(HANGS)


@pytest.fixture(scope="module")
def other_components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Components as of another version of the sources."""
    source = catalog.load("debian-12")
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(source.folder / "agent", folder / "source" / "agent")
    with (folder / "source" / "agent" / "main.c").open("a") as file:
        file.write("/* another version */\n")
    (folder / "components").mkdir()
    build_components(catalog.Source(source.recipe, folder / "source"), folder / "components", deadline=Deadline(HANGS))
    return folder / "components"


def test_late_medium_of_another_version(image: Image, other_components: Path, tmp_path: Path) -> None:
    """No medium at power-on, then one that is not ours, then ours with components that the image lacks."""
    wrong = Medium(image.components, label="VMROLE2").write(tmp_path / "wrong.iso")
    medium = Medium(other_components)
    right = medium.write(tmp_path / "right.iso")
    with started(image, tmp_path / "vm", None) as machine:
        machine.await_line("^vmrole: stage awaiting-instance")
        machine.insert(wrong)
        time.sleep(1.5)
        assert machine.stages == ["booting", "awaiting-instance"]
        machine.insert(right)
        machine.await_line("^vmrole: (stage ready|failed)")
        assert machine.stages == ["booting", "awaiting-instance", "installing-components", "specializing", "ready"]
        version = (other_components / "VERSION").read_text().strip()
        client = machine.connect(medium)
        assert command(client, "cat /run/vmrole/ready").split()[1] == version
        assert command(client, "ls /usr/lib/vmrole/components").split() == sorted([version, image.components_version])
        client.close()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("favourite-colour=blue", "vmrole: failed the answer document has the unknown key favourite-colour"),
        (
            "local-resource=9000 Big",
            "vmrole: failed the guest's disk has no room for the local resource Big of 9000 MB: No space left on device",  # noqa: E501
        ),
    ],
)
def test_failure_is_one_sentence(image: Image, tmp_path: Path, line: str, sentence: str) -> None:
    medium = Medium(image.components, lines=[line]).write(tmp_path / "medium.iso")
    with started(image, tmp_path / "vm", medium) as machine:
        assert machine.await_line("^vmrole: (stage ready|failed)") == sentence
        time.sleep(1)
        assert [said for said in machine.lines if said.startswith("vmrole:")][-1] == sentence


def test_generalized_disk_has_no_secrets(image: Image) -> None:
    def debugfs(request: str) -> str:
        return run(["debugfs", "-R", request, str(image.disk)]).stdout.decode()

    assert "ssh_host_" not in debugfs("ls /etc/ssh")
    assert debugfs("cat /etc/machine-id") == ""
    assert "root:!" in debugfs("cat /etc/shadow")
    assert all(line.split(":")[1][0] in "!*" for line in debugfs("cat /etc/shadow").splitlines())
    assert "authorized_keys" not in debugfs("ls /root/.ssh")
    assert "random-seed" not in debugfs("ls /var/lib/systemd")
    assert "journal" not in debugfs("ls /var/log").split()
    assert debugfs("cat /var/log/dpkg.log") == ""
    assert "vmrole" not in debugfs("ls /var/lib").split()


def test_image_lists_its_packages(image: Image) -> None:
    names = {package.partition("=")[0] for package in image.packages}
    assert {"systemd", "openssh-server", "libc6", "linux-image-cloud-amd64"} <= names
