# SPDX-License-Identifier: Apache-2.0
"""A command line in the making: the text that runs, the same to show, and the parameters that it still lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.masking import MASK
from harness.winarguments import between_quotes

if TYPE_CHECKING:
    from harness.package.models import CredentialValue
    from harness.package.parameters import Parameters


class Line:
    """Grows to the right. Values have their parameters filled in; empty ones add nothing."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.text = ""
        self.masked = ""
        self.unresolved: dict[str, None] = {}

    def add(self, plain: str) -> Line:
        """Text of our own, with a blank before it."""
        self.text += f" {plain}" if self.text else plain
        self.masked += f" {plain}" if self.masked else plain
        return self

    def value(self, before: str, value: str | None, after: str = "", *, quote: str = '"', secret: bool = False) -> Line:
        """An option with the author's value between quotes, whose own quotes are escaped; nothing when it is empty."""
        filled = self.parameters.fill(value or "")
        self.unresolved.update(dict.fromkeys(filled.unresolved))
        if not filled.text:
            return self
        shown = MASK if secret else filled.masked
        blank = " " if self.text else ""
        inside, visible = (_escape(text, quote) for text in (filled.text, shown))
        self.text += f"{blank}{before}{quote}{inside}{quote}{after}"
        self.masked += f"{blank}{before}{quote}{visible}{quote}{after}"
        return self

    def verbatim(self, value: str | None) -> Line:
        """The author's text as it stands."""
        filled = self.parameters.fill(value or "")
        self.unresolved.update(dict.fromkeys(filled.unresolved))
        if filled.text:
            self.text += f" {filled.text}" if self.text else filled.text
            self.masked += f" {filled.masked}" if self.masked else filled.masked
        return self

    def account(self, user: str, password: str, value: CredentialValue) -> Line:
        """Two options for a credential: its user, and its password unless that is empty (built-in accounts)."""
        if value is None:
            return self
        if isinstance(value, str):
            filled = self.parameters.fill(value)
            self.unresolved.update(dict.fromkeys(filled.unresolved))
            name, _, word = filled.text.partition(":")
        else:
            parts = [self.parameters.fill(part or "") for part in (value.user_name, value.password)]
            self.unresolved.update(dict.fromkeys(missing for part in parts for missing in part.unresolved))
            name, word = (part.text for part in parts)
        # a filled value is text, and not looked at for parameters again
        for option, text, secret in ((user, name, False), (password, word, True)):
            if text:
                self.text += f' {option}"{_escape(text, chr(34))}"'
                self.masked += f' {option}"{MASK if secret else _escape(text, chr(34))}"'
        return self

    def flag(self, option: str, value: bool | str | None, yes: str, no: str) -> Line:
        """An option for a Boolean; nothing when it is missing or has no value yet."""
        if isinstance(value, str):
            filled = self.parameters.fill(value)
            self.unresolved.update(dict.fromkeys(filled.unresolved))
            value = {"true": True, "false": False}.get(filled.text.strip().lower())
        word = "" if value is None else f"{option}{yes if value else no}"
        return self.add(word) if word else self


def _escape(text: str, quote: str) -> str:
    return between_quotes(text) if quote == '"' else text.replace(quote, quote * 2)
