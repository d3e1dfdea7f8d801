# SPDX-License-Identifier: Apache-2.0
"""What pages have in common: one style, one script, and a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from harness.report.json_files import step_folder
from harness.report.text import duration, printable

OUTCOMES = {
    "succeeded": ("\u2713", "succeeded"),
    "warned": ("!", "warned"),
    "failed": ("\u2715", "failed"),
    "timed_out": ("\u2715", "timed out"),
    "interrupted": ("\u2715", "interrupted"),
    "unknown": ("?", "unknown"),
    "skipped": ("\u2013", "skipped"),
    "not_applicable": ("\u2013", "not applicable"),
    "not_executable": ("?", "not executable"),
}
"""Sign and words for what became of a step; never colour alone."""

VERDICTS = {
    "succeeded": ("\u2713", "Succeeded"),
    "warnings": ("!", "Succeeded with warnings"),
    "incomplete": ("?", "Incomplete"),
    "failed": ("\u2715", "Failed"),
    "error": ("\u2715", "Error"),
    "interrupted": ("\u2013", "Interrupted"),
    "scenario": ("\u2715", "Scenario failed"),
}
"""Sign and words for what became of a run; the last is one that is well while the test that asked for it is not."""
TONES = {
    "scenario": "bad",
    "succeeded": "good",
    "warnings": "warn",
    "incomplete": "open",
    "failed": "bad",
    "error": "bad",
}
"""Verdict -> class; the rest is ``mute``."""


def render(template: str, **context: Any) -> str:
    """The page ``template`` with the style and the script in it."""
    style, script = _asset("page.css"), _asset("page.js")
    hashes = f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
    policy = f"default-src 'none'; {hashes}; base-uri 'none'; form-action 'none'"
    fixed = {"style": Markup(style), "script": Markup(script), "policy": policy}
    return _environment().get_template(template).render(context | fixed)


def clean(value: Any) -> Any:
    """A JSON value with all its text made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["folder"] = step_folder
    environment.filters["path"] = lambda text: quote(str(text))
    environment.globals["outcomes"] = OUTCOMES
    environment.globals["verdicts"] = VERDICTS
    environment.globals["tones"] = TONES
    return environment


@cache
def _asset(name: str) -> str:
    return (resources.files("harness.report") / "templates" / name).read_text("utf-8").strip()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
