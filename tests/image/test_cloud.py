# SPDX-License-Identifier: Apache-2.0
"""Cloud images: a disk with a boot loader of its own and cloud-init, and nothing of ours in it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import mmap
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.image.cache import Cache
from harness.machine.templates import TemplateStore
from harness.run.instance import make_ssh_keypair
from harness.run.linux.cloud import seed
from tests.conftest import HANGS, REPOSITORY, SAMPLES, VMROLE, Ran, inventory, vmrole
from tests.image.cloud import cloud_image, without_boot_code
from tests.run.test_replay import package

# How a key or a password begins: as people write it, as it is sent, and as the system keeps it.
_KEYS = (
    b"b3BlbnNzaC1rZXktdjEA", b"openssh-key-v1\0\0\0\0\x04none", b"AAAAC3NzaC1lZDI1NTE5AAAAI",
    b"\0\0\0\x0bssh-ed25519\0\0\0\x20", b"root:$2b$", b"root:$6$", b"root:$y$",
)  # fmt: skip


@contextlib.contextmanager
def added(name: str, disk: Path) -> Iterator[str]:
    """``disk`` as an image of the user's cache, until the end of the context."""
    name = f"{name}-{secrets.token_hex(3)}"
    with disk.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    done = vmrole("images", "add", name, disk, "--sha256", digest, timeout=600)
    try:
        assert (done.code, digest[:16] in done.stdout) == (0, True), done.stderr
        yield name
    finally:
        vmrole("sweep", "--kept")  # machines and checkpoints of a test that failed stand on it
        gone = vmrole("images", "remove", name)
        assert gone.code == 0, gone.stderr
    left = [path.name for path in Cache.of_user().folder.glob("*/*") if name in path.name and path.suffix != ".lock"]
    assert (left, [entry.image for entry in TemplateStore.of_user().all() if entry.image == name]) == ([], [])


@pytest.fixture(scope="module")
def disk() -> Path:
    return cloud_image(deadline=Deadline(900))


@pytest.fixture(scope="module")
def cloud(disk: Path, state_folder: Path) -> Iterator[str]:
    """The name of the image, which is there for this module alone."""
    with added("test-cloud", disk) as name:
        yield name


def keys_in(path: Path) -> list[bytes]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [key for key in _KEYS if data.find(key) >= 0]


@pytest.mark.vm
@pytest.mark.slow
def test_a_role_on_a_cloud_image(cloud: str, tmp_path: Path, state_folder: Path) -> None:
    before = inventory(state_folder)
    ran = vmrole(
        "run", SAMPLES / "hello-linux", "--image", cloud, "-p", "Greeting=Hello cloud", "--local-resource", "Data=20",
        "--computer-name", "CLOUD-#", "--output", tmp_path / "out", "--json", timeout=900,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.json["verdict"] == "succeeded"
    assert ran.json["forked"], ran.json["fork_reason"]
    (instance,) = ran.json["instances"]
    assert [step["outcome"] for step in instance["steps"]] == ["succeeded", "succeeded"]
    assert "Hello cloud" in instance["steps"][0]["stdout"]
    seen = {item["name"]: item for item in instance["specialization"]}
    assert all(item["ok"] for item in seen.values()), seen
    assert seen["computer-name"]["observed"] == "CLOUD-1"
    assert inventory(state_folder) == before


@pytest.mark.vm
@pytest.mark.slow
def test_forks_are_machines_of_their_own(cloud: str) -> None:
    script = (
        "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /root/.ssh/authorized_keys /proc/sys/kernel/hostname; "
        "grep ^root: /etc/shadow; head -c 16 /dev/urandom | od -An -tx1"
    )
    told = [vmrole("exec", "--image", cloud, "--", "sh", "-c", script, timeout=600) for _ in range(2)]
    assert [ran.code for ran in told] == [0, 0], told
    one, other = (ran.stdout.splitlines() for ran in told)
    assert len(one) == len(other) == 6
    assert not set(one) & set(other)


@pytest.mark.vm
@pytest.mark.slow
def test_a_template_holds_no_key(cloud: str, tmp_path: Path, state_folder: Path) -> None:
    """Nor a password; a machine that was made of it does, in the same places."""
    kept = vmrole(
        "run", SAMPLES / "hello-linux", "--image", cloud, "-p", "Greeting=x", "--keep", "always",
        "--output", tmp_path / "out", "--json", timeout=600,
    )  # fmt: skip
    assert (kept.code, kept.json["forked"]) == (0, True), kept.stderr
    (template,) = (entry for entry in TemplateStore.of_user().all() if entry.image == cloud)
    found = {path.name: keys_in(path) for path in template.folder.iterdir()}
    assert {"ram", "state", "disk.qcow2"} <= set(found) and not any(found.values()), found
    overlays = list(state_folder.glob("r/*/disks/vmrole-*.qcow2"))
    assert overlays and any(keys_in(path) for path in overlays)
    entered = subprocess.run(
        [VMROLE, "shell", tmp_path / "out"], input="wc -l </root/.ssh/authorized_keys; ls /etc/ssh/*_key\n",
        capture_output=True, text=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert entered.stdout.split()[-2:] == ["1", "/etc/ssh/ssh_host_ed25519_key"], entered.stdout + entered.stderr
    assert vmrole("sweep", "--kept").code == 0


@pytest.mark.vm
@pytest.mark.slow
def test_it_goes_on_from_before_a_step(cloud: str, tmp_path: Path, state_folder: Path) -> None:
    """A run that failed, replayed from there with a changed script; and a shell that looks around before."""
    before = inventory(state_folder)
    broken, output = package(tmp_path / "broken", "exit 9"), tmp_path / "out"
    failed = vmrole(
        "run", broken, "--image", cloud, "-p", "Word=open-sesame", "--output", output, "--json", timeout=900
    )
    assert outcomes(failed) == ["succeeded", "succeeded", "warned", "succeeded"], failed.stderr
    assert f"vmrole replay {output} --from run-once-3" in failed.stderr
    entered = subprocess.run(
        [VMROLE, "shell", output, "--at", "run-once-3"], capture_output=True, text=True, timeout=HANGS, check=False,
        input="cat /root/trace\nls /root/d\nexit 4\n",
    )  # fmt: skip
    said = entered.stdout.split()  # the distribution's greeting first
    assert (entered.returncode, said[-3:]) == (4, ["first", "second", "big"]), entered.stdout + entered.stderr
    changed = package(tmp_path / "changed", 'echo mended "$1" $(cat $VMROLE_PAYLOAD/new)')
    (changed / "payload/new").write_text("by it")
    mended = vmrole(
        "replay", output, "--from", "run-once-3", "--package", changed, "--output", tmp_path / "again", "--json",
        timeout=600,
    )  # fmt: skip
    assert (mended.code, mended.json["verdict"]) == (0, "succeeded"), mended.stderr
    assert outcomes(mended) == ["skipped", "skipped", "succeeded", "succeeded"]
    assert mended.json["forked"] and "run-once-3" in mended.json["fork_reason"]
    steps = mended.json["instances"][0]["steps"]
    assert steps[2]["stdout"].split() == ["first", "second", "mended", "__**__", "by", "it"]
    now = float(steps[3]["stdout"].split()[2])
    assert abs(now - time.time()) < 300, "the clock is that of now"
    first, again = failed.json["instances"][0], mended.json["instances"][0]
    assert again["specialization"] == first["specialization"]
    assert first["steps"][3]["stdout"].split()[3] != steps[3]["stdout"].split()[3], "so is the entropy"
    assert vmrole("sweep", "--kept").code == 0
    assert inventory(state_folder) == before


def outcomes(ran: Ran) -> list[str]:
    return [step["outcome"] for step in ran.json["instances"][0]["steps"]]


@pytest.mark.vm
@pytest.mark.slow
def test_one_that_starts_by_uefi_alone(disk: Path, tmp_path: Path, state_folder: Path) -> None:
    before = inventory(state_folder)
    copy = tmp_path / "uefi.raw"
    without_boot_code(disk, copy)
    with added("test-uefi", copy) as name:
        copy.unlink()
        ran = vmrole(
            "exec", "--image", name, "--json", "--", "sh", "-c",
            "test -d /sys/firmware/efi && cat /proc/sys/kernel/hostname", timeout=600,
        )  # fmt: skip
        assert ran.code == 0, ran.stderr
        (machine,) = ran.json["instances"]
        assert machine["stdout"].startswith("VMROLE-")
        assert "UEFI" in ran.json["fork_reason"]
    assert inventory(state_folder) == before


@pytest.mark.vm
@pytest.mark.slow
def test_scenarios_run_on_it(cloud: str, tmp_path: Path) -> None:
    """Certificates, a restart, local resources that are there after it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "scenarios/test_samples.py",
         "-k", "test_hello_linux", f"--vmrole-image={cloud}", f"--vmrole-output={tmp_path}"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_an_image_from_an_address(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMROLE_CACHE_DIR", str(tmp_path / "cache"))
    raw = tmp_path / "small.raw"
    raw.write_bytes(b"\x33\xc0".ljust(510, b"\0") + b"\x55\xaa" + bytes(2 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, tmp_path / "small.qcow2"], check=True)
    digest = hashlib.sha256((tmp_path / "small.qcow2").read_bytes()).hexdigest()
    url = f"{server}/small.qcow2"
    assert "--sha256" in vmrole("images", "add", "mine", url).stderr
    wrong = vmrole("images", "add", "mine", url, "--sha256", "0" * 64)
    assert (wrong.code, digest in wrong.stderr) == (2, True)
    gone = vmrole("images", "add", "mine", f"{server}/gone.qcow2", "--sha256", digest)
    assert (gone.code, "nothing at" in gone.stderr) == (2, True)
    assert vmrole("exec", "--image", "mine", "--", "true").code == 125
    added = vmrole("images", "add", "mine", url, "--sha256", digest, "--os", "linux", "--json")
    assert (added.code, added.json["image"]) == (0, {"name": "mine", "key": digest[:16]}), added.stderr
    listed = vmrole("images", "list", "--json").json["images"]
    assert [(image["name"], image["current"]) for image in listed] == [("mine", True)]
    assert not list((tmp_path / "cache/downloads").iterdir())
    assert vmrole("images", "remove", "mine").code == 0
    assert "mine" not in vmrole("images", "list").stdout


@pytest.mark.parametrize("name", ["Upper", "../up", "", 'quo"te', "new\nline"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    done = vmrole("images", "add", name, tmp_path / "x.raw")
    assert (done.code, "cannot be the name of an image" in done.stderr) == (2, True), done.stderr


def test_disks_that_lead_elsewhere(tmp_path: Path) -> None:
    disk = tmp_path / "outside.qcow2"
    elsewhere = f"data_file={tmp_path}/secret.raw,data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", elsewhere, str(disk), "4M"], check=True)
    done = vmrole("images", "add", "outside", disk)
    assert (done.code, "keeps its content in another file" in done.stderr) == (2, True), done.stderr


def test_the_seed_is_what_cloud_init_takes() -> None:
    files = seed("abc123", "WEB-1", make_ssh_keypair(), None)
    assert sorted(files) == ["meta-data", "user-data"]
    assert files["user-data"].startswith(b"#cloud-config\n")
    assert b"WEB-1" in files["meta-data"]
    assert any(key in files["user-data"] for key in _KEYS)


def test_a_seed_for_a_template_has_no_key() -> None:
    files = seed("abc123", "generalized", None, None)
    assert not any(key in text for text in files.values() for key in _KEYS)
    assert b"generalize" in files["user-data"] and b"ssh_keys" not in files["user-data"]
