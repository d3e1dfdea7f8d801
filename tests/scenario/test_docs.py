# SPDX-License-Identifier: Apache-2.0
"""docs/scenarios.md is made from what the code says. ``python -m tests.scenario.test_docs`` writes it anew."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from harness import pytest_plugin
from harness.plan import Plan, Step
from harness.run.result import CertificateResult, LocalResourceResult, StepResult
from harness.scenario import PlanOf, ScenarioGuest, ScenarioRole, VmRole

PAGE = Path(__file__).resolve().parents[2] / "docs/scenarios.md"

HEAD = """\
# Scenarios

A scenario is a pytest test in a real machine. [tutorial.md](tutorial.md) leads to the first one; this page is the
reference, made from the code's own words.

```python
import pytest
from harness.scenario import ScenarioGuest, VmRole


@pytest.mark.image("debian-*")
@pytest.mark.parametrize("port", [80, 8080])
def test_web_server(vm_role: VmRole, port: int) -> None:
    role = vm_role("web-server", parameters={"Port": port}, local_resources=["Content=20"])
    assert role.verdict == "succeeded"
    role.guest.wait_for_port(port)
    role.guest.reboot()
    role.guest.wait_until_succeeds("systemctl", "is-active", "web-server")


def test_without_a_role(guest: ScenarioGuest) -> None:
    guest.block_network()
    guest.fail("ping", "-c", "1", "10.0.2.2")
```

The plugin comes with the package, which `make wheel` builds in a clone; no index has it:
`pip install "$(ls dist/*.whl)[pytest]"`.

## What becomes of a test

| what happens | the test |
|---|---|
| the extension fails, or warns | goes on; ask `role.verdict` and `role.step(...)` |
| a step cannot be executed on the image | is skipped with the names of the steps, unless `allow_unexecuted=True` |
| the image, the network, memory, a hypervisor's ability is missing | is skipped, and says what is missing |
| the same with `--strict-environment` | fails, and says the same |
| the guest or the harness fails; the package cannot be read | fails with one sentence |

A failure shows the test's own lines only, the step that went worst with the end of its streams, the run directory, and
the commands that run exactly that again and that go on before that step. `--full-trace` shows the harness's frames too.
The secrets of all roles of the test are masked in all of it, and in the run directory of each.
In JUnit each test has the properties `vmrole_image`, `vmrole_image_key`,
`vmrole_accelerator`, `vmrole_extension`, `vmrole_extension_version`, `vmrole_revision` (git, of the extension),
`vmrole_verdict` and `vmrole_run` (the run directory).

With pytest-xdist (`-n 4`) the workers share images and frozen machines, and wait for one another where there is not
memory and processors enough for all. At the end of a session `index.html` in the folder of `--vmrole-output` has its
runs by extension, scenario and image, beside those that were in that folder before.

## One scenario on Linux and on Windows

```python
from harness.scenario import VmRole


def test_notes(vm_role: VmRole, vmrole_image: str) -> None:
    windows = vmrole_image.startswith("windows")
    role = vm_role("notes", parameters={"Text": "Hi"}, local_resources=["Store=20"])
    assert "noted: Hi" in role.step("preinstall-1" if windows else "run-once-1").stdout
    note = role.local_resource("Store").path + ("\\\\note.txt" if windows else "/note.txt")
    assert role.guest.get(note).rstrip() == b"Hi"
```

```
pytest --vmrole-image debian-12 --vmrole-image windows-stand-in --vmrole-output runs
```

- One extension may have a `LinuxApplicationProfile` and a `WindowsApplicationProfile`; each guest runs its own.
- Steps are called after what they are: `vmrole plan notes --os windows` shows their names.
- A script finds the local resource NAME in `/resources/NAME` on Linux and in `C:\\Resources\\NAME` on Windows.
- The stand-in runs batch files and programs, and PowerShell only with [one of yours](powershell.md): `vmrole new --kind
  windows-batch` makes an extension for any of them.
- A command that fails is a warning on Linux and a failure on Windows. `role.verdict` is also `warnings` when the image
  has not what the extension asks for in `OSVirtualHardDiskRequirements` ([images.md](images.md#requirement-tags)).

"""

_FIXTURES = ("vm_role", "guest", "plan", "vmrole_image")
_LINE = 120


def page() -> str:
    parts = [HEAD, "## Fixtures\n\n", *(_entry(name, _fixture(name)) for name in _FIXTURES)]
    parts += ["## Markers\n\n| marker | what |\n|---|---|\n"]
    parts += [f"| `{name}` | {what} |\n" for name, what in (text.split(": ", 1) for text in pytest_plugin._MARKERS)]
    parts += ["\n## Options\n\n| option | what |\n|---|---|\n", *_options()]
    parts += ["\n## vm_role(...)\n\n", *_call(VmRole)]
    parts += ["## The role\n\n", *_members(ScenarioRole, "role")]
    parts += ["## The guest\n\n", _text(ScenarioGuest), "\n", *_members(ScenarioGuest, "guest")]
    parts += ["## plan(...)\n\n", *_call(PlanOf)]
    parts += [
        "## What is returned\n\n",
        *(_fields(kind) for kind in (StepResult, LocalResourceResult, CertificateResult)),
    ]
    parts += [_fields(Plan), _fields(Step)]
    return "".join(parts).rstrip("\n") + "\n"


def _fixture(name: str) -> str:
    found = getattr(pytest_plugin, name)
    return inspect.cleandoc(inspect.getdoc(getattr(found, "__wrapped__", None) or found._get_wrapped_function()) or "")


def _entry(name: str, text: str) -> str:
    return f"**`{name}`**: {_markdown(text)}\n\n"


def _markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _text(thing: Any) -> str:
    return _markdown(inspect.getdoc(thing) or "") + "\n"


def _options() -> list[str]:
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    rows = []
    for option in parser.getgroup("vmrole").options:
        names = option.names()
        metavar = option.attrs().get("metavar") or "|".join(option.attrs().get("choices") or ())
        shown = " ".join(filter(None, (names[0], metavar.replace("|", "\\|"))))
        rows.append(f"| `{shown}` | {option.attrs()['help']} |\n")
    return rows


def _call(kind: Any) -> list[str]:
    function = kind.__call__
    return ["```python\n", _signature(_name(kind), function), "\n```\n\n", _text(function), "\n"]


def _name(kind: Any) -> str:
    return {VmRole: "vm_role", PlanOf: "plan"}[kind]


def _signature(name: str, function: Any) -> str:
    """As it is called: without self, one argument a line where a line does not hold them."""
    found = inspect.signature(function)
    words, starred = [], False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words.append("*")
        starred |= parameter.kind in (parameter.VAR_POSITIONAL, parameter.KEYWORD_ONLY)
        words.append(_argument(parameter))
    whole = f"{name}({', '.join(words)}) -> {found.return_annotation}"
    if len(whole) <= 100:
        return whole
    lines = "".join(f"    {word},\n" for word in words)
    return f"{name}(\n{lines}) -> {found.return_annotation}"


def _argument(parameter: inspect.Parameter) -> str:
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    text = f"{star}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = f"{parameter.default:#o}" if parameter.name == "mode" else repr(parameter.default)
    return f"{text} = {default}".replace("'", '"')


def _members(kind: Any, prefix: str) -> list[str]:
    """Public properties and methods in the order they are written in."""
    found = []
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            result = inspect.signature(member.fget or page).return_annotation
            found.append(f"```python\n{prefix}.{name}: {result}\n```\n\n{_text(member)}\n")
        elif inspect.isfunction(member):
            found.append(f"```python\n{_signature(f'{prefix}.{name}', member)}\n```\n\n{_text(member)}\n")
    return found


def _fields(kind: Any) -> str:
    names = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
    first = _text(kind).split("\n\n")[0].strip()
    return f"**`{kind.__name__}`**: {names}. {first}\n\n"


def test_the_page_says_what_the_code_does() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.scenario.test_docs writes it anew"


def test_everything_public_is_documented() -> None:
    for kind in (ScenarioRole, ScenarioGuest):
        for name, member in vars(kind).items():
            if not name.startswith("_") and (isinstance(member, property) or inspect.isfunction(member)):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_the_example_is_python() -> None:
    source = HEAD.split("```python\n")[1].split("```")[0]
    compile(source, "scenarios.md", "exec")
    for call in re.findall(r"guest\.(\w+)\(", source):
        assert hasattr(ScenarioGuest, call), call


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
