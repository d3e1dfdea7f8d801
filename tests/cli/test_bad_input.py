# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one sentence that says what and what to do, exit code 2, no machine, no run directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import SAMPLES, inventory, vmrole
from tests.run.test_certificates import Pair, make, sign, write

HELLO = ("run", SAMPLES / "hello-linux", "-p", "Greeting=x")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    pair = make()
    write(folder, pair.pfx(b"right"), "locked.pfx")
    write(folder, pair.pem(), "alone.pem")
    elliptic = ec.generate_private_key(ec.SECP256R1())
    write(folder, Pair(elliptic, sign(elliptic, "elliptic")).pfx(), "elliptic.pfx")
    write(folder, b"not a package", "not.resextpkg")
    write(folder, b'{"Name": "x",\n "Version": [}', "broken.resext")
    write(folder, b"wrong\n", "wrong")
    write(folder, b"", "empty")
    (folder / "full").mkdir()
    (folder / "full/file").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "no-such-file.resextpkg"), "no-such-file.resextpkg"),
        (("run", "{}/not.resextpkg"), "not.resextpkg"),
        (("run", "{}/broken.resext"), "broken.resext"),
        ((*HELLO, "--image", "debian-99"), "debian-12"),
        ((*HELLO, "-p", "Greting=x"), "Greeting"),
        (("run", SAMPLES / "hello-linux"), "-p Greeting="),
        ((*HELLO, "-p", "Greeting"), "Greeting"),
        ((*HELLO, "--certificate", "{}/alone.pem"), "key"),
        ((*HELLO, "--certificate", "{}/locked.pfx"), "password"),
        ((*HELLO, "--certificate", "{}/locked.pfx", "--certificate-password-file", "{}/wrong"), "password"),
        ((*HELLO, "--certificate", "{}/none.pfx"), "none.pfx"),
        ((*HELLO, "--certificate", "{}/alone.pem:Ro\\ot"), "store"),
        ((*HELLO, "--image", "windows-stand-in", "--certificate", "{}/elliptic.pfx"), "a key that is not RSA"),
        ((*HELLO, "--local-resource", "../up"), "../up"),
        ((*HELLO, "--local-resource", "a/b=5"), "a/b"),
        ((*HELLO, "--local-resource", "Data=0"), "Data"),
        ((*HELLO, "--local-resource", "Data", "--local-resource", "data"), "ata"),
        ((*HELLO, "--computer-name", "much-too-long-a-name"), "15"),
        ((*HELLO, "--computer-name", "under_score"), "under_score"),
        ((*HELLO, "--admin-password-file", "{}/empty"), "empty"),
        ((*HELLO, "--admin-password-file", "{}/none"), "none"),
        ((*HELLO, "--output", "{}/full"), "not empty"),
        ((*HELLO, "--memory", "lots"), "lots"),
        ((*HELLO, "--connect", "foo:///x"), "'foo:///x' is not the URI of a QEMU libvirt"),
        ((*HELLO, "--connect", "http://["), "'http://[' is not the URI"),
        ((*HELLO, "--colour"), "--colour"),
        (("frobnicate",), "frobnicate"),
        (("shell", "no-such-run"), "no-such-run"),
        (("images", "build", "debian-99"), "debian-12"),
        (("images", "remove", "debian-99"), "debian-99"),
    ],
)
def test_refused(arguments: tuple[str | Path, ...], said: str, files: Path, state_folder: Path, tmp_path: Path) -> None:
    before = inventory(state_folder)
    filled = [str(argument).replace("{}", str(files)) for argument in arguments]
    if filled[0] == "run" and "--output" not in filled:
        filled += ["--output", str(tmp_path / "out")]
    done = vmrole(*filled)
    assert done.code == 2, done
    assert said in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert not (tmp_path / "out").exists()
    assert inventory(state_folder) == before


def test_refused_as_json(tmp_path: Path) -> None:
    done = vmrole("run", "no-such-file", "--json", "--output", tmp_path / "out")
    assert done.code == 2
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2 and "no-such-file" in told["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "debian-99", "--", "true"), "debian-12"),
        (("--count", "0", "--", "true"), "--count"),
        (("--certificate", "none.pfx", "--", "true"), "none.pfx"),
        ((), "ARGV"),
    ],
)
def test_exec_fails_as_itself(arguments: tuple[str, ...], said: str) -> None:
    done = vmrole("exec", *arguments)
    assert done.code == 125 and said in done.stderr, done


def test_the_help_of_keep_says_what_keeps_nothing() -> None:
    told = " ".join(vmrole("run", "--help").stdout.split())
    assert "'failed' keeps nothing for it without --strict" in told and "vmrole replay" in told and "--at STEP" in told


def test_version_and_help() -> None:
    assert vmrole("--version").stdout.startswith("vmrole ")
    for command in ("run", "exec", "shell", "images", "doctor", "sweep"):
        assert vmrole(command, "--help").code == 0
