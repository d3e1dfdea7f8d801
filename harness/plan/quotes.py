# SPDX-License-Identifier: Apache-2.0
"""Values of parameters whose quotes change the command that they are put into, as nobody escapes them [GUIDE 18275]."""

from __future__ import annotations

import ntpath
from typing import TYPE_CHECKING

from harness.package.substitution import place

if TYPE_CHECKING:
    from harness.package.parameters import Parameters
    from harness.package.reader import Package
    from harness.plan.step import Plan, Step


def changed_values(package: Package, parameters: Parameters, plan: Plan) -> list[str]:
    """A warning for every value that reaches a command changed, or changes it: of the first step that uses it."""
    told = []
    for name, value in parameters.values.items():
        for step in plan.applicable if set(value) & set("\\\"'") else ():
            text = _written(package, step)
            at = place(text, name)
            if at is not None and (what := _what(step, value, text[:at])):
                told.append(f"the value of {name} has {what} of {step.id}")
                break
    return told


def _written(package: Package, step: Step) -> str:
    """What the author wrote as the command of ``step``; "" for what is no command line."""
    node = package.document.find(step.source)
    if node is None or isinstance(node.value, str):
        return str(node.value) if node is not None and step.kind == "run-once" else ""
    program, block = node.get("ExecutableAndParams"), node.get("ScriptBlock")
    rest = program.get("Parameters") if program is not None else None
    part = rest if step.executable is not None else block
    return part.value if part is not None and isinstance(part.value, str) else ""


def _what(step: Step, value: str, before: str) -> str:
    """What ``value``, which follows on the text ``before``, has; "" for nothing that matters."""
    if step.kind == "run-once":
        return "quotes or backslashes, which the Linux agent takes away when it splits the command"
    program = ntpath.basename((step.executable or "").strip('"')).lower().removesuffix(".exe")
    # cmd and the C run-time library know no others; PowerShell does, wherever they stand.
    single = program in ("powershell", "pwsh") or before.count("'") % 2 == 1
    if '"' in value or (single and "'" in value):
        return "quotes, which may end a quoted text or begin one in the command"
    return ""
