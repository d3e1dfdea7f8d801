# SPDX-License-Identifier: Apache-2.0
"""A step as vmrole-run.exe takes it (docs/windows-guest.md), and what it tells of the end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.guest.protocol import MAX_OUTPUT
from harness.plan.guestpaths import PAYLOAD_FOLDER
from harness.run.answer import encode
from harness.wincmd import LONGEST, LONGEST_OF_WINDOWS, is_cmd, long_line

if TYPE_CHECKING:
    from harness.plan import Credential, Step

BEGUN = "C:\\ProgramData\\VMRole\\begun"
"""Where the helper notes the nonce of the job whose program it is about to start."""
_SCRIPTS = "C:\\ProgramData\\VMRole\\Scripts"
_MOST_TOLD = 100
_MOST_FACT = 4096
"""Characters: more than a path has, as half a secret would escape the mask."""
MOST = 4 * 1024 * 1024
"""Bytes of each stream that are fetched where MaxOutputSize is missing: they come by WinRM, which is slow. The files of
the guest get all."""


@dataclass(frozen=True, slots=True)
class Job:
    """What goes to the helper's standard input, and the word that begins every line of what it tells."""

    data: bytes = field(repr=False)
    nonce: str


def job_of(step: Step, credential: Credential | None, *, watch: bool, path: Sequence[str] = ()) -> Job:
    """``credential`` is another user to run as. ``path`` are folders that programs are looked for in, too; with
    ``watch`` new files in the payload are told."""
    nonce = f"vmrole-{secrets.token_hex(16)}"
    script = _batch(step.script_block) if step.script_block is not None and step.executable is None else b""
    pairs: list[tuple[str, str]] = [("nonce", nonce), ("most", str(min(step.max_output_size or MOST, MAX_OUTPUT)))]
    if step.max_output_size:
        pairs.append(("most-kept", str(step.max_output_size)))
    if script:
        pairs += [("script", f"{_SCRIPTS}\\{step.id}.cmd"), ("script-size", str(len(script)))]
    elif step.executable is not None:
        pairs += [("program", step.executable), ("parameters", step.parameters or "")]
    else:
        pairs.append(("line", step.command_line))
    pairs += [("environment", f"{name}={value}") for name, value in step.environment]
    pairs += [("make-folder", folder) for folder in step.folders]
    pairs += [("path", folder) for folder in path]
    for key, value in (
        ("folder", step.working_directory),
        ("stdin", step.stdin_path),
        ("stdout", step.stdout_path),
        ("stderr", step.stderr_path),
        ("user", credential.user if credential else None),
        ("password", credential.password if credential else None),
        ("watch", PAYLOAD_FOLDER if watch else None),
        ("timeout", str(max(1, round(step.timeout * 1000))) if step.timeout is not None else None),
    ):
        if value:
            pairs.append((key, value))
    head = "".join(f"{key}={encode(value)}\n" for key, value in pairs).encode("ascii")
    return Job(head + b"\n" + script + step.stdin, nonce)


def too_long(step: Step) -> str | None:
    """What of ``step`` is longer than Windows takes, or its cmd.exe; None where nothing is."""
    if step.executable is None and step.script_block is not None:
        number = long_line(step.script_block)
        what = f"line {number} of its batch text is longer than the {LONGEST:,} characters that cmd.exe takes"
        return what if number else None
    if is_cmd(step.executable or "") and len(step.command_line) > LONGEST:
        return f"its command line is longer than the {LONGEST:,} characters that cmd.exe takes"
    return "its command line is longer than Windows takes" if len(step.command_line) > LONGEST_OF_WINDOWS else None


def _batch(text: str) -> bytes:
    """A batch file: lines as Windows ends them, and its own code page when there is more than ASCII in it."""
    lines = re.sub(r"\r\n?|\n", "\r\n", text.rstrip("\r\n")) + "\r\n"
    if text.isascii():
        return lines.encode("ascii")
    return b"@chcp 65001 >nul\r\n" + lines.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Ending:
    """What the helper told beside the program's streams. ``exit_code`` None is a program that did not run."""

    told: bool = False
    """False where nothing was told: the end of the output was lost."""
    exit_code: int | None = None
    timed_out: bool = False
    cut: bool = False
    disk_full: bool = False
    no_folder: bool = False
    failed: str = ""
    """What the helper itself could not do, one sentence."""
    unstartable: int | None = None
    """The error of Windows with which it could not be started."""
    warm: bool = False
    """Whether an engine of PowerShell that stood by ran it, or part of it."""
    bits: int = 64
    unavailable: tuple[str, ...] = ()
    """Programs of the stand-in guest that said that they are not available there."""
    new_files: tuple[str, ...] = ()
    restarting: bool = False
    """Whether a restart of the guest had been asked for."""
    forwarded: tuple[int, int] | None = None
    """Bytes of standard output and standard error that were sent, told last of all; None where the telling was cut."""

    def is_whole(self, out: int, err: int) -> bool:
        """Whether all arrived, where ``out`` and ``err`` bytes of the program's own streams did."""
        return self.forwarded is not None and out >= self.forwarded[0] and err >= self.forwarded[1]


def read_ending(nonce: str, stderr: bytes) -> tuple[bytes, Ending]:
    """The program's own standard error, and the ending."""
    mark = nonce.encode()
    at = stderr.find(mark + b" ")
    if at < 0:
        return stderr, Ending()
    own, told = stderr[:at], stderr[at:]
    facts: dict[str, list[str]] = {}
    # A line without its end was cut, and its value perhaps, too.
    for line in told.split(b"\n")[:-1][:_MOST_TOLD]:
        if line.startswith(mark + b" "):
            key, _, value = line[len(mark) + 1 :].decode("utf-8", "replace").partition("=")
            facts.setdefault(key, []).append("".join(c if c.isprintable() else "?" for c in value)[:_MOST_FACT])

    def number(key: str) -> int | None:
        value = facts.get(key, [""])[0]
        return int(value) & 0xFFFFFFFF if re.fullmatch(r"-?[0-9]{1,11}", value) else None

    end = re.fullmatch(r"([0-9]{1,18}) ([0-9]{1,18})", facts.get("end", [""])[0])
    ending = Ending(
        told=True,
        failed=facts.get("failed", [""])[0],
        exit_code=number("exit"),
        timed_out="timed-out" in facts,
        cut="cut" in facts,
        disk_full="disk-full" in facts,
        warm="warm" in facts,
        no_folder="no-folder" in facts,
        unstartable=number("unstartable"),
        bits=number("bits") or 64,
        unavailable=tuple(dict.fromkeys(facts.get("unavailable", ()))),
        new_files=tuple(facts.get("new", ())),
        restarting="restarting" in facts,
        forwarded=(int(end[1]), int(end[2])) if end else None,
    )
    # The line break before it is the helper's.
    return (own[:-1] if own.endswith(b"\n") and "exit" in facts else own), ending
