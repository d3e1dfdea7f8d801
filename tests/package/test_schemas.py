# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.schema import command
from harness.errors import UsageError
from harness.package.schemas import DOCUMENTS, schema
from tests.package.material import SAMPLES, definition, extension, field, published_folders, view, with_profile

_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "null": type(None), "array": list}
_TYPES |= {"number": (int, float), "object": dict}


def problems(value: Any, part: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What a validator would say; it knows the keywords that our schemas use, and fails for any other."""
    known = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref", "$defs"}
    known |= {"$schema", "$id", "title", "description", "examples"}
    assert set(part) <= known, set(part) - known
    found: list[str] = []
    if "$ref" in part:
        found += problems(value, root["$defs"][part["$ref"].removeprefix("#/$defs/")], root, at)
    if "anyOf" in part:
        choices = [problems(value, choice, root, at) for choice in part["anyOf"]]
        if all(choices):
            found += [f"{at}: no choice fits", *min(choices, key=len)]
    kind = part.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind in ("integer", "number"))):
        return [*found, f"{at}: no {kind}"]
    if isinstance(value, dict):
        found += [f"{at}: {name} is missing" for name in part.get("required", ()) if name not in value]
        properties, more = part.get("properties", {}), part.get("additionalProperties", True)
        for name, member in value.items():
            if name in properties:
                found += problems(member, properties[name], root, f"{at}/{name}")
            elif more is False:
                found.append(f"{at}: {name} is unknown")
            elif isinstance(more, dict):
                found += problems(member, more, root, f"{at}/{name}")
    if isinstance(value, list) and "items" in part:
        found += [p for i, item in enumerate(value) for p in problems(item, part["items"], root, f"{at}/{i}")]
    return found


def check(name: str, document: Any) -> list[str]:
    made = schema(name)
    return problems(document, made, made)


def test_published_documents_are_valid() -> None:
    kinds = {".resext": "resource-extension", ".resdef": "resource-definition", ".viewdef": "view-definition"}
    seen = set()
    for folder in published_folders():
        for path in folder.iterdir():
            if path.suffix in kinds:
                seen.add(path.suffix)
                assert check(kinds[path.suffix], json.loads(path.read_text("utf-8-sig"))) == [], path.name
    assert seen == set(kinds)


def test_good_documents_are_valid_and_bad_ones_are_not() -> None:
    (hello,) = (SAMPLES / "hello-linux").glob("*.resext")
    assert check("resource-extension", json.loads(hello.read_text("utf-8-sig"))) == []
    assert check("resource-extension", with_profile("/bin/true", parameters=(("A", "Int"),))) == []
    assert check("resource-extension", extension(Name=None)) and check("resource-extension", extension(Nmae="x"))
    assert check("resource-extension", {**extension(), "Type": ["x"]})
    assert check("resource-definition", definition(values={"A": "b"})) == []
    assert check("view-definition", view(field("A", "Number", DefaultValue=5, OptionValues=[{"a": "b"}]))) == []
    assert check("view-definition", view({"Name": "A"}))
    assert check("resource-configuration", {"Version": "1.0.0.0", "ParameterValues": "{}"}) == []
    assert check("resource-configuration", {"Version": "1.0.0.0"})
    instance = {"Name": "r", "ResourceDefinition": definition(), "InstanceView": None, "Substate": None,
                "ResourceConfiguration": {"Version": "1.0.0.0", "ParameterValues": "{}"}}  # fmt: skip
    assert check("virtual-machine-role", instance) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_command_prints_schemas(name: str) -> None:
    made = json.loads(CliRunner().invoke(command, [name]).output)
    assert made == schema(name) and made["$schema"].startswith("https://json-schema.org/")
    assert name in CliRunner().invoke(command, []).output
    assert json.loads(CliRunner().invoke(command, ["--json"]).output)[name] == made


def test_an_unknown_schema() -> None:
    result = CliRunner().invoke(command, ["nonsense"])
    assert isinstance(result.exception, UsageError)
