# SPDX-License-Identifier: Apache-2.0
"""Several roles in one test: what is a secret of one is one in the reports of all."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from harness.cli.reporting import reporting
from harness.masking import MASK
from harness.run.events import Notice, RunFinished, RunStarted
from harness.scenario import facts
from harness.scenario.start import Scene


def lacking(what: str) -> NoReturn:
    raise AssertionError(what)


def scene_in(folder: Path) -> Scene:
    return Scene(
        folder=folder, case="c", image="debian-12", connect=None, keep="never", network="none", needs=(),
        output=lambda: folder / "out", lacking=lacking, stack=contextlib.ExitStack(),
    )  # fmt: skip


def test_the_secrets_of_a_later_role_are_taken_out_of_earlier_reports(tmp_path: Path) -> None:
    scene = scene_in(tmp_path)
    for name, own in (("first", "Secret-of-the-first"), ("second", "Secret-of-the-2nd")):
        scene.masker.add([own])
        with reporting(scene.masker, folder=tmp_path / name, quiet=True) as (bus, recorder):
            bus.emit(RunStarted(run=name, title=name))
            bus.emit(Notice(severity="note", text="it says Secret-of-the-first and Secret-of-the-2nd"))
            bus.emit(RunFinished(result=recorder.result(), exit_code=0))
        role: Any = SimpleNamespace(request=SimpleNamespace(output=tmp_path / name))
        scene.roles.append(role)
    assert "Secret-of-the-2nd" in (tmp_path / "first/events.jsonl").read_text()  # nobody knew it then
    scene.mask_again()
    for path in tmp_path.rglob("*.*"):
        text = path.read_text() if path.is_file() else ""
        assert "Secret-of-the-" not in text, path
    assert (tmp_path / "first/events.jsonl").read_text().count(MASK) == 2


def test_what_pytest_shortened_has_no_piece_of_a_secret(tmp_path: Path) -> None:
    """Its own representations leave the middle of a text out, before anybody can mask it."""
    from _pytest._io.saferepr import saferepr

    scene, secret = scene_in(tmp_path), "correct horse battery 'staple' \u00fc-42"
    scene.masker.add([secret])
    for at in range(0, 240, 3):
        shown = saferepr("x" * at + secret + "y" * (300 - at)) + " " + saferepr(("x" * at + secret).encode())
        report: Any = SimpleNamespace(longrepr=f"assert {shown}", sections=[("out", shown)], user_properties=[])
        facts.mask(report, scene.masker)
        for text in (report.longrepr, report.sections[0][1]):
            assert not any(secret[n : n + 8] in text for n in range(len(secret) - 7)), text
