# SPDX-License-Identifier: Apache-2.0
"""What authors get wrong: exit code 2, one sentence that names it, what to do; no machine starts, nothing is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, vmrole
from tests.package.material import with_profile, write, zip_of

HELLO = str(SAMPLES / "hello-linux")
ROLE = str(SAMPLES / "hello-role")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each mistake."""
    (tmp_path / "empty").mkdir()
    for name in ("a.resext", "b.resext"):
        (tmp_path / "two").mkdir(exist_ok=True)
        write(tmp_path / "two", with_profile("/bin/true"), name)
    (tmp_path / "garbage.resextpkg").write_bytes(b"garbage")
    (tmp_path / "bad.resext").write_text('{\n "Name": x}')
    (tmp_path / "readme.md").write_text("# Read me")
    zip_of(tmp_path / "wrapped.resextpkg", {"X/X.resext": json.dumps(with_profile("/bin/true")).encode()})
    document = json.dumps(with_profile("/bin/true", "gone")).replace('"gone"', "null")
    (tmp_path / "null.resext").write_text(document)
    (tmp_path / "a.cscfg").write_text("<ServiceConfiguration/>")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"),
    [
        (["check", "nowhere"], "there is no file or folder nowhere", "give a .resextpkg"),
        (["check", "pipe"], "pipe is neither a file nor a folder", ""),
        (["check", "empty"], "empty has no resource extension", "put one .resext document (or the .resdef"),
        (["check", "two"], "two has 2 resource extensions: a.resext, b.resext", "a package has one"),
        (["check", "garbage.resextpkg"], "cannot be read as a zip archive", "'vmrole pack' makes them"),
        (["check", "bad.resext"], "bad.resext, line 2, column 10: the text 'x' is not in quotes", "in double quotes"),
        (["check", "readme.md"], "readme.md is neither a package nor a document of one", "packages are .resextpkg"),
        (["check", "wrapped.resextpkg"], "has its resource extension in a folder, X/X.resext", "not the folder"),
        (["check", HELLO, "--image", "debain-12"], "there is no image 'debain-12'", "known images: debian-12"),
        (["plan", HELLO, "-p", "Greeting"], "-p 'Greeting' gives no value", "write -p NAME=VALUE"),
        (["plan", HELLO, "-p", "=x"], "-p '' names no parameter", "write -p NAME=VALUE"),
        (["plan", HELLO, "-p", "Greting=x"], "HelloLinux has no parameter 'Greting'", "did you mean Greeting?"),
        (["plan", HELLO, "-p", "Greeting=a", "-p", "Greeting=b"], "-p Greeting is given twice", "leave the other out"),
        (["plan", HELLO, "-p", "Greeting=@none"], "none cannot be read for the value of the parameter Greeting", ""),
        (["plan", HELLO, "--event", "deply"], "'deply' is no event; events are deploy, update, scale-out, delete", ""),
        (["plan", ROLE], "is a definition", "add --extension PATH"),
        (["plan", HELLO, "--extension", HELLO], "--extension is for definitions", ""),
        (["plan", ROLE, "--extension", ROLE], "is a resource definition", "give the resource extension"),
        (["plan", HELLO, "--external-payload", "none"], "there is no folder none", ""),
        (["pack", "bad.resext"], "bad.resext is a file", "name the folder"),
        (["run", "null.resext"], "null.resext:1:", "'vmrole check' shows the line"),
        (["run", "null.resext"], "element 2 of RunOnceCommands: this is null and has to be a string, and the step "
         "run-once-2 would run", ""),
        (["run", HELLO], "the parameter Greeting has no value, and the step run-once-1", "-p Greeting=..."),
        (["run", HELLO, "-p", "Greeting=x", "--external-payload", "ftp://x/"], "'ftp://x/' is no address", "http://"),
        (["run", HELLO, "-p", "Greeting=x", "--event", "update"], "nothing to run on linux at update", "at deploy and"),
        (["run", HELLO, "-p", "Greeting=x", "--service-configuration", "a.cscfg"], "nothing defines", "X.csdef"),
        (["run", ROLE, "--extension", HELLO, "-p", "Motto=it's"], "the value of 'Motto' does not match its pattern",
         "A greeting has no single quotes."),
        (["run", ROLE, "--extension", HELLO, "-p", "Greeting=x"], "HelloRole has no parameter 'Greeting'", ""),
        (["run", ROLE, "--extension", str(SAMPLES / "failing.resext")], "the name of the extension is 'Failing'",
         "found by its name, publisher and version"),
        (["new", "bad name"], "'bad name' is no name for an extension", "a letter, then letters"),
        (["new", "Good", "-o", "two"], "two is there already and not empty", "-o"),
        (["new", "Good", "-o", "readme.md"], "readme.md is a file, and a folder is wanted", "-o"),
        (["pack", "nowhere"], "there is no folder nowhere", ""),
        (["pack", "two"], "two has 2 resource extensions", "a package has one"),
        (["schema", "resext"], "there is no schema 'resext'", "did you mean resource-extension?"),
        (["chek"], "there is no command 'chek'; did you mean check?", ""),
    ],
)  # fmt: skip
def test_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str, hint: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    done = vmrole(*arguments)
    assert done.code == 2 and done.stdout == "", done
    assert sentence in done.stderr and hint in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr
    assert sorted(folder.iterdir()) == before
