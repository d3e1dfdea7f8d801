# SPDX-License-Identifier: Apache-2.0
"""The suite itself: what a failing test shows and keeps, and what is said of all parts at the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import __main__ as suite
from tests import failures
from tests.conftest import REPOSITORY

CONFTEST = """
from pathlib import Path
from tests.conftest import image, pytest_addoption, pytest_collection_modifyitems, state_folder
from tests.failures import Failures

def pytest_configure(config):
    config.pluginmanager.register(Failures(Path(__file__).parent / "kept"))
"""

FAILING = """
import pytest
from tests.conftest import vmrole
from tests.report import stories

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    stories.failure(tmp_path_factory.mktemp("shared") / "of-all")

def test_good(shared):
    pass

def test_other(tmp_path):
    stories.success(tmp_path / "of-another-test")

def test_bad(shared, tmp_path):
    stories.success(tmp_path / "runs/of-mine")
    stories.Story(tmp_path / "cut")
    stories.success(tmp_path / "lost")
    (tmp_path / "lost/result.json").unlink()
    vmrole("check", "not-there")
    assert False
"""

REFUSED = """
import pytest
from tests.conftest import vmrole

def test_unmarked():
    done = vmrole("exec", "--image", "debian-12", "--", "true")
    assert done.code == 0

def test_marked_by_its_fixture(image):
    assert False

@pytest.mark.vm
def test_marked():
    assert False
"""


def argv(folder: Path, tests: str, *arguments: str) -> tuple[str | Path, ...]:
    """A session of ``tests``."""
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nmarkers = vm: machines\n")
    (folder / "test_mine.py").write_text(tests)
    return (sys.executable, "-m", "pytest", *arguments, folder)


def session(folder: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A session with the suite's own fixtures; what failing tests leave is in ``folder``/kept."""
    (folder / "conftest.py").write_text(CONFTEST)
    return subprocess.run(
        argv(folder, tests, *arguments), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600
    )


def test_a_failing_test_shows_and_keeps_its_runs(tmp_path: Path) -> None:
    done = session(tmp_path, FAILING)
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    # The command that it ran, and what that said.
    assert "vmrole check not-there\nexit code 2\nvmrole: " in done.stdout
    # The run of the fixture that it shares: verdict, blame, sentence, the step that failed and its streams.
    assert "failed (blame: extension): " in done.stdout
    assert "step script-app-site-start failed, exit code 3: its standard error matches" in done.stdout
    assert "  stderr: nginx: [emerg] still could not bind()" in done.stdout
    # One that did not come to its end, one of which nothing is known, and one that was well.
    assert "interrupted: the run has not finished" in done.stdout
    assert "it has no result; its last events were" in done.stdout
    assert "warnings: 1 step succeeded" in done.stdout
    kept = sorted(path.name for path in (tmp_path / "kept").glob("*/*"))
    assert [name.partition("-")[2] for name in kept] == ["of-all", "of-mine", "cut", "lost"]
    for path in (tmp_path / "kept").glob("*/*"):
        assert f"kept: {path}" in done.stdout
        assert (path / "events.jsonl").stat().st_size > 0


def test_only_the_last_failures_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_MOST_KEPT", 2)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    failures._thin_out(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_a_machine_without_the_mark_is_refused(tmp_path: Path) -> None:
    done = session(tmp_path, REFUSED, "--no-machines")
    assert "1 failed, 2 deselected" in done.stdout, done.stdout
    assert "refused-by---no-machines" in done.stdout


MIXED = """
import pytest

@pytest.mark.parametrize("number", range(2))
def test_good(number):
    pass

def test_bad():
    assert 1 == 2

def test_skipped():
    pytest.skip("the program wanted is not installed")

def test_foreseen():
    pytest.skip("the image windows-server cannot be had: it is made from media of your own")

@pytest.fixture
def broken():
    raise OSError

def test_without_its_fixture(broken):
    pass
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(suite, "RESULTS", tmp_path)
    return tmp_path


def part(folder: Path, name: str, tests: str) -> suite.Part:
    path = folder / f"{name}.jsonl"
    return suite.Part(name, argv(folder / name, tests, "-q", "-p", "tests.results", f"--results={path}"), path)


def run_all(*parts: suite.Part, complete: bool = False, over: Callable[[], bool] = lambda: False) -> int:
    return suite.run_all(parts, complete=complete, over=over, may_be_empty=False)


def test_every_part_is_run_and_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_all(
        suite.Part("check", ("sh", "-c", "exit 3")),
        part(results, "mixed", MIXED),
        suite.Part("killed", ("sh", "-c", "kill -9 $$"), results / "nothing.xml"),
        part(results, "good", "def test_it(): pass"),
    )
    assert code == 128 + 9
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "3 passed, 4 failed, 2 skipped"
    parts = {line.split()[0]: line.split(maxsplit=2)[2] for line in told[told.index("Part        minutes") + 1 : -2]}
    assert parts == {
        "check": "FAILED with exit code 3", "mixed": "FAILED with exit code 1", "killed": "FAILED with exit code 137",
        "good": "passed",
    }  # fmt: skip
    failed = [line.split("::")[1] for line in told[told.index("Failed") + 1 : told.index("Part        minutes") - 1]]
    assert [line.split(":")[0] for line in failed] == ["test_bad", "test_without_its_fixture"]
    assert "       1  the program wanted is not installed" in told
    assert sum(line.endswith("::test_good[1]") for line in told) == 1, "the slowest tests"
    assert (results / "files.txt").read_text().count("test_mine.py") == 2


def test_where_nothing_may_be_missing_a_skip_is_a_failure(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only_skips = MIXED.replace("1 == 2", "True").replace("raise OSError", "pass")
    assert run_all(part(results, "first", only_skips)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 passed, 0 failed, 2 skipped"
    assert run_all(part(results, "second", only_skips), complete=True) == 1
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "4 passed, 1 failed, 1 skipped"
    assert f"skipped, and {suite.COMPLETE} is set: the program wanted is not installed" in told


def test_a_part_without_tests_is_a_failure(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(part(results, "empty", "")) == 5
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


HANGING = """
import time
from pathlib import Path

def test_good():
    pass

def test_hanging():
    Path(__file__).with_name("reached").touch()
    time.sleep(600)
"""


def test_a_part_that_hangs_is_ended_in_time(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it had found by then counts; what comes after it is told not to have run."""
    hanging = part(results, "hanging", HANGING)
    later = part(results, "later", "def test_it(): pass")
    assert run_all(hanging, later, over=(results / "hanging/reached").exists) == 2
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "1 passed, 2 failed, 0 skipped"
    assert "test_hanging: it had not ended when its session did" in told
    assert f"it was ended: {suite.UNTIL} had come" in told
    assert re.search(r"^later +NOT RUN$", told, re.MULTILINE)
