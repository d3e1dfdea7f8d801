# SPDX-License-Identifier: Apache-2.0
"""Folders that are full or read-only: one sentence, the host's fault, the code that the command promises; really, in a
mount namespace of our own."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, VMROLE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change mounts")

FULL = "mount -t tmpfs -o size=16k,nr_inodes=2 none {0}; dd if=/dev/zero of={0}/all bs=1k 2>/dev/null || true"
READ_ONLY = "mount -t tmpfs none {0}; mount -o remount,ro {0}"
WHY = {FULL: "No space left on device", READ_ONLY: "Read-only file system"}


@pytest.mark.parametrize("mount", WHY, ids=["full", "read-only"])
@pytest.mark.parametrize(
    ("variable", "arguments", "code"),
    [
        ("VMROLE_STATE_DIR", "sweep", 3),
        ("VMROLE_STATE_DIR", "replay none --from x", 3),
        ("VMROLE_CACHE_DIR", "images list", 3),
        ("VMROLE_CACHE_DIR", "images build debian-12", 3),
        ("VMROLE_CACHE_DIR", "exec --image debian-12 -- true", 125),
        ("VMROLE_CACHE_DIR", "shell --image debian-12", 3),
        ("", f"run {SAMPLES / 'hello-linux'} -p Greeting=x --output FOLDER/out", 3),
        ("", f"pack {SAMPLES / 'hello-linux'} -o FOLDER/x.resextpkg", 3),
        ("", "new Good -o FOLDER/good", 3),
    ],
)
def test_a_folder_that_takes_nothing(tmp_path: Path, mount: str, variable: str, arguments: str, code: int) -> None:
    small = Path(tempfile.mkdtemp(prefix="vmt-", dir="/tmp"))  # the path of a state folder has to be short
    words = [word.replace("FOLDER", str(small)) for word in arguments.split()]
    script = f"mount --make-rprivate /; {mount.format(small)}; exec {shlex.join([str(VMROLE), *words])}"
    more = {variable: f"{small}/x"} if variable else {}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path,
        env=os.environ | more,
    )  # fmt: skip
    small.rmdir()
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("vmrole: ")]
    assert len(said) == 1 and said[0].endswith(WHY[mount]) and str(small) in said[0], done.stderr
