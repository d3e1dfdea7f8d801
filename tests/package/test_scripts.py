# SPDX-License-Identifier: Apache-2.0
"""Scripts of the payload as editors and Windows save them: told by `check` with the file and its first line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.check import examine
from tests.package.material import with_profile, zip_of
from tests.plan.test_plan import script

PAYLOAD = "/var/lib/vmrole/payload"
SH = b"#!/bin/sh\necho a\n"
BATCH = b"@echo off\r\ngoto end\r\n:end\r\n"


def found(tmp_path: Path, name: str, data: bytes, *commands: str, windows: dict[str, Any] | None = None) -> set[str]:
    document = with_profile(*commands, windows=windows)
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    files = {"small.resext": json.dumps(document).encode(), f"src/{name}": data}
    findings = examine(zip_of(tmp_path / "a.resextpkg", files))[0]
    mine = [finding for finding in findings if finding.code.startswith("script-")]
    assert all((f.file, f.line, f.severity) == (f"src/{name}", 1, "warning") for f in mine)
    return {finding.code for finding in mine}


@pytest.mark.parametrize(
    ("name", "data", "command", "code"),
    [
        ("a.sh", b"#!/bin/bash\r\necho\r\n", f"/bin/bash {PAYLOAD}/a.sh", "script-line-ends"),
        ("a.sh", b"set -e\r\necho\r\n", f"/bin/sh {PAYLOAD}/a.sh", "script-line-ends"),
        ("a.sh", b"\xef\xbb\xbf#!/bin/sh\n", f"/bin/sh {PAYLOAD}/a.sh", "script-bom"),
        ("a.sh", "\ufeff#!/bin/sh\n".encode("utf-16-le"), f"/bin/sh {PAYLOAD}/a.sh", "script-utf16"),
        ("a.sh", "#!/bin/sh\n".encode("utf-16-be"), f"/bin/sh {PAYLOAD}/a.sh", "script-utf16"),
        ("a.sh", b"\xef\xbb\xbfset -e\necho\n", f"/bin/sh {PAYLOAD}/a.sh", "script-bom"),
        ("a.sh", b"#!/bin/sh\recho a\r", f"/bin/sh {PAYLOAD}/a.sh", "script-line-ends"),
        ("a.sh", b"\n#!/bin/bash\necho\n", f"{PAYLOAD}/a.sh", "script-no-interpreter"),
        ("a.py", b"import os\n", f"{PAYLOAD}/a.py", "script-no-interpreter"),
        ("a.sh", b"\n#!/bin/sh\necho\n", f"{PAYLOAD}/a.sh", None),
        ("tool", b"echo a\n", f"{PAYLOAD}/tool", None),
        ("tool", b"\x7fELF\2\1\1\0", f"{PAYLOAD}/tool", None),
        ("a.sh", SH, f"{PAYLOAD}/a.sh", "script-not-executable"),
        ("bin/tool", b"#!/usr/bin/python3\n", f"{PAYLOAD}/bin/tool x", "script-not-executable"),
        ("a.sh", SH, "/bin/sh -c '\"$VMROLE_PAYLOAD/a.sh\" x'", "script-not-executable"),
        ("a.sh", SH, f"/bin/sh {PAYLOAD}/a.sh", None),
        ("a.sh", SH, f"/bin/sh -c 'chmod +x {PAYLOAD}/a.sh && {PAYLOAD}/a.sh'", None),
        ("a.py", b"#!/usr/bin/python3\r\nprint()\r\n", f"/usr/bin/python3 {PAYLOAD}/a.py", None),
        ("a.txt", b"a\r\nb\r\n", f"/bin/cat {PAYLOAD}/a.txt", None),
    ],
)
def test_scripts_of_linux(tmp_path: Path, name: str, data: bytes, command: str, code: str | None) -> None:
    assert found(tmp_path, name, data, command) == ({code} if code else set())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xef\xbb\xbf@echo off\r\n", "script-bom"),
        ("\ufeff@echo off\r\n".encode("utf-16-le"), "script-utf16"),
        ("@echo off\r\n".encode("utf-16-le"), "script-utf16"),
        (BATCH.replace(b"\r", b""), "script-line-ends"),
        (b"call :one\n:one\necho 1\n", "script-line-ends"),
        (BATCH.replace(b"\n", b""), "script-line-ends"),
        (BATCH, None),
        (b"@echo off\necho no label\n", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("name", ["a.cmd", "sub/B.BAT"])
def test_batch_files(tmp_path: Path, name: str, data: bytes, code: str | None) -> None:
    windows = {"ProvisioningScripts": [script(run="cmd.exe /c x")]}
    assert found(tmp_path, name, data, windows=windows) == ({code} if code else set())


def test_a_long_line_of_a_batch_file(tmp_path: Path) -> None:
    document = with_profile(windows={"ProvisioningScripts": [script(run="cmd.exe /c a.cmd")]})
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    batch = b"@echo off\r\nset x=" + b"y" * 8191 + b"\r\n"
    path = zip_of(tmp_path / "a.resextpkg", {"small.resext": json.dumps(document).encode(), "src/a.cmd": batch})
    told = [(f.code, f.file, f.line) for f in examine(path)[0] if f.file and f.file.startswith("src/")]
    assert told == [("command-too-long", "src/a.cmd", 2)]


def test_scripts_of_the_other_system_are_not_looked_at(tmp_path: Path) -> None:
    assert found(tmp_path, "a.cmd", BATCH.replace(b"\r", b""), "/bin/true") == set()
    assert found(tmp_path, "a.sh", b"set -e\r\n", windows={"ProvisioningScripts": [script()]}) == set()
