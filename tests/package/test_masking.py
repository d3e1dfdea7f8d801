# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import shlex
import urllib.parse
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.masking import MASK, Masker

SECRET = "p\u00e4ss<w&r>d\"it's/\\1+?"


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        escape(SECRET),
        quoteattr(SECRET),
        urllib.parse.quote(SECRET),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote_plus(SECRET),
        shlex.quote(SECRET),
        repr(SECRET),
    ],
)
def test_spellings(shown: str) -> None:
    masker = Masker([SECRET])
    masked = masker.text(f"before {shown} after")
    assert MASK in masked and "r>d" not in masked and "&r&gt;" not in masked and "w%26" not in masked
    assert masked.startswith("before ") and masked.endswith(" after")
    assert masker.bytes(f"before {shown} after".encode()) == masked.encode()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_bytes_in_other_encodings(encoding: str) -> None:
    masked = Masker([SECRET]).bytes(f"<{SECRET}>".encode(encoding))
    assert MASK.encode() in masked and "w&r".encode(encoding) not in masked


@settings(deadline=None)
@given(st.text(min_size=6, max_size=30), st.binary(max_size=9), st.binary(max_size=9), st.booleans())
def test_base64_at_every_alignment(secret: str, before: bytes, after: bytes, wide: bool) -> None:
    data = secret.encode("utf-16-le" if wide else "utf-8", "surrogatepass")
    masker = Masker([secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + data + after).decode()
        assert MASK in masker.text(text)
        assert len(masker.text(text).replace(MASK, "")) <= (len(before) + len(after)) * 4 / 3 + 8
        assert MASK.encode() in masker.bytes(text.encode())


def test_base64_leaves_no_character_of_the_secret() -> None:
    secret = "correct horse"
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + secret.encode() + b"yyy").decode()
        left = Masker([secret]).text(text).split(MASK)
        assert left[0] == base64.b64encode(b"x" * shift).decode()[: shift if shift else 0] or len(left[0]) <= shift


def test_short_secrets_are_left_to_fields() -> None:
    assert Masker(["abc", ""]).text("abc") == "abc"
    assert Masker([]).bytes(b"abc") == b"abc"
    assert Masker([]).stream().feed(b"abc") == b"abc"


def test_the_longest_secret_wins() -> None:
    assert Masker(["pass", "password"]).text("password pass passed") == f"{MASK} {MASK} {MASK}ed"


@given(
    st.lists(st.text(alphabet="ab1", min_size=4, max_size=8), min_size=1, max_size=3),
    st.text(alphabet="ab1", max_size=80),
    st.lists(st.integers(1, 10), min_size=1, max_size=20),
)
def test_a_stream_masks_like_the_whole(secrets: list[str], text: str, cuts: list[int]) -> None:
    masker = Masker(secrets)
    data = text.encode()
    stream = masker.stream()
    out: list[bytes] = []
    at = 0
    for cut in cuts:
        out.append(stream.feed(data[at : at + cut]))
        at += cut
    out += [stream.feed(data[at:]), stream.flush()]
    assert b"".join(out) == masker.bytes(data)


@pytest.mark.parametrize("length", [63, 64, 65, 100, 5000, 400_000])
def test_a_long_secret_is_masked_whole_and_where_it_is_cut(length: int) -> None:
    secret = "".join(f'{number:x}"' for number in range(length))[:length]
    masker = Masker([secret, secret[:70] + "another end"])
    assert masker.text(f"<{secret}>{json.dumps(secret)}") == f'<{MASK}>"{MASK}"'
    assert masker.text(f"<{secret[:70]}another end>") == f"<{MASK}>"
    if length > 64:
        cut = masker.text(f"<{secret[: length - 1]}>")
        assert cut == f"<{MASK}>"
    encoded = base64.b64encode(f"abc{secret}".encode()).decode()
    assert masker.text(encoded).startswith(f"YWJ{MASK}") and len(masker.text(encoded)) < 20
    stream = masker.stream()
    text = f"<{secret}>".encode()
    told = b"".join(stream.feed(text[at : at + 999]) for at in range(0, len(text), 999)) + stream.flush()
    assert told == f"<{MASK}>".encode()


def test_a_line_of_a_secret_of_several() -> None:
    """The first line of a stream is told alone, and must not be half of a secret."""
    masker = Masker(["first half of it\nsecond half of it\nend"])
    assert masker.text("it said: second half of it") == f"it said: {MASK}"
    assert masker.text("first half of it\nsecond half of it\nend") == MASK
    assert masker.text("the end") == "the end"
