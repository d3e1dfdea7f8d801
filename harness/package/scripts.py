# SPDX-License-Identifier: Apache-2.0
"""Scripts of the payload as editors and other systems save them: what keeps them from being started as they are meant.

Only the beginnings of files are read, and only of those that a step may start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness.package.findings import Finding, Findings
from harness.wincmd import LONGEST, long_line

if TYPE_CHECKING:
    from harness.package.archive import Entry
    from harness.package.reader import Package

#: Of each script.
_BYTES: Final = 1 << 16
_FILES: Final = 500
_BATCH: Final = (".cmd", ".bat")
_SHELL: Final = (".sh", ".bash")
_OTHERS: Final = (".py", ".pl", ".rb")
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = re.compile(rb"\xff\xfe|\xfe\xff|(?:[\t\n\r -~]\0){2}|(?:\0[\t\n\r -~]){2}")
_SHELL_LINE: Final = re.compile(rb"#![^\r\n]*\b(?:ba|da|k|z)?sh\b")
_MAC: Final = re.compile(rb"\A[^\n]*\r[^\n]+\Z")
#: An interpreter that is named behind blanks, and is not the one that a file without any is given to.
_LATE: Final = re.compile(rb"[ \t\r\n]+#!(?![ \t]*/bin/(?:da)?sh\b)")
_LABEL: Final = re.compile(rb"(?im)^[ \t]*:[a-z_]")
_JUMP: Final = re.compile(rb"(?i)\b(?:goto|call)\s*:?\w")


def script_findings(package: Package, started: frozenset[str]) -> list[Finding]:
    """Findings about the scripts of a package. ``started`` are the files that a Linux command starts itself, relative
    to the payload's root. Raises PackageError for a damaged file."""
    findings = Findings()
    profile = package.extension
    linux, windows = bool(profile.linux.run_once_commands), bool(profile.windows.model_fields_set)
    names = [entry for entry in package.payload.files if _is_script(entry, linux, windows, started)][:_FILES]
    if not names:
        return []
    with package.payload.source.opened() as open_file:
        for entry in names:
            file = package.payload.prefix + entry.path
            with open_file(file) as stream:
                start = stream.read(_BYTES)
            batch = entry.path.lower().endswith(_BATCH)
            problems = _batch(start) if batch else _linux(entry, start, entry.path in started)
            for code, sentence, hint in problems:
                findings.add(code, sentence, hint=hint, file=file, line=1, column=1)
            if batch and (line := long_line(start.decode("latin-1"))):
                what = f"the line is longer than the {LONGEST:,} characters that cmd.exe takes"
                findings.add("command-too-long", what, hint="split it", file=file, line=line, column=1)
    return list(findings)


def _is_script(entry: Entry, linux: bool, windows: bool, started: frozenset[str]) -> bool:
    name = entry.path.lower()
    return (windows and name.endswith(_BATCH)) or (linux and (name.endswith(_SHELL + _OTHERS) or entry.path in started))


def _batch(start: bytes) -> Iterator[tuple[str, str, str]]:
    if _UTF16.match(start):
        yield "script-utf16", "the batch file is UTF-16, of which cmd.exe reads no command", "save it as ANSI or UTF-8"
        return
    if start.startswith(_BOM):
        what = "a byte order mark is before the first command, which cmd.exe takes for a part of it"
        yield "script-bom", what, "save it without a byte order mark"
    if _MAC.search(start):
        yield "script-line-ends", "the lines of the batch file end in CR, which ends none", "save it with CR LF"
    elif b"\n" in start and b"\r\n" not in start and _LABEL.search(start) and _JUMP.search(start):
        what = "the lines of the batch file end in LF: cmd.exe may not find its labels"
        yield "script-line-ends", what, "save it with CR LF"


def _linux(entry: Entry, start: bytes, started: bool) -> Iterator[tuple[str, str, str]]:
    if _UTF16.match(start):
        yield "script-utf16", "the script is UTF-16, which no interpreter of Linux reads", "save it as UTF-8"
        return
    shell = entry.path.lower().endswith(_SHELL) or _SHELL_LINE.match(start.removeprefix(_BOM)) is not None
    if start.startswith(_BOM + b"#!"):
        what = "a byte order mark is before #!: Linux does not see which interpreter the script is for"
        yield "script-bom", what, "save it without a byte order mark"
    elif start.startswith(_BOM) and shell:
        what = "a byte order mark is before the first command, which the shell takes for a part of it"
        yield "script-bom", what, "save it without a byte order mark"
    elif started and not start.startswith(b"#!") and (entry.path.lower().endswith(_OTHERS) or _LATE.match(start)):
        what = "the script is started and does not begin with #!: Linux gives it to /bin/sh"
        yield "script-no-interpreter", what, "begin its first line with #! and its interpreter"
    start = start.removeprefix(_BOM)
    line = start.partition(b"\n")[0]
    if _MAC.search(start) and (shell or started):
        yield "script-line-ends", "the lines of the script end in CR, which ends none in Linux", "save it with LF"
    elif line.startswith(b"#!") and line.endswith(b"\r") and (shell or started):
        interpreter = line[2:-1].strip().decode("utf-8", "replace")[:60]
        what = f"the lines of the script end in CR LF: Linux looks for an interpreter '{interpreter}\\r'"
        yield "script-line-ends", what, "save it with LF"
    elif shell and b"\r\n" in start:
        what = "the lines of the script end in CR LF: the shell takes CR for a part of each command"
        yield "script-line-ends", what, "save it with LF"
    if started and not entry.executable and start[:2] == b"#!":
        what = "the script is started and has no executable bit: Linux does not start it (errno=13)"
        yield "script-not-executable", what, "pack it with chmod +x, or start it with its interpreter"
