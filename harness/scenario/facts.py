# SPDX-License-Identifier: Apache-2.0
"""What the runs of a test have to say in its report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.deadline import Deadline
from harness.errors import VmRoleError
from harness.masking import Masker
from harness.process import run
from harness.report.text import printable
from harness.run.result import Outcome, StepResult
from harness.run.runner import Role
from harness.scenario.role import ScenarioRole

_WRONG = (
    Outcome.failed, Outcome.timed_out, Outcome.unknown, Outcome.interrupted, Outcome.not_executable, Outcome.warned
)  # fmt: skip
"""The worst first."""
_WARNINGS = 5
_GIT_SECONDS = 10.0


def properties(role: ScenarioRole) -> list[tuple[str, str]]:
    """What JUnit should know of a run: which image and accelerator, which extension of which revision."""
    result, request = role.result, role.request
    package = request.package
    found = {
        "vmrole_image": result.image.name if result.image else "",
        "vmrole_image_key": result.image.key if result.image else "",
        "vmrole_accelerator": result.accelerator.kind if result.accelerator else "",
        "vmrole_extension": package.name,
        "vmrole_extension_version": package.extension.version or "",
        "vmrole_revision": _revision(package.path.absolute().parent),
        "vmrole_verdict": str(result.verdict),
    }
    return [(name, value) for name, value in found.items() if value]


@functools.cache
def _revision(folder: Path) -> str:
    """The commit that ``folder`` is checked out at, "" where it is none."""
    try:
        done = run(["git", "-C", str(folder), "rev-parse", "HEAD"], ok=(0, 128), deadline=Deadline(_GIT_SECONDS))
    except VmRoleError:  # no git, or not in time
        return ""
    return done.stdout.decode("ascii", "replace").strip() if done.returncode == 0 else ""


def told(role: Role, tail: int) -> tuple[str, str]:
    """A title and a text: what the run came to, its worst step with the ends of its streams, warnings, where all is."""
    result = role.result
    lines = [f"{result.verdict}: {result.summary}" + (f" (blame: {result.blame})" if result.blame else "")]
    wrong = sorted((step for step in role.steps if step.outcome in _WRONG), key=lambda step: _WRONG.index(step.outcome))
    if wrong:
        lines += _step(wrong[0], tail)
        others = ", ".join(f"{step.id} ({str(step.outcome).replace('_', ' ')})" for step in wrong[1:])
        lines += [f"also: {others}"] if others else []
    left = [warning for warning in role.warnings if " ".join(warning.split()) not in result.summary]
    lines += [f"warning: {warning}" for warning in left[:_WARNINGS]]
    lines += [f"{len(left) - _WARNINGS} more warnings are in the report"] if len(left) > _WARNINGS else []
    lines.append(f"run directory: {role.request.output}")
    return f"vmrole: {role.request.package.name}", role.masker.text(printable("\n".join(lines)))


def _step(step: StepResult, tail: int) -> list[str]:
    code = "" if step.exit_code is None else f", exit code {step.exit_code}"
    lines = [
        f"step {step.id} {str(step.outcome).replace('_', ' ')}{code}" + (f": {step.finding}" if step.finding else "")
    ]
    lines += [f"  $ {step.command}"] if step.command else []
    for name, text in (("stdout", step.stdout), ("stderr", step.stderr)):
        said = printable(text).rstrip("\n").split("\n")
        left = len(said) - tail
        lines += [f"  {name}: ({left} lines before)"] if left > 0 else []
        lines += [f"  {name}: {line}" for line in said[-tail:] if line]
    return lines


def how_to_go_on(roles: Sequence[Role]) -> str:
    """After the machines are gone: how to run the same again, to replay from the step, to enter a kept machine."""
    lines = []
    for role in roles:
        command, replay = role.how_again()
        lines += [f"again: {command}"] if command else []
        lines += [f"from that step: {replay}"] if replay else []
        lines += [f"the machine is kept: vmrole shell {role.request.output}"] if role.kept else []
        lines.append(f"report: {role.request.output / 'report.html'}")
        lines = [role.masker.text(line) for line in lines]
    return "\n".join(lines)


def mask(report: Any, masker: Masker) -> None:
    """Take secrets out of a test's report: an assertion shows what a guest said, and the guest knows them. pytest has
    shortened that already; what is left of a secret there stands beside an ellipsis."""
    if not masker.secrets:
        return
    safe = masker.text
    report.longrepr = _masked(report.longrepr, safe)
    report.sections = [(name, safe(text)) for name, text in report.sections]
    report.user_properties = [
        (name, safe(value) if isinstance(value, str) else value) for name, value in report.user_properties
    ]


def _masked(value: Any, safe: Any) -> Any:
    """``value`` with every text in it made safe; the representations of failures are mutable dataclasses."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, tuple | list):
        return type(value)(_masked(item, safe) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for name, item in vars(value).items():
            setattr(value, name, _masked(item, safe))
    elif hasattr(value, "sections"):  # a TerminalRepr that is none
        value.sections = _masked(value.sections, safe)
    return value
