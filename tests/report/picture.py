# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.report.picture`` makes docs/report.png, the picture of a report that the README shows, anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.report.browser import browser
from tests.report.stories import failure

PICTURE = Path(__file__).resolve().parents[2] / "docs/report.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as tab:
        tab.open(failure(Path(folder) / "20260314T092653Z-WebFarm-31c46b"), width=1120)
        tab.screenshot(PICTURE, most=1560)


if __name__ == "__main__":
    main()
