# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: `vm_role` runs an extension in a real machine that lives as long as the test."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.plan import Event
    from harness.scenario import ScenarioRole

_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vmrole", "VM Role scenarios")
    group.addoption("--vmrole-image", default="debian-12", metavar="NAME", help="guest image of vm_role (debian-12)")
    group.addoption("--vmrole-connect", metavar="URI", help="another libvirt than the in-process one")
    group.addoption(
        "--vmrole-keep", choices=["always", "failed", "never"], default="never", help="keep machines, for 24 h at most"
    )
    group.addoption("--vmrole-output", metavar="DIR", help="folder of the run directories (a temporary one)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:  # type: ignore[attr-defined]
        item.stash[_FAILED] = True
    return report


@pytest.fixture
def vm_role(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ScenarioRole]]:
    """Run an extension: ``role = vm_role("my-extension", parameters={"Name": "value"})``.

    The path is relative to the test's file. ``certificates`` are FILE[:STORE], ``local_resources`` NAME[=MB], as on the
    command line. The machine is there until the test ends. An extension that fails raises nothing: ask
    ``role.verdict``. A machine that cannot be had (blame guest, host or harness) is an error of the test, with its
    sentence.
    """
    from harness.cli.reporting import reporting
    from harness.cli.run import prepare
    from harness.errors import VmRoleError
    from harness.masking import Masker
    from harness.run.runner import Role, perform
    from harness.scenario import ScenarioRole

    config = request.config
    roles: list[Role] = []
    with contextlib.ExitStack() as stack:

        def start(
            path: str | Path,
            *,
            image: str | None = None,
            events: Sequence[Event] = ("deploy",),
            answer_file: Path | None = None,
            parameters: Mapping[str, object] | None = None,
            certificates: Sequence[str | Path] = (),
            certificate_password_file: Path | None = None,
            local_resources: Sequence[str] = (),
            computer_name: str | None = None,
            admin_password_file: Path | None = None,
            memory: int | None = None,
            cpus: int = 2,
            network: str = "none",
            instance: int = 1,
            strict: bool = False,
            timeout: float | None = None,
        ) -> ScenarioRole:
            source = Path(path)
            prepared = prepare(
                source if source.is_absolute() else request.path.parent / source,
                parameters=[f"{name}={value}" for name, value in (parameters or {}).items()],
                parameters_file=None,
                image=image or config.getoption("--vmrole-image"),
                events=tuple(events),
                answer_file=answer_file,
                connect=config.getoption("--vmrole-connect"),
                keep=config.getoption("--vmrole-keep"),
                output=_output(config, request.node.name, tmp_path_factory),
                certificates=tuple(str(item) for item in certificates),
                certificate_password_file=certificate_password_file,
                local_resources=tuple(local_resources),
                computer_name=computer_name,
                admin_password_file=admin_password_file,
                memory=memory,
                cpus=cpus,
                network=network,
                instance=instance,
                strict=strict,
                allow_unexecuted=True,
                timeout=timeout,
            )
            masker = Masker(prepared.secrets)
            bus, recorder = stack.enter_context(reporting(masker, folder=prepared.output, quiet=True))
            role = stack.enter_context(perform(prepared, bus, recorder, masker))
            roles.append(role)
            request.node.user_properties.append(("vmrole_run", str(prepared.output)))
            if role.error and not (isinstance(role.error, VmRoleError) and role.error.blame == "extension"):
                raise role.error
            return ScenarioRole(role)

        yield start
        for role in roles:
            role.keep_anyway = request.node.stash.get(_FAILED, False)


def _output(config: pytest.Config, test: str, factory: pytest.TempPathFactory) -> Path:
    """A new run directory, named after the test."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", test)[:60]
    given = config.getoption("--vmrole-output")
    if not given:
        return factory.mktemp(name)
    number = 1
    while (folder := Path(given) / f"{name}-{number}").exists():
        number += 1
    return folder
