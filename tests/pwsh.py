# SPDX-License-Identifier: Apache-2.0
"""The real PowerShell 7 for Linux of the tests: VMROLE_PWSH, or the archive among the reference documents, unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_REFERENCE = Path(os.environ.get("VMROLE_REFERENCE_DOCS", REPOSITORY.parent / "shared"))
_LACKING = "there is no PowerShell for Linux; VMROLE_PWSH names its program"


@contextmanager
def unpacked() -> Iterator[str]:
    """The program, where a process without rights can start it; skips the test where there is none."""
    if named := os.environ.get("VMROLE_PWSH"):
        yield named
        return
    archives = sorted((_REFERENCE / "powershell").glob("powershell-7*-linux-x64.tar.xz"))
    if not archives:
        pytest.skip(_LACKING)
    folder = Path(tempfile.mkdtemp(prefix="vmrole-pwsh-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        subprocess.run(["tar", "-xJf", archives[-1], "-C", folder, "--no-same-owner"], check=True)
        yield str(next(folder.glob("*/pwsh")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
