# SPDX-License-Identifier: Apache-2.0
"""LinuxApplicationProfile.RunOnceCommands, with the rules of the real guest agent.

Evidence: the source of microsoft/SCVMMLinuxGuestAgent (run-once configurator, command executor, SCXProcess) [SRC]:
- commands run one after the other, in order; a failing one is logged and changes nothing, later ones still run;
- no shell: the text is split by the tokenizer below and started by execvp, so ``|``, ``>`` and ``&&`` are arguments;
- standard input is empty, the process is a group of its own, killed as a whole after 300 s; dying by any signal is
  reported as a time-out;
- HISTIGNORE=* is in the environment; it runs as root in the agent's working directory;
- what cannot be started prints ``Failed to start child process 'NAME' errno=N`` on standard error and exits with 1.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from harness.package.findings import Findings
from harness.package.names import composed
from harness.package.plain_passwords import has_password
from harness.package.substitution import substitute
from harness.plan.step import Event, Step

if TYPE_CHECKING:
    from harness.package.parameters import Parameters
    from harness.package.reader import Package

TIMEOUT: Final = 300.0
WORKING_DIRECTORY: Final = "/"
ACCOUNT: Final = "root"
#: Where the payload is in a Linux guest, and the variable that says so: our addition, the platform had neither.
PAYLOAD_FOLDER: Final = "/var/lib/vmrole/payload"
PAYLOAD_VARIABLE: Final = "VMROLE_PAYLOAD"
SOURCE: Final = "/ExtensionSettings/ApplicationProfile/LinuxApplicationProfile/RunOnceCommands"
#: What the real agent does with a command of no tokens: execvp fails with EFAULT.
EMPTY_EXIT_CODE: Final = 1
EMPTY_STDERR: Final = "Failed to start child process '(null)' errno=14  "

#: A file below the payload's folder; group 1 is its name there. Names that a shell still changes are left out.
_PAYLOAD_FILE: Final = re.compile(
    rf"(?<![\w./-])(?:\$\{{?{PAYLOAD_VARIABLE}\b\}}?|{PAYLOAD_FOLDER})(?:\\?\")?/"
    r"([\w.@%+=,~/-]++)(?![*?\[\]{}()$`\\])"
)
#: What only a shell understands, as a word of its own.
_OPERATOR: Final = re.compile(r"(?<!\S)(?:&&|\|\||[|;&<]|<<<?|[0-9&]?>{1,2}(?!=)\S*)(?!\S)")
#: And inside of a word.
_SYNTAX: Final = re.compile(r"(?<=\S);(?=\s|$)|(?<=\w)(?:&&|\|\|)(?=[\w/])|\$\(|`|\$\{?[A-Za-z_]\w*\}?")
_QUOTED: Final = re.compile(r"\\.|'[^']*(?:'|$)|\"(?:\\.|[^\"\\])*(?:\"|$)", re.DOTALL)
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
#: Commands of shells of which there is no program.
_BUILTINS: Final = frozenset(
    {"cd", "export", "source", ".", "alias", "set", "unset", "ulimit", "umask", "exit", "eval"}
)


def split_command(command: str) -> tuple[str, ...]:
    """Split a command as the real agent does, surprises included.

    Only the space separates; tab and line break are ordinary characters. A backslash makes a following ``"`` or ``\\``
    plain and vanishes before every other character, in double quotes too; before ``'`` it stays *and* the quote still
    counts; in single quotes it is plain. A space is never escaped. Only ordinary characters make a token: what consists
    of quotes, quoted blanks and backslashes alone is no token of its own, it joins the front of the next one, or
    vanishes at the end. A quote that is never closed runs to the end.
    """
    return _split(command)[0]


def _split(command: str) -> tuple[tuple[str, ...], bool]:
    """The tokens, and whether a quote is never closed."""
    tokens: list[str] = []
    token: list[str] = []
    real = escaped = False  # an ordinary character is in the token; a backslash is pending
    quote = ""
    for character in command:
        if character == "\\":
            if escaped or quote == "'":
                token.append(character)
                escaped = False
            else:
                escaped = True
        elif character == " ":
            if quote:
                token.append(character)
            elif real:
                tokens.append("".join(token))
                token.clear()
                real = False
            escaped = False
        elif character in "'\"":
            if escaped and character == "'":
                token.append("\\")
                escaped = False
            if escaped:
                token.append(character)
                escaped = False
            elif quote == character:
                quote = ""
            elif quote:
                token.append(character)
            else:
                quote = character
        else:
            token.append(character)
            real = True
            escaped = False
    if real:
        tokens.append("".join(token))
    # the tokens become C strings
    return tuple(text.partition("\0")[0] for text in tokens), bool(quote)


def linux_steps(
    package: Package, parameters: Parameters, event: Event, applicable: bool, findings: Findings
) -> list[Step]:
    """The run-once steps. They belong to the creation of an instance: updating and deleting run none [DOC, SRC]."""
    if event not in ("deploy", "scale-out"):
        return []
    steps: list[Step] = []
    names = _payload_names(package)
    environment = [("HISTIGNORE", "*")]
    if package.payload:
        environment.append((PAYLOAD_VARIABLE, PAYLOAD_FOLDER))
    for index, command in enumerate(package.extension.linux.run_once_commands):
        filled = parameters.fill(command)
        argv = split_command(filled.text)
        source = f"{SOURCE}/{index}"
        _look(command, argv, source, package, names, findings)
        steps.append(
            Step(
                id=f"run-once-{index + 1}",
                name=filled.masked,
                kind="run-once",
                os="linux",
                command=filled.masked,
                command_line=filled.text,
                argv=argv,
                source=source,
                applicable=applicable,
                order=index + 1,
                working_directory=WORKING_DIRECTORY,
                account=ACCOUNT,
                timeout=TIMEOUT,
                on_failure="warn",
                unresolved=filled.unresolved,
                environment=tuple(environment),
            )
        )
    return steps


def command_findings(package: Package) -> Findings:
    """What is odd about the commands as they are written, whatever system the package is planned for."""
    findings = Findings()
    names = _payload_names(package)
    for index, command in enumerate(package.extension.linux.run_once_commands):
        source = f"{SOURCE}/{index}"
        _look(command, split_command(command), source, package, names, findings)
        if has_password(command):
            node = package.document.find(source) or package.document.root
            findings.add(
                "secret-in-plain-text", "a password is written in the command",
                hint="declare a Credential or SecureString parameter",
                file=package.document.file, pointer=source, line=node.line, column=node.column,
            )  # fmt: skip
    return findings


def started_files(package: Package) -> frozenset[str]:
    """Files of the payload that a command starts itself, by their names below its root, but for those that an earlier
    command may have made executable."""
    found: set[str] = set()
    for command in package.extension.linux.run_once_commands:
        if "chmod" in command:
            break
        argv = split_command(command)
        if argv and argv[0].rpartition("/")[2] in _SHELLS and "-c" in argv[:-1]:
            script = argv[argv.index("-c") + 1]
            argv = split_command(re.sub(rf"\$\{{?{PAYLOAD_VARIABLE}\b\}}?", PAYLOAD_FOLDER, script))
        if argv and argv[0].startswith(f"{PAYLOAD_FOLDER}/"):
            found.add(posixpath.normpath(argv[0].removeprefix(f"{PAYLOAD_FOLDER}/")))
    return frozenset(found)


def _look(
    command: str, argv: tuple[str, ...], source: str, package: Package, names: list[str], findings: Findings
) -> None:
    """Findings about one command; ``names`` are those of the payload."""
    node = package.document.find(source) or package.document.root
    place = {"file": package.document.file, "pointer": source}
    line, column = node.line, node.column
    if not argv:
        what = "the command has no argument that could be started"
        findings.add("command-empty", what, hint="remove it", line=line, column=column, **place)
    elif _split(command)[1]:
        what = "a quote in the command is never closed"
        findings.add("command-quote", what, hint="close it", line=line, column=column, **place)
    name = _missing_file(command, names)
    if name is not None:
        what = f"the payload has no {name[:60]!r}, which the command names"
        hint = "is it misspelt, or not packed?"
        findings.add("command-file-missing", what, hint=hint, line=line, column=column, **place)
    what = _shell_syntax(command, argv)
    if what:
        hint = "write /bin/sh -c '...', which is a shell, or a command for each"
        findings.add("command-shell-syntax", what, hint=hint, line=line, column=column, **place)


def _shell_syntax(command: str, argv: tuple[str, ...]) -> str:
    """What a command has that only a shell understands, as a sentence; "" for nothing."""
    if not argv:
        return ""
    bare = _QUOTED.sub(lambda match: "_" * len(match.group()), command)
    program = argv[0].rpartition("/")[2]
    found = _OPERATOR.search(bare)
    if found is None and (program not in _SHELLS or "-c" not in argv):
        found = _SYNTAX.search(substitute(bare, {}).text)
    if found is not None and not (found.group() == ";" and program == "find"):
        return f"{found.group()[:20]} is passed to {argv[0][:60]} as an argument: no shell reads this command"
    if argv[0] in _BUILTINS:
        return f"{argv[0]} is a command of the shell: there is no such program, and no shell reads this command"
    if re.match(r"[A-Za-z_]\w*=", argv[0]):
        return f"{argv[0].partition('=')[0][:60]}= sets a variable in a shell only: no shell reads this command"
    return ""


def _payload_names(package: Package) -> list[str]:
    """Files of the payload, the external one too, sorted."""
    if not package.extension.linux.run_once_commands:
        return []
    data = package.extension.data_package
    written = [item.relative_path or "" for item in data.external_payload] if data else []
    external = (posixpath.normpath(path.replace("\\", "/")) for path in written)
    return sorted(map(composed, (*(entry.path for entry in package.payload.files), *external)))


def _is_there(name: str, names: list[str]) -> bool:
    """Whether ``name`` is a file or a folder, or what stands before a blank in the name of one."""
    for whole in (name, name + "/", name + " "):
        at = bisect_left(names, whole)
        if at < len(names) and (names[at] == name or (whole != name and names[at].startswith(whole))):
            return True
    return False


def _missing_file(command: str, names: list[str]) -> str | None:
    """The first file or folder that a command looks for in the payload and that is not there.

    Names are compared exactly, as Linux does. What the command itself writes is not looked for.
    """
    written: set[str] = set()
    command = composed(command)
    for match in _PAYLOAD_FILE.finditer(command):
        name = posixpath.normpath(match[1]).lstrip("/")
        if command[max(0, match.start() - 9) : match.start()].rstrip('"\\ ').endswith(">"):
            written.add(name)
        elif not _is_there(name, names) and name not in written and name.split("/")[0] not in ("", ".", ".."):
            return name
    return None
