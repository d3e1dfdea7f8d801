# SPDX-License-Identifier: Apache-2.0
"""Templates as files: which one it is, and whether it is still what was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.image import seal
from harness.image.cache import Cache
from harness.machine.qemu.forks import check_same
from harness.machine.templates import FILES, Template, TemplateStore
from tests.image.test_cache import overwrite

KEY = "0123456789abcdef"
SIZE = 8 << 20
CONTENT = range(1 << 20, 6 << 20)
"""Where a file is not zero."""


def put(store: TemplateStore) -> Template:
    with store.workplace(KEY) as work:
        for name in FILES:
            with (work / name).open("wb") as file:
                file.seek(CONTENT.start)
                file.write(b"guest" * (len(CONTENT) // 5))
                file.truncate(SIZE)
        facts = {"image": "i", "image_key": "k", "memory_mb": 1, "cpus": 1}
        return store.put(work, KEY, facts)


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    made = TemplateStore(Cache(tmp_path / "cache"))
    made._prepare()
    return made


def test_a_checkpoint_does_not_go_on_from_another_template_of_the_same_key(store: TemplateStore) -> None:
    first = put(store)
    check_same(first, first.created, "run-once-2")
    with pytest.raises(HostError, match="before run-once-2 is based on was made anew since"):
        check_same(put(store), first.created, "run-once-2")


@pytest.mark.parametrize("place", [0, CONTENT.start, 2_345_678, CONTENT.stop - 7, SIZE - 1])
@pytest.mark.parametrize("name", FILES)
def test_a_byte_that_was_changed_in_place_with_size_and_time_kept_is_found(
    store: TemplateStore, name: str, place: int
) -> None:
    template, said = put(store), list[str]()
    assert store.find(KEY, said.append) == template and not said
    overwrite(template.folder / name, place, b"!")
    assert store.find(KEY, said.append) is None
    assert said == [f"{name} of the template {KEY} is not what it was when it was made: it is not used"]
    assert not template.folder.exists()


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_system_lost_without_a_word_is_found(store: TemplateStore, name: str) -> None:
    """A megabyte is zero, and the file's status is the one that is known of it."""
    template = put(store)
    overwrite(template.folder / name, 2 << 20, bytes(1 << 20))
    record = template.folder / seal.NAME
    status = (template.folder / name).stat()
    known = json.loads(record.read_text())
    known[name]["status"] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    record.write_text(json.dumps(known))
    assert store.find(KEY) is None


def test_a_cache_that_was_copied_is_used_and_read_once(store: TemplateStore, tmp_path: Path) -> None:
    template = put(store)
    shutil.copytree(template.folder, tmp_path / "copy")
    shutil.rmtree(template.folder)
    shutil.move(tmp_path / "copy", template.folder)
    before = (template.folder / seal.NAME).read_text()
    assert store.find(KEY) == template
    after = (template.folder / seal.NAME).read_text()
    assert after != before
    assert store.find(KEY) == template
    assert (template.folder / seal.NAME).read_text() == after


def test_a_template_without_a_seal_is_not_used(store: TemplateStore) -> None:
    """One that an earlier version made."""
    template, said = put(store), list[str]()
    (template.folder / seal.NAME).unlink()
    assert store.find(KEY, said.append) is None
    assert len(said) == 1
