# SPDX-License-Identifier: Apache-2.0
"""The pages about the formats: what they show is read without a finding, and they name every member there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.package import read_configuration, read_definition, read_package
from harness.package.resolve import resolve_definition
from harness.package.schemas import schema
from harness.package.service import read_service
from tests.package.material import ROOT

PAGES = ROOT / "docs" / "formats"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{page}.md").read_text("utf-8"), re.DOTALL)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_the_pages_tell_one_story_that_works(tmp_path: Path) -> None:
    linux, windows = blocks("resource-extension", "json")
    package = read_package(put(tmp_path / "greeter.resext", linux))
    assert not package.findings
    assert not read_package(put(tmp_path / "installer.resext", windows)).findings
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


def test_the_service_works(tmp_path: Path) -> None:
    definition, configuration = blocks("service-definition", "xml")
    service = read_service(put(tmp_path / "a.csdef", definition), put(tmp_path / "a.cscfg", configuration))
    assert not service.findings
    assert service.certificates[0].thumbprint and service.local_resources[0].size_mb == 50


@pytest.mark.parametrize("name", ["resource-definition", "view-definition", "resource-configuration"])
def test_every_member_is_on_its_page(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    missing = {member for member in members(schema(name)) if member not in text}
    assert not missing


def members(made: dict[str, Any]) -> set[str]:
    parts = [made, *made.get("$defs", {}).values()]
    return {member for part in parts for member in part.get("properties", {})}
