# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.package import Package, read_package, read_parameters
from harness.package.definition import read_definition
from harness.package.parameters import read_values
from harness.package.resolve import resolve_definition
from harness.package.substitution import placeholders, substitute
from tests.package.material import definition, seed_document, with_profile, write

KINDS = (("Name", "String"), ("Port", "Int"), ("Loud", "boolean"), ("Clerk", "Credential"), ("Key", "SECURESTRING"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    command = "/bin/echo " + " ".join(f"[Param.{name}]" for name, _ in KINDS)
    return read_package(write(tmp_path, with_profile(command, parameters=KINDS)))


@pytest.mark.parametrize(
    ("text", "result", "unresolved"),
    [
        ("[Param.A]", "1", ()),
        ("[param.A][PARAM.B]", "12", ()),
        ("x[Param.A]y[Param.C]z[Param.C]", "x1y[Param.C]z[Param.C]", ("C",)),
        ("[Param.a]", "[Param.a]", ("a",)),  # names are exact
        ("[[Param.A]", "[Param.A]", ()),
        ("[[[Param.A]", "[1", ()),
        ("[[1-9][[0-9]*", "[1-9][0-9]*", ()),
        ("[1-9][0-9]*", "[1-9][0-9]*", ()),
        ("[Param.]", "[Param.]", ()),
        ("[Param.D]", "[Param.A]", ()),  # what was inserted is not looked at again
    ],
)
def test_substitution(text: str, result: str, unresolved: tuple[str, ...]) -> None:
    done = substitute(text, {"A": "1", "B": "2", "D": "[Param.A]"})
    assert (done.text, done.unresolved) == (result, unresolved)
    assert set(unresolved) <= set(placeholders(text))


@given(st.text(alphabet="[]Pparm.AB1", max_size=40))
def test_substitution_takes_anything(text: str) -> None:
    done = substitute(text, {"A": "1"}, {"A": "*"})
    assert done.unresolved == tuple(name for name in placeholders(text) if name != "A")


def test_values_from_everywhere(package: Package, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps({"Name": "from the file", "Port": 80, "Loud": False}))
    (tmp_path / "key").write_bytes(b"key from a file\r\n")
    parameters = read_parameters(
        package,
        ("Name=a=b", f"Key=@{tmp_path / 'key'}", "Clerk=env:CLERK"),
        file,
        environ={"CLERK": r"corp\bob:pass:word"},
    )
    assert parameters.values == {
        "Name": "a=b",
        "Port": "80",
        "Loud": "false",
        "Key": "key from a file",
        "Clerk": r"corp\bob:pass:word",
    }
    assert parameters.masked == {"Key": "__**__", "Clerk": r"corp\bob:__**__"}
    assert set(parameters.secrets) == {"key from a file", "pass:word"}
    assert parameters.missing == () and parameters.warnings == ()
    assert parameters.fill("[Param.Clerk]").masked == r"corp\bob:__**__"


def test_a_configuration_has_its_values_in_a_string(package: Package, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    inner = json.dumps({"Clerk": {"UserName": "bob", "Password": "hush-hush"}, "Port": 5, "Name": None})
    file.write_text("\ufeff" + json.dumps({"Version": "1.0.0.0", "ParameterValues": inner}), encoding="utf-8")
    parameters = read_parameters(package, (), file)
    assert parameters.values == {"Clerk": "bob:hush-hush", "Port": "5"}
    assert parameters.missing == ("Name", "Loud", "Key")


def test_secrets_on_the_command_line_work_and_warn(package: Package) -> None:
    parameters = read_parameters(package, ("Key=literal-key", "Clerk=NT AUTHORITY\\System:", "Name=x"))
    assert parameters.secrets == ("literal-key",)
    (warning,) = parameters.warnings
    assert "Key" in warning and "literal-key" not in warning
    assert parameters.fill("[Param.Clerk]").masked == "NT AUTHORITY\\System:"


def test_short_secrets_are_masked_by_field(package: Package) -> None:
    assert read_parameters(package, ("Key=ab",)).fill("-k [Param.Key] ab").masked == "-k __**__ ab"


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("Nmae=x", r"no parameter 'Nmae'; it has Name, Port.*did you mean Name"),
        ("name=x", "did you mean Name"),
        ("Zebra=x", "it has Name, Port, Loud, Clerk, Key$"),
        ("Name", "gives no value"),
        ("=x", "names no parameter"),
        ("Port=many", "whole number"),
        ("Loud=perhaps", "not true or false"),
        ("Clerk=bob", "no colon"),
        ("Name=env:NOT_SET_ANYWHERE", "not set"),
        ("Name=@/nonexistent/file", "cannot be read"),
        ("Name=a\0b", "NUL"),
    ],
)
def test_wrong_values_are_usage_errors(package: Package, given: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        read_parameters(package, (given,), environ={})


def test_values_never_appear_in_errors(package: Package) -> None:
    for assignment in ("Clerk=hush-hush", "Port=hush-hush", "Loud=hush-hush"):
        with pytest.raises(UsageError) as caught:
            read_parameters(package, (assignment,))
        assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", "{", '{"Name": [1]}', '{"Version": "1.0.0.0", "ParameterValues": "{"}'])
def test_unreadable_parameter_files_are_usage_errors(package: Package, tmp_path: Path, content: str) -> None:
    file = tmp_path / "values.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        read_parameters(package, (), file)


def test_the_documents_own_passwords_are_secret(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    package = read_package(path)
    expected = {"MySAPassword", "password", "mypassword", "mypassword2", "mypassword4"}
    assert set(read_parameters(package).secrets) == expected
    # used without declaration: known from their use, and a credential because of where
    parameters = read_parameters(package, ("SQLScriptCommandCredential=bob:hush-hush",))
    assert set(parameters.secrets) == {*expected, "hush-hush"}


def test_a_password_made_of_a_plain_parameter_is_secret(tmp_path: Path) -> None:
    script = {"ErrorPolicy": "FailOnMatch", "ScriptType": "PreInstall", "ScriptCredential": "corp\\bob:[Param.Word]"}
    document = with_profile(windows={"ProvisioningScripts": [script]}, parameters=(("Word", "String"),))
    assert read_parameters(read_package(write(tmp_path, document)), ("Word=hush-hush",)).secrets == ("hush-hush",)


NESTED = '{"Version": "1.0.0.0",\n "ParameterValues": "{\\"Name\\": \\"x\\",\\n %s}"}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"Name": "x",\n  "Port": "many"}', "values.json:2:3: the parameter Port is an Int"),
        ('{"Loud":\n "perhaps"}', "values.json:1:2: the parameter Loud is a Boolean"),
        ('{"Clerk": "nobody"}', "values.json:1:2: the parameter Clerk is a Credential"),
        ('{"Name": ["x"]}', "values.json:1:2: the value of the parameter Name has to be text"),
        ('{\n\n    "Nmae": "x"}', "values.json:3:5: Small has no parameter 'Nmae'"),
        (NESTED % '\\"Port\\": \\"many\\"', "values.json:2:42: the parameter Port is an Int"),
        ('{"Version": "1.0.0.0",\n "ParameterValues": "{\\"Name\\" x}"}', "values.json:2:32: "),
    ],
)
def test_mistakes_in_a_file_have_a_place(package: Package, tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "values.json"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_parameters(package, (), file)
    assert caught.value.message.startswith(said), caught.value.message


def test_a_value_on_the_command_line_has_no_place(package: Package, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text('{"Port": "1"}')
    with pytest.raises(UsageError, match=r"^the parameter Port is an Int"):
        read_parameters(package, ["Port=many"], file)
    with pytest.raises(UsageError, match=r"^Small has no parameter 'Prot'") as caught:
        read_parameters(package, ["Prot=1"], file)
    assert caught.value.hint == "did you mean Port?"


def test_a_mistake_for_a_definition_has_a_place(tmp_path: Path) -> None:
    role = read_definition(write(tmp_path, definition((("Port", "Int"),)), "role.resdef"))
    file = tmp_path / "values.json"
    for content, said in (('{\n"Prot": 1}', "Role has no parameter"), ('{\n"Port": "x"}', "the parameter Port is an")):
        file.write_text(content)
        with pytest.raises(UsageError, match=rf"^values\.json:2:1: {said}"):
            resolve_definition(role, None, read_values((), file))
