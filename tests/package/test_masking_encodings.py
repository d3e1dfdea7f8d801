# SPDX-License-Identifier: Apache-2.0
"""A secret with letters beyond ASCII in whatever encoding a guest writes it, and in pieces of what was shortened."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.guest.wintext import decode, without_clixml
from harness.masking import CODE_PAGES, MASK, Masker
from harness.quoting import quoted
from harness.report.text import masked, printable

SECRET = "gr\u00fcn-Stra\u00dfe&\u00c4pfel\u00e9-77"
ENCODINGS = (*CODE_PAGES, "utf-8", "utf-16-le", "utf-16-be")
MASKER = Masker([SECRET])


def pieces(text: str, secret: str = SECRET) -> list[str]:
    """Which eight characters of the secret in a row are in ``text``, in whatever encoding it was misread."""
    forms = {secret, unicodedata.normalize("NFD", secret)}
    return [form[at : at + 8] for form in forms for at in range(len(form) - 7) if form[at : at + 8] in text]


# Code pages have no accents that are characters of their own.
@pytest.mark.parametrize("encoding, form", [*((e, "NFC") for e in ENCODINGS), *((e, "NFD") for e in ENCODINGS[4:])])
def test_in_every_encoding_composed_or_not(encoding: str, form: Literal["NFC", "NFD"]) -> None:
    text = unicodedata.normalize(form, SECRET)
    before, after = "said: ".encode(encoding), " end".encode(encoding)
    told = MASKER.bytes(before + text.encode(encoding) + after)
    # UTF-16 of Latin letters is the same in both orders, a byte further on.
    assert told.replace(b"\0", b"") == f"said: {MASK} end".encode()


@pytest.mark.parametrize("written", [*CODE_PAGES, "utf-8"])
@pytest.mark.parametrize("read", [*CODE_PAGES, "utf-8"])
def test_read_in_another_encoding_than_it_was_written_in(written: str, read: str) -> None:
    for errors in ("replace", "surrogateescape", "backslashreplace"):
        if errors == "surrogateescape" and read != "utf-8":
            continue  # single bytes are all characters there, but for five of code page 1252
        text = SECRET.encode(written).decode(read, errors)
        assert MASKER.text(f"said: {text} end") == f"said: {MASK} end", errors
        assert MASKER.text(printable(f"said: {text} end")) == f"said: {MASK} end", errors
        if errors != "surrogateescape":
            assert MASKER.bytes(text.encode("utf-16-le")) == MASK.encode()


def test_what_an_encoding_has_no_characters_for() -> None:
    secret = "pa\u0142ac-\u4e2d-zamkn"
    for encoding in ("ascii", *CODE_PAGES):
        assert Masker([secret]).bytes(b"<" + secret.encode(encoding, "replace") + b">") == f"<{MASK}>".encode()
    # So little is left of this one that everything would look like it.
    assert Masker(["\u4e2d\u6587\u5bc6\u78bc"]).text("what???? ") == "what???? "


def test_a_stream_of_windows_is_masked_line_by_line() -> None:
    stream = f"caf\u00e9 {SECRET}\r\n".encode("cp1252") + f"\u2014 {SECRET}\r\n".encode() + b"end\r\n"
    text = decode(stream)
    assert text == f"caf\u00e9 {SECRET}\r\n\u2014 {SECRET}\r\nend\r\n"
    for order in (stream, b"".join(reversed(stream.splitlines(keepends=True)))):
        assert pieces(MASKER.text(decode(order))) == [] and MASKER.text(decode(order)).count(MASK) == 2
        assert MASKER.bytes(order).count(MASK.encode()) == 2


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([e for e in ENCODINGS if "16" not in e]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["", "x ", "\u00e4 ", "na\u00efve \u2014 "]), min_size=5, max_size=5),
)
def test_no_mixture_of_encodings_hides_it(encodings: list[str], words: list[str]) -> None:
    lines = [(words[n] + SECRET).encode(encoding, "replace") for n, encoding in enumerate(encodings)]
    stream = b"\n".join(lines)
    for text in (
        decode(MASKER.bytes(stream)),
        MASKER.text(decode(stream)),
        MASKER.text(stream.decode("utf-8", "replace")),
    ):
        assert text.count(MASK) >= len(lines)
        assert "Stra" not in text and "pfel" not in text


@settings(deadline=None)
@given(st.integers(0, 700), st.integers(1, 700), st.booleans())
def test_nothing_of_it_outlives_shortening(before: int, most: int, end: bool) -> None:
    secret = "correct horse  battery staple-42"
    masker = Masker([secret])
    text = "x" * before + secret + "y" * 300
    told = quoted(text, most, mask=masker.bytes, end=end)
    assert pieces(told, secret) == []
    # Who quotes knows no secrets, and who shows it does; pytest and PowerShell shorten so.
    later = masker.text(quoted(text, most, end=end))
    assert pieces(later, secret) == [] and pieces(later, " ".join(secret.split())) == []


@settings(deadline=None)
@given(st.integers(0, 40), st.sampled_from(ENCODINGS))
def test_nothing_of_it_stands_at_the_end_of_a_stream_that_was_cut(cut: int, encoding: str) -> None:
    data = ("x" * 20 + SECRET + "y" * 20).encode(encoding)
    begun, rest = data[: 20 + cut], data[20 + cut :]
    for text in (MASKER.beginning(begun), MASKER.excerpt(begun), MASKER.excerpt(rest)):
        assert pieces(text.decode(encoding, "replace")) == []


@pytest.mark.parametrize("ellipsis", ["...", "\u2026", " \u2026", " ..."])
def test_pieces_beside_an_ellipsis(ellipsis: str) -> None:
    masker = Masker(["Winter-2031-Plain-Pass"])
    assert masker.text(f"-Password 'Winter-2031-Pla{ellipsis}") == f"-Password '{MASK}{ellipsis}"
    assert masker.text(f"'Winte{ellipsis}in-Pass' was wrong") == f"'{MASK}{ellipsis}{MASK}' was wrong"
    assert masker.text(f"Wait{ellipsis} done") == f"Wait{ellipsis} done"
    assert masker.text("......") == "......"


def test_a_line_of_megabytes_is_quoted_in_one_sentence() -> None:
    masker = Masker([SECRET])
    said = quoted("\x1b[31m" + SECRET[:5] + "\x1b[0m" + SECRET[5:] + "\x07 " + "e" * (1 << 24), mask=masker.bytes)
    assert said.startswith(f"{MASK} eee") and said.endswith("eee...") and len(said) < 600


def test_json_that_was_masked_has_no_piece() -> None:
    document = {
        "finding": quoted(f"it said {SECRET * 3}", 20),
        "path": printable(SECRET.encode("cp850").decode("cp1252", "replace")),
    }
    assert pieces(json.dumps(masked(document, MASKER), ensure_ascii=False)) == []


@pytest.mark.parametrize(
    "stream, text",
    [
        ("\u00e4\u00e4\u00f6".encode() + b"\xc3", "\u00e4\u00e4\u00f6"),
        ("\u00e4 \u20ac".encode()[:-1], "\u00e4 "),
        (b"plain caf\xe9", "plain caf\u00e9"),
        ("\u00fc\n".encode() + b"caf\xe9", "\u00fc\ncaf\u00e9"),
        ("\u00fcber\n".encode() + b"\xff\xfe\xfd\n", "\u00fcber\n\ufffd\ufffd\ufffd\n"),
        ("\u00fcber \u00e4".encode() + b"\xf6 \n", "\u00fcber \u00e4\ufffd \n"),
        ("\u00fcber\n".encode("cp437") + b"ok\n", "\u00fcber\nok\n"),
        ("mark \u00e4".encode("utf-16")[:-1], "mark "),
        ("none".encode("utf-16-le") + b"x", "none"),
        ("\u5b89\u88c5\u5b8c\u6210\r\n".encode("utf-16-le"), "\u5b89\u88c5\u5b8c\u6210\r\n"),
        ("\u0433\u043e\u0442\u043e\u0432\u043e\r\n".encode("utf-16-le")[:-1], "\u0433\u043e\u0442\u043e\u0432\u043e\r"),
        (b"ok\n\0", "ok\n\0"),
    ],
)
def test_streams_that_were_cut_or_mixed(stream: bytes, text: str) -> None:
    assert decode(stream) == text


def test_half_a_character_at_a_cut_is_left_out() -> None:
    assert decode(b"only ascii \xc3", cut=True) == "only ascii "
    assert decode(b"only ascii \xe2\x82", cut=True) == "only ascii "
    assert decode("whole \u00e4".encode(), cut=True) == "whole \u00e4"


OPEN = '<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
PROGRESS = f'{OPEN}<Obj S="progress" RefId="0"><TN RefId="0"><T>x</T></TN><MS><T>Busy</T></MS></Obj></Objs>'


@pytest.mark.parametrize(
    "stream, text",
    [
        (f"#< CLIXML\r\nlink: cannot open\r\n{PROGRESS}", "link: cannot open\r\n"),
        (f"before\r\n#< CLIXML\r\n{PROGRESS}", "before\r\n"),
        (f"#< CLIXML\r\n{PROGRESS}\r\nafter", "after"),
        (f'#< CLIXML\r\n{PROGRESS}#< CLIXML\r\nmid\r\n{OPEN}<S S="Error">bad_x000A_</S></Objs>', "mid\r\nbad\n"),
        (f'#< CLIXML\n{OPEN}<S S="warning">w</S><S S="debug">d</S></Objs>', "WARNING: w\nDEBUG: d\n"),
        (f'#< CLIXML\n{OPEN}<S S="Error">cut of', "cut of"),
        (f'#< CLIXML\n{OPEN}<S S="Error">_x001B_[31mred_x001B_[0m &lt;&#x41;&gt;_x000A_</S></Objs>', "red <A>\n"),
        (f'#< CLIXML\n{OPEN}<Obj S="Error" RefId="0"><ToString>o_x000A_p</ToString></Obj></Objs>', "o\np\n"),
        ("it says #< CLIXML", "it says "),
    ],
)
def test_what_other_programs_say_beside_powershell_is_kept(stream: str, text: str) -> None:
    assert without_clixml(stream) == text


def test_masking_is_one_pass_over_megabytes() -> None:
    """A flood of what secrets begin with costs no more than its length."""
    data = b"Wint ... " * 300_000 + b"Winter-2031-Plain-Pass"
    assert re.fullmatch(rb"(__\*\*__ \.\.\. )+__\*\*__", Masker(["Winter-2031-Plain-Pass"]).bytes(data))
