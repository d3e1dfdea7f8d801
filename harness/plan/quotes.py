# SPDX-License-Identifier: Apache-2.0
"""Values of parameters that change the command that they are put into, as nobody escapes them [GUIDE 18275]."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import TYPE_CHECKING, Final

from harness.package.substitution import place
from harness.wincmd import is_cmd, is_powershell

if TYPE_CHECKING:
    from harness.package.parameters import Parameters
    from harness.package.reader import Package
    from harness.plan.step import Plan, Step


#: Quotes to PowerShell as well.
_TYPOGRAPHIC: Final = re.compile("[\u2018-\u201e]")
#: What is more than a character, to each interpreter: outside of quotes, and in its double quotes.
_POWERSHELL: Final = re.compile(r"[$`;|&(){}<>]"), re.compile(r"[$`]")
_CMD: Final = re.compile(r"[&|<>^]|%\w+%"), re.compile(r"%\w+%")


def changed_values(package: Package, parameters: Parameters, plan: Plan) -> list[str]:
    """A warning for every value that reaches a command changed, or changes it: of the first step that uses it."""
    told = []
    for name, value in parameters.values.items():
        for step in plan.applicable if not value.isalnum() else ():
            text = _written(package, step)
            at = place(text, name)
            if at is not None and (what := _what(step, value, text[:at])):
                told.append(f"the value of {name} has {what} of {step.id}")
                break
    known = {step.id for step in plan.applicable if any(one.endswith(f" of {step.id}") for one in told)}
    return [*told, *_of_powershell(package, parameters, plan, known)]


def _of_powershell(package: Package, parameters: Parameters, plan: Plan, known: Container[str]) -> list[str]:
    """What is odd about a command line of PowerShell with these values in it, but for the ``known`` steps."""
    steps = {step.source: step for step in plan.applicable if step.os == "windows" and step.id not in known}
    commands = " ".join(step.command_line for step in steps.values()).lower()
    if not parameters.values or not ("powershell" in commands or "pwsh" in commands):
        return []
    from harness.package.powershell.check import told_of_values

    found = told_of_values(package, lambda text: parameters.fill(text).text)
    return [f"with its values, in the command of {steps[at].id}: {one.sentence}" for at, one in found if at in steps]


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
        lost = "quotes or backslashes, which the Linux agent takes away when it splits the command"
        return lost if set(value) & set("\\\"'") else ""
    powershell = is_powershell(step.executable)
    in_single = before.count("'") % 2 == 1
    # cmd and the C run-time library know no others; PowerShell does, wherever they stand.
    single = (powershell or in_single) and "'" in value
    if '"' in value or single or (powershell and _TYPOGRAPHIC.search(value)):
        return "quotes, which may end a quoted text or begin one in the command"
    if powershell and not in_single and not re.search(r"(?i)(?<!\S)[-/]f(?:i|il|ile)?\s", before):
        # Quotes without a backslash are gone before PowerShell reads the command.
        outside, inside = _POWERSHELL
        if (inside if before.count('\\"') % 2 else outside).search(value):
            return "characters that mean more than themselves to PowerShell, in the command"
    if step.executable is None or is_cmd(step.executable):
        outside, inside = _CMD
        if (inside if before.count('"') % 2 else outside).search(value):
            return "characters that mean more than themselves to cmd.exe, in the command"
    return ""
