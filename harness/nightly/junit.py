# SPDX-License-Identifier: Apache-2.0
"""junit.xml of a night, as CI systems read it: a test for each run. Everything in it comes from run directories, where
it was masked."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from harness.files import replace_file
from harness.nightly.state import Entry, Night
from harness.report.folder import Json, read_run
from harness.report.text import printable

_NO_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAIL = 4000
"""Characters of a step's stream that are told."""
_BAD = ("failed", "timed_out", "unknown", "interrupted", "warned", "not_executable")


def write_junit(night: Night, path: Path, *, title: str) -> None:
    """Write the runs of ``night`` to ``path``; what has not been run is skipped and says so."""
    kinds = [_kind(entry) for entry in night.entries.values()]
    counts = {
        "tests": str(len(kinds)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": f"{sum(entry.seconds or 0 for entry in night.entries.values()):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": _clean(title), **counts})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _clean(title), "timestamp": night.started.isoformat(timespec="seconds"), **counts}
    )
    for entry in night.entries.values():
        _add(suite, night, entry)
    ElementTree.indent(root)
    text = '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"
    replace_file(path, text, mode=None, durable=True)


def _kind(entry: Entry) -> str:
    if entry.exit_code in (None, 4):
        return "skipped"
    return {0: "", 1: "failure"}.get(entry.exit_code or 0, "error")


def _add(suite: ElementTree.Element, night: Night, entry: Entry) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": _clean(entry.package),
            "name": _clean(f"{entry.case} on {entry.image}" if entry.case else f"on {entry.image}"),
            "time": f"{entry.seconds or 0:.3f}",
        },
    )
    found = read_run(night.folder / entry.run) if entry.run else None
    result = found.result if found else {}
    properties = ElementTree.SubElement(case, "properties")
    image, accelerator = result.get("image") or {}, result.get("accelerator") or {}
    facts = {
        "vmrole_run": entry.run,
        "vmrole_verdict": entry.verdict,
        "vmrole_blame": entry.blame,
        "vmrole_image": entry.image,
        "vmrole_image_key": image.get("key"),
        "vmrole_accelerator": accelerator.get("kind"),
        "vmrole_extension": found.extension if found else None,
        "vmrole_extension_version": found.version if found else None,
        "vmrole_attempts": len(entry.attempts),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(str(value))})
    steps = [step for step in (found.steps if found else []) if step.get("outcome") in _BAD]
    if kind := _kind(entry):
        said = entry.summary or "it has not been run"
        if kind == "skipped" and steps:
            said += ": " + ", ".join(str(step.get("id")) for step in steps)
        attributes = {"message": _clean(said)}
        if kind != "skipped":
            attributes["type"] = _clean(entry.blame or entry.verdict)
        told = ElementTree.SubElement(case, kind, attributes)
        if kind != "skipped":
            told.text = _clean("\n\n".join([said, *(_step(step) for step in steps)]))
    lines = [entry.summary] if entry.summary else []
    lines += [f"the run {one.run} was cut off: {one.ended}" for one in entry.cut_off]
    lines += [f"report: {entry.run}/report.html"] if found else []
    if lines:
        ElementTree.SubElement(case, "system-out").text = _clean("\n".join(lines))


def _step(step: Json) -> str:
    parts = [f"step {step.get('id')} {step.get('outcome')}: {step.get('finding') or step.get('command')}"]
    for name in ("stdout", "stderr"):
        if text := str(step.get(name) or "").strip():
            parts.append(f"{name}:\n{text[-_TAIL:]}")
    return "\n".join(parts)


def _clean(text: str) -> str:
    """Text of any origin that XML can carry."""
    return _NO_XML.sub("\ufffd", printable(text))
