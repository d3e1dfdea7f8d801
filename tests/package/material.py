# SPDX-License-Identifier: Apache-2.0
"""What the tests of packages and plans share: the samples, the reference documents, and documents made on the spot."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "scenarios" / "samples"
REFERENCE = Path(os.environ.get("VMROLE_REFERENCE_DOCS", ROOT.parent / "shared"))


def seed_document() -> bytes:
    """The ResourceExtension sample of the reference page, cut out of its text."""
    page = REFERENCE / "seeds" / "002_3b33f800d39e2464.txt"
    if not page.is_file():
        pytest.skip(f"the reference documents are not there ({REFERENCE}); VMROLE_REFERENCE_DOCS names their folder")
    text = page.read_text(encoding="utf-8")
    start = text.rindex("{\n", 0, text.index('"MyVirtualMachineRoleExtension"'))
    return text[start : text.rindex("}") + 1].encode()


def published_folders() -> list[Path]:
    """The documents of the published packages, a folder for each."""
    if not (REFERENCE / "packages").is_dir():
        pytest.skip(f"the reference documents are not there ({REFERENCE}); VMROLE_REFERENCE_DOCS names their folder")
    return sorted((REFERENCE / "packages").glob("*.parts"))


def extension(**members: Any) -> dict[str, Any]:
    """A small correct extension; members replace its own."""
    return {
        "SchemaVersion": "1.0",
        "Name": "Small",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ExtensionSettings": {"ApplicationProfile": {"Name": "Small"}},
        **members,
    }


def with_profile(
    *commands: str, windows: dict[str, Any] | None = None, parameters: tuple[tuple[str, str], ...] = ()
) -> dict[str, Any]:
    """An extension with these Linux commands, this Windows profile, and parameters as (name, type)."""
    profile: dict[str, Any] = {"Name": "Small"}
    if commands:
        profile["LinuxApplicationProfile"] = {"RunOnceCommands": list(commands)}
    if windows is not None:
        profile["WindowsApplicationProfile"] = windows
    return extension(
        ExtensionSettings={"ApplicationProfile": profile},
        ResourceExtensionParameters=[{"Name": name, "Type": kind} for name, kind in parameters],
    )


def write(folder: Path, document: dict[str, Any], name: str = "small.resext") -> Path:
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    """An archive with these entries in this order; a name with a slash at its end is a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def definition(
    parameters: tuple[tuple[str, str], ...] = (), values: dict[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A small correct definition that refers to ``extension()``, with its parameters as (name, type)."""
    reference = {
        "ReferenceName": "Small",
        "Name": "Small",
        "Publisher": "",
        "Version": "1.0.0.0",
        "ResourceExtensionParameterValues": json.dumps(values or {}),
    }
    return {
        "SchemaVersion": "1.0",
        "Name": "Role",
        "Publisher": "Example",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/VMRole/1.0",
        "ResourceParameters": [{"Name": name, "Type": kind} for name, kind in parameters],
        "ResourceExtensionReferences": [reference],
        "IntrinsicSettings": {
            "HardwareProfile": {"VMSize": "Small"},
            "StorageProfile": {"OSVirtualHardDiskImage": "Debian:12.0.0.0"},
        },
        **members,
    }


def view(*fields: dict[str, Any]) -> dict[str, Any]:
    """A small correct view with these fields."""
    return {
        "Version": "1.0.0.0",
        "DefaultLanguageCode": "en-US",
        "Sections": [{"Title": "All", "Categories": [{"CategoryName": "All", "Parameters": list(fields)}]}],
    }


def field(name: str, kind: str = "String", **members: Any) -> dict[str, Any]:
    return {"Type": kind, "Name": name, **members}
