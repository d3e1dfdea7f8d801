# SPDX-License-Identifier: Apache-2.0
"""The catalog: which recipes there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError, UsageError
from harness.image import catalog
from harness.image.build import image_key
from harness.run.windows.caveats import caveat


def test_debian_is_there() -> None:
    source = catalog.load("debian-12")
    assert "debian-12" in catalog.names()
    assert (source.recipe.family, source.recipe.version) == ("Debian", "12.0.0.0")
    assert source.recipe.freeze_point == "awaiting-instance"
    assert (source.folder / "agent" / "main.c").is_file()


def test_a_recipe_masks_what_its_base_does_and_more() -> None:
    base, own = (set(catalog.load(name).recipe.masked) for name in ("debian-12", "windows-stand-in"))
    assert base < own and "system/ldconfig.service" in own - base


def test_the_stand_in_with_32_bit_programs_is_the_stand_in_but_for_those() -> None:
    plain, other = catalog.load("windows-stand-in"), catalog.load("windows-stand-in-32")
    assert set(plain.recipe.cannot) - set(other.recipe.cannot) == {"programs-32"}
    assert plain.recipe.lacks_programs_32 and not other.recipe.lacks_programs_32
    assert other.recipe.model_copy(update={"name": plain.recipe.name, "cannot": plain.recipe.cannot}) == plain.recipe
    assert other.layers == plain.layers and image_key(other) != image_key(plain)
    assert "32-bit programs" in caveat(plain.recipe) and "32-bit programs" not in caveat(other.recipe)


@pytest.mark.parametrize("name", ["windows-stand-in", "windows-stand-in-32"])
def test_the_option_for_32_bit_programs_names_that_image(name: str) -> None:
    assert catalog.with_programs_32(name) == "windows-stand-in-32"


@pytest.mark.parametrize("name", ["debian-12", "windows-server"])
def test_other_images_are_not_made_with_32_bit_programs(name: str) -> None:
    with pytest.raises(UsageError, match=rf"the image {name} is not made with 32-bit programs"):
        catalog.with_programs_32(name)


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
