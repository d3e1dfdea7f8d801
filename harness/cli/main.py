# SPDX-License-Identifier: Apache-2.0
"""The command `vmrole`. Commands are imported when used: `vmrole --version` must not load libvirt."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from harness import __version__
from harness.errors import VmRoleError

_COMMANDS = {
    "run": ("harness.cli.run", "Deploy an extension into a throwaway machine."),
    "replay": ("harness.cli.replay", "Go on from a failed run as it was before a step."),
    "exec": ("harness.cli.exec", "One command in a throwaway machine, specialised as in run."),
    "shell": ("harness.cli.shell", "An interactive session in a kept or a fresh machine."),
    "nightly": ("harness.cli.nightly", "Run a matrix of packages, images and parameters."),
    "check": ("harness.cli.check", "Say what is odd, doubtful or wrong in a package."),
    "plan": ("harness.cli.plan", "Show what a package would run, in which order and why."),
    "new": ("harness.cli.new", "Scaffold an extension."),
    "pack": ("harness.cli.pack", "Make a package of a folder."),
    "schema": ("harness.cli.schema", "JSON Schemas of the documents, for editors."),
    "images": ("harness.cli.images", "List, build and remove guest images."),
    "doctor": ("harness.cli.doctor", "What this host has and lacks for a run."),
    "sweep": ("harness.cli.sweep", "Remove what dead runs left behind."),
}


class _StoppedError(Exception):
    """An OSError on its way past click, which ends the process with 1 where a pipe has no reader."""

    def __init__(self, error: OSError) -> None:
        self.error = error


@contextlib.contextmanager
def _past_click() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _StoppedError(error) from error


class _Lazy(click.Group):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _past_click():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _past_click():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"there is no command {args[0][:60]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", message="vmrole %(version)s")
def vmrole() -> None:
    """Run VM Role resource extensions end to end in real throwaway virtual machines."""


def main() -> None:
    """Entry point: one sentence and the promised exit code for every error that is not a bug."""
    from harness.cli import streams

    streams.guard()
    # looking for plugins of pydantic reads every installed distribution: a tenth of the time that `check` takes
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        code = _told()
        _end_undisturbed()
    except KeyboardInterrupt as error:  # between the last command's end and here
        _end_undisturbed()
        sys.exit(streams.finish(128 + getattr(error, "signum", 2)))
    except streams.StreamError as error:
        sys.exit(streams.refused(error, _code(3)))
    sys.exit(streams.finish(code))


def _end_undisturbed() -> None:
    """What signals ask for happens already, and takes no time that is worth another exit code: this process ends, and
    closes what it has."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _told() -> int:
    """Carry out the command line and tell what went wrong; the exit code."""
    from harness.cli.streams import StreamError

    try:
        vmrole.main(standalone_mode=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except click.exceptions.Abort as error:  # what click makes of a KeyboardInterrupt
        return _say(128 + getattr(error.__cause__, "signum", 2), lambda: click.echo("vmrole: interrupted", err=True))
    except click.ClickException as error:
        return _say(_code(2), error.show)
    except VmRoleError as error:
        told = error
        return _say(_code(error.exit_code), lambda: tell(told, code=_code(told.exit_code)))
    except _StoppedError as stopped:
        if isinstance(stopped.error, StreamError):
            raise stopped.error from None
        if os.environ.get("VMROLE_DEBUG"):
            raise
        from harness.files import refusal

        refused = refusal(stopped.error)
        return _say(_code(3), lambda: tell(refused, code=_code(3)))
    return 0


def _say(code: int, say: Callable[[], object]) -> int:
    """``code``, which stands also when nobody can be told why."""
    from harness.cli.streams import StreamError, refused

    try:
        say()
    except StreamError as error:
        return refused(error, code)
    return code


def _code(ours: int) -> int:
    """The exit code of a failure of ours: that of `exec` has to differ from what its command exits with."""
    return 125 if sys.argv[1:2] == ["exec"] else ours


def say(message: str, hint: str | None = None) -> None:
    """A sentence on standard error, and what to do."""
    from harness.package.findings import one_line

    click.echo(f"vmrole: {one_line(message)}", err=True)
    if hint:
        click.echo(f"        {one_line(hint)}", err=True)


def tell(error: VmRoleError, *, code: int) -> int:
    """Say ``error`` on standard error, and as the one JSON document when that was asked for; returns ``code``."""
    say(error.message, error.hint)
    arguments = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    if "--json" in arguments:
        told = {"message": error.message, "hint": error.hint, "blame": error.blame}
        click.echo(json.dumps({"schema": 1, "error": told, "exit_code": code}, indent=2))
    return code
