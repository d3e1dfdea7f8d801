# SPDX-License-Identifier: Apache-2.0
"""Run directories of runs as they come, written by the reports themselves from events with chosen times."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.errors import GuestNotReadyError
from harness.machine.protocol import Accelerator
from harness.masking import Masker
from harness.report.html import HtmlReport
from harness.report.json_files import JsonFiles
from harness.run import events
from harness.run.readback import Observation
from harness.run.recorder import Recorder
from harness.run.result import CertificateResult, ImageFacts, LocalResourceResult, Outcome, StepResult, conclude

BEGAN = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</pre></details></main><h1>fake</h1> \u202etxet desrever\u202c \x1b]8;;http://evil.example\x07link\x1b]8;;\x07"
    "<style>*{display:none}</style><!-- --> {{ 7*7 }} {% raw %} &lt;b&gt; \x00\x07\x9b31m"
)


class Story:
    """Tells a run to its reports, second by second."""

    def __init__(self, directory: Path, *, secrets: Iterable[str] = (), **started: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.now = BEGAN
        self.recorder = Recorder()
        masker = Masker(secrets)
        self._reports: list[Callable[[events.Event], None]] = [
            self.recorder, JsonFiles(directory, masker), HtmlReport(directory, masker),
        ]  # fmt: skip
        facts = {"extension": "WebFarm", "version": "2.1.0.0", "title": "WebFarm on debian-12"} | started
        self.tell(events.RunStarted, run=directory.name, **facts)
        self.tell(
            events.MachineChosen,
            image=ImageFacts("debian-12", "0123456789abcdef"),
            accelerator=Accelerator("tcg", "there is no /dev/kvm on this host"),
            forked=True,
            fork_reason="the template 31c46b262bfdbd52 was there already",
        )

    def tell(self, what: Callable[..., events.Event], /, **fields: Any) -> None:
        event = what(at=self.now, **fields)
        for report in self._reports:
            report(event)

    def phase(self, name: str, seconds: float, *, ok: bool = True) -> None:
        self.tell(events.PhaseStarted, name=name)
        self.now += timedelta(seconds=seconds)
        self.tell(events.PhaseFinished, name=name, seconds=seconds, ok=ok)

    def machine(self) -> None:
        """Everything before the steps."""
        for name, seconds in (("image", 0.02), ("boot", 0.61), ("connect", 0.01), ("read-back", 0.4)):
            self.phase(name, seconds)
        self.tell(
            events.SpecializationRead,
            observations=(
                Observation("computer-name", "WEB-01", "WEB-01", True),
                Observation("time-zone", "UTC", "UTC (UTC +0000)", True),
                Observation("locale", "en_US.UTF-8", "C.UTF-8", False),
                Observation("entropy", "its own", "cannot be seen from outside", True, provable=False),
            ),
            certificates=(CertificateResult("AB" * 20, "My", f"/var/lib/waagent/{'AB' * 20}.crt"),),
            local_resources=(LocalResourceResult("Data", "/resources/Data", 20),),
        )

    def step(self, step: StepResult, *, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """A step that takes its ``seconds``; one that never started has none."""
        if step.seconds is None and step.started is None:
            self.tell(events.StepFinished, step=step)
            return
        step = dataclasses.replace(step, started=self.now)
        self.tell(events.StepStarted, id=step.id, name=step.name, kind=step.kind, command=step.command)
        if step.seconds is None:
            return
        self.now += timedelta(seconds=step.seconds)
        texts = {
            "stdout": step.stdout or stdout[-2000:].decode("utf-8", "replace"),
            "stderr": step.stderr or stderr[-2000:].decode("utf-8", "replace"),
        }
        done = dataclasses.replace(step, **texts)  # type: ignore[arg-type]
        self.tell(
            events.StepFinished,
            step=done,
            stdout=stdout or step.stdout.encode(),
            stderr=stderr or step.stderr.encode(),
        )

    def steps(self, steps: Sequence[StepResult], *, ok: bool = True) -> None:
        self.tell(events.PhaseStarted, name="steps")
        began = self.now
        for step in steps:
            self.step(step)
        seconds = (self.now - began).total_seconds()
        self.tell(events.PhaseFinished, name="steps", seconds=seconds, ok=ok)

    def finish(
        self, *, error: BaseException | None = None, again: str = "", replay: str = "", seconds: float | None = None
    ) -> Path:
        """Conclude as the runner does; returns the page."""
        conclusion = conclude(self.recorder.instances, error=error, warnings=self.recorder.warnings)
        if again:
            self.tell(events.RunRepeatable, command=again, replay=replay)
        self.tell(
            events.RunFinished,
            result=self.recorder.result(conclusion),
            exit_code=conclusion.exit_code,
            seconds=(self.now - BEGAN).total_seconds() if seconds is None else seconds,
        )
        return self.directory / "report.html"


def ran(id: str, outcome: Outcome = Outcome.succeeded, seconds: float = 0.2, **fields: Any) -> StepResult:
    code = {"exit_code": 0} if outcome is Outcome.succeeded else {}
    facts: dict[str, Any] = {"command": f"/bin/sh /var/lib/vmrole/payload/{id}.sh", "seconds": seconds} | code | fields
    return StepResult(id, facts["command"], "run-once", outcome, **facts)


def success(directory: Path) -> Path:
    story = Story(directory)
    story.machine()
    story.steps([ran("run-once-1", seconds=1.4, stdout="Good morning\n")])
    story.phase("collect", 0.2)
    story.phase("remove", 0.01)
    return story.finish()


def failure(directory: Path) -> Path:
    """The one in the documentation's picture."""
    story = Story(directory, case="test_web_farm[debian-12]")
    (directory / "findings.json").write_text(json.dumps({"findings": [
        {"severity": "warning", "code": "command-file-missing", "sentence": "the payload has no file check.sh",
         "hint": "add it, or correct its name", "file": "webfarm.resext", "line": 41, "column": 22},
        {"severity": "info", "code": "command-shell-syntax", "sentence": "> is a plain argument outside a shell",
         "hint": "", "file": "webfarm.resext", "line": 44, "column": 22},
    ]}))  # fmt: skip
    guest = directory / "guest"
    guest.mkdir()
    (guest / "journal.log").write_text(
        "Mar 14 09:26:55 WEB-01 systemd[1]: nginx.service: Failed with result 'exit-code'.\n"
    )
    (guest / "file-001.log").write_text("bind() to 0.0.0.0:80 failed (98: Address already in use)\n")
    (guest / "index.json").write_text(json.dumps({"file-001.log": "/var/log/nginx/error.log"}))
    (directory / "console.log").write_text(
        "vmrole: stage booting\nvmrole: stage specializing\nvmrole: stage ready 31c46b\n"
    )
    story.machine()
    story.steps(
        [
            ran("preinstall-1", seconds=0.3, command='/bin/sh -c "groupadd --system www"', stdout="created\n"),
            ran("script-app-site-install", seconds=4.2, command="/bin/sh /var/lib/vmrole/payload/install.sh --port 80",
                stdout="unpacking site.tar\n\x1b[32minstalled 214 files\x1b[0m\n"),
            ran("script-app-site-configure", Outcome.warned, 0.8, exit_code=1,
                command="/bin/sh /var/lib/vmrole/payload/configure.sh", finding="no host name given, using localhost",
                stderr="\x1b[33mwarning:\x1b[0m no host name given, using localhost\n"),
            ran("script-app-site-start", Outcome.failed, 6.1, exit_code=3,
                command="/usr/bin/systemctl start nginx --wait",
                finding="its standard error matches the failure pattern emerg",
                stdout="starting nginx\n",
                stderr="nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)\n"
                "nginx: [emerg] still could not bind()\n"
                "Job for nginx.service failed because the control process exited with error code.\n"),
            StepResult("script-app-site-check", "check", "script-application", Outcome.skipped,
                       "/bin/sh /var/lib/vmrole/payload/check.sh",
                       finding="step script-app-site-start failed the deployment"),
            StepResult("feature-Web-Server", "Web-Server", "feature", Outcome.not_applicable, "Install-WindowsFeature",
                       finding="a step for windows"),
        ],
        ok=False,
    )  # fmt: skip
    story.tell(
        events.Notice, severity="warning", text="the extension requires Ubuntu, which debian-12 does not declare"
    )
    story.phase("collect", 0.5)
    story.phase("remove", 0.02)
    story.tell(events.Notice, severity="note", text=f"everything about this run is in {directory.name}")
    return story.finish(
        again="vmrole run webfarm --image debian-12@0123456789abcdef -p Port=80 -p Admin=@Admin.secret",
        replay=f"vmrole replay vmrole-runs/{directory.name} --from script-app-site-start",
    )


def incomplete(directory: Path) -> Path:
    story = Story(directory)
    story.machine()
    why = "a stand-in for Windows installs no MSI package"
    story.steps([
        ran("preinstall-1"),
        StepResult("msi-app", "app.msi", "script", Outcome.not_executable, "msiexec /i app.msi", finding=why),
        ran("run-once-1", after_unexecuted=True),
    ])  # fmt: skip
    return story.finish()


def interrupted(directory: Path) -> Path:
    """While a step was running."""
    story = Story(directory)
    story.machine()
    story.tell(events.PhaseStarted, name="steps")
    story.step(ran("run-once-1"))
    story.step(dataclasses.replace(ran("run-once-2"), seconds=None, started=BEGAN))
    story.now += timedelta(seconds=3)
    return story.finish(error=KeyboardInterrupt())


def not_ready(directory: Path) -> Path:
    """A guest that panicked while it booted."""
    story = Story(directory)
    (directory / "console.log").write_text(
        "".join(f"[{n / 10:9.6f}] line {n}\n" for n in range(3000)) + "Kernel panic - not syncing: VFS\n"
    )
    story.phase("image", 0.02)
    story.phase("boot", 7.5, ok=False)
    return story.finish(
        error=GuestNotReadyError("the guest's kernel panicked: VFS; it reached stage booting"), again="vmrole run x"
    )


def long(directory: Path, count: int = 200) -> Path:
    """Many steps, two of which went wrong."""
    story = Story(directory)
    story.machine()
    special = {count // 3: Outcome.warned, count // 2: Outcome.failed}
    steps = []
    for number in range(1, count + 1):
        outcome = special.get(number, Outcome.succeeded)
        code = 7 if outcome is not Outcome.succeeded else 0
        seconds = 0.05 + (number * 7919 % 97) / 60 + (9 if number == count // 4 else 0)
        steps.append(ran(f"run-once-{number}", outcome, seconds, exit_code=code, stdout=f"step {number}\n" * 30,
                         stderr="it broke\n" if code else ""))  # fmt: skip
    story.steps(steps)
    story.phase("collect", 0.4)
    return story.finish()


def huge(directory: Path) -> Path:
    """Five megabytes of each stream, one of them a single line."""
    story = Story(directory)
    story.machine()
    story.tell(events.PhaseStarted, name="steps")
    lines = b"".join(b"%07d the quick brown fox jumps over the lazy dog\n" % n for n in range(100_000))
    story.step(ran("run-once-1"), stdout=lines, stderr=b"x" * 5_000_000)
    story.step(
        ran("run-once-2", Outcome.failed, exit_code=1, finding="it broke"), stdout=lines, stderr=b"y" * 5_000_000
    )
    story.tell(events.PhaseFinished, name="steps", seconds=0.4)
    (directory / "console.log").write_bytes(b"z" * 4_000_000)
    return story.finish()


def hostile(directory: Path) -> Path:
    """Everything that a guest or an author can choose says something evil."""
    story = Story(directory, extension=HOSTILE, version=HOSTILE, case=HOSTILE, title=HOSTILE)
    guest = directory / "guest"
    guest.mkdir()
    (guest / "file-001.log").write_text(HOSTILE)
    (guest / "file-002").write_bytes(b"\x7fELF\0\0" + HOSTILE.encode())
    (guest / "index.json").write_text(
        json.dumps({"file-001.log": f"/var/log/{HOSTILE}", "file-002": "/var/log/binary"})
    )
    (directory / "console.log").write_text(HOSTILE)
    (directory / "findings.json").write_text(json.dumps({"findings": [
        dict.fromkeys(("severity", "code", "sentence", "hint", "file", "line", "column"), HOSTILE),
    ]}))  # fmt: skip
    story.machine()
    story.tell(events.Notice, severity="warning", text=HOSTILE, hint=HOSTILE)
    story.tell(events.ScenarioActed, what=HOSTILE, seconds=1.0, ok=False, told=HOSTILE)
    bomb = "".join(f"\x1b[3{n % 8};1m{n}" for n in range(30_000))
    zalgo = "Z" + "\u0335\u0321\u0353" * 200
    rtl = "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u200f\u202e" * 20
    story.steps([
        ran(HOSTILE, Outcome.warned, exit_code=1, command=HOSTILE, finding=HOSTILE, stdout=HOSTILE, stderr=HOSTILE),
        ran("../../../etc/passwd", command=rtl, stdout=rtl, stderr=zalgo),
        ran("bomb", Outcome.failed, exit_code=2, command="x" * 20_000, stdout=bomb, stderr=f"\x1b[31m{HOSTILE}\x1b[0m"),
    ])  # fmt: skip
    return story.finish(again=HOSTILE, replay=HOSTILE)
