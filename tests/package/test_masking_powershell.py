# SPDX-License-Identifier: Apache-2.0
"""Every spelling of a secret that PowerShell and .NET make: by a real engine where there is one, and by rule."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.masking import MASK, Masker
from tests.conftest import HANGS
from tests.pwsh import unpacked

SECRETS = (
    'it\'s "quoted" & <b>/50%',
    "corr\u00e9ct horse battery \u201cstaple\u201d \U0001f600 $x `y` _x0041_",
    "Gr\u00fcn-Stra\u00dfe+7/\u0142\u00f3d\u017a",
    "plain.word[1]{2}^(3)?*|#\\n",
)
#: What each line writes of $s is named before it.
SCRIPT = r"""
$utf8 = [Text.Encoding]::UTF8; $utf16 = [Text.Encoding]::Unicode
$secrets = $utf8.GetString([Convert]::FromBase64String($env:SECRETS)) | ConvertFrom-Json
foreach ($s in $secrets) {
    $literal = "'" + [Management.Automation.Language.CodeGeneration]::EscapeSingleQuotedStringContent($s) + "'"
    $long = "Connect-Somewhere -Verbose -Password $literal -Force -Wait; " * 3
    $many = [pscustomobject]@{ Password = "$s and $s and $s and $s and $s" }
    $made = [ordered] @{
        plain = $s
        json = ConvertTo-Json $s
        html_json = ConvertTo-Json $s -EscapeHandling EscapeHtml
        ascii_json = ConvertTo-Json $s -EscapeHandling EscapeNonAscii
        dotnet_json = [Text.Json.JsonSerializer]::Serialize($s, [string], [Text.Json.JsonSerializerOptions]::Default)
        url = [Net.WebUtility]::UrlEncode($s)
        data = [Uri]::EscapeDataString($s)
        http = [Web.HttpUtility]::UrlEncode($s)
        html = [Net.WebUtility]::HtmlEncode($s)
        security = [Security.SecurityElement]::Escape($s)
        regex = [regex]::Escape($s)
        literal = $literal
        csv = [pscustomobject]@{ a = $s } | ConvertTo-Csv | Select-Object -Last 1
        clixml = [Management.Automation.PSSerializer]::Serialize($s)
        xml = ([pscustomobject]@{ a = $s } | ConvertTo-Xml).OuterXml
        base64 = [Convert]::ToBase64String($utf8.GetBytes("a $s b"))
        wide = [Convert]::ToBase64String($utf16.GetBytes("-p $literal"))
        lines = [Convert]::ToBase64String($utf16.GetBytes($long), 'InsertLineBreaks')
        hexadecimal = [Convert]::ToHexString($utf8.GetBytes($s))
        bits = [BitConverter]::ToString($utf16.GetBytes($s))
        bytes = "$($utf8.GetBytes($s))"
        list = $many | Format-List | Out-String -Width 40
        table = $many | Format-Table | Out-String -Width 36
    }
    foreach ($name in $made.Keys) { "@@$name"; $made[$name] }
    foreach ($width in 0..40) {
        "@@error$width"
        try { throw "$('x' * $width) refused $s, it said" } catch { $_ | Out-String -Width 60 }
    }
}
"""


def pieces(text: str, secret: str) -> list[str]:
    """What is left of a secret, 8 letters or more in a row."""
    return [secret[at : at + 8] for at in range(len(secret) - 7) if secret[at : at + 8] in text]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, str, str]]]:
    """Secret, name and text of each spelling that a real engine made."""
    script = tmp_path_factory.mktemp("made") / "made.ps1"
    script.write_text(SCRIPT, "utf-8-sig")
    coded = base64.b64encode(json.dumps(SECRETS).encode()).decode()
    environment = {"PATH": os.defpath, "HOME": "/nonexistent", "SECRETS": coded, "LANG": "C.UTF-8"}
    with unpacked() as program:
        argv = [program, "-NoProfile", "-File", str(script)]
        done = subprocess.run(argv, capture_output=True, timeout=HANGS, check=False, env=environment)
    assert not done.stderr, done.stderr.decode()
    parts = re.split(r"^@@(\w+)\r?\n", done.stdout.decode("utf-8"), flags=re.MULTILINE)[1:]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    count = len(pairs) // len(SECRETS)
    yield [(SECRETS[at // count], name, text) for at, (name, text) in enumerate(pairs)]


def test_what_a_real_engine_makes_of_a_secret(made: list[tuple[str, str, str]]) -> None:
    assert len(made) > 60 * len(SECRETS)
    shown = {(secret, name): Masker([secret]).text(text) for secret, name, text in made}
    whole = {"list", "table", *(name for _, name in shown if name.startswith("error"))}
    lost = [name for (secret, name), text in shown.items() if MASK not in text and name not in whole]
    assert lost == []
    left = {name: text for (secret, name), text in shown.items() if pieces(text, secret)}
    assert left == {}


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", "\n     | ", "\r\n     | ", "\n         ", "\x1b[0m\n\x1b[36;1m     | \x1b[31;1m"]
)
@pytest.mark.parametrize("secret", ["correct horse battery staple", "OneLongWordWithoutBlanks1", "it's a \u00fc"])
def test_a_secret_that_goes_on_in_the_next_line(secret: str, end: str) -> None:
    masker = Masker([secret])
    for at in range(1, len(secret)):
        # A blank where the line ends may be gone.
        for text in (secret[:at] + end + secret[at:], secret[:at].rstrip() + end + secret[at:].lstrip()):
            assert masker.text(f"said {text}, it did") == f"said {MASK}, it did", (text,)
    assert Masker(["mypassword"]).text(f"the{end}password") == f"the{end}password"


def test_on_three_lines_and_in_a_stream_of_pieces() -> None:
    masker = Masker(["correct horse battery staple"])
    data = b"the word correct\n     | horse battery\n     | staple was refused\n" * 50
    for size in (1, 7, 64, 1000):
        stream = masker.stream()
        out = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.flush()
        assert out == f"the word {MASK} was refused\n".encode() * 50


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines(width: int) -> None:
    secret = "Summer-2024-Plain"
    for before in range(80):
        code = base64.b64encode(b"x" * before + f"password={secret};".encode() + b"y" * 60).decode()
        lines = "\n".join(code[at : at + width] for at in range(0, len(code), width))
        shown = Masker([secret]).text(lines)
        read = re.sub("[^A-Za-z0-9+/]", "", shown.replace(MASK, ""))
        assert MASK in shown and secret[4:12].encode() not in base64.b64decode(read + "A" * (-len(read) % 4)), before


def test_what_only_begins_like_a_secret_hides_no_other() -> None:
    masker = Masker(["correct horse", "se\nnothing", "horses"])
    assert masker.text("correct hor\nse") == MASK
    assert masker.text("the correct\n one") == "the correct\n one"
    # What begins in the beginning of another one.
    assert Masker(["abcdefgh", "def\nxyz"]).text("abcdef\nxyz") == f"abc{MASK}"


@settings(deadline=None, max_examples=40)
@given(st.text(min_size=8, max_size=30), st.text(max_size=20))
def test_html_json_and_doubled_quotes_of_any_text(secret: str, around: str) -> None:
    masker = Masker([secret])
    forms = [
        html.escape(secret),
        json.dumps(secret).replace("<", "\\u003c").replace("&", "\\u0026"),
        secret.replace('"', '""'),
    ]
    for form in forms:
        try:
            form.encode()
        except UnicodeEncodeError:
            continue
        assert form.strip('"') not in masker.text(f"{around}{form}{around}") or form.strip('"') in MASK


def test_many_secrets_and_long_ones_cost_little() -> None:
    masker = Masker([f"secret number {number} of many" for number in range(500)] + ["x y" * 5000])
    assert masker.text("secret number 7 of many") == MASK
