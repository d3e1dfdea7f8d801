# SPDX-License-Identifier: Apache-2.0
"""What can be said about an extension beyond its shape: patterns, orders, names, commands.

Works on the tree and not on the model, so that every finding has its place. Nothing here is an error: all of it has
deployed, or its evidence is not strong enough to say that it cannot.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from harness.package.findings import Finding, Findings
from harness.package.jsontree import Document, Node
from harness.package.names import composed, folded
from harness.package.patterns import Check, Stream, looks_like_path, make_check, reboot_codes
from harness.package.plain_passwords import report_passwords
from harness.package.substitution import placeholders, substitute
from harness.wincmd import LONGEST, LONGEST_OF_WINDOWS, is_cmd, is_powershell, long_line

if TYPE_CHECKING:
    from harness.package.archive import Entry

_PATTERNS: Final[tuple[tuple[str, Stream, str], ...]] = (
    ("ExitCodeRegex", "exit code", ""),
    ("StandardOutputRegex", "standard output", "StandardOutputPath"),
    ("StandardErrorRegex", "standard error", "StandardErrorPath"),
)
#: Exit codes that a pattern is tried on; the numbers of the pattern itself are added.
_CODES: Final = (*range(1, 300), 1602, 1603, 1618, 1641, 3010, 3011, 9009, 65535, -1, -2147024891, 2147483647)
_LISTS: Final = ("ProvisioningScripts", "ScriptCommands", "SQLScriptCommands")
_REGEX_MARKS: Final = re.compile(r"[*?|^$\[\]{}]|\.\+|\\[dsw.]")
_RELATIVE_FILE: Final = re.compile(
    r"(?<![^\s\"'&(;|])\.[\\/]"
    r"((?:(?:(?! \.{1,2}[\\/])[\w .-])+[\\/])*[\w .-]+?\.(?:ps1|cmd|bat|vbs|js|msi|exe))(?![\w.])",
    re.IGNORECASE,
)
#: What stands before the name of a file that the command makes, or asks for, or removes.
_NOT_WANTED: Final = re.compile(
    r"(?:>{1,2}\s*|[-/](?:outfile|out|output|o|destination|dest)(?:[:=]|\s+)|\bexist\s+)[\"']?$"
    r"|\b(?:copy|xcopy|move|ren|rename|(?:copy|move|rename)-item)\s+(?:[-/]\w+\s+)*[^-/\s&|;][^\s&|;]*\s[^&|;\n]*$"
    r"|\b(?:bitsadmin|certutil|mklink|new-item|(?:set|add)-content|out-file|tee-object|test-path|del|erase|remove-item|rm"
    r"|downloadfile)\b[^&|;\n]*$"
    r"|io\.file\]::\w+\s*\([^&|;\n]*$",
    re.IGNORECASE,
)
#: Commands behind which there may be any file, or which go to another folder.
_UNPACKS: Final = re.compile(
    r"(?i)\b(?:expand-archive|expand|extrac32|tar|7z\w*|unzip|git|robocopy|xcopy|start-bitstransfer|save-\w+)\b"
    r"|extracttodirectory|[-/]extract|\b(?:cd|chdir|pushd|(?:set|push)-location)\b"
)
#: Seconds that a document's patterns may take together; what is left of a hostile one is not looked at.
_PATTERN_SECONDS: Final = 5.0
_POLICIES: Final = ("failonmatch", "warnandcontinueonmatch")


def lint(document: Document, payload: Iterable[Entry] = ()) -> list[Finding]:
    """Findings about a resource extension; ``payload`` has its files, relative to the payload's root.

    Linear in the size of the document, but for the patterns it has, each of which takes bounded time.
    """
    files = {folded(entry.path) for entry in payload}
    # findings of this look only: the document may be looked at again
    before, document.findings = document.findings, Findings()
    try:
        _walk(document, files)
        return list(document.findings)
    finally:
        document.findings = before


def _walk(document: Document, files: set[str]) -> None:
    deadline = time.monotonic() + _PATTERN_SECONDS
    for node in document.root.walk():
        if not isinstance(node.value, list):
            continue
        if node.key in _LISTS:
            _orders(node, document)
        if node.key == "WindowsServerRolesAndFeatures":
            _features(node, document)
        elif node.key in ("ProvisioningScripts", "ScriptCommands", "ScriptApplications"):
            for element in node.value:
                if isinstance(element.value, dict):
                    _script(element, document, files, deadline)
    if time.monotonic() > deadline:
        what = f"the failure patterns take more than {_PATTERN_SECONDS:g} s to look at; the rest is left out"
        document.report("findings-left-out", what, document.root)


def tags(document: Document, have: Iterable[str], image: str) -> Iterator[Finding]:
    """Requirement tags that an image does not declare; the platform wants all of them [GUIDE 18276]."""
    known = {tag.lower() for tag in have}
    node = document.find("/ResourceRequirements/OSVirtualHardDiskRequirements")
    for tag in node.value if node is not None and isinstance(node.value, list) else ():
        if isinstance(tag.value, str) and tag.value.lower() not in known:
            yield Finding(
                "warning",
                "requirement-tag",
                f"the extension requires {tag.value[:60]!r}, which the image {image} does not declare",
                "run it on another image, or without --strict",
                document.file,
                tag.pointer,
                tag.line,
                tag.column,
            )


def without_powershell(document: Document, image: str) -> Iterator[Finding]:
    """Where the extension starts PowerShell first, for an ``image`` that stands in for Windows and has none."""
    for node in document.root.walk():
        if node.key == "Executable" and isinstance(node.value, str) and is_powershell(_text(node)):
            yield Finding(
                "warning", "image-powershell", no_powershell(image), POWERSHELL_HINT.format(image=image),
                document.file, node.pointer, node.line, node.column,
            )  # fmt: skip
            return


def no_powershell(image: str) -> str:
    """What to say of an extension that starts PowerShell."""
    return f"the image {image} has no PowerShell: the steps that start it are not executed there"


POWERSHELL_HINT: Final = (
    "run it on {image}-powershell, which 'vmrole images build {image} --powershell ZIP' makes of PowerShell's zip for "
    "Windows (x64)"
)


def _text(node: Node | None) -> str | None:
    """A string without parameters, its escapes undone; None for anything else."""
    if node is None or not isinstance(node.value, str) or placeholders(node.value):
        return None
    return substitute(node.value, {}).text


def _script(node: Node, document: Document, files: set[str], deadline: float) -> None:
    for name, stream, path_name in _PATTERNS if time.monotonic() < deadline else ():
        _pattern(node.get(name), stream, path_name, document)
    if time.monotonic() < deadline:
        _reboot_pattern(node.get("RebootExitCodeRegex"), document)
    for name in ("StandardOutputPath", "StandardErrorPath"):
        path = node.get(name)
        text = _text(path)
        if path is not None and text and "\\" not in text.replace("\\\\", "") and _REGEX_MARKS.search(text):
            hint = f"write {name.replace('Path', 'Regex')}, if a failure pattern is meant"
            document.report("path-pattern", f"{name} is {text[:60]!r}: a pattern and no path", path, hint=hint)
    policy = node.get("ErrorPolicy")
    text = _text(policy)
    if policy is not None and policy.value is not None and not isinstance(policy.value, str):
        text = str(policy.value) if not isinstance(policy.value, dict | list) else ""
    if policy is not None and text is not None and text.strip().lower() not in _POLICIES:
        what = f"the error policy {text[:60]!r} is not known; a failure fails the deployment"
        document.report("error-policy", what, policy, hint="FailOnMatch or WarnAndContinueOnMatch")
    _command(node, document, files)


def _pattern(node: Node | None, stream: Stream, path_name: str, document: Document) -> None:
    text = _text(node)
    if node is None or text is None:
        return
    check = make_check(stream, text)
    if check.state == "invalid":
        if looks_like_path(text):
            hint = f"write {path_name}" if path_name else "write a pattern, e.g. [1-9][0-9]*"
            document.report("pattern-path", f"{node.key} is a path; as a pattern it never matches", node, hint=hint)
        else:
            what = f"the pattern {text[:60]!r} never matches: {check.problem}"
            document.report("pattern-invalid", what, node, hint="the script then cannot fail by this stream")
        return
    if check.state == "off":
        return
    try:
        if stream == "exit code":
            _exit_code_pattern(node, text, document)
        elif check.found(""):
            what = f"the pattern {text[:60]!r} matches every output, even none: the script always fails"
            document.report("pattern-always", what, node, hint='it is a failure pattern; "" switches the check off')
    except TimeoutError:
        what = f"the pattern {text[:60]!r} takes too long to match"
        document.report("pattern-invalid", what, node, hint="avoid repeats inside repeats")


def _exit_code_pattern(node: Node, text: str, document: Document) -> None:
    check = make_check("exit code", text)
    if check.found("0"):
        what = f"the exit code 0 matches {text[:60]!r}: the script always fails"
        document.report("pattern-always", what, node, hint="it is a failure pattern, e.g. [1-9][0-9]*")
        return
    if not _some_code(check, text):
        what = f"no exit code matches {text[:60]!r}: the script cannot fail by its exit code"
        document.report("pattern-never", what, node, hint="exit codes are matched as decimal text")


def _some_code(check: Check, text: str) -> bool:
    """Whether a pattern matches any exit code, of the usual ones and those that are written in it."""
    own = [int(number) for number in re.findall(r"-?[0-9]{1,10}", text)[:50]]
    # one search over all of them would not do: patterns may be anchored
    return any(check.found(str(code)) for code in (*own, *_CODES))


def _reboot_pattern(node: Node | None, document: Document) -> None:
    text = _text(node)
    if node is None or text is None:
        return
    codes = reboot_codes(text)
    if codes is None:
        problem = _reboot_problem(text)
        if problem:
            document.report("reboot-pattern", f"{text[:60]!r} {problem}", node, hint="write 1641|3010")
    elif 0 in codes:
        what = f"{text[:60]!r} has the exit code 0: each success restarts the guest"
        document.report("reboot-pattern", what, node, hint="write 1641|3010")
    elif re.match(r"\s*\{", text):
        what = f"{text[:60]!r} is no regular expression; it is read as the exit {_codes(codes)}"
        document.report("reboot-pattern-braces", what, node, hint=f"write {'|'.join(map(str, codes))}")


def _reboot_problem(text: str) -> str:
    """What is wrong with a pattern for exit codes that restart, as the end of a sentence; "" for nothing."""
    check = make_check("exit code", text)
    if check.state == "invalid":
        return f"restarts nothing: {check.problem}"
    try:
        if check.found("0"):
            return "matches the exit code 0: each success restarts the guest"
        return "" if _some_code(check, text) else "restarts nothing: no exit code matches it"
    except TimeoutError:
        return "takes too long to match"


def _codes(codes: Iterable[int]) -> str:
    texts = [str(code) for code in codes]
    return f"code{'' if len(texts) == 1 else 's'} {', '.join(texts)}"


def _command(node: Node, document: Document, files: set[str]) -> None:
    program = node.get("ExecutableAndParams")
    executable = program.get("Executable") if program is not None else None
    block = node.get("ScriptBlock")
    has_program = executable is not None and bool(executable.value)
    has_block = block is not None and bool(block.value)
    if not has_program and not has_block:
        what = "the script has neither ExecutableAndParams nor a ScriptBlock: there is nothing to start"
        document.report("script-empty", what, node, hint="give it one of the two")
    elif has_program and block is not None and has_block:
        what = "the script has ExecutableAndParams and a ScriptBlock; the program is started, the block is ignored"
        document.report("script-double", what, block, hint="remove one of them")
    text = block.value if block is not None and not has_program else None
    if block is not None and isinstance(text, str) and (number := long_line(substitute(text, {}).text)):
        what = f"line {number} of the batch text is longer than the {LONGEST:,} characters that cmd.exe takes"
        document.report("command-too-long", what, block, hint="put it into a script of the payload")
    rest = program.get("Parameters") if program is not None else None
    for text_of in (rest, block):
        if text_of is not None and isinstance(text_of.value, str):
            report_passwords(text_of, document)
    if executable is None or rest is None or not isinstance(executable.value, str) or not isinstance(rest.value, str):
        return
    name = re.split(r"[\\/]", executable.value.strip().lower())[-1].removesuffix(".exe")
    most, taker = (LONGEST, "cmd.exe") if is_cmd(name) else (LONGEST_OF_WINDOWS, "Windows")
    if len(substitute(f"{executable.value} {rest.value}", {}).text) > most:
        what = f"the command line is longer than the {most:,} characters that {taker} takes"
        document.report("command-too-long", what, rest, hint="put it into a script of the payload")
    if name == "cmd" and re.search(r"(?i)/[ck]\s+'", rest.value):
        what = "cmd.exe knows no single quotes: it looks for a program whose name starts with one"
        document.report("command-single-quotes", what, rest, hint='write \\"...\\"')
    if files:
        _files(node, rest, document, files)


def payload_folders(node: Node, document: Document, files: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The folder of the payload that a script starts in: its RelativePath, and its parts, folded. Nothing where it
    starts elsewhere. ``files`` are those of the payload, folded."""
    written = node.get("WorkingDirectory")
    identifier = _text(node.get("ApplicationPayloadId"))
    if identifier is None or (written is not None and written.value):
        return
    wanted = re.sub(r"[\s{}]", "", identifier).lower()
    payloads = document.find("/ExtensionSettings/ApplicationProfile/ApplicationPayload")
    for payload in payloads.value if payloads is not None and isinstance(payloads.value, list) else ():
        own, path = _text(payload.get("ID")), _text(payload.get("RelativePath"))
        if own is None or path is None or re.sub(r"[\s{}]", "", own).lower() != wanted:
            continue
        folder = [part for part in re.split(r"[\\/]+", folded(path)) if part not in ("", ".")]
        if "/".join(folder) in files:  # a payload that is a file; its neighbours are in its folder
            folder.pop()
        yield path, folder


def _files(node: Node, rest: Node, document: Document, files: set[str]) -> None:
    """Files of the payload that a command names as ``.\\x.ps1``: its working directory is the payload's folder."""
    for path, folder in payload_folders(node, document, files):
        told: set[str] = set()
        text = composed(rest.value)
        for match in _RELATIVE_FILE.finditer(text):
            parts = [part for part in re.split(r"[\\/]+", folded(match[1])) if part != "."]
            name, before = "/".join((*folder, *parts)), text[: match.start()]
            # a program without a suffix, and a later argument that has one
            several = re.search(r" [-/]", match[1]) is not None
            if several or name in files or name in told or parts[-1] in folded(before):
                continue  # a name that was there before is that of a download or a copy
            if not _NOT_WANTED.search(before) and not _UNPACKS.search(before):
                told.add(name)
                what = f"the payload {path[:60]!r} has no {match[1][:60]!r}, which the command names"
                document.report("command-file-missing", what, rest, hint="is it misspelt, or not packed?")


def _orders(node: Node, document: Document) -> None:
    """Two scripts of one type with one order: which is first is not documented; here the array decides."""
    seen: dict[tuple[str, str], Node] = {}
    for element in node.value:
        kind, order = (element.get(name) for name in ("ScriptType", "DeploymentOrder"))
        if kind is None or order is None or not isinstance(kind.value, str) or order.value in (None, ""):
            continue
        if isinstance(order.value, bool | dict | list | float) or placeholders(str(order.value)):
            continue
        key = (kind.value.strip().lower(), str(order.value).strip().lstrip("+0") or "0")
        first = seen.setdefault(key, order)
        if first is not order:
            what = f"two {kind.value[:40]} scripts have the order {str(order.value)[:20]}, this one and that of line "
            document.report("order-collision", f"{what}{first.line}", order, hint="give each an order of its own")


def _features(node: Node, document: Document) -> None:
    from harness.package.features import is_feature, nearest

    for element in node.value:
        name = _text(element)
        if name is not None and name.strip() and not is_feature(name):
            # beyond the most that are told, no name is worth looking for
            near = nearest(name) if not document.findings.full("feature-unknown", document.file) else ""
            what = f"no role or feature of Windows Server is known as {name[:60]!r}"
            document.report("feature-unknown", what, element, hint=f"did you mean {near}?" if near else "")
