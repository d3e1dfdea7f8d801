# SPDX-License-Identifier: Apache-2.0
"""The cache: private, keyed by content, built once at a time, clean after killed builds."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import HostError
from harness.image import added, build, catalog, components, seal
from harness.image.builders import Parts
from harness.image.cache import Cache, default_folder, disk_usage
from harness.image.recipe import Image
from tests.conftest import HANGS

RECIPE = """
name = "tiny"
os = "linux"
family = "Tiny"
version = "1.0.0.0"
freeze_point = "awaiting-instance"
builder = "fake"
suite = "none"
packages = []
"""


def fake_build(source: catalog.Source, _components: Path, folder: Path, **_: Any) -> Parts:
    with (source.folder.parent / "builds").open("a") as log:
        log.write("x")
    while (source.folder.parent / "held").exists():
        time.sleep(0.02)
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.write(b"disk")
        file.truncate(64 << 20)
    return Parts(disk, None, None, ("a=1",))


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one recipe for a fake builder: ``builds`` counts its builds, which wait while ``held`` exists."""
    folder = tmp_path / "recipes"
    (folder / "tiny" / "agent").mkdir(parents=True)
    (folder / "tiny" / "recipe.toml").write_text(RECIPE)
    (folder / "tiny" / "agent" / "main.c").write_text("int main(void) { return 0; }\n")
    module = types.ModuleType("fake")
    module.build = fake_build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harness.image.builders.fake", module)

    def compile_nothing(source: catalog.Source, folder: Path, *, deadline: Deadline) -> None:
        (folder / "VERSION").write_text(components.components_version(source) + "\n")
        (folder / components.PROGRAM).write_bytes(b"\x7fELF")

    monkeypatch.setattr(build, "build_components", compile_nothing)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def ensure(recipes: Path, cache: Cache, *, rebuild: bool = False, said: list[str] | None = None) -> Image:
    said = [] if said is None else said
    return build.ensure_image(
        "tiny", cache=cache, deadline=Deadline(HANGS), progress=said.append, rebuild=rebuild, folder=recipes
    )


def builds(recipes: Path) -> int:
    return len((recipes / "builds").read_text())


def test_built_once_then_found(recipes: Path, cache: Cache) -> None:
    said: list[str] = []
    first = ensure(recipes, cache, said=said)
    assert ensure(recipes, cache) == first
    assert builds(recipes) == 1
    assert any("building" in line for line in said)
    assert len(first.key) == 16
    assert first.packages == ("a=1",)
    assert first.wanted_components == first.components_version
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(first.disk.stat().st_mode) == 0o440
    assert list(cache.building.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [("tiny/recipe.toml", RECIPE + "disk_mb = 600\n"), ("tiny/agent/main.c", "int x;\n"), ("tiny/overlay/etc/x", "x")],
)
def test_key_follows_content(recipes: Path, file: str, text: str) -> None:
    before = build.image_key(catalog.load("tiny", recipes))
    (recipes / file).parent.mkdir(exist_ok=True, parents=True)
    (recipes / file).write_text(text)
    assert build.image_key(catalog.load("tiny", recipes)) != before


def test_key_ignores_prose(recipes: Path) -> None:
    before = build.image_key(catalog.load("tiny", recipes))
    (recipes / "tiny" / "README.md").write_text("words")
    assert build.image_key(catalog.load("tiny", recipes)) == before


def test_two_processes_build_once(recipes: Path, cache: Cache) -> None:
    cache.prepare()
    fork = multiprocessing.get_context("fork")
    said = fork.Queue()
    (recipes / "held").touch()

    def work() -> None:
        lines: list[str] = []

        def progress(line: str) -> None:
            lines.append(line)
            if "waiting for another process that builds" in line:  # and not one that compiles
                (recipes / "held").unlink()

        image = build.ensure_image("tiny", cache=cache, deadline=Deadline(HANGS), progress=progress, folder=recipes)
        said.put((str(image.disk), lines))

    processes = [fork.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [said.get(timeout=HANGS) for _ in processes]
    for process in processes:
        process.join()
    assert builds(recipes) == 1
    assert len({disk for disk, _ in answers}) == 1
    assert sum(any("waiting for another process" in line for line in lines) for _, lines in answers) == 1


def test_killed_build_is_swept_a_living_one_is_not(recipes: Path, cache: Cache) -> None:
    cache.prepare()
    (recipes / "held").touch()
    process = multiprocessing.get_context("fork").Process(target=ensure, args=(recipes, cache))
    process.start()
    started = Deadline(HANGS).poll(lambda: next(cache.building.glob("tiny-*"), None), every=0.02)
    assert started is not None
    assert build.sweep_cache(cache) == []
    process.kill()
    process.join()
    assert build.sweep_cache(cache) == [started]
    assert list(cache.building.iterdir()) == []
    (recipes / "held").unlink()
    ensure(recipes, cache)


def test_rebuild_keeps_the_old_one(recipes: Path, cache: Cache) -> None:
    first = ensure(recipes, cache)
    second = ensure(recipes, cache, rebuild=True)
    assert second.key == first.key and second.built > first.built
    assert first.disk.exists()
    assert ensure(recipes, cache) == second
    new, old = build.list_images(cache, recipes)
    assert (new.current, old.current) == (True, False)
    assert new.size < 1 << 20  # the disk is 64 MiB with holes
    build.remove_image(cache, old, deadline=Deadline(HANGS))
    assert not first.disk.exists()
    assert len(build.list_images(cache, recipes)) == 1


def test_failed_build_leaves_nothing(recipes: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Parts:
        raise HostError("no network")

    monkeypatch.setattr(sys.modules["harness.image.builders.fake"], "build", broken)
    with pytest.raises(HostError, match="no network"):
        ensure(recipes, cache)
    assert list(cache.building.iterdir()) == list(cache.images.iterdir()) == []


def test_no_room(recipes: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1 << 20))
    with pytest.raises(HostError, match="has 1 MiB of room"):
        ensure(recipes, cache)


def test_link_is_refused(recipes: Path, cache: Cache) -> None:
    image = ensure(recipes, cache)
    folder = image.disk.parent
    moved = cache.folder / "elsewhere"
    folder.rename(moved)
    folder.symlink_to(moved)
    with pytest.raises(HostError, match="is a link"):
        ensure(recipes, cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["cache", "images", "entry", "disk"])
def test_foreign_owner_is_refused(recipes: Path, cache: Cache, what: str) -> None:
    image = ensure(recipes, cache)
    path = {"cache": cache.folder, "images": cache.images, "entry": image.disk.parent, "disk": image.disk}[what]
    os.chown(path, 12345, -1)
    with pytest.raises(HostError, match="belongs to user id 12345"):
        ensure(recipes, cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account for QEMU")
def test_group_of_qemu_may_read(recipes: Path, tmp_path: Path) -> None:
    image = ensure(recipes, Cache(tmp_path / "cache", group=12345))
    for folder in (image.disk.parent, image.disk.parent.parent, tmp_path / "cache"):
        assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_gid) == (0o710, 12345)
    assert (stat.S_IMODE(image.disk.stat().st_mode), image.disk.stat().st_gid) == (0o440, 12345)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VMROLE_CACHE_DIR", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.delenv("VMROLE_CACHE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/cache/vmrole")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "vmrole"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path.home() / ".cache" / "vmrole"


def test_disk_usage_does_not_count_holes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert disk_usage(tmp_path) < 1 << 20


@pytest.mark.parametrize(
    "change",
    [
        {"files": None}, {"files": {}}, {"files": {"disk": "../../../etc/shadow"}}, {"files": {"disk": 7}},
        {"files": {"disk": "/etc/shadow"}}, {"packages": None}, {"packages": "x"}, {"name": None}, {"built": 5},
        {"schema": 2}, {"components_version": []},
    ],
)  # fmt: skip
def test_an_image_whose_record_was_tampered_with_is_none(recipes: Path, cache: Cache, change: dict[str, Any]) -> None:
    """It is built anew, and listed by nobody."""
    record = ensure(recipes, cache).disk.parent / "image.json"
    record.chmod(0o600)
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert build.list_images(cache, recipes) == []
    assert ensure(recipes, cache).disk.parent != record.parent
    for content in (b"", b"null", b"[" * 100_000, b"\xff"):
        record.write_bytes(content)
        assert len(build.list_images(cache, recipes)) == 1


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change a file in place; its size and its time are afterwards what they were."""
    times = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("offset", [0, 3, 32 << 20])
def test_an_image_that_was_changed_in_place_is_built_anew(recipes: Path, cache: Cache, offset: int) -> None:
    first, said = ensure(recipes, cache), list[str]()
    overwrite(first.disk, offset, b"?")
    second = ensure(recipes, cache, said=said)
    assert second.disk != first.disk and second.key == first.key
    told = [line for line in said if "is not what it was" in line]
    assert told == ["disk.raw of the image tiny is not what it was when that was made: it is not used"]
    said.clear()
    assert ensure(recipes, cache, said=said) == second and not said


def test_an_image_of_an_earlier_version_is_sealed_when_it_is_first_used(recipes: Path, cache: Cache) -> None:
    image = ensure(recipes, cache)
    record = image.disk.with_name(seal.NAME)
    record.unlink()
    assert ensure(recipes, cache) == image
    assert record.exists() and builds(recipes) == 1


def test_an_image_without_its_disk_is_built_anew(recipes: Path, cache: Cache) -> None:
    image = ensure(recipes, cache)
    image.disk.with_name(seal.NAME).unlink()
    image.disk.unlink()
    assert ensure(recipes, cache).disk != image.disk


def test_an_added_image_that_was_changed_in_place_is_not_used(
    recipes: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here can make it again."""
    monkeypatch.setenv("VMROLE_CACHE_DIR", str(cache.folder))
    (recipes / "tiny/recipe.toml").write_text(RECIPE.replace('"fake"', f'"{added.BUILDER}"'))
    cache.prepare()
    with cache.workplace("tiny") as work:
        (work / added.DISK).write_bytes(b"disk" * 100_000)
        added.put(cache, catalog.load("tiny", recipes), work, "0123456789abcdef", media="tiny.vhdx=x")
    overwrite(ensure(recipes, cache).disk, 123_456, b"?")
    with pytest.raises(HostError, match="not what it was when it was added") as caught:
        ensure(recipes, cache)
    assert caught.value.hint == "'vmrole images remove tiny', and add it again"
