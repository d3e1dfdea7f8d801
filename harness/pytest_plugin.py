# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: VM Roles in real machines, each as long as its test (docs/scenarios.md).

Everything of the harness is imported when a scenario needs it: the plugin is loaded in every session of its
environment.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
import types
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from harness.scenario import PlanOf, ScenarioGuest, ScenarioRole, VmRole
    from harness.scenario.start import Scene

_FAILURE = pytest.StashKey[str]()
_SCENE = pytest.StashKey["Scene"]()

_DEFAULT_IMAGE = "debian-12"
_RUN = "vmrole_run"
"""Property of a test with a run directory of it."""
_MARKERS = (
    "image(*names): the scenario is for these images, which may have * in them; without --vmrole-image it runs on each",
    "hypervisor(*needs): what it takes: kvm, tcg, fork, checkpoint, change-medium, guest-channel, crash",
    "network: its machines reach whatever this host reaches, as with network='nat'",
    "slow: takes more than about a minute",
)
_TAIL = 20
"""Lines of a stream that a failure shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vmrole", "VM Role scenarios")
    group.addoption(
        "--vmrole-image",
        action="append",
        metavar="NAME",
        help=f"guest image of the scenarios ({_DEFAULT_IMAGE}); given again, each scenario runs on each image",
    )
    group.addoption("--vmrole-connect", metavar="URI", help="another libvirt than the in-process one")
    group.addoption(
        "--vmrole-keep", choices=["always", "failed", "never"], default="never", help="keep machines, for 24 h at most"
    )
    group.addoption(
        "--vmrole-output", metavar="DIR", help="folder of the run directories and their index.html (a temporary one)"
    )
    group.addoption(
        "--strict-environment",
        action="store_true",
        help="scenarios fail, instead of being skipped, where the host lacks something or steps cannot be executed",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Index(config.getoption("--vmrole-output")), "vmrole-index")
    if chosen := config.getoption("--vmrole-image"):
        from harness.errors import VmRoleError
        from harness.image import catalog

        try:
            for name in chosen:
                catalog.load(name)
        except VmRoleError as error:
            raise pytest.UsageError(f"--vmrole-image: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vmrole_image" not in metafunc.fixturenames:
        return
    images = _images(metafunc.config, metafunc.definition)
    if len(images) > 1:
        metafunc.parametrize("vmrole_image", images, indirect=True)


def _images(config: pytest.Config, item: Any) -> list[str]:
    """The images that a scenario runs on: those of the session that it is for."""
    chosen: list[str] = list(dict.fromkeys(config.getoption("--vmrole-image") or ()))
    marker = item.get_closest_marker("image")
    if marker is None:
        return chosen or [_DEFAULT_IMAGE]
    from harness.image import catalog

    known = chosen or catalog.names()
    return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in marker.args)]


@pytest.fixture
def vmrole_image(request: pytest.FixtureRequest) -> str:
    """The name of the image that the scenario runs on."""
    if hasattr(request, "param"):
        return str(request.param)
    images = _images(request.config, request.node)
    if images:
        return images[0]
    wanted = ", ".join(request.node.get_closest_marker("image").args)
    chosen = ", ".join(request.config.getoption("--vmrole-image") or ()) or "every image there is"
    _lacking(request.config, f"no image for it: the scenario is for {wanted}, and the session has {chosen}")


@pytest.fixture
def vm_role(request: pytest.FixtureRequest, _vmrole_scene: Scene) -> VmRole:
    """Deploy an extension into a machine of its own: ``role = vm_role("my-extension", parameters={"Name": "value"})``.

    The machine is there until the test ends; a test may have several. See ``VmRole`` for the arguments and
    ``ScenarioRole`` for what is returned.
    """
    from harness.scenario import VmRole

    return VmRole(_vmrole_scene)


@pytest.fixture
def guest(_vmrole_scene: Scene) -> Iterator[ScenarioGuest]:
    """A machine of its own that is specialised as in a run and has no role in it, until the test ends."""
    from harness.scenario.start import machine_alone

    with machine_alone(_vmrole_scene) as guest:
        yield guest


@pytest.fixture
def plan(request: pytest.FixtureRequest, vmrole_image: str) -> PlanOf:
    """The steps that an extension would run, without a machine: ``plan("my-extension").applicable``."""
    from harness.scenario import PlanOf

    return PlanOf(request.path.parent, vmrole_image)


@pytest.fixture
def _vmrole_scene(
    request: pytest.FixtureRequest, vmrole_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    from harness.scenario.start import Scene

    item, config = request.node, request.config
    network = item.get_closest_marker("network") is not None
    if network and not _has_route():
        _lacking(config, "no network: this host has no default route")
    with contextlib.ExitStack() as stack:
        scene = Scene(
            folder=request.path.parent,
            case=f"{request.path.stem}::{_case(item.name, vmrole_image)}",
            image=vmrole_image,
            connect=config.getoption("--vmrole-connect"),
            keep=config.getoption("--vmrole-keep"),
            network="nat" if network else "none",
            needs=tuple(str(need) for marker in item.iter_markers("hypervisor") for need in marker.args),
            output=lambda: _output(config, item.name, tmp_path_factory),
            lacking=functools.partial(_lacking, config),
            stack=stack,
            started=functools.partial(_record, item),
        )
        stack.callback(scene.mask_again)
        item.stash[_SCENE] = scene
        yield scene
        scene.ended(item.stash.get(_FAILURE, None))


def _case(name: str, image: str) -> str:
    """A test's name without the image in it, which runs on other images have elsewhere."""
    function, _, ids = name.partition("[")
    left = re.sub(rf"(^|-){re.escape(image)}(?=-|$)", "", ids.removesuffix("]")).lstrip("-")
    return f"{function}[{left}]" if left else function


def _lacking(config: pytest.Config, what: str) -> NoReturn:
    """End a test for want of ``what``: skipped, or failed where the environment has to be complete."""
    __tracebackhide__ = True
    if config.getoption("--strict-environment"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def _has_route() -> bool:
    """Whether this host has a default route (proc(5): a line with destination and mask 0)."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[1:8:6] == ["00000000", "00000000"] for line in lines)


def _output(config: pytest.Config, test: str, factory: pytest.TempPathFactory) -> Path:
    """A new run directory, named after the test."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", test)[:60].strip("-.")
    given = config.getoption("--vmrole-output")
    if not given:
        return factory.mktemp(name)
    parent, number = Path(given).absolute(), 1
    parent.mkdir(parents=True, exist_ok=True)
    while True:  # another worker may take the same name
        with contextlib.suppress(FileExistsError):
            folder = parent / f"{name}-{number}"
            folder.mkdir()
            return folder
        number += 1


def _record(item: pytest.Item, role: ScenarioRole) -> None:
    """Tell JUnit and the session's index of a run."""
    from harness.scenario.facts import properties

    item.user_properties += [(_RUN, str(role.directory)), *properties(role)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    if "vmrole_image" not in getattr(item, "fixturenames", ()):
        return (yield)
    if call.excinfo and not item.config.getoption("fulltrace"):
        call.excinfo = _only_the_authors_frames(call.excinfo.value)
    report: Any = yield
    scene = item.stash.get(_SCENE, None)
    if scene is None:
        return report
    from harness.scenario import facts

    facts.mask(report, scene.masker)
    if report.failed:
        item.stash[_FAILURE] = item.stash.get(_FAILURE, "") or _message(report)
        for title, text in (facts.told(role, _TAIL) for role in scene.roles):
            _add_section(report, title, text)
    if report.when == "teardown" and _FAILURE in item.stash and (text := facts.how_to_go_on(scene.roles)):
        report.sections.append(("vmrole after teardown", text))
    return report


def _only_the_authors_frames(error: BaseException) -> pytest.ExceptionInfo[BaseException]:
    """``error`` without the frames inside the harness and what it was made of there; the sentence alone where there are
    no others, as in a fixture."""
    packages = Path(pytest.__file__).parent.parent
    nobodys = {Path(__file__).parent, Path(contextlib.__file__), *(packages / name for name in ("_pytest", "pluggy"))}
    entries = []
    entry = error.__traceback__
    while entry is not None:
        file = Path(entry.tb_frame.f_code.co_filename)
        if not nobodys & {file, *file.parents}:
            entries.append(entry)
        entry = entry.tb_next
    kept: types.TracebackType | None = None
    for found in reversed(entries):
        kept = types.TracebackType(kept, found.tb_frame, found.tb_lasti, found.tb_lineno)
    if type(error).__module__.startswith("harness."):  # its sentence says what the one it was made of means
        if not entries:
            alone = pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False)
            return pytest.ExceptionInfo.from_exception(alone.with_traceback(error.__traceback__))
        error.__cause__, error.__suppress_context__ = None, True
    if kept:
        error.__traceback__ = kept
    return pytest.ExceptionInfo.from_exception(error)


def _message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    said = str(crash.message if crash else report.longrepr or "it does not say why")
    return said.removeprefix("AssertionError: ")


def _add_section(report: Any, title: str, text: str) -> None:
    """With the traceback where there is one, so that JUnit has it as well."""
    if hasattr(report.longrepr, "addsection"):
        report.longrepr.addsection(title, text)
    else:
        report.sections.append((title, text))


class _Index:
    """Collects the runs of a session, those of its workers too, and makes one page of them."""

    def __init__(self, output: str | None) -> None:
        self._output = Path(output).absolute() if output else None
        self._runs: dict[Path, None] = {}
        self._page: Path | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._runs |= {Path(str(value)): None for name, value in report.user_properties if name == _RUN}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if not self._runs:
            return
        from harness.report.index import write_index

        folder = self._output or Path(os.path.commonpath([run.parent for run in self._runs]))
        with contextlib.suppress(OSError):
            self._page = write_index(folder, title="pytest", fresh=self._runs)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._page:
            count = len(self._runs)
            terminalreporter.write_line(f"vmrole: {count} run{'s' * (count != 1)}, see {self._page}")
