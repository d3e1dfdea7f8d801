# SPDX-License-Identifier: Apache-2.0
"""What is said of a step whose texts PowerShell 7 on Wine reads otherwise than Windows PowerShell on Windows."""

from __future__ import annotations

import pytest

from harness.package.powershell.source import Script
from harness.run.windows.silent import Executed, read_otherwise, silently_wrong


def of(text: str, encoding: str = "ascii") -> Executed:
    return Executed("powershell -File x.ps1", "", "x.ps1", Script(text.encode(encoding)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n2\n'a' | sc a.txt", "line 3 of x.ps1 uses what PowerShell 7 lacks, sc, "),
        ("Get-Content a -Encoding Byte", "line 1 of x.ps1 uses what PowerShell 7 lacks, -Encoding Byte"),
        ("\n$a = $b ?? 1", "line 2 of x.ps1 uses what Windows PowerShell lacks, the operator ??"),
        ("sc start Spooler", "line 1 of x.ps1 uses what Windows PowerShell takes for something else, sc, "),
        ("[Net.ServicePointManager]::CertificatePolicy = $x", "line 1 of x.ps1 uses what PowerShell 7 lacks, Certif"),
    ],
)
def test_a_difference_is_told_with_its_line(text: str, told: str) -> None:
    (one,) = read_otherwise(of(text))
    assert one.startswith(told)


def test_letters_that_the_two_read_otherwise() -> None:
    (one,) = read_otherwise(of("'\u00fc'", "utf-8"))
    assert one.startswith("x.ps1 has other than ASCII and no byte order mark")
    assert read_otherwise(of("'\u00fc'", "utf-8-sig")) == read_otherwise(of("'\u00fc'", "utf-16")) == []


def test_the_text_after_command_and_what_is_too_much() -> None:
    (one,) = read_otherwise(Executed("powershell -Command ...", "gwmi Win32_Bios"))
    assert one.startswith("line 1 of the command uses what PowerShell 7 lacks, gwmi")
    many = "\n".join(
        ["sc a b", "gwmi x", "wget $u", "Add-PSSnapin x", "Get-Process -ComputerName x", "gc a -Encoding Byte"]
    )
    assert len(read_otherwise(of(many))) == 6 and read_otherwise(of(many))[-1] == "1 more"


def test_what_wine_does_wrong_is_told_of_code_and_not_of_comments() -> None:
    assert silently_wrong(of("# Set-Acl\n1")) == []
    (one,) = silently_wrong(Executed("", "Set-Acl a b"))
    assert one.startswith("access rights are lost")
