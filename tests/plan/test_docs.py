# SPDX-License-Identifier: Apache-2.0
"""The reference pages say what the code does. ``python -m tests.plan.test_docs`` writes the list of findings anew."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from harness.package.findings import CODES

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = """# Findings

What `vmrole check` and a run's `findings.json` report. A code keeps its meaning for ever. Errors are for what cannot
work; what deployed in production is none. A finding has `severity`, `code`, `sentence`, `hint`, the `file` inside the
package, a JSON `pointer`, and `line` and `column` from 1.

| code | severity | when |
|---|---|---|
"""


def findings_page() -> str:
    rows = [f"| `{code}` | {severity} | {when.replace('|', '&#124;')} |" for code, (severity, when) in CODES.items()]
    return HEAD + "\n".join(rows) + "\n"


def test_the_list_of_findings_is_complete() -> None:
    written = (DOCS / "findings.md").read_text("utf-8")
    assert written == findings_page(), "python -m tests.plan.test_docs writes it anew"


def test_each_choice_is_where_the_page_says() -> None:
    rows = [line for line in (DOCS / "semantics.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| question")]
    assert len(rows) > 40
    for row in rows:
        match = re.fullmatch(r"\| .+ \| (?P<tags>[A-Z, ]+) \| `(?P<place>[\w.]+)` \|", row)
        assert match, row
        assert set(match["tags"].split(", ")) <= {"DOC", "GUIDE", "SRC", "PKG", "BLOG", "INFER", "GUESS"}, row
        assert exists(match["place"]), row


def exists(place: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


if __name__ == "__main__":
    (DOCS / "findings.md").write_text(findings_page(), "utf-8")
