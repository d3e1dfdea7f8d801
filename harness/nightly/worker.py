# SPDX-License-Identifier: Apache-2.0
"""The process of one run: ``python -m harness.nightly.worker``, its job as a line of JSON on standard input.

One process per run, because a process has one libvirt root, and because whatever kills a run must not take the night
with it. Standard input stays open as long as the nightly lives: its end is a signal to stop in order, so that the death
of the nightly leaves no machine behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import VmRoleError

_PATHS = (
    "output", "extension", "parameters_file", "certificate_password_file", "admin_password_file",
    "service_definition", "service_configuration", "pretend_modules",
)  # fmt: skip
_TUPLES = ("parameters", "certificates", "local_resources", "external_payload", "events", "pretend")


def main() -> NoReturn:
    from harness.cli.run import carry_out, prepare
    from harness.run.interrupt import interruptible

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit(128 + signal.SIGTERM)  # the nightly died while it wrote
    job = json.loads(line)
    options = arguments(job["options"])
    path = Path(job["path"])
    with interruptible():
        threading.Thread(target=_stop_with_the_nightly, daemon=True).start()
        try:
            request = prepare(path, **options)
        except VmRoleError as error:
            tell_unrun(options["output"], job["package"], options["case"], error)
            sys.exit(error.exit_code)
        carry_out(dataclasses.replace(request, name=request.output.name), as_json=False)


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options as `prepare` takes them, from JSON."""
    made = {name: Path(options[name]) if options.get(name) is not None else None for name in _PATHS}
    tuples = {name: tuple(options.get(name, ())) for name in _TUPLES}
    return {"keep": "never", "case": ""} | options | made | tuples


def tell_unrun(folder: Path, package: str, case: str, error: VmRoleError) -> None:
    """A run directory, as every run has one, for a run that ended before it began."""
    from harness.cli.reporting import reporting
    from harness.masking import Masker
    from harness.run.events import RunFinished, RunStarted
    from harness.run.result import conclude

    with reporting(Masker(()), folder=folder) as (bus, recorder):
        bus.emit(RunStarted(run=folder.name, title=package, extension=package, case=case))
        if error.hint:
            bus.notice("note", f"what to do: {error.hint}")
        conclusion = conclude((), error=error)
        bus.emit(RunFinished(result=recorder.result(conclusion), exit_code=conclusion.exit_code))


def _stop_with_the_nightly() -> None:
    # os.read, not the buffered reader: nothing may hold its lock when the process ends
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
