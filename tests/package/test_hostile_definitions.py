# SPDX-License-Identifier: Apache-2.0
"""Definitions that nobody wrote in good faith: read in bounded time, or refused with a sentence; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import PackageError, UsageError, VmRoleError
from harness.package import Package, read_configuration, read_definition, read_package, read_parameters
from harness.package.findings import CODES
from harness.package.resolve import resolve_definition
from tests.conftest import processor_seconds
from tests.package.material import definition, field, view, with_profile, write

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["[Param.A]", "[Param.a]", "[[Param.A]", "{{Key}}", "1", "true", "corp\\bob:pa:ss", "(a+)+$", "UTC"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PIECES = [*"{}[],:\"\\' ", "[Param.A]", "A", "\\u12", "\U0001f600", "//", "1"]


def mutated(document: dict[str, Any], path: list[int], value: Any) -> dict[str, Any]:
    """``document`` with one of its values replaced: ``path`` chooses a child at each level."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    here: Any = copy
    for step in path[:-1]:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        child = here[keys[step % len(keys)]] if keys else None
        if not isinstance(child, dict | list) or not child:
            break
        here = child
    keys = list(here) if isinstance(here, dict) else list(range(len(here)))
    here[keys[path[-1] % len(keys)]] = value
    return copy


def whole() -> dict[str, Any]:
    document = definition(
        parameters=(("A", "String"), ("B", "Credential")), values={"A": "[Param.A]", "B": "[Param.B]"}
    )
    document["IntrinsicSettings"] |= {
        "ScaleOutSettings": {"InitialInstanceCount": "1", "MaximumInstanceCount": 2},
        "NetworkProfile": {
            "NetworkAdapters": [{"Name": "NIC1", "IPAddresses": [{"LoadBalancerConfigurations": [{}]}]}]
        },
        "OperatingSystemProfile": {
            "ComputerNamePattern": "[Param.A]",
            "TimeZone": "UTC",
            "AdminCredential": "[Param.B]",
            "LinuxOperatingSystemProfile": {"SSHPublicKey": "x"},
        },
    }
    document["IntrinsicSettings"]["StorageProfile"]["DataVirtualHardDisks"] = [{"Lun": "0"}]
    return document


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return read_package(
        write(tmp_path, with_profile("[Param.A] [Param.B]", parameters=(("A", "Int"), ("B", "String"))))
    )


def deploy(path: Path, package: Package) -> None:
    """Read and resolve; what is refused says so in a sentence, what is found has a documented code and a place."""
    try:
        read = read_definition(path)
        resolved = resolve_definition(read, package, {"A": "7"} if any(
            parameter.name == "A" for parameter in read.definition.resource_parameters) else {})  # fmt: skip
    except VmRoleError as error:
        assert error.exit_code == 2 and error.message
        return
    for finding in (*read.findings, *resolved.findings):
        assert finding.code in CODES
        assert finding.line is None or (finding.line >= 1 and finding.column is not None and finding.column >= 1)


@QUIET
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), VALUES)
def test_any_value_anywhere_in_a_definition(tmp_path: Path, package: Package, path: list[int], value: Any) -> None:
    deploy(write(tmp_path, mutated(whole(), path, value), "a.resdef"), package)


@QUIET
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), VALUES)
def test_any_value_anywhere_in_a_view(tmp_path: Path, package: Package, path: list[int], value: Any) -> None:
    limits = {"MinLength": 1, "MaxLength": 9, "MinRange": 0, "MaxRange": 9, "RegExp": "^.$"}
    rules = {"Required": True, **limits, "Messages": {"Required": "{{Key}}"}}
    first = field(
        "A", DefaultValue="5", OptionValues=[{"x": "y"}], ImageTags=["t"], Configurable=True, Validation=rules
    )
    form = view(first, field("B", "Credential"))
    write(tmp_path, mutated(form, path, value), "a.viewdef")
    deploy(write(tmp_path, whole(), "a.resdef"), package)


@QUIET
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES)).map("".join), VALUES.map(json.dumps)))
def test_any_text_inside_the_string(tmp_path: Path, package: Package, text: str) -> None:
    document = whole()
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = text
    path = write(tmp_path, document, "a.resdef")
    deploy(path, package)
    configuration = write(tmp_path, {"Version": "1.0.0.0", "ParameterValues": text}, "c.json")
    for finding in read_configuration(configuration).findings:
        assert finding.code in CODES
    try:
        read_parameters(package, file=configuration)
    except UsageError as error:
        assert error.message


@QUIET
@given(st.text(min_size=4, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_password_comes_through_and_is_not_shown(tmp_path: Path, package: Package, secret: str) -> None:
    read = read_definition(write(tmp_path, whole(), "a.resdef"))
    resolved = resolve_definition(read, package, {"A": "7", "B": f"corp\\bob:{secret}"})
    assert resolved.parameters.values["B"] == f"corp\\bob:{secret}"
    assert resolved.parameters.masked["B"] == "corp\\bob:__**__"
    assert secret in resolved.secrets
    assert resolved.machine.admin_password == secret and resolved.machine.admin_user == "corp\\bob"


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 5_000,
        "[" * 200_000,
        '{"A":"' + "\\" * 500_001,
        "{" + ",".join(f'"k{n}":1' for n in range(60_000)) + "}",
        "{" + ",".join("\"k\":'1'" for n in range(60_000)) + "}",
        '{"A":' + "9" * 100_000 + "}",
        '{"A":"' + "[Param.A]" * 50_000 + '"}',
        "{" * 2_000_000,
    ],
)
def test_hostile_nested_json_takes_bounded_time(tmp_path: Path, package: Package, text: str) -> None:
    document = whole()
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = text
    with processor_seconds(20):
        deploy(write(tmp_path, document, "a.resdef"), package)


def test_nested_json_in_nested_json_stays_a_string(tmp_path: Path, package: Package) -> None:
    inner = json.dumps({"A": json.dumps({"A": "[Param.A]"})})
    document = definition(parameters=(("A", "String"),))
    document["ResourceExtensionReferences"][0]["ResourceExtensionParameterValues"] = inner
    text = read_package(write(tmp_path, with_profile("[Param.A]", parameters=(("A", "String"),)), "b.resext"))
    resolved = resolve_definition(read_definition(write(tmp_path, document, "a.resdef")), text, {"A": "x"})
    assert resolved.parameters.values == {"A": '{"A": "x"}'}


def test_patterns_of_views_end(tmp_path: Path, package: Package) -> None:
    fields = [field(f"F{n}", DefaultValue="a" * 40 + "!", Validation={"RegExp": "^(a|aa)+$"}) for n in range(60)]
    write(tmp_path, view(*fields), "a.viewdef")
    with processor_seconds(20):
        read_definition(write(tmp_path, whole(), "a.resdef"))


def test_archives_of_definitions_are_as_safe_as_others(tmp_path: Path) -> None:
    from tests.package.material import zip_of

    with pytest.raises(PackageError, match="leads out of it"):
        read_definition(zip_of(tmp_path / "a.resdefpkg", {"../a.resdef": b"{}"}))
    with pytest.raises(PackageError, match="cannot be read as a zip"):
        (tmp_path / "b.resdefpkg").write_bytes(b"no zip")
        read_definition(tmp_path / "b.resdefpkg")
