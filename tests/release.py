# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.release lock | build | make VERSION``: the locked requirements, and releases (CONTRIBUTING.md)."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
REQUIREMENTS = REPOSITORY / "requirements"
DIST = REPOSITORY / "dist"
EXTRAS = {"build": ("build",), "run": (), "test": ("build", "dev", "pytest")}
"""Lock file to the extras of pyproject.toml that it has beside what a run needs."""
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_UNRELEASED = "## Unreleased\n"


class Refused(Exception):
    """Why there is no release, one sentence."""


def lock(folder: Path = REQUIREMENTS) -> None:
    """Write the newest versions that pyproject.toml allows, with the hashes of their files, for every platform."""
    folder.mkdir(exist_ok=True)
    for name, extras in EXTRAS.items():
        source = REPOSITORY / "pyproject.toml"
        wanted = [f"--extra={extra}" for extra in extras]
        if name == "build":  # these alone: they are installed before anything that is built
            source = folder / "build.in"
            source.write_text("\n".join(_build_tools()) + "\n")
        options = [
            "--universal",
            "--python-version=3.11",
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
            "--upgrade",
        ]
        if name == "test":
            options.append(f"--constraints={folder / 'run.txt'}")
        target = folder / f"{name}.txt"
        if name != "build":
            options += wanted
        _run([_tool("uv"), "pip", "compile", "--upgrade", "--quiet", "--no-config", *options, "-o", target, source])
        target.write_text("# Written by 'make lock' from pyproject.toml.\n" + target.read_text())
        if name == "build":
            source.unlink()


def _build_tools() -> list[str]:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["build"])


def released(text: str, version: str, day: datetime.date) -> str:
    """The changelog ``text`` with what is unreleased in it as ``version``. Raises Refused where nothing is."""
    before, found, after = text.partition(_UNRELEASED)
    entries = after.partition("\n## ")[0]
    if not found or not re.search(r"^- ", entries, re.MULTILINE):
        raise Refused("CHANGELOG.md has no entry below Unreleased")
    return f"{before}{_UNRELEASED}\n## {version} - {day.isoformat()}\n{after}"


def later(version: str, than: str) -> bool:
    """Whether ``version`` is a semantic version after ``than``."""
    if not re.fullmatch(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}", version):
        raise Refused(f"{version!r} is no version such as 1.2.3")
    return [int(part) for part in version.split(".")] > [int(part) for part in than.split(".")]


def make(version: str) -> None:
    """Version, changelog, wheel and sdist, each installed in an empty environment where it runs the sample; then commit
    and tag. Nothing is published. Raises Refused."""
    if _said(["git", "status", "--porcelain"]):
        raise Refused("the working tree has changes that are not committed")
    package, changelog = REPOSITORY / "harness/__init__.py", REPOSITORY / "CHANGELOG.md"
    texts = {path: path.read_text() for path in (package, changelog)}
    (now,) = _VERSION.findall(texts[package])
    if not later(version, now):
        raise Refused(f"{version} does not come after {now}")
    if _said(["git", "tag", "--list", f"v{version}"]):
        raise Refused(f"the tag v{version} is there already")
    notes = released(texts[changelog], version, datetime.datetime.now(datetime.UTC).date())
    try:
        package.write_text(_VERSION.sub(f'__version__ = "{version}"', texts[package]))
        changelog.write_text(notes)
        for distribution in build():
            try_out(distribution, version)
        _run(["git", "commit", "--quiet", "--message", f"Release {version}", package, changelog])
    except BaseException:
        for path, text in texts.items():
            path.write_text(text)
        raise
    _run(["git", "tag", "--annotate", f"v{version}", "--message", f"vmrole {version}"])
    _say(f"{version} is committed and tagged; publish it with: git push --follow-tags, and dist/ to the package index")


def build() -> list[Path]:
    """The wheel and the source distribution, new in dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, REPOSITORY])
    return sorted(DIST.iterdir())


def try_out(distribution: Path, version: str) -> None:
    """Install ``distribution`` into an empty environment outside the clone, with what is locked, and run the sample."""
    _say(f"trying {distribution.name}")
    with tempfile.TemporaryDirectory(prefix="vmrole-release-") as name:
        folder = Path(name)
        _run([Path(sys.base_prefix) / "bin/python3", "-m", "venv", folder / "env"])
        here = folder / "env/bin"
        pip: list[str | Path] = [
            here / "pip",
            "--quiet",
            "--disable-pip-version-check",
            "install",
            "--no-build-isolation",
        ]
        for locked in ("build", "run"):
            _run([*pip, "--require-hashes", "--requirement", REQUIREMENTS / f"{locked}.txt"])
        _run([*pip, "--no-deps", distribution])
        says = _said([here / "vmrole", "--version"], cwd=folder)
        if version not in says.split():
            raise Refused(f"{distribution.name} says that it is {says!r}")
        sample = REPOSITORY / "scenarios/samples/hello-linux.resextpkg"
        _run([here / "vmrole", "run", sample, "-p", "Greeting=Hello", "--output", folder / "run"], cwd=folder)


def _tool(name: str) -> Path:
    return Path(sys.executable).parent / name


def _run(argv: Sequence[str | Path], cwd: Path = REPOSITORY) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, cwd=cwd, env=_environment())


def _said(argv: Sequence[str | Path], cwd: Path = REPOSITORY) -> str:
    done = subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=cwd, env=_environment()
    )
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    subcommands = parser.add_subparsers(dest="what", required=True)
    subcommands.add_parser("lock")
    subcommands.add_parser("build")
    subcommands.add_parser("make").add_argument("version", nargs="?", default="")
    chosen = parser.parse_args()
    try:
        if chosen.what == "lock":
            lock()
        elif chosen.what == "build":
            _say("\n".join(str(path.relative_to(REPOSITORY)) for path in build()))
        elif not chosen.version:
            raise Refused("name the version: make release VERSION=1.2.3")
        else:
            make(chosen.version)
    except Refused as refused:
        sys.stderr.write(f"no release: {refused}\n")
        return 2
    except subprocess.CalledProcessError as error:
        command = " ".join(str(word) for word in error.cmd[:4])
        sys.stderr.write(f"no release: '{command} ...' ended with exit code {error.returncode}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
