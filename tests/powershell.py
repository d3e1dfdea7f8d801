# SPDX-License-Identifier: Apache-2.0
"""The real PowerShell of the tests, and the image that is made with it: ``python -m tests.powershell`` makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

IMAGE = "windows-stand-in-powershell"
_REFERENCE = Path(os.environ.get("VMROLE_REFERENCE_DOCS", REPOSITORY.parent / "shared"))
_LACKING = "there is no PowerShell for Windows; VMROLE_POWERSHELL_ZIP names its zip"


def found() -> Path | None:
    """PowerShell's zip for Windows (x64); None where there is none."""
    named = os.environ.get("VMROLE_POWERSHELL_ZIP")
    there = [Path(named)] if named else sorted((_REFERENCE / "powershell").glob("PowerShell-7*-win-x64.zip"))
    return there[-1] if there and there[-1].exists() else None


def powershell_zip() -> Path:
    """The same; skips the test where there is none."""
    if file := found():
        return file
    pytest.skip(_LACKING)


def main() -> int:
    file = found()
    if file is None:
        sys.stderr.write(f"the image {IMAGE} is not made, and its tests are skipped: {_LACKING}\n")
        return 0
    vmrole = REPOSITORY / ".venv/bin/vmrole"
    return subprocess.call([vmrole, "images", "build", "windows-stand-in", "--powershell", file])


if __name__ == "__main__":
    raise SystemExit(main())
