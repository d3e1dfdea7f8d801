# SPDX-License-Identifier: Apache-2.0
"""What a release is made of: the version, the changelog, and requirements that are locked."""

from __future__ import annotations

import datetime
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.release import EXTRAS, REPOSITORY, REQUIREMENTS, Refused, later, released

CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n- A thing.\n\n## 0.1.0 - 2026-01-02\n\n- The first.\n"
DAY = datetime.date(2026, 3, 4)


def test_what_was_unreleased_gets_the_version_and_the_day() -> None:
    assert released(CHANGELOG, "0.2.0", DAY) == CHANGELOG.replace(
        "## Unreleased\n", "## Unreleased\n\n## 0.2.0 - 2026-03-04\n"
    )


def test_there_is_no_release_of_nothing() -> None:
    with pytest.raises(Refused, match="no entry below Unreleased"):
        released(released(CHANGELOG, "0.2.0", DAY), "0.3.0", DAY)


def test_versions_go_up() -> None:
    assert later("0.10.0", "0.9.9")
    assert not later("0.9.9", "0.9.9")
    for version in ("1.2", "v1.2.3", "01.2.3", "1.2.3rc1"):
        with pytest.raises(Refused, match="is no version such as"):
            later(version, "0.1.0")


@pytest.mark.parametrize("name", EXTRAS)
def test_everything_in_pyproject_is_locked_with_hashes(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [] if name == "build" else list(project["dependencies"])
    wanted += [line for extra in EXTRAS[name] for line in extras[extra]]
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not locked: make lock"
        assert version in requirement.specifier, f"{requirement} is locked as {version}: make lock"
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        assert "--hash=sha256:" in block or block.startswith("#"), block
