# SPDX-License-Identifier: Apache-2.0
"""What a plan is made of. A step is complete: whoever executes it needs nothing of the document any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from harness.package.findings import Finding
from harness.package.patterns import FailurePolicy

OS = Literal["linux", "windows"]
Event = Literal["deploy", "update", "scale-out", "delete"]
Kind = Literal[
    "run-once", "feature", "script", "script-application", "sql-deployment", "web-deploy", "sql-dac", "sql-script"
]


@dataclass(frozen=True, slots=True)
class Credential:
    """Who runs a step; ``password`` is secret and may be empty (built-in accounts)."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done in the guest.

    ``id`` is unique in the plan and stays the same when other steps are edited. ``argv`` is what is started, without
    a shell: the tokens of a Linux command (empty when it has none), None where something else than a program start is
    planned. ``command_line`` is the author's text with parameters filled in and may hold secrets; ``command`` is the
    same with secrets masked and is the one to show, log and report.

    ``environment`` is added to what the guest gives a process. ``timeout`` is in seconds, None is none. ``reboot`` says
    in words when the guest restarts after it: "never", "always", or "exit code 3010, 1641". ``on_failure`` is what a
    failure does to the run, ``policy`` how a Windows script's outcome is judged (None: by its exit code alone).
    ``source`` is a JSON pointer into the document. ``applicable`` is False for steps of
    another operating system; ``unresolved`` are parameters without a value, whose placeholders stay in the texts.

    A Windows program is ``executable`` (its ``%NAME%`` are expanded in the guest, harness.plan.guestpaths) and
    ``parameters``, the rest of its command line as one string; or ``script_block``, the text of a batch file. Its
    streams are stored in ``stdout_path`` and ``stderr_path``, for which ``folders`` are created first; of each stream
    ``max_output_size`` bytes are kept, None is no limit. ``stdin_path`` is a file of the guest.
    """

    id: str
    name: str
    kind: Kind
    os: OS
    command: str
    command_line: str
    source: str
    applicable: bool
    argv: tuple[str, ...] | None = None
    script_type: str | None = None
    order: int | None = None
    working_directory: str | None = None
    working_directory_shown: str | None = None  # the same with secrets masked
    account: str
    credential: Credential | None = None
    stdin: bytes = b""
    timeout: float | None = None
    reboot: str = "never"
    on_failure: Literal["fail", "warn"] = "fail"
    payload_id: str | None = None
    unresolved: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    executable: str | None = field(default=None, repr=False)
    parameters: str | None = field(default=None, repr=False)
    script_block: str | None = field(default=None, repr=False)
    policy: FailurePolicy | None = None
    stdout_path: str | None = field(default=None, repr=False)
    stderr_path: str | None = field(default=None, repr=False)
    stdin_path: str | None = field(default=None, repr=False)
    folders: tuple[str, ...] = field(default=(), repr=False)
    max_output_size: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The members that `plan --json` shows; nothing secret is among them."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "command": self.command,
            "script_type": self.script_type,
            "order": self.order,
            "working_directory": self.working_directory_shown or self.working_directory,
            "account": self.account,
            "timeout": self.timeout,
            "reboot": self.reboot,
            "source": self.source,
            "patterns": self._patterns(),
            "on_failure": self.on_failure,
            "applicable": self.applicable,
            "unresolved": list(self.unresolved),
        }

    def _patterns(self) -> dict[str, str | None] | None:
        """Failure pattern of each stream, None where nothing is looked for; None as a whole where none can be."""
        if self.policy is None:
            return None
        names = ("exit_code", "stdout", "stderr")
        pairs = zip(names, self.policy.checks, strict=True)
        return {name: None if check.state == "off" else check.pattern for name, check in pairs}


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one event on one instance, in the order of their execution; those of another system come last."""

    os: OS
    event: Event
    instance: int
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def applicable(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.applicable)

    def with_environment(self, variables: Iterable[tuple[str, str]]) -> Plan:
        """The same with ``variables`` in the environment of every step; those that a step has itself stay."""
        added = tuple(variables)
        return replace(self, steps=tuple(replace(step, environment=(*added, *step.environment)) for step in self.steps))

    def step(self, id: str) -> Step | None:
        return next((step for step in self.steps if step.id == id), None)

    def as_json(self) -> dict[str, Any]:
        return {"steps": [step.as_json() for step in self.steps]}
