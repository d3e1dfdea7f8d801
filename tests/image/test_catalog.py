# SPDX-License-Identifier: Apache-2.0
"""The catalog: which recipes there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError, UsageError
from harness.image import catalog


def test_debian_is_there() -> None:
    source = catalog.load("debian-12")
    assert "debian-12" in catalog.names()
    assert (source.recipe.family, source.recipe.version) == ("Debian", "12.0.0.0")
    assert source.recipe.freeze_point == "awaiting-instance"
    assert (source.folder / "agent" / "main.c").is_file()


def test_a_recipe_masks_what_its_base_does_and_more() -> None:
    base, own = (set(catalog.load(name).recipe.masked) for name in ("debian-12", "windows-stand-in"))
    assert base < own and "system/ldconfig.service" in own - base


def test_unknown_image_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no image 'debian-11'.*debian-12"):
        catalog.load("debian-11")


@pytest.mark.parametrize("name", ["", "..", "../images/debian-12", "debian-12/"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(UsageError):
        catalog.load(name)


@pytest.mark.parametrize("text", ["name = ", 'name = "other"\n', 'name = "x"\nnonsense = 1\n'])
def test_broken_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "recipe.toml").write_text(text)
    with pytest.raises(HarnessError, match="recipe"):
        catalog.load("x", tmp_path)
