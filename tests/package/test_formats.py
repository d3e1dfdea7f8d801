# SPDX-License-Identifier: Apache-2.0
"""The pages about the formats: what they show is read without a finding, and they name every member there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli.check import examine
from harness.package import read_configuration, read_definition, read_package, read_parameters
from harness.package.resolve import resolve_definition
from harness.package.schemas import schema
from harness.package.service import read_service
from harness.plan import make_plan
from tests.package.material import ROOT

PAGES = ROOT / "docs" / "formats"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{page}.md").read_text("utf-8"), re.DOTALL)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_the_pages_tell_one_story_that_works(tmp_path: Path) -> None:
    linux = blocks("resource-extension", "json")[0]
    package = read_package(put(tmp_path / "greeter.resext", linux))
    assert not package.findings
    form, texts = blocks("view-definition", "json")
    (document,) = blocks("resource-definition", "json")
    put(tmp_path / "role/role.viewdef", form)
    put(tmp_path / "role/role.resdef", document)
    put(tmp_path / "role/en-US/1.resources", texts)
    read = read_definition(tmp_path / "role")
    assert not read.findings
    (configuration,) = blocks("resource-configuration", "json")
    values = read_configuration(put(tmp_path / "values.json", configuration))
    assert not values.findings
    resolved = resolve_definition(read, package, values.values)
    assert not resolved.findings
    assert resolved.parameters.values == {"Greeting": "Hello"}
    assert resolved.machine.memory_mb == 1792 and resolved.machine.admin_password == "S3cret-word"


def test_each_kind_of_extension(tmp_path: Path) -> None:
    """The complete Windows extension, and the other kinds as its ApplicationProfile, each with the files it names."""
    _linux, windows, *profiles = blocks("resource-extension", "json")
    whole = json.loads(windows)
    variants = [whole["ExtensionSettings"]["ApplicationProfile"], *map(json.loads, profiles)]
    found = []
    for number, profile in enumerate(variants):
        folder = tmp_path / str(number)
        for payload in profile["ApplicationPayload"]:
            path = payload["RelativePath"]
            put(folder / "payload" / (path if "." in path else f"{path}/install.ps1"), "x")
            put(folder / "payload" / (path if "." in path else f"{path}/apply.cmd"), "x")
        document = whole | {"ExtensionSettings": {"ApplicationProfile": profile}}
        put(folder / "a.resext", json.dumps(document))
        codes = {finding.code for finding in examine(folder)[0]}
        assert codes <= {"parameter-unused"}, (number, codes)
        read = read_package(folder)
        values = read_parameters(read, ["Pin=S3cret-word"])
        for event in ("deploy", "update"):
            found += [step.id for step in make_plan(read, values, os="windows", event=event, strict=False).steps]
    assert found == [
        "feature-Web-Server", "preinstall-1",
        "preinstall-1",
        "feature-Web-Server", "feature-Web-Asp-Net45", "webdeploy-Shop",
        "sql-Main", "sqldac-Books", "sqldac-Books-sql-postinstall-1",
        "script-app-Settings-install",
        "script-app-Settings-preservice-1", "script-app-Settings-install",
    ]  # fmt: skip


def test_the_service_works(tmp_path: Path) -> None:
    definition, configuration = blocks("service-definition", "xml")
    service = read_service(put(tmp_path / "a.csdef", definition), put(tmp_path / "a.cscfg", configuration))
    assert not service.findings
    assert service.certificates[0].thumbprint and service.local_resources[0].size_mb == 50


@pytest.mark.parametrize(
    "name", ["resource-extension", "resource-definition", "view-definition", "resource-configuration"]
)
def test_every_member_is_on_its_page(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    missing = {member for member in members(schema(name)) if member not in text}
    assert not missing


def members(made: dict[str, Any]) -> set[str]:
    parts = [made, *made.get("$defs", {}).values()]
    return {member for part in parts for member in part.get("properties", {})}
