# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and replays of the stand-in guest: WinRM answers again as it did before a step."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HANGS, VMROLE, inventory, vmrole
from tests.run.test_certificates import make, write
from tests.run.test_windows_execute import PAYLOAD, extension, script, scripts

pytestmark = pytest.mark.vm

_WORD = "open-sesame-77"


def package(folder: Path, *lines: str, **files: str) -> Path:
    """An extension whose third script is a file of its payload; the fourth one lets the guest restart."""
    payload = folder / "payload"
    (payload / "Deep").mkdir(parents=True)
    (payload / "work.cmd").write_text("".join(f"{line}\r\n" for line in ("@echo off", *lines)))
    for name, text in files.items():
        (payload / "Deep" / name).write_text(text)
    document = extension(
        scripts(
            script(1, "cmd.exe /c echo first>C:\\trace.txt"),
            script(2, "cmd.exe /c md C:\\made && echo second>>C:\\trace.txt&& echo %VMROLE_CERTIFICATE%"),
            script(3, "cmd.exe /c work.cmd [Param.Word]", ApplicationPayloadId=PAYLOAD),
            script(4, "cmd.exe /c type C:\\trace.txt", AlwaysReboot=True),
            script(5, "cmd.exe /c dir /b /s Deep", ApplicationPayloadId=PAYLOAD),
        )
    )
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "payload"}
    document["ResourceExtensionParameters"] = [{"Name": "Word", "Type": "SecureString"}]
    (folder / "trace.resext").write_text(json.dumps(document))
    return folder


@dataclass(frozen=True)
class Failed:
    """A run whose third step failed, with its checkpoints."""

    output: Path
    result: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    folder = tmp_path_factory.mktemp("replay")
    (folder / "word").write_text(_WORD)
    pfx = write(folder, make("replay").pfx(None), "cert.pfx")
    broken = package(
        folder / "package", "exit /b 9", **{"Old.txt": "old", "Stays.txt": "stays", "Other.txt": "of then"}
    )
    done = vmrole(
        "run", broken, "--image", "windows-stand-in", "-p", f"Word=@{folder / 'word'}", "--certificate", pfx,
        "--output", folder / "out", "--json", timeout=900,
    )  # fmt: skip
    assert steps(done.json)["preinstall-3"]["exit_code"] == 9, done.stderr
    yield Failed(folder / "out", done.json, done.stderr)
    vmrole("sweep", "--kept")


def steps(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in result["instances"][0]["steps"]}


def events(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]


def test_a_run_tells_how_to_go_on(failed: Failed) -> None:
    assert f"vmrole replay {failed.output} --from preinstall-3" in failed.stderr
    taken = [event for event in events(failed.output) if event["event"] == "checkpoint-taken"]
    assert [event["step"] for event in taken] == ["preinstall-1", "preinstall-2", "preinstall-3"]
    assert all(0 < event["paused"] <= event["seconds"] for event in taken)


def test_a_step_is_told_which_certificate_it_has(failed: Failed) -> None:
    (certificate,) = failed.result["instances"][0]["certificates"]
    assert steps(failed.result)["preinstall-2"]["stdout"].strip() == certificate["thumbprint"]


def test_the_step_with_a_changed_payload(failed: Failed, tmp_path: Path, state_folder: Path) -> None:
    """What ran before is there, the payload is that of now by the names that Windows knows files by, the secret of the
    first run comes along, masked, and the guest restarts as one that never stood still."""
    before = inventory(state_folder)
    kept = {folder.name for folder in (state_folder / "checkpoints").iterdir()}
    lines = (f"if not %1=={_WORD} exit /b 7", "type C:\\trace.txt", "type Deep\\other.txt", "echo mended %1")
    new = {"new file.txt": "new", "Stays.txt": "stays", "OTHER.TXT": "of now\r\n"}
    changed, output = package(tmp_path / "changed", *lines, **new), tmp_path / "out"
    done = vmrole(
        "replay", failed.output, "--from", "preinstall-3", "--package", changed, "--output", output, "--json",
        timeout=600,
    )  # fmt: skip
    assert done.code == 0 and done.json["verdict"] == "succeeded", done.stderr
    seen = steps(done.json)
    assert [step["outcome"] for step in seen.values()] == ["skipped", "skipped", *["succeeded"] * 3]
    assert seen["preinstall-3"]["stdout"].split() == ["first", "second", "of", "now", "mended", "__**__"]
    names = [line.rpartition("\\")[2].lower() for line in seen["preinstall-5"]["stdout"].splitlines()]
    assert sorted(names) == ["new file.txt", "other.txt", "stays.txt"]
    assert done.json["forked"] and "preinstall-3" in done.json["fork_reason"]
    told, first = done.json["instances"][0], failed.result["instances"][0]
    assert told["certificates"] == first["certificates"] and told["specialization"] == first["specialization"]
    assert _WORD not in done.stdout + done.stderr + (output / "events.jsonl").read_text()
    assert inventory(state_folder) == before
    assert {folder.name for folder in (state_folder / "checkpoints").iterdir()} == kept, "it succeeded"
    assert [phase["name"] for phase in told["phases"]][:2] == ["image", "resume"]


def test_the_disk_and_the_memory_are_those_of_then(failed: Failed, tmp_path: Path) -> None:
    done = vmrole(
        "replay", failed.output, "--from", "preinstall-2", "--output", tmp_path / "out", "--json", timeout=600
    )
    seen = steps(done.json)
    assert seen["preinstall-2"]["exit_code"] == 0, "the folder that it makes is not there yet"
    assert seen["preinstall-3"]["exit_code"] == 9, "the package is as it was"
    assert f"vmrole replay {tmp_path / 'out'} --from preinstall-3" in done.stderr


def test_a_shell_before_a_step(failed: Failed) -> None:
    argv = [str(VMROLE), "shell", str(failed.output), "--at", "preinstall-2"]
    lines = b"set WORD=lines\necho all %WORD%\n\ntype C:\\trace.txt\nif not exist C:\\made exit 4\nexit 5\n"
    done = subprocess.run(argv, input=lines, capture_output=True, timeout=HANGS, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stdout.split() == [b"all", b"lines", b"first"]
