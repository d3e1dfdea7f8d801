# SPDX-License-Identifier: Apache-2.0
"""The command line that asks for the same run again, without a secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.package.parameters import Parameters

if TYPE_CHECKING:
    from harness.run.request import MachineRequest

# Option as `prepare` knows it -> flag, for those whose value is one word.
_VALUED = {
    "parameters_file": "--parameters",
    "pretend_modules": "--pretend-modules",
    "extension": "--extension",
    "service_definition": "--service-definition",
    "service_configuration": "--service-configuration",
    "service_role": "--service-role",
    "certificate_password_file": "--certificate-password-file",
    "admin_password_file": "--admin-password-file",
    "answer_file": "--answer-file",
    "computer_name": "--computer-name",
    "memory": "--memory",
    "cpus": "--cpus",
    "connect": "--connect",
    "timeout": "--timeout",
}
_DEFAULTS = {
    "network": ("--network", "none"),
    "instance": ("--instance", 1),
    "pattern_defaults": ("--pattern-defaults", "recorded"),
}
_FLAGS = {"strict": "--strict", "allow_unexecuted": "--allow-unexecuted", "cold": "--cold",
          "exact_timeouts": "--exact-timeouts", "cold_engines": "--cold-engines"}  # fmt: skip
_REPEATED = {
    "pretend": "--pretend",
    "certificates": "--certificate",
    "local_resources": "--local-resource",
    "external_payload": "--external-payload",
}
_EVENTS = ("deploy",)


def again(path: Path, values: Parameters, machine: MachineRequest, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of the command. Values that were read from a file or the environment are asked for there again; a
    secret that stood on the command line becomes a file that the reader has to write."""
    words = ["vmrole", "run", _shown(path), "--image", machine.image]
    secret = {name for name in (*values.masked, *(item.name for item in values.declared if item.secret))}
    for assignment in options.get("parameters", ()):
        words += ["-p", _assignment(assignment, secret)]
    for name, value in (options.get("given") or {}).items():
        words += ["-p", _value(name, value, secret)]
    for name, flag in _REPEATED.items():
        for value in options.get(name, ()):
            words += [flag, _shown(value) if isinstance(value, Path) else str(value)]
    for name, flag in _VALUED.items():
        if (value := options.get(name)) is not None:
            words += [
                flag,
                _shown(value) if isinstance(value, Path) else f"{value:g}" if name == "timeout" else str(value),
            ]
    for name, (flag, default) in _DEFAULTS.items():
        if (value := options.get(name, default)) != default:
            words += [flag, str(value)]
    if (events := tuple(options.get("events", _EVENTS))) != _EVENTS:
        words += ["--event", ",".join(events)]
    words += [flag for name, flag in _FLAGS.items() if options.get(name)]
    return tuple(words)


def _assignment(text: str, secret: set[str]) -> str:
    name, _, value = text.partition("=")
    if name not in secret or value.startswith(("@", "env:")):
        return text
    return f"{name}=@{name}.secret"


def _value(name: str, value: object, secret: set[str]) -> str:
    """A JSON value as the command line takes it; it has no way to say that one begins with @."""
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    if name in secret:
        return f"{name}=@{name}.secret"
    return f"{name}=@{name}.value" if text.startswith(("@", "env:")) else f"{name}={text}"


def _shown(path: Path) -> str:
    """Relative to the current folder where it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
