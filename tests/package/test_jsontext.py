# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import PackageError
from harness.package.jsontext import MAX_BYTES, MAX_DEPTH, read_json
from tests.conftest import processor_seconds
from tests.package.material import seed_document

scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=30
)
jsonish = st.text(alphabet=list("{}[]\"',:/\\*-+.019eEtruefalsn ulxc\n\t\u20ac\ud83d"), max_size=60)


def read(text: str) -> Any:
    return read_json(text.encode("utf-8", "surrogatepass"), "x.resext").root.plain()


def codes(text: str) -> set[str]:
    return read_json(text.encode(), "x.resext").findings.codes()


@given(values, st.sampled_from([None, 1, 4]), st.booleans())
def test_valid_json_is_what_the_standard_library_reads(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    document = read_json(data, "x.resext")
    assert document.root.plain() == json.loads(text)
    assert not document.findings.codes() - {"json-path-escape", "json-lone-surrogate", "json-duplicate-key"}


@given(jsonish)
@settings(max_examples=500)
def test_text_is_read_or_refused_and_valid_text_means_the_same(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        valid = True
    except ValueError:
        valid = False
    try:
        document = read_json(data, "x.resext")
    except PackageError as error:
        assert not valid or "\ud83d" in text
        assert "x.resext" in error.message
        return
    if valid:
        assert document.root.plain() == expected


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_json(data, "x.resext")
    except PackageError as error:
        assert "x.resext" in error.message


@pytest.mark.parametrize(
    ("text", "value", "code"),
    [
        ('{"a": 1,}', {"a": 1}, "json-trailing-comma"),
        ("[1, 2,]", [1, 2], "json-trailing-comma"),
        ("[1,, 2]", [1, 2], "json-trailing-comma"),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}, "json-missing-comma"),
        ('["a" "b"]', ["a", "b"], "json-missing-comma"),
        ("// hello\n[1] // there", [1], "json-comment"),
        ("/* a\n b */ [1]", [1], "json-comment"),
        ("['it\\'s \"so\"']", ['it\'s "so"'], "json-single-quotes"),
        ("{a: 1}", {"a": 1}, "json-unquoted-key"),
        ('["c:\\err.txt"]', ["c:\\err.txt"], "json-lone-backslash"),
        ('["\\u12"]', ["\\u12"], "json-lone-backslash"),
        ('["a\tb"]', ["a\tb"], "json-control-character"),
        ('["a\nb"]', ["a\nb"], "json-control-character"),
        ("[True]", [True], "json-literal"),
        ('["\\ud800"]', ["\ud800"], "json-lone-surrogate"),
        ('{"a": 1, "a": 2}', {"a": 2}, "json-duplicate-key"),
    ],
)
def test_what_people_write_is_read_with_a_finding(text: str, value: Any, code: str) -> None:
    assert read(text) == value
    assert codes(text) == {code}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # valid JSON means what JSON says, however much it looks like a path
        (r'["c:\temp\new.txt"]', "c:\temp\new.txt"),
        (r'["c:\\temp\\new.txt"]', r"c:\temp\new.txt"),
        # the document is broken anyway: nothing but a path can be meant
        (r'["c:\temp\new.txt",]', r"c:\temp\new.txt"),
        (r'["c:\out.txt"]', r"c:\out.txt"),
        (r'["c:\temp\err.txt"]', r"c:\temp\err.txt"),
        (r'["c:\uabcd\x.txt"]', r"c:\uabcd\x.txt"),
        (r'["cmd /c type c:\temp\new.txt\n",]', "cmd /c type c:\\temp\\new.txt\\n"),
        (r'["type c:\temp\new.txt and\nthen more",]', "type c:\\temp\\new.txt and\nthen more"),
        (r'["powershell -File .\new\build.ps1",]', r"powershell -File .\new\build.ps1"),
        (r'["%TEMP%\bin\run.exe",]', r"%TEMP%\bin\run.exe"),
        # its author escaped backslashes in this string, or it is no path
        (r'["c:\\temp\new",]', "c:\\temp\new"),
        (r'["one\ttwo\nthree",]', "one\ttwo\nthree"),
        # a path that ends with a lone backslash
        ('["c:\\dir\\", "c:\\dir\\"]', "c:\\dir\\"),
    ],
)
def test_backslashes(text: str, value: str) -> None:
    assert read(text)[0] == value


def test_a_path_that_valid_json_destroys_is_a_finding() -> None:
    document = read_json(rb'{"StandardErrorPath": "c:\temp\err"}'.replace(b"\\err", b"\\rr"), "x.resext")
    assert document.root.plain() == {"StandardErrorPath": "c:\temp\rr"}
    (finding,) = document.findings
    assert (finding.code, finding.line, finding.column, finding.pointer) == (
        "json-path-escape",
        1,
        23,
        "/StandardErrorPath",
    )


def test_places_count_characters_and_know_every_line_end() -> None:
    document = read_json('\ufeff{\r\n "\u00e4\U0001f600": [1,\r  {"b/~c": null}\n]}'.encode(), "x.resext")
    node = document.find("/\u00e4\U0001f600/1/b~1~0c")
    assert node is not None
    assert (node.line, node.column) == (3, 12)
    assert node.key_place == (3, 4)
    assert node.pointer == "/\u00e4\U0001f600/1/b~1~0c"
    first = document.find("/\u00e4\U0001f600/0")
    assert first is not None and (first.line, first.column) == (2, 9)
    assert document.line_text(3) == '  {"b/~c": null}'


def test_findings_have_their_place() -> None:
    document = read_json(b'{\n  "a": [1,\n    2,\n  ],\n  "b": "c:\\err"\n}', "x.resext")
    found = {(finding.code, finding.line, finding.column, finding.pointer) for finding in document.findings}
    assert found == {("json-trailing-comma", 3, 6, "/a"), ("json-lone-backslash", 5, 11, "/b")}
    assert all(finding.hint and finding.file == "x.resext" for finding in document.findings)


def test_a_duplicate_key_names_both_places() -> None:
    (finding,) = read_json(b'{"a": 1,\n "b": 2,\n  "a": 3}', "x.resext").findings
    assert "line 1, column 2" in finding.sentence and "line 3, column 3" in finding.sentence
    assert (finding.line, finding.column) == (3, 3)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 1"),
        ('{"a": [1, 2}', "line 1, column 12"),
        ('{"a" 1}', "line 1, column 6"),
        ("[1] 2", "line 1, column 5"),
        ("[01]", "line 1, column 2"),
        ("[hello]", "line 1, column 2"),
        ('["a', "line 1, column 2"),
        ("/* a", "line 1, column 1"),
        ('{"a":\n}', "line 2, column 1"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"line 1, column {MAX_DEPTH + 1}"),
        ("[" + "1" * 2000 + "]", "line 1, column 2"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, place: str) -> None:
    with pytest.raises(PackageError) as caught:
        read(text)
    assert caught.value.message.startswith(f"x.resext, {place}: ")


def test_a_missing_closing_quote_is_explained() -> None:
    with pytest.raises(PackageError) as caught:
        read('{\n"a": "x,\n"b": "y"\n}')
    assert "line 2" in str(caught.value.hint)


def test_encodings() -> None:
    assert read_json(b"\xef\xbb\xbf[1]", "x").root.plain() == [1]
    for encoding in ("utf-16-le", "utf-16-be"):
        for mark in ("", "\ufeff"):
            document = read_json((mark + '["\u20ac"]').encode(encoding), "x")
            assert document.root.plain() == ["\u20ac"]
            assert document.findings.codes() == {"json-utf16"}
    document = read_json('["a",\r\n "Größe"]'.encode("cp1252"), "x")
    assert document.root.plain() == ["a", "Gr\ufffd\ufffde"]
    (finding,) = document.findings
    assert (finding.code, finding.severity, finding.line, finding.column) == ("json-encoding", "warning", 2, 5)
    assert finding.sentence.startswith("the byte F6 is not UTF-8")
    for junk in (b"\x89PNG\r\n", b"\xff\xfe\x00", b"\0\0\0\0", b"\xff"):
        with pytest.raises(PackageError, match="line 1, column 1: "):
            read_json(junk, "x")


def test_limits() -> None:
    with pytest.raises(PackageError, match="bytes"):
        read_json(b" " * (MAX_BYTES + 1), "x")
    with pytest.raises(PackageError, match="values"):
        read_json(b"[" + b"1," * 500_000 + b"1]", "x")
    assert math.isinf(read("[1e999]")[0])


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 400_000,
        "['" + "\\'" * 400_000 + "']",
        '["c:' + '\\"' * 400_000 + '"]',
        '["' + "c:\\t " * 150_000 + '",]',
        "[" + "1,," * 100_000 + "1]",
        "/*" * 400_000,
        "{" + '"a":1,' * 100_000 + "}",
        '["' + "\\ud800" * 100_000 + '"]',
        '["' + "%a" * 400_000 + '\\t"]',
    ],
    ids=range(9),
)
def test_hostile_documents_take_linear_time(text: str) -> None:
    with processor_seconds(10), contextlib.suppress(PackageError):
        document = read_json(text.encode(), "x")
        assert len(document.findings) < 500


def test_the_seeds_own_sample() -> None:
    document = read_json(seed_document(), "seed.resext")
    assert document.findings.codes() == {"json-trailing-comma", "json-lone-backslash", "json-duplicate-key"}
    path = "/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile/ScriptApplications/0"
    for name, value in (("StandardErrorPath", "c:\\err.txt"), ("StandardOutputPath", "c:\\out.txt")):
        node = document.find(f"{path}/{name}")
        assert node is not None and node.value == value
