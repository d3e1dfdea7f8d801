# SPDX-License-Identifier: Apache-2.0
"""The file of a nightly: what it means, and what is said of what is wrong in it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.nightly.matrix import jobs
from harness.nightly.model import Nightly, PackageEntry, read_nightly
from harness.nightly.state import read_night, remove_old
from harness.tomltext import Where, read_toml
from tests.conftest import REPOSITORY, SAMPLES, VMROLE, vmrole

HELLO = SAMPLES / "hello-linux"

SECRET = {
    "SchemaVersion": "1.0",
    "Name": "Secretive",
    "Version": "1.0.0.0",
    "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
    "ResourceExtensionParameters": [{"Name": "Token", "Type": "SecureString"}],
    "ExtensionSettings": {
        "ApplicationProfile": {
            "Name": "Secretive",
            "LinuxApplicationProfile": {
                "RunOnceCommands": ['/bin/sh -c "echo [Param.Token]; echo [Param.Token] >&2; exit 3"']
            },
        }
    },
}


def file(folder: Path, text: str) -> Path:
    (folder / "secretive.resext").write_text(json.dumps(SECRET))
    path = folder / "n.toml"
    path.write_text(text.replace("HELLO", str(HELLO)))
    return path


def test_matrix_is_images_times_values(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        """
        images = ["one", "two@0123456789abcdef"]
        strict = true
        timeout = 60
        [[packages]]
        path = "a"
        parameters = { Fixed = 1, Read = "@values/x", Same = "over" }
        certificates = ["web.pfx:My"]
        external-payload = ["payload", "https://example.org/"]
        [packages.matrix]
        Greeting = ["Hi", "Hello"]
        Same = [true, 2.5]
        [[packages]]
        path = "b.resextpkg"
        name = "b, cold"
        images = ["three"]
        strict = false
        cold = true
        """,
    )
    nightly, _ = read_nightly(path)
    made = jobs(nightly, tmp_path)
    assert [(job.case, job.image) for job in made] == [
        (f"Greeting={greeting}, Same={same}", image)
        for image in ("one", "two@0123456789abcdef")
        for greeting in ("Hi", "Hello")
        for same in ("true", "2.5")
    ] + [("b, cold", "three")]
    assert made[0].options["parameters"] == ["Fixed=1", f"Read=@{tmp_path}/values/x", "Same=true", "Greeting=Hi"]
    assert made[0].options["certificates"] == [f"{tmp_path}/web.pfx:My"]
    assert made[0].options["external_payload"] == [f"{tmp_path}/payload", "https://example.org/"]
    assert [job.options["strict"] for job in (made[0], made[-1])] == [True, False]
    assert [job.timeout for job in (made[0], made[-1])] == [60, 60]
    assert made[-1].options["cold"]
    assert len({job.key for job in made}) == len(made)
    assert [job.key for job in jobs(read_nightly(path)[0], tmp_path)] == [job.key for job in made]


@pytest.mark.parametrize(
    ("text", "place", "said", "hint"),
    [
        ('[[packages]]\npath = "HELLO"\nimagse = ["debian-12"]', "3:1", "imagse", "did you mean images?"),
        ("", "1:1", "no packages", "[[packages]]"),
        ('images = ["debian-12"]\n\n[[packages]]\nname = "x"', "3:1", "has no path", "path ="),
        ('[[packages]]\n path = 3', "2:2", "path: input should be a valid string", "docs/nightly.md"),
        ('keep-days = 0\n[[packages]]\npath = "HELLO"', "1:1", "keep-days", "schema nightly"),
        ('[[packages]]\npath = "HELLO"\nnetwork = "all"', "3:1", "network: input should be 'none' or 'nat'", ""),
        ('[[packages]]\npath = "HELLO"\nparameters = { Greeting = [1] }', "3:16", "Greeting", ""),
        ('[[packages]]\npath = "HELLO"\nevents = ["deploy", "sing"]', "3:21", "events", ""),
        ('[[packages]]\npath = ["HELLO"', "2:PAST", "is no TOML", "quotes"),
        ('[[packages]]\npath = "nowhere"', "2:1", "nowhere does not exist", "relative to the folder of the file"),
        ('[[packages]]\npath = "HELLO"\nimages = ["debian-11"]', "3:11", "debian-11", ""),
        ('[[packages]]\npath = "HELLO"\nparameters = { Greating = "Hi" }', "3:16", "Greating", "Greeting"),
        ('[[packages]]\npath = "HELLO"\nparameters = { Greeting = "env:NOT_SET" }', "3:16", "NOT_SET", ""),
        ('[[packages]]\npath = "HELLO"\nmatrix = { Greeting = ["@gone.txt"] }', "3:12", "gone.txt", ""),
        ('[[packages]]\npath = "HELLO"\ncertificates = ["gone.pfx"]', "3:17", "gone.pfx", ""),
        ('[[packages]]\npath = "HELLO"\n[[packages]]\npath = "HELLO"', "3:1", "is there twice", "name ="),
        ('[[packages]]\npath = "secretive.resext"\nmatrix = {Token = ["plain-words"]}', "3:11", "secret", "env:"),
    ],
)  # fmt: skip
def test_wrong_files_are_explained_in_a_sentence(tmp_path: Path, text: str, place: str, said: str, hint: str) -> None:
    path = file(tmp_path, text)
    done = vmrole("nightly", path, "--output", tmp_path / "out")
    assert done.code == 2
    place = place.replace("PAST", str(len(f'path = ["{HELLO}"') + 1))
    sentence, *rest = done.stderr.splitlines()
    assert sentence.startswith(f"vmrole: {path}:{place}: "), done.stderr
    assert said in sentence
    assert hint in "".join(rest)
    assert "plain-words" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text('nonsense = 1\ntimeout = "long"\n[[packages]]\npath = 3\n', "utf-8")
    with pytest.raises(UsageError) as refused:
        read_nightly(path)
    for said in (
        "night.toml:1:1: there is nothing called 'nonsense'",
        "night.toml:2:1: timeout",
        "night.toml:4:1: path",
    ):
        assert said in refused.value.message


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    assert vmrole("nightly", tmp_path / "gone.toml").code == 2
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe4'\n")
    done = vmrole("nightly", tmp_path / "latin.toml", "--json")
    assert done.code == done.json["exit_code"] == 2
    assert "latin.toml:2: this is not UTF-8" in done.json["error"]["message"]


def test_examples_are_what_the_command_takes() -> None:
    folder = REPOSITORY / "docs/nightly"
    done = vmrole("nightly", folder / "hello.toml", "--list")
    assert (done.code, len(done.stdout.splitlines())) == (0, 4), done.stderr
    for unit in folder.glob("*.service"):
        text = unit.read_text()
        (words,) = re.findall(r"^ExecStart=\S+/vmrole (.*)$", text, re.MULTILINE)
        assert vmrole(*words.split()[:-1], folder / "hello.toml", "--list").code == 0
    for name in ("github-actions.yml", "gitlab-ci.yml"):
        assert ".venv/bin/vmrole nightly nightly.toml --output vmrole-nightly" in (folder / name).read_text()
    page = (REPOSITORY / "docs/nightly.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Nightly.model_validate(tomllib.loads(example))
    words = {name for model in (Nightly, PackageEntry) for name in model.model_json_schema()["properties"]}
    assert not {word for word in words - {"packages"} if f"`{word}`" not in page and f"{word} =" not in page}


def test_list_runs_nothing(tmp_path: Path) -> None:
    path = file(tmp_path, '[[packages]]\npath = "HELLO"\nmatrix = { Greeting = ["Hi", "Ho"] }')
    done = vmrole("nightly", path, "--list", "--json", "--output", tmp_path / "out")
    assert [(run["package"], run["case"]) for run in done.json["runs"]] == [
        ("HelloLinux", "Greeting=Hi"),
        ("HelloLinux", "Greeting=Ho"),
    ]
    assert not (tmp_path / "out").exists()


def test_schema_knows_the_words_of_the_file() -> None:
    schema = vmrole("schema", "nightly").json
    assert {"packages", "images", "keep-days", "allow-unexecuted"} <= set(schema["properties"])
    assert schema["required"] == ["packages"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["PackageEntry"]["required"] == ["path"]


def test_only_old_runs_are_removed(tmp_path: Path) -> None:
    now = datetime(2026, 6, 20, tzinfo=UTC)
    names = ["20260601T000000Z-Old-abcdef", "20260619T000000Z-New-abcdef", "20260601T000000Z-Kept-abcdef"]
    others = ["my-notes", "20260601-report", "20269901T000000Z-NoDate-abcdef"]
    for name in (*names, *others):
        (tmp_path / name / "steps").mkdir(parents=True)
    (tmp_path / "20260601T000000Z-Old-abcdef.log").touch()
    (tmp_path / "20260601T000000Z-Link-abcdef").symlink_to(tmp_path / "my-notes")
    assert remove_old(tmp_path, 14, now=now, keep=frozenset(names[2:])) == names[:1]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names[1:], *others, "20260601T000000Z-Link-abcdef"}


def paths(value: Any, at: Where = ()) -> Iterator[Where]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*at, name)
            yield from paths(item, (*at, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield (*at, number)
            yield from paths(item, (*at, number))


def test_every_key_has_its_place(tmp_path: Path) -> None:
    text = '''\
# a comment with [brackets] and "quotes"
"quoted key" = """text
[not.a.table]
x = 1 \\""" end"""
dotted.key."a.b" = 1  # [x]
list = [ # comment ]
  'a # b', ["nested", {in = 'line', deep.er = 2}],
]
date = 2026-01-01T00:00:00Z
[table."sub table"]
lit = \'\'\'one
two\'\'\'
[[many]]
one = 1
[[many.inner]]
two = 2
[[many.inner]]
two = [1.5, true]
[[many]]
[many.plain]
three = {}
'''
    file = tmp_path / "t.toml"
    file.write_text(text)
    document = read_toml(file)
    lines = text.splitlines()
    for path in paths(document.values):
        line, column = document.places[path]
        rest = lines[line - 1][column - 1 :]
        if isinstance(path[-1], str):
            names = rest.removeprefix("[").removeprefix("[")
            assert names.startswith(("dotted", "deep", "table", "many", path[-1], f'"{path[-1]}"', f'"{path[0]}"')), (
                path
            )
    assert document.place(("many", 1, "plain", "three")) == f"{file}:21:1"
    assert document.place(("many", 0, "inner", 1, "two", 1)) == f"{file}:18:13"
    assert document.place(("list", 1, 1, "in")) == f"{file}:7:24"
    assert document.place(("list", 1, 1, "gone")) == f"{file}:7:23"
    assert document.place(("gone",)) == f"{file}:1:1"


KEYS = st.text("ab-_1", min_size=1, max_size=3) | st.text(max_size=4).map(lambda s: s.replace("\x7f", ""))
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", # ]\n ".join(toml(item) for item in value) + "]"
    return json.dumps(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_places_of_any_document(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    text = "".join(f"{json.dumps(name)} = {toml(value)}\n" for name, value in values.items())
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # lone surrogates, which JSON writes and TOML does not know
        return
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text)
    assert set(read_toml(file).places) == set(paths(known))


def test_a_file_here_that_is_called_as_a_module_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "html.py").write_text("raise SystemExit('html.py of the user was run')\n")
    (tmp_path / "broken.resext").write_text("{")
    file(tmp_path, 'images = ["debian-12"]\n[[packages]]\npath = "broken.resext"')
    done = subprocess.run(
        [VMROLE, "nightly", "n.toml", "--output", "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done
    assert done.stdout.startswith("error ") and "cut off" not in done.stdout, done


RUN = "20261130T000000Z-x-abcdef"
ENTRY = {"key": "k", "package": "p", "case": "", "image": "i", "attempts": [{"run": RUN}]}
SAVED = {"schema": 1, "started": "2026-11-30T00:00:00+00:00", "finished": None, "runs": [ENTRY]}


def test_a_saved_state_is_read(tmp_path: Path) -> None:
    (tmp_path / "nightly.json").write_text(json.dumps(SAVED))
    night = read_night(tmp_path)
    assert night and night.entries["k"].run == RUN
    night.save()
    assert read_night(tmp_path) == night


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"schema": "1"}, {"started": "yesterday"}, {"started": "2026-11-30T00:00:00"}, {"finished": "x"},
        {"runs": None}, {"runs": {}}, {"runs": [None]}, {"runs": [{}]}, {"runs": [ENTRY | {"exit_code": "x"}]},
        {"runs": [ENTRY | {"attempts": [{"run": "../../etc"}]}]}, {"runs": [ENTRY | {"attempts": [{"run": 7}]}]},
        {"runs": [ENTRY | {"attempts": [{"run": f"{RUN}.log"}]}]}, {"runs": [ENTRY | {"attempts": 1}]},
        {"runs": [ENTRY | {"key": []}]}, {"runs": [ENTRY | {"seconds": "long"}]},
    ],
)  # fmt: skip
def test_a_saved_state_that_was_tampered_with(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "nightly.json").write_text(json.dumps(SAVED | change))
    with pytest.raises(UsageError, match=r"nightly\.json is no state of a nightly that can be read"):
        read_night(tmp_path)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}', b"1e999"])
def test_a_saved_state_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nightly.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"nightly\.json is no state of a nightly that can be read"):
        read_night(tmp_path)
