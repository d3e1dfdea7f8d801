# SPDX-License-Identifier: Apache-2.0
"""The real parser: one process of a PowerShell 7 of this computer reads all texts, and executes and loads none.

``VMROLE_PWSH`` names the program; else it is the ``pwsh`` of the path. It is confined: no rights, no network, no folder
of the user's, bounded in time and memory. What is wrong with it is a sentence, and whoever asks goes on without it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from harness.deadline import Deadline
from harness.process import which
from harness.quoting import quoted

VARIABLE: Final = "VMROLE_PWSH"
MAX_TEXT: Final = 2 << 20
"""Characters of a text that is parsed; a longer one takes too much memory."""
_MAX_ALL: Final = 16 << 20
_SECONDS: Final = 30.0
"""Of the start, on a busy computer."""
_SECONDS_PER_MB: Final = 5.0
_MOST_TOLD: Final = 8 << 20
"""Bytes that it may write."""
_HEAP: Final = 1 << 30
_PROCESSES: Final = 3
"""Started for one package: a text that ends the parser is left out by the next."""
_NOBODY: Final = 65534
_HANDSHAKE: Final = re.compile(r"vmrole-parser\t([0-9][\w.-]{0,40})")
#: Words that the parser must not see, as parse.ps1 has them.
_LOADS: Final = re.compile(r"(?i)(?<![\w$-])(?:using|configuration)[\s`]")
#: What an engine cannot know of a package, and does not look for: types, modules and resources that are elsewhere, and
#: workflows, which only Windows PowerShell has.
_NOT_JUDGED: Final = re.compile(
    r"TypeNotFound|ModuleNotFound|LoadingAssembly|AssemblyLoad|DscResource|CustomAttributeTypeNotFound|Workflow"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A place that does not parse; ``id`` is the engine's own, ``said`` its sentence."""

    line: int
    column: int
    id: str
    said: str


@dataclass(slots=True)
class Parsed:
    """What the parser said of one text. ``newer`` has the kinds of syntax that Windows PowerShell 5.1 lacks, with line
    and column (harness.package.powershell.versions.SYNTAX)."""

    faults: list[Fault] = field(default_factory=list)
    newer: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """``parsed`` has None for a text that was not parsed, and ``why`` says why; "" where all were."""

    parsed: list[Parsed | None]
    version: str = ""
    why: str = ""


def program() -> str | None:
    """The PowerShell 7 of this computer, or None."""
    return os.environ.get(VARIABLE) or which("pwsh")


@dataclass(frozen=True, slots=True)
class Asked:
    """A text to parse; with ``newer`` also for the syntax that Windows PowerShell 5.1 lacks."""

    text: str
    newer: bool = False


class Parser:
    """The parser as a context. Its process starts with ``begin``, ahead of the texts, or with ``parse``."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or program()
        self._begun: _Process | None = None

    def __enter__(self) -> Parser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was begun and is not used."""
        self._take().close()

    def begin(self) -> None:
        """Start the process now: it takes as long to start as to read a hundred scripts."""
        if self.name is not None and self._begun is None:
            self._begun = _Process(self.name)

    def _take(self) -> _Process:
        begun, self._begun = self._begun, None
        return begun or _Process(None)

    def parse(self, texts: Sequence[Asked]) -> Answer:
        """What the real parser says of ``texts``, in order. Never raises: without a parser the answer says why."""
        answer = Answer([None] * len(texts))
        if self.name is None:
            answer.why = "there is no PowerShell 7 on this computer"
            return answer
        left = [number for number, asked in enumerate(texts) if len(asked.text) <= MAX_TEXT]
        if len(left) < len(texts):
            answer.why = f"a text has more than {MAX_TEXT >> 20} MiB"
        size = sum(len(texts[number].text) for number in left)
        if size > _MAX_ALL:
            answer.why = f"they have more than {_MAX_ALL >> 20} MiB together"
            return answer
        deadline = Deadline(_SECONDS + _SECONDS_PER_MB * size / (1 << 20))
        for _ in range(_PROCESSES if left else 0):
            self.begin()
            with self._take() as process:
                done, why = process.parse([texts[number] for number in left], deadline)
            answer.version = answer.version or done.version
            for number, parsed in zip(left, done.parsed, strict=True):
                answer.parsed[number] = parsed
            left = [number for number in left if answer.parsed[number] is None]
            if not left:
                break
            answer.why = why
            if not done.version or deadline.expired:
                break
            del left[0]  # it ended the process
        return answer


class _Process:
    """One process of the parser, confined; its streams go into a file, of which no more is read than it may have."""

    def __init__(self, name: str | None) -> None:
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._trouble = ""
        if name is None:
            return
        self._name = Path(name).name
        told = tempfile.TemporaryFile(prefix="vmrole-parser-")  # noqa: SIM115 - closed with the process
        self._told = self._stack.enter_context(told)
        try:
            self._process = subprocess.Popen(
                _confined(name), stdin=subprocess.PIPE, stdout=self._told, stderr=self._told, cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)} | _ENVIRONMENT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._trouble = f"it cannot be started: {error.strerror or error}"

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            if self._process.stdin:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._stack.close()

    def parse(self, texts: Sequence[Asked], deadline: Deadline) -> tuple[Answer, str]:
        """The answer, as far as it comes, and why it comes no further."""
        why = self._trouble
        if self._process is not None:
            try:
                self._process.communicate(b"".join(map(_line, texts)), timeout=deadline.timeout())
                code = self._process.returncode
                why = f"it ended with exit code {code}" if code >= 0 else f"signal {-code} ended it"
            except subprocess.TimeoutExpired:
                why = "it did not end in time"
        self._told.seek(0)
        return _read(self._told.read(_MOST_TOLD), len(texts), why, self._name)


def _shown(said: str) -> str:
    """A sentence of the parser with the words that it was not shown."""
    return said.replace("usin_", "using").replace("configuratio_", "configuration")


def _line(asked: Asked) -> bytes:
    """A text as parse.ps1 takes it."""
    flags = "-"
    if _LOADS.search(asked.text):
        flags += "h"
    if asked.newer:
        flags += "n"
    return flags.encode() + b" " + base64.b64encode(asked.text.encode("utf-8", "replace")) + b"\n"


def _read(said: bytes, count: int, why: str, name: str) -> tuple[Answer, str]:
    answer = Answer([None] * count)
    current = Parsed()
    noise = ""
    for line in said.decode("utf-8", "replace").splitlines():
        if not answer.version:
            if found := _HANDSHAKE.fullmatch(line):
                answer.version = found[1]
            elif not noise:
                noise = line
            continue
        number, _, rest = line.partition("\t")
        kind, *fields = rest.split("\t")
        if not number.isdecimal() or len(number) > 9 or int(number) >= count:
            noise = noise or line
        elif kind == "end":
            answer.parsed[int(number)], current = current, Parsed()
        elif len(fields) == 4 and fields[0].isdecimal() and fields[1].isdecimal():
            line_number, column, id, what = int(fields[0]), int(fields[1]), fields[2], _shown(fields[3])
            if kind == "newer":
                current.newer.setdefault(id, (line_number, column))
            elif kind == "error" and not _NOT_JUDGED.search(id):
                current.faults.append(Fault(line_number, column, id, quoted(what)))
    words = f"; it said {quoted(noise, 120)!r}" if noise else ""
    if not answer.version:
        return answer, f"{name} is no PowerShell 7: {why}{words}"
    if int(answer.version.split(".")[0].split("-")[0] or 0) < 7:
        return Answer([None] * count), f"{name} is PowerShell {answer.version}, not 7"
    return answer, f"{name} read no further: {why}{words}"


_ENVIRONMENT: Final = {
    "HOME": "/nonexistent",
    "TMPDIR": "/nonexistent",
    "XDG_RUNTIME_DIR": "/nonexistent",
    "POWERSHELL_TELEMETRY_OPTOUT": "1",
    "POWERSHELL_UPDATECHECK": "Off",
    "PSModulePath": "/nonexistent",
    "PSModuleAnalysisCachePath": "/dev/null",
    "NO_COLOR": "1",
    "DOTNET_EnableDiagnostics": "0",
    "DOTNET_TieredPGO": "0",
    # Its memory for code would be a file, of which there may be none of that size.
    "DOTNET_EnableWriteXorExecute": "0",
    "DOTNET_gcConcurrent": "0",
    "DOTNET_GCHeapHardLimit": f"{_HEAP:#x}",
}


def _confined(name: str) -> list[str]:
    """The program as a process that may do nothing but read and compute."""
    root = os.geteuid() == 0
    nobody = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--bounding-set=-all"] if root else []
    # fmt: off
    return [
        "prlimit", "--core=0", "--nofile=256", f"--fsize={_MOST_TOLD}", f"--data={4 * _HEAP}",
        "unshare", *([] if root else ["--user"]), "--net",
        "setpriv", *nobody, "--inh-caps=-all", "--no-new-privs",
        str(Path(name).absolute()), "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", _script(),
    ]
    # fmt: on


def _script() -> str:
    """It goes as an argument: the folder that it is in may be closed to a process without rights."""
    return resources.files(__package__).joinpath("parse.ps1").read_text("utf-8")
