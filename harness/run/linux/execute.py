# SPDX-License-Identifier: Apache-2.0
"""Executing run-once commands with the rules of the real Linux agent."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.protocol import Guest, GuestResult
from harness.plan import Plan, Step
from harness.plan.linux import EMPTY_EXIT_CODE, EMPTY_STDERR
from harness.run.result import Outcome
from harness.run.system import Done

if TYPE_CHECKING:
    from harness.run.events import EventBus
    from harness.run.request import Pretence

_UNSTARTABLE = re.compile(r"\A(?:timeout|env): (?:failed to run command )?[\u2018'](.*)[\u2019']: (.+)\n?\Z", re.DOTALL)
_ERRNO = {"No such file or directory": 2, "Permission denied": 13, "Exec format error": 8}

_ENDED = (128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""Exit codes of what a restart has ended."""
_HEAD = 256
"""Bytes of a file that was not started: the line that names its interpreter."""
_HEAD_SECONDS = 20.0


class LinuxExecutor:
    """harness.run.system.Executor."""

    def prepare(
        self, plan: Plan, guest: Guest, bus: EventBus, *, deadline: Deadline, pretence: Pretence | None = None
    ) -> None:
        """Nothing: whatever a command needs, the agent starts it."""

    def why_not(self, step: Step) -> str | None:
        return None

    def run(self, step: Step, guest: Guest, *, deadline: Deadline) -> Done:
        if step.argv:
            done = guest.run(
                step.argv,
                deadline=deadline,
                timeout=step.timeout,
                stdin=step.stdin,
                env=dict(step.environment),
                cwd=step.working_directory,
            )
            number = _unstartable(step, done)
            if number is not None:
                done = _as_the_agent_says(step, done, number)
                outcome, finding = _judge(step, done)
                why = _why(step.argv[0], number, guest, deadline)
                return Done(outcome, done, f"{finding}: {why}" if finding and why else finding)
        else:
            done = GuestResult(EMPTY_EXIT_CODE, b"", EMPTY_STDERR.encode(), 0.0)
        outcome, finding = _judge(step, done)
        restarting = guest.restarting(deadline=deadline)
        return Done(outcome, done, finding, restarting=restarting, cut_short=restarting and done.exit_code in _ENDED)


def _unstartable(step: Step, done: GuestResult) -> int | None:
    """The error number with which the program of ``step`` could not be started; None when it was."""
    said = done.stderr.decode("utf-8", "replace")
    unstartable = _UNSTARTABLE.match(said) if done.exit_code in (126, 127) else None
    if unstartable is None or not step.argv or unstartable[1] != step.argv[0]:
        return None
    return _ERRNO.get(unstartable[2].strip(), 2)


def _as_the_agent_says(step: Step, done: GuestResult, number: int) -> GuestResult:
    """A program that cannot be started: exit code 1 and the words of the real Linux agent [SRC] instead of what our way
    of starting it says."""
    assert step.argv
    said = f"Failed to start child process '{step.argv[0]}' errno={number}  "
    return GuestResult(1, done.stdout, said.encode(), done.seconds)


def _why(program: str, number: int, guest: Guest, deadline: Deadline) -> str:
    """What an error number means for this program, as its file is in the guest; "" when that is not known."""
    if "/" not in program:
        return f"no program {program} is in the PATH" if number == _ERRNO["No such file or directory"] else ""
    head = guest.run(("/usr/bin/head", "-c", str(_HEAD), program), deadline=deadline, timeout=_HEAD_SECONDS)
    if head.exit_code != 0:
        folder = b"directory" in head.stderr and b"No such file" not in head.stderr
        return "it is a folder" if folder else f"there is no file {program}" if b"No such file" in head.stderr else ""
    if number == _ERRNO["Permission denied"]:
        return "it has no executable bit; pack it with chmod +x, or start it with its interpreter"
    line = head.stdout.partition(b"\n")[0]
    if number == _ERRNO["No such file or directory"] and line.startswith(b"#!"):
        words = re.split(rb"[ \t]+", line[2:].strip(b" \t"))
        name = words[0].decode("utf-8", "replace").replace("\r", "\\r")
        windows = "; its lines end in CR LF, and Linux wants LF" if line.endswith(b"\r") else ""
        return f"the file is there, its interpreter {name} is not{windows}"
    return ""


def _judge(step: Step, done: GuestResult) -> tuple[Outcome, str | None]:
    """The outcome and why. A Linux command never fails a deployment: the real agent logs a warning and goes on, also
    at its time-out."""
    warns = step.on_failure == "warn"
    said: str | None
    if done.timed_out:
        said = f"it was stopped at its time-out of {step.timeout:g} s"
        return (Outcome.warned if warns else Outcome.timed_out), said
    if done.exit_code == 0:
        return Outcome.succeeded, "its output was longer than is kept" if done.truncated else None
    first = next((line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()), "")
    said = first.strip() or None  # whole: it is shortened after it was masked
    return (Outcome.warned if warns else Outcome.failed), said
