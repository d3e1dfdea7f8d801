# SPDX-License-Identifier: Apache-2.0
"""Values with quotes and other characters that change the command which they are put into: they are told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.package import read_package, read_parameters
from harness.plan import make_plan
from harness.plan.names import powershell_word
from harness.plan.quotes import changed_values
from tests.package.material import with_profile, write
from tests.plan.test_plan import script

_POWERSHELL = "%WINDIR%\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe"


def told(folder: Path, value: str, **members: Any) -> list[str]:
    document = with_profile(
        windows={"ProvisioningScripts": [script(**members)]}, parameters=(("Title", "String"), ("Other", "String"))
    )
    package = read_package(write(folder, document))
    parameters = read_parameters(package, (f"Title={value}", 'Other=it\'s "x"'))
    return changed_values(package, parameters, make_plan(package, parameters, os="windows", event="deploy"))


def powershell(text: str) -> dict[str, Any]:
    return {"ExecutableAndParams": {"Executable": _POWERSHELL, "Parameters": text}}


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ("Rock 'n' Roll", powershell("-Command .\\x.ps1 -Title '[Param.Title]'")),
        ("Rock 'n' Roll", powershell("-File x.ps1 [param.Title]")),
        ('19" rack', powershell('-File x.ps1 -Title "[Param.Title]"')),
        ('19" rack', {"run": 'x.cmd "[Param.Title]"'}),
        ("O'Hara", {"run": "sqlcmd -Q \"select '[Param.Title]'\""}),
        ("\u201cquoted\u201d", powershell("-Command .\\x.ps1 -Title '[Param.Title]'")),
        ('a "b" c', {"ExecutableAndParams": None, "ScriptBlock": "rem\r\necho [Param.Title]"}),
    ],
)
def test_a_value_with_quotes_that_may_end_those_of_its_command_is_told(
    tmp_path: Path, value: str, members: dict[str, Any]
) -> None:
    (what,) = told(tmp_path, value, **members)
    assert what.startswith("the value of Title has quotes, which may end a quoted text or begin one in the command of ")
    assert value not in what


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ("O'Hara", {"run": 'echo "[Param.Title]"'}),  # cmd knows no single quotes
        ("back\\slash", powershell("-File x.ps1 '[Param.Title]'")),
        ("O'Hara", powershell("-File x.ps1 [[Param.Title]")),  # no parameter
        ("O'Hara", powershell("-File x.ps1")),
        ("R&D $1 (new)", powershell("-Command .\\x.ps1 '[Param.Title]'")),
        ("R&D $1 (new)", powershell("-File x.ps1 [Param.Title]")),
        ("R&D; 5 | 6", powershell('-Command .\\x.ps1 \\"[Param.Title]\\"')),
        ("R&D > 5", {"run": 'echo "[Param.Title]"'}),
        ("100%", {"run": "echo [Param.Title]"}),
        ("R&D > 5", {"ExecutableAndParams": {"Executable": "x.exe", "Parameters": "[Param.Title]"}}),
    ],
)
def test_other_values_are_not(tmp_path: Path, value: str, members: dict[str, Any]) -> None:
    assert told(tmp_path, value, **members) == []


@pytest.mark.parametrize(
    ("value", "members", "who"),
    [
        ("5 $ more", powershell('-Command .\\x.ps1 \\"[Param.Title]\\"'), "PowerShell"),
        ("a`nb", powershell('-Command .\\x.ps1 "[Param.Title]"'), "PowerShell"),
        ("R&D", powershell("-Command .\\x.ps1 [Param.Title]"), "PowerShell"),
        ("R&D", {"run": "echo [Param.Title]"}, "cmd.exe"),
        ("to %PATH%", {"run": 'echo "[Param.Title]"'}, "cmd.exe"),
        ("a > b", {"ExecutableAndParams": None, "ScriptBlock": "rem\r\necho [Param.Title]"}, "cmd.exe"),
    ],
)
def test_a_value_that_an_interpreter_does_not_take_as_it_is_is_told(
    tmp_path: Path, value: str, members: dict[str, Any], who: str
) -> None:
    (what,) = told(tmp_path, value, **members)
    assert f"has characters that mean more than themselves to {who}, in the command of " in what
    assert value not in what


@pytest.mark.parametrize(
    ("line", "value", "said"),
    [
        ("-File x.ps1 -Any [Param.Title]", "$true", "no Boolean"),
        ("-File x.ps1 [Param.Title]", ">log.txt", "is an argument of the script"),
        ("-[Param.Title] x.ps1 'a'", "File", "after -File single quotes"),
        ('-File x.ps1 -Any "[Param.Title]"', "a b", None),
        ("-File x.ps1 'a' [Param.Title]", "'b'", None),
    ],
)
def test_a_line_that_is_odd_only_with_its_value_is_told(
    tmp_path: Path, line: str, value: str, said: str | None
) -> None:
    odd = [one for one in told(tmp_path, value, **powershell(line)) if one.startswith("with its values")]
    assert [said in one for one in odd if said] == ([True] if said else [])
    assert all("in the command of preinstall-1: " in one for one in odd) and bool(odd) == bool(said)


def test_a_name_with_a_dash_in_front_is_no_parameter() -> None:
    assert powershell_word("-Restart") == "'-Restart'" and powershell_word("Web-Server") == "Web-Server"
