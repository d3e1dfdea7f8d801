# SPDX-License-Identifier: Apache-2.0
"""Images that have integration components of another version than the harness: machines of them get ours from their own
medium, in the run.

The images are as they were built; the harness' components are compiled from changed sources, as those of its next
version will be.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.reporting import reporting
from harness.cli.run import prepare
from harness.deadline import Deadline
from harness.image import catalog
from harness.image.build import ensure_image
from harness.image.cache import Cache
from harness.image.components import build_components
from harness.image.recipe import Image
from harness.masking import Masker
from harness.run import runner
from harness.scenario import ScenarioGuest
from tests.conftest import HANGS, SAMPLES

pytestmark = pytest.mark.vm


def with_next_components(name: str, folder: Path) -> Image:
    """The image ``name`` for a harness whose components are of another version, which are made in ``folder``."""
    image = ensure_image(name, cache=Cache.of_user(), deadline=Deadline(900), progress=lambda _: None)
    tree, made = folder / "images", folder / "components"
    shutil.copytree(catalog.images_folder(), tree, ignore=shutil.ignore_patterns("__pycache__"))
    made.mkdir()
    for changed in ("debian-12/agent/main.c", "windows-components/guest/main.c"):
        with (tree / changed).open("a", encoding="utf-8") as source:
            source.write("/* of the next version */\n")
    build_components(catalog.load(name, tree), made, deadline=Deadline(HANGS))
    return replace(image, components=made)


@pytest.mark.parametrize(
    ("name", "sample", "version"),
    [
        ("debian-12", "hello-linux", ("cut", "-d", " ", "-f", "2", "/run/vmrole/ready")),
        ("windows-stand-in", "msi", ("C:\\Program Files\\VMRole\\vmrole-guest.exe", "version")),
    ],
)
def test_a_machine_gets_them_in_its_run(
    name: str, sample: str, version: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = with_next_components(name, tmp_path)
    ours, of_image = image.wanted_components, image.components_version
    assert ours != of_image
    monkeypatch.setattr(runner, "find_image", lambda *_, **__: image)
    output = tmp_path / "out"
    request = prepare(
        SAMPLES / sample, parameters=("Greeting=x",) if name == "debian-12" else (), parameters_file=None, image=name,
        certificates=(), certificate_password_file=None, local_resources=("Work=5",), computer_name=None,
        admin_password_file=None, memory=None, cpus=None, network="none", connect=None, keep="never", strict=False,
        allow_unexecuted=False, timeout=900, output=output,
    )  # fmt: skip
    masker = Masker(request.secrets)
    with (
        reporting(masker, folder=output, quiet=True) as (bus, recorder),
        runner.perform(request, bus, recorder, masker) as role,
    ):
        assert role.error is None and role.deployed is not None
        guest, identity = ScenarioGuest(role.deployed, bus), role.deployed.identity
        assert guest.succeed(*version).strip() == ours
        # Later boots are theirs, too.
        guest.put(b"old", _inside(name))
        guest.recycle()
        assert guest.succeed(*version).strip() == ours
        seen = identity.read_back(role.deployed.guest, deadline=Deadline(HANGS)).observations
        assert [one for one in seen if not one.ok] == []
        guest.fail(*(("cat", _inside(name)) if name == "debian-12" else ("cmd.exe", "/c", "type", _inside(name))))
    result = json.loads((output / "result.json").read_text("utf-8"))
    assert result["verdict"] == "succeeded" and result["forked"] is True
    [instance] = result["instances"]
    told = {one["name"]: one for one in instance["specialization"]}["integration-components"]
    assert told["ok"] and told["wanted"] == ours
    assert told["observed"] == f"{ours}, from the instance medium: the image has {of_image}"
    events = [json.loads(line) for line in (output / "events.jsonl").read_text("utf-8").splitlines()]
    assert "installing-components" in [event["stage"] for event in events if event["event"] == "stage-reached"]


def _inside(name: str) -> str:
    """A file in a local resource."""
    return "/resources/Work/file" if name == "debian-12" else "C:\\Resources\\Work\\file"
