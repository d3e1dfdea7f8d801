# SPDX-License-Identifier: Apache-2.0
"""What the outcome of a script means: failure patterns, reboot codes, error policy, in that order of evidence.

A pattern says *failure*: where it is found, ErrorPolicy decides between failing and warning [VMM cmdlet help]. One of
the three is enough [INFER]. Reboot codes come first, since 3010 matches the usual failure pattern too [INFER].
Each choice that the evidence leaves is one constant or one function here, and one line in docs/semantics.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from harness.package.dotnet import SECONDS, PatternError, compile_pattern

Stream = Literal["exit code", "standard output", "standard error"]
State = Literal["on", "off", "invalid"]
Defaults = Literal["recorded", "console"]
ErrorPolicy = Literal["FailOnMatch", "WarnAndContinueOnMatch"]
Outcome = Literal["succeeded", "warned", "failed", "timed_out"]

#: ExitCodeRegex missing [INFER: 50 of 50 real scripts set none, and a PowerShell throw fails their deployment].
DEFAULT_EXIT_CODE: Final = "[1-9][0-9]*"
#: RebootExitCodeRegex missing [INFER: the triple of the VMM console].
DEFAULT_REBOOT_CODES: Final = "{1641}|{3010}|{3011}"
#: StandardErrorRegex missing, with ``--pattern-defaults console`` [SRC: console-generated scripts]. Recorded packages
#: write to standard error and deployed, so by default it never fails.
CONSOLE_STANDARD_ERROR: Final = ".+"
#: What a warning about standard error says when no pattern was written [INFER].
STDERR_WARNING: Final = "it wrote to standard error (the console default `.+` would fail this)"
#: Characters for which a pattern has SECONDS; MaxOutputSize of the documents is 1 MiB.
TEXT: Final = 1 << 20

_PART: Final = r"[^\\/:*?\"<>|+^$()\[\]{}]+"
#: With a drive or a variable, on a server, or relative with a suffix: `.\w` alone is a pattern.
_PATH: Final = re.compile(
    rf"(?:[A-Za-z]:|%\w+%)(?:\\{_PART})+\\?|\\(?:\\{_PART}){{2,}}|\.{{1,2}}(?:\\{_PART})*\\{_PART}\.\w{{1,4}}"
)


class _Written(Protocol):
    """The members of harness.package.models.Command that matter here; any other object with them will do."""

    @property
    def exit_code_regex(self) -> str | None: ...
    @property
    def standard_output_regex(self) -> str | None: ...
    @property
    def standard_error_regex(self) -> str | None: ...
    @property
    def reboot_exit_code_regex(self) -> str | None: ...
    def written(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Check:
    """One failure pattern: the written one or the default. ``problem`` says why an invalid one is invalid."""

    stream: Stream
    pattern: str = ""
    state: State = "off"
    default: bool = False
    problem: str = ""

    def found(self, text: str) -> bool:
        """Whether the pattern occurs; False for one that is off or invalid. Raises TimeoutError when it takes longer
        than SECONDS for each MiB of ``text``."""
        if self.state != "on":
            return False
        if self.pattern == DEFAULT_EXIT_CODE and len(text) < 100:  # by far the most frequent; needs no engine
            return re.search(DEFAULT_EXIT_CODE, text) is not None
        return compile_pattern(self.pattern).search(text, timeout=seconds_for(text)) is not None


def seconds_for(text: str) -> float:
    """How long one pattern may look at ``text``."""
    return SECONDS * max(1.0, len(text) / TEXT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an execution means. ``reboot`` whether the guest restarts now, ``rerun`` whether the script runs again
    afterwards, ``reasons`` sentences about what was found, the first the most important."""

    outcome: Outcome
    reboot: bool = False
    rerun: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """How the outcome of one script is judged; complete, pure, and the same for every guest."""

    error_policy: ErrorPolicy = "FailOnMatch"
    exit_code: Check = Check("exit code", DEFAULT_EXIT_CODE, "on", True)
    stdout: Check = Check("standard output")
    stderr: Check = Check("standard error", default=True)
    reboot_codes: tuple[int, ...] = (1641, 3010, 3011)
    reboot_pattern: Check = Check("exit code")  # in place of the codes
    always_reboot: bool = False
    restart_on_exit_code_reboot: bool = False
    restart_on_retry: bool = False

    @property
    def checks(self) -> tuple[Check, Check, Check]:
        return (self.exit_code, self.stdout, self.stderr)

    @property
    def reboot(self) -> str:
        """When the guest restarts, in words: "always", "exit code 3010", "exit code that matches 30..", "never"."""
        if self.always_reboot:
            return "always"
        if self.reboot_pattern.state == "on":
            return f"exit code that matches {self.reboot_pattern.pattern}"
        return f"exit code {', '.join(map(str, self.reboot_codes))}" if self.reboot_codes else "never"

    def judge(self, exit_code: int | None, stdout: str = "", stderr: str = "", *, timed_out: bool = False) -> Verdict:
        """The verdict on one execution.

        ``exit_code`` is a signed number as .NET's Process.ExitCode gives it [GUESS]; None is a program that did not
        start or was lost. A time-out fails, and warns with WarnAndContinueOnMatch [GUESS]. AlwaysReboot restarts after
        a warning too [PKG: RDSSH relies on it], not after a failure [DOC].
        """
        warns = self.error_policy == "WarnAndContinueOnMatch"
        if timed_out:
            outcome: Outcome = "warned" if warns else "timed_out"
            return Verdict(outcome, self.always_reboot and warns, reasons=("it was stopped at its time-out",))
        aside: list[str] = []
        if exit_code is not None and self._restarts(exit_code, aside):
            return Verdict("succeeded", True, self.restart_on_exit_code_reboot, (f"exit code {exit_code} restarts",))
        reasons: list[str] = []
        failed = exit_code is None
        if failed:
            reasons.append("it has no exit code")
        texts = ("" if exit_code is None else str(exit_code), stdout, stderr)
        for check, text in zip(self.checks, texts, strict=True):
            try:
                if check.found(text):
                    failed = True
                    shown = f" {exit_code}" if check.stream == "exit code" else ""
                    reasons.append(f"{check.stream}{shown} matches the failure pattern {check.pattern}")
            except TimeoutError:
                reasons.append(
                    f"the failure pattern {check.pattern[:100]} was given up after {seconds_for(text):.0f} s: not found"
                )
            except PatternError as error:
                reasons.append(f"the failure pattern {check.pattern[:100]} never matches: {error}")
        reasons += aside
        if failed:
            return Verdict("warned" if warns else "failed", self.always_reboot and warns, reasons=tuple(reasons))
        for check in self.checks:
            if check.state == "invalid":
                reasons.append(f"the failure pattern {check.pattern[:100]} never matches: {check.problem}")
        # a missing pattern only; null, "" and * are the author's wish not to look
        if self.stderr.state == "off" and self.stderr.default and stderr.strip():
            reasons.append(STDERR_WARNING)
        return Verdict("warned" if reasons else "succeeded", self.always_reboot, reasons=tuple(reasons))

    def _restarts(self, exit_code: int, aside: list[str]) -> bool:
        """Whether an exit code is one that restarts; ``aside`` gets why its pattern cannot say."""
        shown = f"the reboot pattern {self.reboot_pattern.pattern[:100]}"
        if self.reboot_pattern.state == "invalid":
            aside.append(f"{shown} never matches: {self.reboot_pattern.problem}")
        try:
            return exit_code in self.reboot_codes or self.reboot_pattern.found(str(exit_code))
        except TimeoutError:
            aside.append(f"{shown} was given up after {SECONDS:g} s: not found")
        return False


def failure_policy(
    command: _Written,
    *,
    error_policy: str | None = None,
    fill: dict[str, str] | None = None,
    defaults: Defaults = "recorded",
    always_reboot: bool = False,
    restart_on_exit_code_reboot: bool = False,
    restart_on_retry: bool = False,
) -> FailurePolicy:
    """The policy of a script. ``fill`` has the patterns with their parameters filled in, by attribute name.

    Never raises: what cannot be understood is an invalid check, which never matches.
    """
    texts = fill or {}

    def check(stream: Stream, name: str, default: str) -> Check:
        written = command.written(name)
        value = texts.get(name, getattr(command, name))
        return make_check(stream, value if written else default, default=not written)

    console = defaults == "console"
    codes = texts.get("reboot_exit_code_regex", command.reboot_exit_code_regex)
    if not command.written("reboot_exit_code_regex"):
        codes = DEFAULT_REBOOT_CODES
    listed = reboot_codes(codes)
    return FailurePolicy(
        error_policy=error_policy_of(error_policy),
        exit_code=check("exit code", "exit_code_regex", DEFAULT_EXIT_CODE),
        stdout=check("standard output", "standard_output_regex", ""),
        stderr=check("standard error", "standard_error_regex", CONSOLE_STANDARD_ERROR if console else ""),
        reboot_codes=listed or (),
        reboot_pattern=make_check("exit code", codes if listed is None else None),
        always_reboot=always_reboot,
        restart_on_exit_code_reboot=restart_on_exit_code_reboot,
        restart_on_retry=restart_on_retry,
    )


def make_check(stream: Stream, pattern: str | None, *, default: bool = False) -> Check:
    """null, "" and ``*`` switch a check off [SRC]; an invalid or path-like pattern never matches [PKG]."""
    if pattern is None or pattern.strip() in ("", "*"):
        return Check(stream, pattern or "", "off", default)
    problem = pattern_problem(pattern)
    return Check(stream, pattern, "invalid" if problem else "on", default, problem)


def pattern_problem(pattern: str) -> str:
    """Why a pattern never matches, as the end of a sentence; "" when it can."""
    if looks_like_path(pattern):
        return "it is a path"
    if pattern in (DEFAULT_EXIT_CODE, CONSOLE_STANDARD_ERROR):
        return ""
    try:
        compile_pattern(pattern)
    except PatternError as error:
        return str(error)
    return ""


def looks_like_path(text: str) -> bool:
    """Whether a pattern is a Windows path; two published packages have one and meant StandardOutputPath [PKG]."""
    return _PATH.fullmatch(text.strip()) is not None


def reboot_codes(text: str | None) -> tuple[int, ...] | None:
    """``{1641}|{3010}|{3011}`` as numbers. No regular expression: neither engine takes a quantifier at the start [SRC].

    None when an alternative is no whole number: then the text is a pattern, as the field's type says.
    """
    if text is None or text.strip() in ("", "*"):
        return ()
    found: dict[int, None] = {}
    for token in text.split("|"):
        number = re.fullmatch(r"\{([-+]?[0-9]{1,10})\}|([-+]?[0-9]{1,10})", token.strip())
        if number is None:
            return None
        found[int(number[1] or number[2])] = None
    return tuple(found)


def error_policy_of(text: str | None) -> ErrorPolicy:
    """Anything but WarnAndContinueOnMatch fails [PKG: no third value exists]."""
    return "WarnAndContinueOnMatch" if (text or "").strip().lower() == "warnandcontinueonmatch" else "FailOnMatch"
