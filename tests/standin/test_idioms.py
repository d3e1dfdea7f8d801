# SPDX-License-Identifier: Apache-2.0
"""The idioms of cmd, each run for itself by the stand-in's cmd on this computer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from standin.runner import Runner
from tests.standin.idioms import FILES, IDIOMS, Idiom
from tests.standin.native import Listener

_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Answer:
    output: str
    error: str
    code: int


@pytest.fixture(scope="module")
def answers(wine: dict[str, str], listener: Listener) -> Iterator[dict[str, Answer]]:
    """What came of each, by its name: a few at a time, as a process mostly waits."""
    drive = Path(wine["WINEPREFIX"]) / "drive_c"
    # All share a console, and so its code page.
    alone = [idiom for idiom in IDIOMS if "chcp" in idiom.text]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        others = [idiom for idiom in IDIOMS if idiom not in alone]
        given = dict(pool.map(lambda idiom: (idiom.name, _run(listener.runner, drive, idiom)), others))
    yield given | {idiom.name: _run(listener.runner, drive, idiom) for idiom in alone}
    shutil.rmtree(drive / "idioms")


def _run(runner: Runner, drive: Path, idiom: Idiom) -> Answer:
    name = f"{IDIOMS.index(idiom):03d}"
    folder, place = drive / "idioms" / name, f"C:\\idioms\\{name}"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    what = idiom.text
    if idiom.line_end:
        lines = f"@echo off\n{idiom.text}\n".encode()
        (folder / "row.cmd").write_bytes(lines.replace(b"\n", idiom.line_end))
        what = "row.cmd"
    process = runner.run(" ".join(filter(None, ("cmd.exe", idiom.switches, "/c", what))), place, page=437)
    process.write(b"", end=True)
    said = {"stdout": b"", "stderr": b""}
    code = None
    while code is None:
        pieces, code = process.take(60.0, 1 << 20)
        for stream, data in pieces:
            said[stream] += data
    process.close()
    output, error = (data.decode("utf-8", "replace").replace("\r\n", "\n") for data in said.values())
    return Answer(output.replace(place, "{cwd}"), error, code)


@pytest.mark.parametrize("idiom", IDIOMS, ids=lambda idiom: idiom.name)
def test_an_idiom_of_cmd_is_as_on_windows_or_refused(answers: dict[str, Answer], idiom: Idiom) -> None:
    answer = answers[idiom.name]
    if idiom.refused:
        assert answer.code == 9150, (answer, idiom.source)
        assert answer.error.endswith("is not available on the stand-in guest\n")
    else:
        assert (answer.output, answer.code) == (idiom.output, idiom.code), (answer.error, idiom.source)


def test_every_idiom_has_a_name_of_its_own() -> None:
    assert len({idiom.name for idiom in IDIOMS}) == len(IDIOMS)
