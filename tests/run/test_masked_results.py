# SPDX-License-Identifier: Apache-2.0
"""What a guest says is masked before anything of it is cut: nothing of a secret is in any file of a run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli.reporting import reporting
from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.protocol import Guest, GuestResult, RestartToCome
from harness.machine.console import CAP, ConsoleRecorder
from harness.masking import MASK, Masker
from harness.package import read_package, read_parameters
from harness.plan import make_plan
from harness.run.collect import take_archive, write_index
from harness.run.events import Notice, RunFinished, RunStarted, ScenarioActed
from harness.run.execute import execute
from harness.run.linux.execute import LinuxExecutor
from harness.run.runner import console_log
from harness.scenario.guest import ScenarioGuest
from tests.run.tars import tar_of

SECRET = "correct h\u00f6rse  battery staple 'n\u00ba 42'"


class Saying:
    """A guest whose every command fails and says the same."""

    def __init__(self, stdout: bytes, stderr: bytes, *, truncated: bool = False) -> None:
        self._result = GuestResult(7, stdout, stderr, 0.1, truncated=truncated)

    def run(
        self, argv: Sequence[str], *, deadline: Deadline, timeout: float | None = None, stdin: bytes = b"",
        env: Mapping[str, str] | None = None, cwd: str | None = None, max_output: int = 0,
    ) -> GuestResult:  # fmt: skip
        return self._result

    def restart_to_come(self, *, deadline: Deadline) -> RestartToCome:
        return lambda deadline: ""

    def restarting(self, *, deadline: Deadline) -> bool:
        return False


def pieces(folder: Path, secret: str = SECRET) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
        for form in (secret, " ".join(secret.split()), json.dumps(secret)[1:-1]):
            found += [f"{path}: {form[at : at + 8]}" for at in range(len(form) - 7) if form[at : at + 8] in text]
    return found


def run_steps(folder: Path, guest: Saying, steps: int = 1) -> None:
    """As in a run: the steps of a package, with the reports of a run directory."""
    document = folder / "x.resext"
    document.write_text(json.dumps({
        "SchemaVersion": "1.0", "Name": "X", "Version": "1.0.0.0", "Publisher": "p",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ExtensionSettings": {"ApplicationProfile": {"Name": "X", "LinuxApplicationProfile": {
            "RunOnceCommands": ["/bin/false"] * steps,
        }}},
    }))  # fmt: skip
    package = read_package(document)
    plan = make_plan(package, read_parameters(package, (), None), os="linux", event="deploy")
    masker = Masker([SECRET])
    with reporting(masker, folder=folder / "out", quiet=True) as (bus, recorder):
        bus.emit(RunStarted(run="r", title="t"))
        execute(plan, LinuxExecutor(), cast(Guest, guest), bus, deadline=Deadline(60), masker=masker)
        bus.emit(RunFinished(result=recorder.result(), exit_code=1))


def test_a_first_line_of_megabytes_is_one_sentence_of_each_finding(tmp_path: Path) -> None:
    run_steps(tmp_path, Saying(b"", SECRET.encode() + b"e" * (4 << 20)), steps=4)
    result = json.loads((tmp_path / "out/result.json").read_text())
    findings = [step["finding"] for step in result["instances"][0]["steps"]]
    assert len(findings) == 4 and all(said.startswith(f"{MASK}eee") and len(said) < 2000 for said in findings)
    assert (tmp_path / "out/result.json").stat().st_size < 400_000
    assert (tmp_path / "out/events.jsonl").stat().st_size < 700_000
    assert pieces(tmp_path / "out") == []


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2000), st.integers(0, 60), st.sampled_from(["utf-8", "latin-1", "cp850", "utf-16-le"]))
def test_no_cut_leaves_a_piece_in_any_file(
    tmp_path_factory: pytest.TempPathFactory, before: int, cut: int, encoding: str
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    data = (b"x" * before) + SECRET.encode(encoding)[:cut]
    run_steps(folder, Saying(data, b"e" * before + SECRET.encode(encoding) + b"y" * 70_000, truncated=True))
    assert pieces(folder / "out") == []


def test_a_scenario_shows_the_end_of_a_stream_masked() -> None:
    for left in range(460, 505):
        said = ("x" * 50 + SECRET + "y" * left).encode()
        guest = ScenarioGuest(None, None, Masker([SECRET]))  # type: ignore[arg-type]
        told = guest._told(GuestResult(1, said, b"", 0.1), ["cat"])
        assert not any(SECRET[at : at + 8] in told for at in range(len(SECRET) - 7)), told


def test_words_that_an_error_quotes_are_found_by_the_mask_of_whoever_shows_it() -> None:
    for before in range(150, 205):
        said = GuestResult(1, b"", ("x" * before + " " + SECRET + " end").encode(), 0.1).said
        told = Masker([SECRET]).text(f"the guest cannot: {said}")
        assert "battery" not in told and "correct h" not in told, told


def test_an_error_that_leaves_the_reports_is_masked() -> None:
    with pytest.raises(GuestError) as caught, reporting(Masker([SECRET]), folder=None, quiet=True):
        raise GuestError(f"its last console line is '{SECRET}'", hint=f"not {SECRET}")
    assert SECRET not in caught.value.message and MASK in str(caught.value) and SECRET not in str(caught.value)


def test_a_console_is_masked_where_its_middle_was_dropped() -> None:
    masker = Masker([SECRET])
    data = SECRET.encode()
    for cut in range(len(data)):
        console = ConsoleRecorder()
        console.feed(b"x" * (CAP // 2 - cut) + data)  # its end is the first byte of what is dropped
        console.feed(b"y" * (CAP // 2))
        console.feed(data[cut:] + b"z" * (CAP // 2 - len(data) + cut))
        text = console_log(console, masker).decode()
        assert not any(SECRET[at : at + 8] in text for at in range(len(SECRET) - 7)), cut
        if cut in (0, 20):
            assert "bytes of console output were not kept" in text
        if cut > 2:
            break


def test_collected_files_and_their_names(tmp_path: Path) -> None:
    masker, index = Masker([SECRET]), dict[str, str]()
    long = "d/" * 190 + SECRET + "/x.log"
    archive = tar_of({long: SECRET.encode("cp850"), "b.log": b"at the end: " + SECRET.encode()[:20]})
    assert take_archive(archive, lambda name: name, tmp_path, index, masker.excerpt, deadline=Deadline(60)) == (
        [],
        False,
    )
    write_index(tmp_path, index)
    assert pieces(tmp_path) == []
    assert (tmp_path / "file-001.log").read_bytes() == MASK.encode()


def test_events_of_any_kind_have_no_piece(tmp_path: Path) -> None:
    with reporting(Masker([SECRET]), folder=tmp_path / "out", quiet=True) as (bus, recorder):
        bus.emit(Notice(severity="warning", text=f"w {SECRET[:30]}..."))
        bus.emit(ScenarioActed(what=f"run {SECRET}", seconds=1.0, ok=False, told=f"\u2026{SECRET[9:]}"))
        bus.emit(RunFinished(result=recorder.result(), exit_code=1))
    assert pieces(tmp_path / "out") == []
