# SPDX-License-Identifier: Apache-2.0
"""The runs that a nightly's file asks for: pure, nothing is looked up."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.nightly.model import TIMEOUT, Nightly, PackageEntry, Value
from harness.report.text import printable

IMAGE = "debian-12"
_LONGEST = 40
"""Characters of a value that the name of a case shows."""
_FILES = (
    "extension", "parameters_file", "certificate_password_file", "service_definition", "service_configuration",
    "admin_password_file",
)  # fmt: skip
_AS_THEY_ARE = (
    "local_resources", "service_role", "computer_name", "instance", "events", "pattern_defaults",
)  # fmt: skip
_SHARED = ("strict", "allow_unexecuted", "exact_timeouts", "cold", "cold_engines", "memory", "cpus", "connect")


@dataclass(frozen=True, slots=True)
class Job:
    """One run. ``case`` tells it from others of the package on the image; ``entry`` is the package's number in the
    file; ``options`` are those of `vmrole run` as JSON has them, paths absolute, secrets only named."""

    entry: int
    package: str
    case: str
    image: str
    path: Path
    options: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        """The same for the same run, whenever the file is read."""
        told = json.dumps([str(self.path), self.case, dict(self.options)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        return f"{self.package} {f'[{self.case}] ' if self.case else ''}on {self.image}"

    @property
    def timeout(self) -> float:
        return float(self.options["timeout"])


def jobs(nightly: Nightly, folder: Path) -> list[Job]:
    """Every run of ``nightly``, whose paths are relative to ``folder``: image by image, in the order of the file."""
    made = []
    for number, entry in enumerate(nightly.packages):
        path = folder / entry.path
        for image in entry.images or nightly.images or [IMAGE]:
            for case, values in _cases(entry):
                options = _options(nightly, entry, folder) | {
                    "image": image,
                    "parameters": _assignments(values, folder),
                }
                made.append(Job(number, path.resolve().name, case, image, path, options))
    return made


def _cases(entry: PackageEntry) -> Iterator[tuple[str, dict[str, Value]]]:
    """The name and the values of each combination."""
    for combination in itertools.product(*entry.matrix.values()):
        chosen = dict(zip(entry.matrix, combination, strict=True))
        named = ", ".join(f"{name}={_shown(value)}" for name, value in chosen.items())
        yield ": ".join(part for part in (entry.name, named) if part), {**entry.parameters, **chosen}


def _options(nightly: Nightly, entry: PackageEntry, folder: Path) -> dict[str, Any]:
    def own(name: str) -> Any:
        value = getattr(entry, name)
        return getattr(nightly, name) if value is None else value

    options: dict[str, Any] = {name: getattr(entry, name) for name in _AS_THEY_ARE}
    options |= {name: own(name) for name in _SHARED}
    for name in _FILES:
        given = getattr(entry, name)
        options[name] = str(folder / given) if given is not None else None
    return options | {
        "strict": bool(options["strict"]),
        "allow_unexecuted": bool(options["allow_unexecuted"]),
        "exact_timeouts": bool(options["exact_timeouts"]),
        "cold": bool(options["cold"]),
        "cold_engines": bool(options["cold_engines"]),
        "pretend": own("pretend") or [],
        "pretend_modules": str(folder / modules) if (modules := own("pretend_modules")) else None,
        "network": own("network") or "none",
        "timeout": own("timeout") or TIMEOUT,
        "no_checkpoints": own("checkpoints") is False,
        "certificates": [str(folder / given) for given in entry.certificates],
        "external_payload": [place if "://" in place else str(folder / place) for place in entry.external_payload],
    }


def _assignments(values: Mapping[str, Value], folder: Path) -> list[str]:
    """As -p takes them; files relative to ``folder``."""
    return [f"{name}={_text(value, folder)}" for name, value in values.items()]


def _text(value: Value, folder: Path) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith("@"):
        return f"@{folder / value[1:]}"
    return str(value)


def _shown(value: Value) -> str:
    text = " ".join(printable(_text(value, Path())).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
