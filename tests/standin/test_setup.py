# SPDX-License-Identifier: Apache-2.0
"""What the stand-in guest's Windows Setup reads out of an answer file."""

from __future__ import annotations

from pathlib import Path

import pytest

from standin.auth import Account, password_hash, read_hash, write_hash
from standin.setup import AnswerFile, SetupError, read_answer_file

_HEAD = '<unattend xmlns="urn:schemas-microsoft-com:unattend">'
_SHELL = '<component name="Microsoft-Windows-Shell-Setup">'


def _settings(name: str, *components: str) -> str:
    return f'<settings pass="{name}">{"".join(components)}</settings>'


def _password(value: str, plain: str | None) -> str:
    text = f"<Value>{value}</Value>" + (f"<PlainText>{plain}</PlainText>" if plain else "")
    accounts = f"<UserAccounts><AdministratorPassword>{text}</AdministratorPassword></UserAccounts>"
    return _settings("oobeSystem", f"{_SHELL}{accounts}</component>")


def _read(tmp_path: Path, text: str) -> AnswerFile:
    path = tmp_path / "unattend.xml"
    path.write_text(text, "utf-8")
    return read_answer_file(path)


def test_everything_is_found_in_its_pass(tmp_path: Path) -> None:
    commands = (
        "<RunSynchronous><RunSynchronousCommand><Order>2</Order><Path>second</Path></RunSynchronousCommand>"
        '<RunSynchronousCommand><Order>1</Order><Path>first "x"</Path></RunSynchronousCommand></RunSynchronous>'
    )
    last = (
        "<FirstLogonCommands><SynchronousCommand><Order>10</Order><CommandLine>ten</CommandLine></SynchronousCommand>"
        "<SynchronousCommand><Order>9</Order><CommandLine>nine</CommandLine></SynchronousCommand></FirstLogonCommands>"
    )
    text = (
        _HEAD
        + _settings(
            "specialize",
            f"{_SHELL}<ComputerName>WEB-01</ComputerName><TimeZone>UTC</TimeZone></component>",
            f'<component name="Microsoft-Windows-Deployment">{commands}</component>',
        )
        + _settings(
            "oobeSystem",
            '<component name="Microsoft-Windows-International-Core"><SystemLocale>en-US</SystemLocale></component>',
            f"{_SHELL}{last}</component>",
        )
        + _settings("windowsPE", f"{_SHELL}<ComputerName>not this one</ComputerName></component>")
        + "</unattend>"
    )
    assert _read(tmp_path, text) == AnswerFile("WEB-01", "UTC", "en-US", None, ('first "x"', "second"), ("nine", "ten"))


@pytest.mark.parametrize(
    ("value", "plain", "password"),
    [
        # the check vector of the reference: base64 of UTF-16 of the password and the element's name
        ("UABAAHMAcwB3ADAAcgBkAEEAZABtAGkAbgBpAHMAdAByAGEAdABvAHIAUABhAHMAcwB3AG8AcgBkAA==", "false", "P@ssw0rd"),
        ("P@ss &lt;w0rd&gt;", "true", "P@ss <w0rd>"),
        ("plain by default", None, "plain by default"),
    ],
)
def test_the_password_in_each_form(tmp_path: Path, value: str, plain: str | None, password: str) -> None:
    assert _read(tmp_path, f"{_HEAD}{_password(value, plain)}</unattend>").password == password


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<unattend>", "is not XML"),
        ("<unattend/>", "root is not unattend"),
        (f"{_HEAD}{_password('x', 'false')}</unattend>", "password cannot be decoded"),
        (
            _HEAD
            + _settings(
                "oobeSystem",
                f"{_SHELL}<FirstLogonCommands><SynchronousCommand><CommandLine>x</CommandLine></SynchronousCommand>"
                "</FirstLogonCommands></component>",
            )
            + "</unattend>",
            "without an order",
        ),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        _read(tmp_path, text)


def test_only_a_hash_of_the_password_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "administrator"
    write_hash(path, password_hash("P@ssw0rd"))
    # NTLM's well-known hash of this password, and for its owner alone
    assert path.read_text() == "e19ccf75ee54e06b06a5907af13cef42"
    assert path.stat().st_mode & 0o777 == 0o600
    account = Account(read_hash(path), "WEB-01")
    assert account.check("administrator", "P@ssw0rd")
    assert account.check("WEB-01\\Administrator", "P@ssw0rd")
    assert not account.check("Administrator", "p@ssw0rd")
    assert not account.check("OTHER\\Administrator", "P@ssw0rd")
