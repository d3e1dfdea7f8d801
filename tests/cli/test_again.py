# SPDX-License-Identifier: Apache-2.0
"""The command that a run prints to do it again asks for exactly the same, and has no secret in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.again import again
from harness.cli.run import command, prepare
from harness.errors import UsageError
from harness.package.parameters import Parameters
from harness.run.request import RunRequest
from tests.conftest import SAMPLES
from tests.run.test_certificates import make, write


def asked(words: list[str] | tuple[str, ...], output: Path) -> RunRequest:
    """What `vmrole run` with ``words`` would do."""
    options: dict[str, Any] = command.make_context("run", [*words, "--output", str(output)]).params
    return prepare(options.pop("path"), **options)


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    path = tmp_path / "secret.resext"
    path.write_text(json.dumps({
        "SchemaVersion": "1.0", "Name": "Secret", "Version": "1.0.0.0", "Publisher": "tests",
        "ResourceExtensionParameters": [
            {"Name": "Account", "Type": "Credential"}, {"Name": "Key", "Type": "SecureString"},
            {"Name": "Plain", "Type": "String"},
        ],
        "ExtensionSettings": {"ApplicationProfile": {"Name": "Secret", "LinuxApplicationProfile": {
            "RunOnceCommands": ["/bin/echo [Param.Account] [Param.Key] [Param.Plain]"]}}},
    }))  # fmt: skip
    return path


def test_it_asks_for_the_same(tmp_path: Path, extension: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = write(tmp_path, make("x").pfx(b"pw"), "c.pfx")
    (tmp_path / "pw").write_text("pw\n")
    (tmp_path / "admin").write_text("Correct-Horse-9\n")
    (tmp_path / "key").write_text("planted-key")
    monkeypatch.setenv("ACCOUNT", "CORP\\svc:planted-password")
    monkeypatch.chdir(tmp_path)
    words = [
        str(extension), "-p", "Account=env:ACCOUNT", "-p", f"Key=@{tmp_path / 'key'}", "-p", "Plain=it's \"so\"",
        "--certificate", f"{certificate}:Root", "--certificate-password-file", "pw", "--admin-password-file", "admin",
        "--local-resource", "Data=20", "--local-resource", "More", "--computer-name", "web-##", "--memory", "700",
        "--cpus", "1", "--network", "nat", "--instance", "3", "--event", "deploy,update", "--strict", "--cold",
        "--exact-timeouts",
        "--allow-unexecuted", "--pattern-defaults", "console", "--timeout", "90", "--image", "debian-12",
    ]  # fmt: skip
    first = asked(words, tmp_path / "one")
    assert first.again[:3] == ("vmrole", "run", "secret.resext")
    assert not any("planted" in word or "Correct" in word for word in first.again)
    second = asked(first.again[2:], tmp_path / "two")
    assert second.again == first.again
    assert (second.machine, second.plan.steps) == (first.machine, first.plan.steps)
    for name in ("strict", "allow_unexecuted", "exact_timeouts", "timeout"):
        assert getattr(second, name) == getattr(first, name) and getattr(first, name)
    assert second.machine.cold and second.how == first.how


def test_a_secret_of_the_command_line_becomes_a_file(tmp_path: Path, extension: Path) -> None:
    words = [str(extension), "-p", "Account=CORP\\svc:planted-password", "-p", "Key=planted-key", "-p", "Plain=@home"]
    request = asked([*words[:-1], "Plain=here"], tmp_path / "one")
    assert "Account=@Account.secret" in request.again and "Key=@Key.secret" in request.again
    assert "Plain=here" in request.again


def test_values_of_a_scenario(tmp_path: Path, extension: Path) -> None:
    options = command.make_context("run", [str(extension), "--output", str(tmp_path / "one")]).params
    path = options.pop("path")
    request = prepare(path, **options, given={"Account": "a:planted", "Key": "planted", "Plain": "@home"})
    assert [word for word in request.again if "=" in word] == [
        "Account=@Account.secret",
        "Key=@Key.secret",
        "Plain=@Plain.value",
    ]


def test_every_option_of_run_is_known_to_it(tmp_path: Path, extension: Path) -> None:
    """One that is added has to be asked for again too, or be of no importance to what is run."""
    request = asked([str(extension), "-p", "Account=a:b", "-p", "Key=x", "-p", "Plain=y"], tmp_path / "one")
    unimportant = {"path", "output", "keep", "as_json", "image", "no_checkpoints"}
    values = {
        "events": ("deploy", "update"),
        "network": "nat",
        "pattern_defaults": "console",
        "parameters": ("Plain=z",),
    }
    before = len(again(extension, Parameters(), request.machine, {}))
    for parameter in command.params:
        name = str(parameter.name)
        if name not in unimportant:
            value = values.get(name, ("x",) if parameter.multiple else 77)
            words = again(extension, Parameters(), request.machine, {name: value})
            assert len(words) > before, f"{name} is not asked for again"


def test_another_build_of_the_image(tmp_path: Path, extension: Path) -> None:
    request = asked(
        [str(extension), "-p", "Account=a:b", "-p", "Key=x", "-p", "Plain=y", "--image", "debian-12@0123456789abcdef"],
        tmp_path / "one",
    )
    assert (request.machine.image, request.machine.image_key) == ("debian-12", "0123456789abcdef")
    with pytest.raises(UsageError, match="'latest' is no image key"):
        asked([str(SAMPLES / "failing.resext"), "--image", "debian-12@latest"], tmp_path / "one")
