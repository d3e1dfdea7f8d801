# SPDX-License-Identifier: Apache-2.0
"""What Windows PowerShell 5.1 and PowerShell 7 do not read alike, found by text.

Windows Server comes with the first; steps name it as powershell.exe. A script that asks which of the two it is
executed by is taken to know what it does, but for its syntax: a text that does not parse asks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from harness.package.powershell.source import LOOKED_AT, Kind, Text

Side = Literal["newer", "older", "wrong"]
"""Windows PowerShell lacks it; PowerShell 7 lacks it or takes it for something else; Windows PowerShell takes it for
something else than is meant."""

_ASKS: Final = re.compile(r"(?i)\$\{?PSVersionTable\b|\$\{?PSEdition\b|\$\{?IsCoreCLR\b")
_AT: Final = r"(?:(?<=[|;(){}=&!])|(?<=\breturn\b)|^)[ \t]*"
"""Where a command begins."""
_REST: Final = r"\b(?:`\r?\n|[^|;\r\n]){0,2000}?\s-"
"""Of a command, before one of its parameters."""
_SC: Final = (
    r"(?:config|create|delete|start|stop|query|queryex|description|failure|failureflag|sdset|sdshow|qc|qfailure"
    r"|sidtype|privs|triggerinfo|pause|continue|control)\b"
)


#: Commands, and their parameters that they have in PowerShell 7 only.
_PARAMETERS: Final = (
    (r"(?:ForEach-Object|foreach|%)", "Parallel"),
    ("ConvertFrom-Json", "AsHashtable|NoEnumerate"),
    ("ConvertTo-Json", "AsArray|EscapeHandling|EnumsAsStrings"),
    ("ConvertFrom-SecureString", "AsPlainText"),
    (r"(?:Get|Set|Add)-Content", "AsByteStream"),
    (
        r"(?:Invoke-WebRequest|iwr|Invoke-RestMethod|irm)",
        "SkipCertificateCheck|SkipHttpErrorCheck|SkipHeaderValidation|Authentication|Form|StatusCodeVariable|HttpVersion"
        "|ResponseHeadersVariable|RetryIntervalSec|MaximumRetryCount|NoProxy|SslProtocol|Resume|FollowRelLink|CustomMethod"
        "|ConnectionTimeoutSeconds|OperationTimeoutSeconds|AllowUnencryptedAuthentication"
        "|PreserveAuthorizationOnRedirect",
    ),
    ("Test-Connection", "TargetName|TcpPort|Traceroute|IPv4|IPv6|MtuSize|TimeoutSeconds"),
    ("Split-Path", "LeafBase|Extension"),
    (r"(?:Sort-Object|sort)", "Top|Bottom"),
    ("Select-String", "Raw|NoEmphasis"),
    ("Get-Date", "AsUTC|UnixTimeSeconds"),
    ("Start-Job", "WorkingDirectory"),
    ("Start-Process", "Environment"),
    (r"(?:Import-Module|ipmo)", "UseWindowsPowerShell|SkipEditionCheck"),
    (r"(?:Export-Csv|ConvertTo-Csv)", "QuoteFields|UseQuotes"),
    (r"(?:Get-ChildItem|gci|dir|ls)", "FollowSymlink"),
    (r"(?:Measure-Object|measure)", "AllStats|StandardDeviation"),
    ("Out-String", "NoNewline"),
    ("Join-Path", "AdditionalChildPath"),
    ("Get-Random", "Shuffle"),
)
_NEWER: Final = (
    "Get-Error|Join-String|Get-Uptime|ConvertFrom-Markdown|Show-Markdown|Test-Json|Remove-Service|Remove-Alias"
    "|Get-SecureRandom|Get-ExperimentalFeature|Get-PSSubsystem|Switch-Process|ConvertTo-CliXml|ConvertFrom-CliXml"
)
_OLDER: Final = (
    "(?:Get|Write|New|Clear|Limit|Remove|Show)-EventLog|New-WebServiceProxy|Add-PSSnapin|Test-ComputerSecureChannel"
    "|(?:Add|Remove|Checkpoint|Restore)-Computer|Reset-ComputerMachinePassword|(?:Enable|Disable)-ComputerRestore"
    "|Get-ControlPanelItem|ConvertFrom-String|Convert-String|(?:Start|Complete|Undo|Use)-Transaction"
)
_WMI: Final = "Get-WmiObject|gwmi|Set-WmiInstance|swmi|Invoke-WmiMethod|iwmi|Remove-WmiObject|rwmi|Register-WmiEvent"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, once for each kind of it in a text. ``what`` completes "it uses ...", ``hint`` says what to
    do."""

    side: Side
    kind: str
    what: str
    hint: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Rule:
    side: Side
    kind: str
    pattern: re.Pattern[str]
    what: str
    """"{}" stands for the first group."""
    hint: str = ""
    where: Kind = "code"
    syntax: bool = False
    """Whether no script can ask before."""


def _rule(
    side: Side, kind: str, pattern: str, what: str, hint: str = "", *, where: Kind = "code", syntax: bool = False
) -> _Rule:
    return _Rule(side, kind, re.compile(f"(?im){pattern}"), what, hint, where, syntax)


def _parameters(command: str, names: str) -> _Rule:
    return _rule("newer", command, rf"(?<![\w-]){command}{_REST}({names})\b", "the parameter -{}")


SYNTAX: Final = {
    "ternary": "the operator ? :",
    "chain": "the operator && or ||",
    "null-coalescing": "the operator ?? or ??=",
    "null-conditional": "the operator ?. or ?[",
    "background": "the operator & at the end of a pipeline",
    "clean": "a clean block",
    "number": "a number with a prefix or suffix of its own",
    "escape": "the escape `u{} or `e",
}
"""Kinds of syntax that Windows PowerShell 5.1 lacks, of which the real parser tells."""

_MAY_BE_NEWER: Final = re.compile(
    r"(?i)&&|\|\||\?[?.\[]|[^|\s(;{][ \t]*\?[ \t]|&[ \t]*(?:[\r\n;)}#]|\Z)|(?<![\w$-])clean\s*\{|(?<![\w.])0b[01]"
    r"|(?<![\w.#-])(?:\d+|0x[0-9a-f]+)(?:u[lsy]?|[syn])(?:[kmgtp]b)?\b"
)
_RULES: Final = (
    _rule("newer", "chain", r"(?<=\S)[ \t]*(&&|\|\|)(?=[ \t]*[\w.$&(`\r\n])", SYNTAX["chain"], "use if ($?) {...}",
          syntax=True),
    _rule("newer", "null-coalescing", r"(?<=[\w)\]}\"'])\s*(\?\?=?)(?=\s*[\w$('\"\[@-])(?<=[\s)\]}]\?\?|\?\?=)",
          SYNTAX["null-coalescing"], "use if ($null -eq ...) {...}", syntax=True),
    _rule("newer", "null-conditional", r"(?<=\})(\?[.\[])", SYNTAX["null-conditional"], "use if ($null -ne ...) {...}",
          syntax=True),
    _rule("newer", "ternary", r"=\s*\(?[^=|{}\r\n]*[\w)\]\"'}]\s+(\?)\s+[^{%|\s][^|\r\n]*?\s:\s", SYNTAX["ternary"],
          "use if (...) {...} else {...}", syntax=True),
    _rule("newer", "escape", r"(?<!`)(?:``)*`(u\{[0-9a-f]{1,6}\}|e\[)", SYNTAX["escape"], "use [char]",
          where="expandable", syntax=True),
    _rule("newer", "requires", r"^[ \t]*(#requires\s[^\r\n]*(?:-version\s+(?:[6-9]|\d\d)|-psedition\s+core)\b)",
          "what it requires itself, PowerShell 7", "start it with pwsh.exe", where="comment", syntax=True),
    *(_parameters(command, names) for command, names in _PARAMETERS),
    _rule("newer", "encoding", r"\s-Encoding[\s:]+['\"]?(utf8NoBOM|utf8BOM|ansi)\b", "-Encoding {}",
          "use -Encoding UTF8"),
    _rule("newer", "command", rf"{_AT}({_NEWER})(?![\w-])", "{}"),
    _rule("newer", "variable", r"\$(IsWindows|IsLinux|IsMacOS|PSStyle)\b(?!\s*=[^=])", "${}, which is empty there"),
    _rule("older", "sc", rf"{_AT}(sc)[ \t]+(?!{_SC})(?=[\w$.'\"\\-])",
          "sc, which is sc.exe there and Set-Content in Windows PowerShell", "write Set-Content"),
    _rule("wrong", "sc.exe", rf"{_AT}(sc)[ \t]+(?=(?:\\\\\S+[ \t]+)?{_SC}(?![ \t]*\||[ \t]*$))",
          "sc, which is Set-Content there", "write sc.exe"),
    _rule("older", "byte", r"\s-Encoding[\s:]+['\"]?(Byte)\b", "-Encoding Byte", "use [IO.File]"),
    _rule("older", "certificates", r"(ServerCertificateValidationCallback|CertificatePolicy)\b",
          "{}, which its web commands do not heed"),
    _rule("older", "wmi", rf"{_AT}({_WMI})(?![\w-])", "{}", "use the Cim commands"),
    _rule("older", "command", rf"{_AT}({_OLDER})(?![\w-])", "{}"),
    _rule("older", "workflow", r"^[ \t]*(workflow)[ \t]+[\w-]+\s*(?:\(|\{)", "a workflow", syntax=True),
    _rule("older", "computer", rf"\b(?:Get|Set)-(?:Service|Process){_REST}(ComputerName)\b", "the parameter -{}"),
    _rule("older", "web", rf"{_AT}(curl|wget)[ \t]+(?=[\w$'\"-])",
          "{}, which is a program there and Invoke-WebRequest in Windows PowerShell", "write Invoke-WebRequest"),
    _rule("older", "framework", r"\b(System\.Web\.(?:Script|Security)\.\w+)", "{} of the .NET Framework"),
)  # fmt: skip


def may_be_newer(text: Text) -> bool:
    """Whether the real parser has to look for the syntax that Windows PowerShell lacks: that takes it long."""
    escapes = "`u{" in text.text or "`e" in text.text
    return escapes or _MAY_BE_NEWER.search(text.only("code")[:LOOKED_AT]) is not None


def differences(text: Text, *, parsed: bool = False) -> Iterator[Difference]:
    """The first of each kind. ``parsed`` leaves out the syntax that the real parser tells of."""
    asks = _ASKS.search(text.text) is not None
    for rule in _RULES:
        if (asks and not rule.syntax) or (parsed and rule.kind in SYNTAX):
            continue
        for found in rule.pattern.finditer(text.text, 0, LOOKED_AT):
            at = found.start(1)
            if text.kind(at) == rule.where and not _is_own(text.text, found[1]):
                yield Difference(rule.side, rule.kind, rule.what.format(found[1].rstrip("{[")), rule.hint, at)
                break


def _is_own(text: str, name: str) -> bool:
    """Whether the script has a function or an alias of this name."""
    name = re.escape(name)
    own = rf"(?i)\b(?:function|filter)\s+(?:global:|script:)?{name}(?![\w-])"
    own += rf"|\bSet-Alias\b[^\r\n;|]*\s['\"]?{name}\b"
    return re.search(own, text) is not None
