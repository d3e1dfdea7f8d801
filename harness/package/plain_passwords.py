# SPDX-License-Identifier: Apache-2.0
"""Passwords that are written in command lines: what stands where common tools take one."""

from __future__ import annotations

import re
from typing import Final

from harness.package.jsontree import Document, Node
from harness.package.substitution import placeholders

_NAMES: Final = r"(?:password|passwd|passphrase|passwort|pwd|secret|apikey|api[_-]?key|accesskey|accountkey|token)"
#: A literal in quotes or bare. Quotes may be escaped for a shell within a shell.
_WORD: Final = r"""(?:\\?"([^"\\]+)\\?"|'([^']+)'|([^\s"'&|;<>]+))"""
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # -SAPassword hunter2, /pwd:"x", --token=x
        rf"(?<![\w-])--?\w*{_NAMES}(?:\s+|[:=]\s*)(?![-/]){_WORD}",
        rf"(?<![\w/:.-])/\w*{_NAMES}(?:\s+|[:=]\s*)(?![-/]){_WORD}",
        # Server=x;Password=y; and MSI's properties
        rf"(?<![\w$%-])(?!PublicKeyToken)\w*{_NAMES}\s?=\s?(?!=){_WORD}",
        rf"ConvertTo-SecureString\s+(?:-AsPlainText\s+|-Force\s+|-String\s+)*(?!-){_WORD}(?=.{{0,80}}-AsPlainText|.{{0,80}}-AsP)",
        rf"ConvertTo-SecureString\s+-AsPlainText\s+(?:-Force\s+)?(?:-String\s+)?(?!-){_WORD}",
        rf"\bnet1?(?:\.exe)?\s+user\s+(?:\\?\"[^\"]+\"|[^\s/\"]+)\s+(?![-/]){_WORD}",
        rf"\bnet1?(?:\.exe)?\s+use\s+(?:\w:\s+)?\\\\\S+\s+(?![-/]){_WORD}",
        rf"\bschtasks\b[^&|\n]*\s/rp\s+{_WORD}",
        rf"\b(?:cmdkey|runas|netdom)\b[^&|\n]*\s/(?:pass|pw?d?|passwordd|passwordo):{_WORD}",
        rf"\bpsexec\w*\b[^&|\n]*\s-p\s+{_WORD}",
        rf"\bsqlcmd\b[^&|\n]*\s-P\s*{_WORD}",
        rf"\bmysql\w*\b[^&|\n]*\s(?-i:-p){_WORD}",
        rf"\bcurl\b[^&|\n]*\s(?:-u|--user)\s+[\"']?[^\s:\"']+:{_WORD}",
        rf"\bsshpass\s+-p\s*{_WORD}",
        rf"\b(?:openssl\b[^&|\n]*\s-pass(?:in|out)?|-pass(?:in|out))\s+pass:{_WORD}",
        rf"\b\w+://[^\s:/@\"']+:(?![$%{{\[]){_WORD}(?=@)".replace("[^\\s\"'&|;<>]+", "[^\\s\"'&|;<>@/]+"),
        # echo root:pw | chpasswd, and its file
        r"\becho\s+(?:-\w+\s+)*[\"'\\]*[\w.-]+:([^\s\"'|\\]+)[\"'\\]*\s*\|\s*(?:sudo\s+)?(?:/\S*/)?chpasswd",
        r"\bchpasswd\s*<<<\s*[\"'\\]*[\w.-]+:([^\s\"'|\\]+)",
        r"\becho\s+(?:-\w+\s+)*[\"'\\]*([^\s\"'|\\]+)[\"'\\]*\s*\|\s*(?:sudo\s+)?(?:/\S*/)?passwd\s+--stdin",
    )
)
#: Variables and what is computed, and words that say that there is none.
_NO_PASSWORD: Final = re.compile(
    r"[$%(!{@<\[`]|\$|__|(?:\*+|true|false|yes|no|none|null|prompt|random|\.{3}|x{3,})$|.*(?:\$\(|\$env:|\$\{|%\w+%)",
    re.IGNORECASE,
)
#: At most so much of a command is looked at.
_MOST: Final = 20_000


def has_password(text: str) -> bool:
    """Whether a command line has a password in it that is no parameter, no variable and not empty."""
    text = text[:_MOST]
    for form in _FORMS:
        for match in form.finditer(text):
            word = next(filter(None, match.groups()), "").strip().rstrip(";,)")
            if word and not placeholders(match.group()) and not _NO_PASSWORD.match(word):
                return True
    return False


def report_passwords(node: Node, document: Document) -> None:
    """The finding about a command that has one."""
    if has_password(node.value):
        what = "a password is written in the command line"
        document.report("secret-in-plain-text", what, node, hint="declare a Credential or SecureString parameter")
