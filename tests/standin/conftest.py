# SPDX-License-Identifier: Apache-2.0
"""One prefix of the image's Wine and one listener for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.standin.engine import Engine, powershell
from tests.standin.native import Listener, listening, wine_prefix


@pytest.fixture(autouse=True)
def _no_other_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """requests would rather trust what these name than the certificate it is given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of Wine programs, in a prefix of the session."""
    with wine_prefix(tmp_path_factory.mktemp("wine") / "prefix") as environment:
        yield environment


@pytest.fixture(scope="session")
def listener(wine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with listening(tmp_path_factory.mktemp("listener"), wine) as listener:
        yield listener


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with powershell(tmp_path_factory.mktemp("powershell")) as engine:
        yield engine
