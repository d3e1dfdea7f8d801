# SPDX-License-Identifier: Apache-2.0
"""The image recipes that there are: images/NAME/recipe.toml of the clone, or of the installed wheel, and those of the
images that this user added."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import HarnessError, UsageError
from harness.image.cache import check_owner, default_folder
from harness.image.recipe import Recipe

_INHERITED = ("suite", "disk_mb", "kernel_arguments", "first_modules", "second_modules")
_SUFFIX_32 = "-32"
_ENGINE = 23.0
"""How many times slower .NET is in an emulated guest."""
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Source:
    """A recipe with the folder of its guest sources (agent/, overlay/, customize for the Debian builder)."""

    recipe: Recipe
    folder: Path

    @property
    def layers(self) -> tuple[Path, ...]:
        """The folders that an image is made of, the one it is based on first."""
        base = self.recipe.base
        if not base:
            return (self.folder,)
        beside = self.folder.parent / base
        return (beside if beside.is_dir() else images_folder() / base, self.folder)

    @property
    def agent(self) -> Path:
        """Sources of the resident agent."""
        return self.layers[0] / "agent"

    @property
    def windows_components(self) -> Path | None:
        """Sources of the integration components for Windows; None when its guest has no use for them."""
        return self.folder.parent / "windows-components" if self.recipe.os == "windows" else None


def images_folder() -> Path:
    """Where the recipes are: ``harness/_images`` in a wheel, ``images`` beside the package in a clone."""
    inside = _PACKAGE / "_images"
    return inside if inside.is_dir() else _PACKAGE.parent / "images"


def added_folder() -> Path:
    """Where the recipes of added images are."""
    return default_folder() / "recipes"


def names(folder: Path | None = None) -> list[str]:
    """Names of all recipes, sorted."""
    folders = [folder] if folder else [images_folder(), added_folder()]
    return sorted({path.parent.name for place in folders for path in place.glob("*/recipe.toml")})


def load(name: str, folder: Path | None = None) -> Source:
    """The recipe ``name``.

    Raises UsageError when there is none of that name, HarnessError when it is not a valid recipe.
    """
    known = names(folder)
    if name not in known:
        raise UsageError(
            f"there is no image {name!r}", hint=f"known images: {', '.join(known)}" if known else "no image is known"
        )
    path = (folder or images_folder()) / name
    if folder is None and not path.is_dir():
        path = added_folder() / name
        check_owner(path / "recipe.toml")
    try:
        recipe, path = recipe_of(_read(path), path, folder)
    except (ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError, FileNotFoundError) as error:
        raise HarnessError(f"the recipe of image {name} is not valid: {error}") from error
    if recipe.name != name:
        raise HarnessError(f"the recipe in the folder {name} calls itself {recipe.name}")
    return Source(recipe, path)


def with_programs_32(name: str) -> str:
    """The name of the image that is ``name`` with 32-bit programs. Raises UsageError where there is none."""
    load(name)
    wanted = name if name.endswith(_SUFFIX_32) else f"{name}{_SUFFIX_32}"
    if wanted in names(images_folder()):
        return wanted
    raise UsageError(
        f"the image {name} is not made with 32-bit programs, only the stand-in for Windows is",
        hint="'vmrole images build windows-stand-in --programs-32', with --powershell ZIP for one that has both",
    )


def recipe_of(text: Mapping[str, object], path: Path, folder: Path | None = None) -> tuple[Recipe, Path]:
    """The recipe ``text``, which was found in ``path``, and where its sources are.

    With ``like`` it is another name for one of ours, and the sources are that one's. A recipe takes some things from
    the one that it is based on. Raises ValidationError, or FileNotFoundError for one that is like none of ours.
    """
    place = folder or images_folder()
    while like := text.get("like"):
        if like not in names(place):
            raise FileNotFoundError(f"there is no recipe {like!r} that it could be like")
        path = place / str(like)
        text = _read(path) | {key: value for key, value in text.items() if key != "like"}
    inherited = _read(place / str(text["base"])) if text.get("base") else {}
    whole = {key: inherited[key] for key in _INHERITED if key in inherited} | dict(text)
    more, masked = text.get("masked", []), inherited.get("masked", [])
    if isinstance(more, list) and isinstance(masked, list):
        whole["masked"] = [*masked, *more]
    cannot = whole.get("cannot")
    if whole.get("powershell") and isinstance(cannot, list):
        whole["cannot"] = [word for word in cannot if word != "powershell"]
        # The start of its engine is slower than anything that is measured, and does not run natively at the build.
        whole |= {"work": "", "slowness": _ENGINE}
    return Recipe.model_validate(whole), path


def _read(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "recipe.toml").read_text("utf-8"))


def load_all(folder: Path | None = None) -> list[Source]:
    """All recipes, in the order of their names."""
    return [load(name, folder) for name in names(folder)]
