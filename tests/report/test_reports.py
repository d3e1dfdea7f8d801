# SPDX-License-Identifier: Apache-2.0
"""Every report of one and the same run, with secrets and hostile text in all of its fields."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.html  # type: ignore[import-untyped, unused-ignore]
import pytest
from rich.console import Console

from harness.machine.protocol import Accelerator
from harness.masking import Masker
from harness.report.ansi import to_html
from harness.report.html import HtmlReport
from harness.report.index import write_index
from harness.report.json_files import JsonFiles, step_folder
from harness.report.plain import PlainReport
from harness.report.terminal import TerminalReport
from harness.report.text import NoMask, Shown, duration, masked, printable, strip_ansi
from harness.run import events
from harness.run.readback import Observation
from harness.run.recorder import Recorder
from harness.run.result import (
    CertificateResult,
    ImageFacts,
    LocalResourceResult,
    Outcome,
    StepResult,
    StepTimeout,
    conclude,
    utc_now,
)

SECRET = "hunter2-very-secret"
NASTY = f"<script>alert(1)</script>\x1b[31mred\x1b[0m\x1b]0;title\x07 {SECRET} \x00\u202e&amp;"


def story(nasty: str = NASTY) -> Iterator[events.Event]:
    """A run with everything in it, up to its last event."""
    recorder = Recorder()

    def told(event: events.Event) -> events.Event:
        recorder(event)
        return event

    yield told(events.RunStarted(run="run-1", title=f"title {nasty}"))
    yield told(events.RunPlanned(phases=("boot", "steps"), steps=(("run-once-1", "a"), ("run-once-2", "b"))))
    yield told(
        events.MachineChosen(image=ImageFacts("debian-12", "0123456789abcdef"), accelerator=Accelerator("tcg", nasty))
    )
    yield told(events.Notice(severity="warning", text=f"warned {nasty}", hint=nasty))
    yield told(events.Notice(severity="note", text="noted"))
    yield told(events.PhaseStarted(name="boot", awaits=f"the guest {nasty}", limit=60))
    yield told(events.StageReached(stage=f"booting {nasty}"))
    yield told(events.PhaseFinished(name="boot", seconds=8.25))
    yield told(
        events.SpecializationRead(
            observations=(
                Observation("computer-name", "A", "A", True),
                Observation("locale", "en_US.UTF-8", f"C {nasty}", False),
                Observation("entropy", "its own", "unseen", True, provable=False),
            ),
            certificates=(CertificateResult("AB" * 20, nasty, "/var/lib/waagent/x.crt"),),
            local_resources=(LocalResourceResult(nasty, "/resources/Work", 100),),
        )
    )
    yield told(events.PhaseStarted(name="steps"))
    yield told(events.StepStarted(id="run-once-1", name="first", kind="run-once", command=f"echo {nasty}",
                                 timeout=StepTimeout(300, 2100)))  # fmt: skip
    first = StepResult(
        "run-once-1", "first", "run-once", Outcome.succeeded, f"echo {nasty}", 0, nasty, "", utc_now(), 0.5
    )
    yield told(events.StepFinished(step=first, stdout=f"{SECRET} \xff".encode("latin-1"), stderr=b""))
    yield told(events.StepStarted(id="run-once-2", name="second", kind="run-once", command="false"))
    second = StepResult(
        "run-once-2", "second", "run-once", Outcome.failed, "false", 5, "", f"line 1\n{nasty}\n", utc_now(), 61.0
    )
    second = dataclasses.replace(second, finding=f"why {nasty}")
    yield told(events.StepFinished(step=second, stderr=b"line 1\n"))
    third = StepResult("../../etc/x", nasty, "script", Outcome.not_executable, after_unexecuted=True)
    yield told(events.StepFinished(step=third))
    yield told(events.PhaseFinished(name="steps", seconds=62.0, ok=False))
    conclusion = conclude(recorder.instances, warnings=recorder.warnings)
    result = recorder.result(conclusion)
    yield events.RunFinished(result=result, exit_code=conclusion.exit_code, seconds=71.5)


@pytest.fixture
def masker() -> Masker:
    return Masker([SECRET])


def safe(text: str) -> None:
    assert SECRET not in text
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_run_directory(tmp_path: Path, masker: Masker) -> None:
    report = JsonFiles(tmp_path, masker)
    seen = []
    for event in story():
        report(event)
        seen.append(json.loads((tmp_path / "result.json").read_text()))
        assert sorted(p.name for p in tmp_path.iterdir()) in (
            ["events.jsonl", "result.json"],
            ["events.jsonl", "result.json", "steps"],
        )
    assert seen[0]["summary"] == seen[-2]["summary"] == "the run has not finished"
    assert seen[0]["verdict"] == "interrupted"
    last = seen[-1]
    assert (last["verdict"], last["blame"]) == ("failed", "extension")
    assert [step["outcome"] for step in last["instances"][0]["steps"]] == ["succeeded", "failed", "not_executable"]
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines[:2]] == ["run-started", "run-planned"]
    assert lines[-1]["event"] == "run-finished"
    assert len(lines) == len(seen)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    # What a step wrote stays as it was, apart from secrets.
    assert (tmp_path / "steps/run-once-1/stdout").read_bytes() == b"__**__ \xff"
    assert (tmp_path / "steps/run-once-2/stderr").read_bytes() == b"line 1\n"
    assert len(list((tmp_path / "steps").iterdir())) == 3
    assert not (tmp_path.parent / "etc").exists()


def test_run_directory_with_a_masker_that_knows_text_only(tmp_path: Path) -> None:
    report = JsonFiles(tmp_path, NoMask())
    for event in story():
        report(event)
    assert (tmp_path / "steps/run-once-1/stdout").read_bytes() == f"{SECRET} ".encode() + b"\xff"


@pytest.mark.parametrize("step_id", ["../x", "a/b", "", ".", "..", ".hidden", "x" * 300, "ü", "a b", "a\0b", "a\nb"])
def test_step_folders_stay_inside(step_id: str) -> None:
    name = step_folder(step_id)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", name)
    assert name != step_folder(step_id + "x")


def test_ordinary_step_folders_are_the_ids() -> None:
    for step_id in ("run-once-1", "feature-RDS-Gateway", "script-app-My.App-install"):
        assert step_folder(step_id) == step_id


def test_plain(masker: Masker) -> None:
    stream = io.StringIO()
    report = PlainReport(stream, masker)
    for event in story():
        report(event)
    text = stream.getvalue()
    safe(text)
    lines = text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (  std(out|err): )?\S", line) for line in lines)
    said = [line[9:] for line in lines]
    assert "boot done after 8.2 s" in said
    assert "specialization read back: 2 of 3 settings are as wanted" in said
    assert "step run-once-1 succeeded after 0.5 s, exit code 0" in said
    assert any(line.startswith("step run-once-2 failed after 1 min 01 s, exit code 5: why <script>") for line in said)
    assert "  stderr: line 1" in said
    assert said[-1].startswith("failed after 1 min 12 s: step run-once-2 failed with exit code 5: why")
    assert said[-1].endswith(", blame: extension; vmrole itself ends with exit code 1")


def test_terminal(masker: Masker) -> None:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=100, color_system="standard", highlight=False, markup=False
    )
    with TerminalReport(stream, masker, console=console) as report:
        renders = []
        for event in story("[bold]markup[/bold] " + NASTY):
            report(event)
            with console.capture() as capture:
                console.print(report._render())
            renders.append(strip_ansi(capture.get()))
    for text in (strip_ansi(stream.getvalue()), *renders):
        assert SECRET not in text
        assert "title\x07" not in text
    text = strip_ansi(stream.getvalue())
    assert "[bold]markup[/bold]" in text  # never obeyed
    assert "boot  8.2 s" in text
    assert re.search(r"run-once-2 +failed +5 +1 min 01 s", text)
    assert "failed in 1 min 12 s" in text
    assert "blame: extension" in text
    assert any("of at most 1 min 00 s" in render and "next: steps" in render for render in renders)
    assert any("next: step run-once-2" in render for render in renders)
    # The cursor is given back.
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_terminal_is_given_back_after_an_error(masker: Masker) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with pytest.raises(RuntimeError), TerminalReport(stream, masker, console=console) as report:
        report(events.RunStarted(run="r", title="t"))
        raise RuntimeError
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_html(tmp_path: Path, masker: Masker) -> None:
    (tmp_path / "console.log").write_text("".join(f"line {n}\n" for n in range(50_000)) + NASTY)
    files, report = JsonFiles(tmp_path, masker), HtmlReport(tmp_path, masker)
    for event in story():
        files(event)
        assert not (tmp_path / "report.html").exists()
        report(event)
    text = (tmp_path / "report.html").read_text()
    safe(text)
    page: Any = lxml.html.document_fromstring(text)
    assert len(page.xpath("//script")) == len(page.xpath("//style")) == 1
    assert page.xpath("//@src | //link | //img | //@style | //@onclick") == []
    assert "url(" not in text and "http-equiv" in text
    links = page.xpath("//@href")
    assert links and all(re.match(r"#|steps/|console\.log|[a-z]+\.jsonl?$", link) for link in links), links
    assert "".join(page.xpath("//h1//text()")).startswith("Failed because of the extension: step run-once-2 failed")
    said = page.text_content()
    assert "<script>alert(1)</script>red __**__" in said
    headings = [h.text.strip() for h in page.xpath("//h2")]
    assert headings == [
        "What happened", "Where the time went", "Steps", "Warnings and findings", "Machine", "Logs", "Run",
    ]  # fmt: skip
    assert page.xpath("//details[@open]//h3/b/text()") == ["run-once-2"]
    assert "line 49999" in said and "bytes left out" in said
    assert "line 25000\n" not in said


def test_html_of_a_run_that_never_began(tmp_path: Path) -> None:
    recorder = Recorder()
    conclusion = conclude([], error=KeyboardInterrupt())
    HtmlReport(tmp_path, NoMask())(events.RunFinished(result=recorder.result(conclusion), exit_code=130))
    page: Any = lxml.html.document_fromstring((tmp_path / "report.html").read_text())
    assert page.findtext(".//h1/b") == "Interrupted:"
    assert page.xpath("//details | //table | //svg") == []


def test_a_secret_that_sequences_interrupt_is_in_no_file(tmp_path: Path, masker: Masker) -> None:
    broken = "\x1b[1m".join((SECRET[:6], SECRET[6:]))
    files, report = JsonFiles(tmp_path, masker), HtmlReport(tmp_path, masker)
    for event in story(broken):
        if isinstance(event, events.StepFinished):
            event = dataclasses.replace(event, stderr=broken.encode())
        files(event)
        report(event)
    assert (tmp_path / "steps/run-once-2/stderr").read_text() == "__**__"
    write_index(tmp_path.parent, title="all", fresh=[tmp_path])
    for path in (*tmp_path.rglob("*"), tmp_path.parent / "index.html"):
        if path.is_file():
            # JSON writes the sequence as an escape.
            assert SECRET not in strip_ansi(path.read_text("utf-8", "replace").replace("\\u001b", "\x1b")), path


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain <b>", "plain &lt;b&gt;"),
        ("\x1b[31mred\x1b[0m not", '<span class="c-red">red</span> not'),
        (
            "\x1b[1;32mbold green\x1b[22m green",
            '<span class="b c-green">bold green</span><span class="c-green"> green</span>',
        ),
        ("\x1b[38;5;200mx\x1b[38;2;1;2;31my\x1b[mz", "xyz"),
        ("\x1b[31m<script>\x1b[0m", '<span class="c-red">&lt;script&gt;</span>'),
        ("\x1b[2J\x1b[91mA\x1b]0;title\x07B", '<span class="c-red">AB</span>'),
        ("\x1b[31mhunter2-\x1b[0mvery-secret", "__**__"),
        ("\x1b[9999999999;31mx", '<span class="c-red">x</span>'),
        ("a\x1b]0;\x1b[31mb", 'a<span class="c-red">b</span>'),
        ("a\r\x1b[31m\nb", "a\nb"),
        ("\x1b[31mx" * 5000, "x" * 5000),
    ],
)
def test_colours(text: str, html: str, masker: Masker) -> None:
    assert to_html(text, masker) == html


def test_secrets_are_masked_before_text_is_shortened(masker: Masker) -> None:
    for cut in range(1, 40):
        assert "hunter2" not in Shown(masker).line("x" * (200 - cut) + " " + SECRET)
    # A sequence in the middle of it does not hide it either.
    assert "hunter2" not in Shown(masker).line("hunter2-\x1b[1mvery-\x1b[0msecret")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\x1b[1;31mb\x1b[0mc", "abc"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x07b", "alinkb"),
        ("a\x1b(Bb\x1b=c", "abc"),
        ("a\x1b", "a"),
        ("10%\r20%\r\n", "10%\n20%\n"),
        ("\x07\x00\x9b31m\x7f", "31m"),
    ],
)
def test_printable(text: str, clean: str) -> None:
    assert printable(text) == clean


def test_masked_values(masker: Masker) -> None:
    document = {"a": [SECRET, {"b": f'"{SECRET}"'}], "c": 1, "d": None, "e": (SECRET,)}
    assert masked(document, masker) == {"a": ["__**__", {"b": '"__**__"'}], "c": 1, "d": None, "e": ["__**__"]}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, ""), (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s")),
        *((59.6, "1 min 00 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_rich_is_imported_for_a_terminal_only() -> None:
    script = (
        "import sys, harness.report.plain, harness.report.html, harness.report.json_files, harness.guest.ssh\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'rich']"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
