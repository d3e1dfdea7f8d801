# SPDX-License-Identifier: Apache-2.0
"""Templates as files: which one it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HostError
from harness.image.cache import Cache
from harness.machine.qemu.forks import check_same
from harness.machine.templates import FILES, Template, TemplateStore


def put(store: TemplateStore) -> Template:
    with store.workplace("0123456789abcdef") as work:
        for name in FILES:
            (work / name).write_bytes(b"x" * 100)
        facts = {"image": "i", "image_key": "k", "memory_mb": 1, "cpus": 1}
        return store.put(work, "0123456789abcdef", facts)


def test_a_checkpoint_does_not_go_on_from_another_template_of_the_same_key(tmp_path: Path) -> None:
    store = TemplateStore(Cache(tmp_path / "cache"))
    store._prepare()
    first = put(store)
    check_same(first, first.created, "run-once-2")
    with pytest.raises(HostError, match="before run-once-2 is based on was made anew since"):
        check_same(put(store), first.created, "run-once-2")
