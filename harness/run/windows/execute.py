# SPDX-License-Identifier: Apache-2.0
"""Executing the steps of a Windows profile: started as the platform's agent starts them, judged by their policy."""

from __future__ import annotations

import contextlib
import ntpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.errors import GuestError, GuestLostError, GuestNotReadyError, VmRoleError
from harness.guest.protocol import MAX_OUTPUT, Guest, GuestResult, RestartToCome
from harness.guest.winrm import WinRmGuest
from harness.guest.wintext import HELPER, decode, without_clixml
from harness.plan import Plan, Step
from harness.plan.step import Kind
from harness.run.result import Outcome, PretendedCall
from harness.run.system import Done
from harness.run.windows.job import BEGUN, Ending, Job, job_of, read_ending, too_long
from harness.run.windows.pretence import Calls, install
from harness.run.windows.silent import executed, read_otherwise, silently_wrong
from harness.wincmd import is_powershell

if TYPE_CHECKING:
    from harness.image.recipe import Recipe
    from harness.run.events import EventBus
    from harness.run.request import Pretence

_GRACE = 30.0
"""Seconds that the helper may take to end a program at its time-out, and to tell of it."""
_TOLD_BYTES = 1 << 20
"""What the helper tells comes after the program's own output."""
_RETURN_SECONDS = 150.0
"""How long a guest that restarted in a step may take to come back."""
_MARKER_SECONDS = 10.0
"""How long a guest that answers may take to have the ready marker of its boot."""
_SYSTEM = frozenset({"nt authority\\system", "system", "localsystem", ".\\localsystem"})
"""Names of the account that a step without a credential runs as anyway."""
_RESTARTED = "the guest restarted while it ran, which ended it; a reboot exit code or AlwaysReboot does that in order"
_LOST = "the end of what it said was lost on its way from the guest"
_SERVICES = re.compile(r"(nt authority\\)?(network|local) ?service", re.IGNORECASE)
"""Accounts that only the service manager logs on."""

_TOOLS: Mapping[Kind, str] = {"web-deploy": "msdeploy.exe", "sql-dac": "SqlPackage.exe", "sql-script": "sqlcmd.exe"}
_PLACES: Mapping[str, tuple[str, ...]] = {
    "msdeploy.exe": ("%ProgramFiles%\\IIS\\Microsoft Web Deploy V*\\msdeploy.exe",),
    "sqlpackage.exe": (
        "%ProgramFiles%\\Microsoft SQL Server\\*\\DAC\\bin\\SqlPackage.exe",
        "%ProgramFiles(x86)%\\Microsoft SQL Server\\*\\DAC\\bin\\SqlPackage.exe",
    ),
    "sqlcmd.exe": (
        "%ProgramFiles%\\Microsoft SQL Server\\*\\Tools\\Binn\\SQLCMD.EXE",
        "%ProgramFiles%\\Microsoft SQL Server\\Client SDK\\ODBC\\*\\Tools\\Binn\\SQLCMD.EXE",
    ),
}
"""Where the products put their tools, which they leave out of PATH; of several the last by name is taken."""

_UNSTARTABLE = {2: "there is no such program", 3: "there is no such program", 5: "the guest denies access to it",
                193: "it is no program that Windows can start", 216: "it is a program for another processor",
                740: "it asks for more rights than the administrator has"}  # fmt: skip


_CRASHES = (0xC0000005, 0xC0000409, 0xC0000602, 0xE0434352)
"""Exit codes of an engine that crashed: of .NET's runtime, and of a program that touched what is not there."""
_NO_RUNSPACE = 70
"""What PowerShell ends with, and says so, when it cannot begin."""
_UNKNOWN = re.compile(r"The term\s+'([^'\r\n]{1,100})'\s+is\s+not\s+recognized\s+as\s+a\s+name\s+of\s+a\s+cmdlet")
"""Of PowerShell 7's error, which it wraps where the line is full."""
_NAMED = 5
"""Calls, or programs, that a finding names."""
UNAVAILABLE = 9150
"""Exit code of the stand-in's programs that only say that it has none (images/windows-stand-in/tools/tool.h)."""
_ENDED_EARLY = 1359
"""What Wine gives for a process that ended before it began: nothing of the program was executed."""


@dataclass(slots=True)
class WindowsExecutor:
    """harness.run.system.Executor. ``cannot`` are the words of the image's recipe for what its guest cannot do."""

    stand_in: bool = False
    cannot: frozenset[str] = frozenset()
    missing: dict[str, str] = field(default_factory=dict)
    """Step to the tool that it needs and the guest lacks."""
    path: tuple[str, ...] = ()
    """Folders of tools that were found where PATH does not lead."""
    files: set[str] = field(default_factory=set)
    """Files in the payload that were told to be new."""
    bus: EventBus | None = None
    supplied: bool = False
    """Whether the PowerShell of a stand-in is one that the user supplied."""
    hint_32: str = ""
    """Of an image without 32-bit programs: how one that has them is made."""
    calls: Calls | None = None
    """Of what is pretended; None where nothing is."""

    @classmethod
    def of(cls, recipe: Recipe) -> WindowsExecutor:
        supplied = bool(recipe.powershell)
        return cls(recipe.stand_in, frozenset(recipe.cannot), supplied=supplied, hint_32=recipe.hint_32)

    def prepare(
        self, plan: Plan, guest: Guest, bus: EventBus, *, deadline: Deadline, pretence: Pretence | None = None
    ) -> None:
        """Look for the products' tools that steps need, in one command; a missing one is a warning of the run."""
        self.bus = bus
        if pretence and self.supplied:
            install(pretence, guest, deadline=deadline)
            self.calls = Calls()
        needed = {step.id: tool for step in plan.applicable if (tool := _tool_of(step)) and not self._refuses(step)}
        if not needed:
            return
        tools = sorted(set(needed.values()))
        lines = ["\t".join((tool, *_PLACES.get(ntpath.basename(tool).lower(), ()))) for tool in tools]
        done = guest.run([HELPER, "where"], stdin=("\n".join(lines) + "\n").encode(), deadline=deadline)
        if done.exit_code != 0:
            raise GuestError(f"the guest does not tell which tools it has: {done.said}")
        pairs = [line.partition("\t") for line in done.stdout.decode("utf-8", "replace").splitlines()]
        found = {name: path for name, _, path in pairs}
        self.path = tuple(dict.fromkeys(ntpath.dirname(found[tool]) for tool in tools if tool in found))
        for step, tool in needed.items():
            if tool not in found:
                self.missing[step] = tool
        for tool in tools:
            steps = [step for step, needs in needed.items() if needs == tool and step in self.missing]
            if steps:
                more = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
                bus.notice("warning", f"the guest has no {tool}, which step {steps[0]}{more} needs",
                           "install the product in the image that is used")  # fmt: skip

    def why_not(self, step: Step) -> str | None:
        if refused := self._refuses(step):
            return refused
        if tool := self.missing.get(step.id):
            return f"the guest has no {tool}"
        return None

    def _refuses(self, step: Step) -> str | None:
        """What the image says of itself that speaks against ``step``."""
        if step.kind == "feature" and "features" in self.cannot:
            return "this guest has no roles and features of Windows Server"
        if _as_another(step) and "run-as" in self.cannot:
            return f"this guest cannot run a step as another user, here as {step.account[:60]}"
        if step.credential and _SERVICES.fullmatch(step.credential.user.strip()):
            return f"a step cannot be run as the service account {step.account[:60]} here"
        if "powershell" in self.cannot and is_powershell(step.executable):
            return "this guest has no PowerShell"
        return too_long(step)

    def run(self, step: Step, guest: Guest, *, deadline: Deadline) -> Done:
        assert isinstance(guest, WinRmGuest)
        if step.kind == "feature":
            return self._feature(step, guest, deadline)
        credential = step.credential if _as_another(step) else None
        job = job_of(step, credential, watch=True, path=self.path if _tool_of(step) else ())
        texts = executed(step, guest, deadline=deadline) if self._is_supplied(step) else None
        before, coming = guest.last_boot, guest.restart_to_come(deadline=deadline)

        def begin() -> GuestResult:
            return guest.run_line(
                f'"{HELPER}" run',
                what=f"run step {step.id}",
                stdin=job.data,
                deadline=deadline.within(None if step.timeout is None else step.timeout + _GRACE),
                max_output=MAX_OUTPUT + _TOLD_BYTES,
            )

        try:
            done = begin()
        except GuestLostError as error:
            self._await_restarted(guest, before, error, deadline)
            if self._has_begun(guest, job, deadline):
                # A script may restart the system, which is the end of its step [BLOG 2015-02-25].
                return Done(Outcome.warned, GuestResult(None, b"", b"", 0.0), _RESTARTED)
            if self.bus:
                self.bus.notice("warning", f"the guest restarted before step {step.id} began, which was run after that",
                    "let the step that restarts it end with a reboot exit code, or set its AlwaysReboot")  # fmt: skip
            done = begin()
        stderr, ending = read_ending(job.nonce, done.stderr)
        if not ending.is_whole(len(done.stdout), len(stderr)) and self._restarted(guest, before, coming, deadline):
            return Done(Outcome.warned, GuestResult(None, b"", b"", 0.0), _RESTARTED)
        judged = replace(self._judge(step, done, stderr, ending), restarting=ending.restarting, warm=ending.warm)
        if texts and (wrong := silently_wrong(texts)):
            judged = judged.noting(f"on Wine, silently: {'; '.join(wrong)}")
        if texts and (otherwise := read_otherwise(texts)):
            judged = judged.noting(f"in PowerShell 7, which is not Windows PowerShell: {'; '.join(otherwise)}")
        calls: Sequence[PretendedCall] = ()
        # A guest that is about to restart may be gone: what it kept of them comes with those of the next step.
        with contextlib.suppress(*((GuestLostError,) if ending.restarting else ())):
            calls = self.calls.new(guest, deadline=deadline) if self.calls else ()
        return _pretending(judged, calls) if calls else judged

    def _judge(self, step: Step, done: GuestResult, stderr: bytes, ending: Ending) -> Done:
        out, err = decode(done.stdout, cut=ending.cut), without_clixml(decode(stderr, cut=ending.cut))
        ended = ending.exit_code
        code = None if ending.timed_out else ended
        result = GuestResult(code, out.encode(), err.encode(), done.seconds, ending.timed_out, ending.cut)
        for file in ending.new_files:
            if file not in self.files and self.bus:
                self.files.add(file)
                self.bus.notice(
                    "note", f"step {step.id} left the new file {file} in the payload, where updating may stumble on it"
                )
        if "programs-32" in self.cannot and (ending.bits == 32 or any(map(_is_32_bit, ending.unavailable))):
            return Done(Outcome.not_executable, result, self._of_32_bits(ending))
        if ending.unavailable:
            said = f"{_used(ending.unavailable)}, which the stand-in guest does not have"
            return Done(Outcome.not_executable, result, said)
        # Of a lost end the service still knows the exit code.
        if self.stand_in and UNAVAILABLE in (ended, done.exit_code):
            said = "it used a program that the stand-in guest does not have; its name was lost"
            return Done(Outcome.not_executable, result, said)
        if not ending.is_whole(len(done.stdout), len(stderr)):
            return Done(Outcome.unknown, result, _LOST)
        if ended is None:
            return self._never_ran(step, result, ending)
        if self._is_supplied(step) and (fault := _engines_fault(ended, out, err, warm=ending.warm)):
            return Done(Outcome.not_executable, result, fault)
        assert step.policy is not None
        verdict = step.policy.judge(_signed(code), out, err, timed_out=ending.timed_out)
        reasons = [*verdict.reasons]
        if ending.timed_out and step.timeout is not None:
            reasons[:1] = [f"it was stopped at its time-out of {step.timeout:g} s"]
        if self._is_supplied(step):
            by = ", by an engine that stood by" if ending.warm else ""
            reasons.append(f"it ran in the PowerShell that was supplied for this image, on Wine{by}")
        outcome = Outcome(verdict.outcome)
        if ending.cut:
            reasons.append("its output was longer than is kept")
            if outcome is Outcome.succeeded and any(check.state == "on" for check in step.policy.checks[1:]):
                outcome = Outcome.warned
                reasons[-1] += ", and its failure patterns were not looked for in the rest"
        if ending.disk_full:
            reasons.append("its output could not be stored: the guest's disk is full")
        if outcome is Outcome.failed and (line := _first_line(err)):
            reasons.append(f"first error output: {line}")
        elif outcome is Outcome.failed and (line := _last_line(out)):
            reasons.append(f"last output: {line}")
        return Done(outcome, result, "; ".join(reasons) or None, verdict.reboot, verdict.rerun)

    def _of_32_bits(self, ending: Ending) -> str:
        """Of a step that needs a 32-bit program, or is one."""
        twins = [name for name in ending.unavailable if _is_32_bit(name)]
        others = [name for name in ending.unavailable if not _is_32_bit(name)]
        if ending.exit_code is None and ending.bits == 32:
            what = "it is a 32-bit program"
        else:
            what = _used(twins) if twins else "it started a 32-bit program"
        said = f"{what}, which this guest cannot execute; {self.hint_32}".removesuffix("; ")
        return f"{said}; {_used(others)}, which no stand-in guest has" if others else said

    def _is_supplied(self, step: Step) -> bool:
        """Whether the PowerShell that was supplied executes ``step``."""
        return self.supplied and is_powershell(step.executable)

    def _never_ran(self, step: Step, result: GuestResult, ending: Ending) -> Done:
        """A program that could not be started: the author's mistake, but for what only this guest lacks."""
        if ending.unstartable == _ENDED_EARLY and self.stand_in:
            return Done(Outcome.not_executable, result, "Wine's process for it ended before it began, time and again")
        if ending.no_folder:
            what = f"there is no folder {step.working_directory_shown or step.working_directory}"
        elif ending.unstartable is not None:
            what = _UNSTARTABLE.get(ending.unstartable, f"Windows gives error {ending.unstartable}")
        else:
            what = ending.failed or _first_line(result.stderr.decode()) or "the guest does not say why"
        assert step.policy is not None
        verdict = step.policy.judge(None)
        return Done(Outcome(verdict.outcome), result, f"it could not be started: {what}", verdict.reboot)

    def _feature(self, step: Step, guest: WinRmGuest, deadline: Deadline) -> Done:
        """Real Windows Server only."""
        script = f"$ProgressPreference='SilentlyContinue'; $r = {step.command_line}; if (-not $r.Success) {{exit 1}}; "
        script += "if ($r.RestartNeeded -eq 'Yes') {exit 3010}"
        line = ["powershell.exe", "-NonInteractive", "-NoProfile", "-ExecutionPolicy", "Bypass", "-Command", script]
        done = guest.run(line, deadline=deadline)
        err = without_clixml(decode(done.stderr))
        result = GuestResult(done.exit_code, decode(done.stdout).encode(), err.encode(), done.seconds)
        if done.exit_code == 3010:
            return Done(Outcome.succeeded, result, "the feature needs a restart", reboot=True)
        ok = done.exit_code == 0
        return Done(Outcome.succeeded if ok else Outcome.failed, result, None if ok else _first_line(err) or None)

    def _has_begun(self, guest: WinRmGuest, job: Job, deadline: Deadline) -> bool:
        """Whether the program of ``job`` was started before the guest was lost: where a script restarts the guest and
        ends at once, it is the next step that is lost."""
        try:
            return guest.get(BEGUN, deadline=deadline, limit=256).decode("ascii", "replace").strip() == job.nonce
        except GuestLostError:
            raise
        except GuestError:  # there is no such file: nothing was ever started
            return False

    def _restarted(self, guest: WinRmGuest, before: str, coming: RestartToCome, deadline: Deadline) -> bool:
        """Whether a restart cut a telling off, as the guest says; it is there again then. Raises GuestLostError when it
        goes away and does not come back in another boot."""
        limit = deadline.within(_RETURN_SECONDS)
        if guest.restarting(deadline=limit) and guest.connected:
            coming(limit)
            return True
        try:
            guest.boot_id(deadline=limit)
        except GuestLostError as error:
            self._await_restarted(guest, before, error, deadline)
        except GuestError:  # its ready marker is not there: it may have just begun
            with contextlib.suppress(GuestNotReadyError):
                guest.reconnect(deadline=deadline.within(_MARKER_SECONDS))
        return guest.last_boot != before

    def _await_restarted(self, guest: WinRmGuest, before: str, error: GuestLostError, deadline: Deadline) -> None:
        """The guest went away: wait until it is ready in another boot, or raise ``error``."""
        if deadline.expired or guest.closed:
            raise error
        try:
            guest.reconnect(deadline=deadline.within(_RETURN_SECONDS))
        except VmRoleError:
            raise error from None
        if guest.last_boot == before:
            raise error


def _pretending(done: Done, calls: Sequence[PretendedCall]) -> Done:
    named = list(dict.fromkeys(str(call) for call in calls))
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return replace(done.noting(f"pretended: {', '.join(named[:_NAMED])}{more}"), pretended=tuple(calls))


def _is_32_bit(unavailable: str) -> bool:
    """Whether what was not available is the 32-bit twin of a program (images/windows-stand-in/tools/absent.c)."""
    return unavailable.endswith(" (32-bit)")


def _used(names: Sequence[str]) -> str:
    return f"it used {', '.join(names[:_NAMED])}"


def _engines_fault(code: int | None, out: str, err: str, *, warm: bool) -> str | None:
    """Why a step that PowerShell ran proves nothing, where that is the engine's doing or may be; None for others. Of an
    engine that stood by, which was started twice, every status of Windows and every error of .NET is its own."""
    if warm and code == _NO_RUNSPACE and err and not out:
        return "an engine of PowerShell that stood by did not start again"
    if code in _CRASHES or (warm and code is not None and (code >> 28 == 0xC or code >> 16 == 0x8013)):
        return f"PowerShell itself crashed on Wine (0x{code:08X})"
    if unknown := _UNKNOWN.search(err):
        # Windows may have it: neither success nor failure is proven.
        then = "went on" if code == 0 else f"ended with exit code {code}"
        return f"it used {unknown[1]}, which the PowerShell of the stand-in guest does not know, and {then}"
    return None


def _tool_of(step: Step) -> str | None:
    """The product's tool that ``step`` starts."""
    if step.kind == "sql-deployment":
        found = re.match(r'\s*"([^"]+)"|\s*(\S+)', step.command_line)
        return (found[1] or found[2]) if found else None
    if step.kind == "sql-dac":
        # Removing a database is a statement.
        return step.command_line.partition(" ")[0]
    return _TOOLS.get(step.kind)


def _as_another(step: Step) -> bool:
    return step.credential is not None and step.credential.user.strip().lower() not in _SYSTEM


def _signed(code: int | None) -> int | None:
    """As .NET's Process.ExitCode gives it, which patterns are written for [GUESS]."""
    return code - (1 << 32) if code is not None and code >= 1 << 31 else code


def _first_line(text: str) -> str:
    """Whole: it is shortened after it was masked."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _last_line(text: str) -> str:
    """Whole, as the first."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
