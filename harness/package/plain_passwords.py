# SPDX-License-Identifier: Apache-2.0
"""Passwords that are written in command lines: what stands where common tools take one."""

from __future__ import annotations

import re
from typing import Final

from harness.package.jsontree import Document, Node
from harness.package.substitution import placeholders

_NAMES: Final = (
    r"(?:password|passwd|passphrase|passwort|pwd|(?<!by)(?<!com)pass|secret|token"
    r"|(?:api|access|account|secret|private|storage|shared|master|encryption|signing)[_-]?key)"
)
#: A literal in quotes or bare. Quotes may be escaped for a shell within a shell.
_WORD: Final = r"""(?:\\?"([^"\\]+)\\?"|'([^']+)'|([^\s"'&|;<>]+))"""
_QUOTED: Final = r"""(?:\\?"([^"\\]+)\\?"|'([^']+)')"""
_REST: Final = r"\b[^&|\n]*\s"
"""Of a command, before one of its options."""
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
        rf"{_QUOTED}\s*\|\s*ConvertTo-SecureString(?=.{{0,80}}-AsP)",
        rf"\$\w*(?:{_NAMES}|pw)\w*\s*=\s*{_QUOTED}",
        rf"\b(?:Network|PS)Credential\b\W+(?:-ArgumentList\W+)?[\w.@\\-]+['\"]\s*,\s*{_QUOTED}",
        rf"\bSetEnvironmentVariable\(\s*['\"]\w*{_NAMES}\w*['\"]\s*,\s*{_QUOTED}",
        rf"\bsetx(?:\.exe)?\s+(?:/m\s+)?\w*{_NAMES}\w*\s+(?![-/]){_WORD}",
        rf"\bnet1?(?:\.exe)?\s+user\s+(?:\\?\"[^\"]+\"|[^\s/\"]+)\s+(?![-/]){_WORD}",
        rf"\bnet1?(?:\.exe)?\s+use\s+(?:(?:\w:|\*)\s+)?\\\\\S+\s+(?:/user:\S+\s+)?(?![-/]){_WORD}",
        rf"\brasdial\s+(?:\\?\"[^\"]+\"|\S+)\s+[^\s/]+\s+(?![-/]){_WORD}",
        rf"/\w+\.(?:\w+\.)*{_NAMES}[:=]{_WORD}",
        rf"\bschtasks{_REST}/rp\s+{_WORD}",
        rf"\b(?:cmdkey|runas|netdom){_REST}/(?:pass|pw?d?|passwordd|passwordo):{_WORD}",
        rf"\b(?:psexec\w*|certutil|useradd|usermod|sshpass|(?:docker|podman|nerdctl)\s+login){_REST}-p\s*{_WORD}",
        rf"\b(?:sqlcmd|osql|isql|bcp|unzip|zip){_REST}(?-i:-P)\s*{_WORD}",
        rf"\b(?:mysql\w*|7z[ar]?){_REST}(?-i:-p){_WORD}",
        rf"\bmysqladmin{_REST}password\s+{_WORD}",
        rf"\b(?:plink|pscp|psftp){_REST}-pw\s+{_WORD}",
        rf"\bldap(?:add|modify|search|delete|passwd|whoami|compare){_REST}(?-i:-w)\s*{_WORD}",
        rf"\bredis-cli{_REST}-a\s+{_WORD}",
        rf"\bhtpasswd\s+-\w*b\w*\s+\S+\s+\S+\s+{_WORD}",
        rf"\b(?:smbclient|rpcclient|net){_REST}-U\s*[\"']?[^\s%\"']+%{_WORD}",
        rf"\bcurl{_REST}(?:-u|--user)\s+[\"']?[^\s:\"']+:{_WORD}",
        rf"\bAuthorization:\s*(?:Basic|Bearer)\s+{_WORD}",
        rf"\b(?:openssl{_REST}-pass(?:in|out)?|-pass(?:in|out))\s+pass:{_WORD}",
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
PASSWORD: Final = "a password is written in the command line"
PASSWORD_HINT: Final = "declare a Credential or SecureString parameter"
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
        document.report("secret-in-plain-text", PASSWORD, node, hint=PASSWORD_HINT)
