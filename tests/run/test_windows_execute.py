# SPDX-License-Identifier: Apache-2.0
"""Steps of Windows profiles, executed by the real executor through the real transport, with Wine on this computer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.protocol import MAX_OUTPUT, Guest, GuestResult
from harness.guest.winrm import WinRmGuest
from harness.guest.wintext import HELPER
from harness.image.catalog import load
from harness.masking import Masker
from harness.package import read_package
from harness.package.parameters import read_parameters
from harness.plan import Event, Plan, Step, make_plan
from harness.run.events import Event as RunEvent
from harness.run.events import EventBus, Notice, StepFinished
from harness.run.execute import Again, _agreed, execute
from harness.run.result import Outcome, StepResult, StepTimeout
from harness.run.system import Done
from harness.run.windows.collect import collect
from harness.run.windows.execute import WindowsExecutor, _engines_fault
from harness.run.windows.job import MOST, Ending, job_of, read_ending
from tests.conftest import HANGS, SAMPLES, NativeWindows, compile_windows
from tests.standin.native import FILLING, in_wine, wine_environment
from tests.standin.programs32 import INSTALLER, program_32

PAYLOAD = "0b1f1c52-93a5-4f0b-8a7d-0d5c1b6c1a0f"
RECORDER = r"""
#include <windows.h>
int wmain(void)
{
    HANDLE file = CreateFileW(L"C:\\recorded.txt", FILE_APPEND_DATA, FILE_SHARE_READ, NULL, OPEN_ALWAYS, 0, NULL);
    char line[8192];
    DWORD done;
    int size = WideCharToMultiByte(CP_UTF8, 0, GetCommandLineW(), -1, line, sizeof line - 1, NULL, NULL);
    line[size - 1] = '\n';
    return !WriteFile(file, line, (DWORD)size, &done, NULL);
}
"""


def program(target: Path, text: str, *options: str) -> None:
    """``target`` from its source, which is left beside it."""
    source = target.with_suffix(".c")
    source.write_text(text)
    compile_windows(source, target, *options)


@pytest.fixture(scope="module")
def guest(native_windows: NativeWindows) -> Iterator[WinRmGuest]:
    with native_windows.connect() as guest:
        yield guest


class Ran:
    """What a run of steps came to."""

    def __init__(self) -> None:
        self.steps: dict[str, StepResult] = {}
        self.notices: list[str] = []
        self.plan: Plan | None = None

    def __call__(self, event: RunEvent) -> None:
        if isinstance(event, StepFinished):
            self.steps[event.step.id] = event.step
        if isinstance(event, Notice):
            self.notices.append(event.text)

    @property
    def outcomes(self) -> dict[str, str]:
        return {id: str(step.outcome) for id, step in self.steps.items() if step.outcome != "not_applicable"}


Run = Callable[..., Ran]


@pytest.fixture
def run(native_windows: NativeWindows, guest: WinRmGuest, tmp_path: Path) -> Run:
    payload = native_windows.drive / "ProgramData/VMRole/Payload"

    def start(
        source: Path | dict[str, Any],
        *parameters: str,
        cannot: tuple[str, ...] = (),
        event: Event = "deploy",
        seconds: float = HANGS,
        slowness: float = 1.0,
        again: Again = lambda _step, _guest: None,
    ) -> Ran:
        if isinstance(source, dict):
            document = tmp_path / "x.resext"
            document.write_text(json.dumps(extension(source)))
            source = document
        shutil.rmtree(payload)
        package = read_package(source)
        if package.payload:
            package.payload.extract(payload)
        else:
            payload.mkdir()
        plan = make_plan(package, read_parameters(package, parameters, None), os="windows", event=event)
        ran, bus = Ran(), EventBus()
        ran.plan = plan
        bus.subscribe(ran)
        hint = load("windows-stand-in").recipe.hint_32
        executor = WindowsExecutor(True, frozenset(cannot), hint_32=hint)
        executor.prepare(plan, guest, bus, deadline=Deadline(HANGS))
        limit = Deadline(seconds)
        execute(plan, executor, guest, bus, deadline=limit, masker=Masker(), slowness=slowness, again=again)
        return ran

    return start


def extension(profile: dict[str, Any]) -> dict[str, Any]:
    return {
        "SchemaVersion": "1.0",
        "Name": "X",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ExtensionSettings": {
            "ApplicationProfile": {
                "Name": "X",
                "ApplicationPayload": [{"ID": PAYLOAD, "RelativePath": "."}],
                "WindowsApplicationProfile": profile,
            }
        },
    }


def script(order: int, line: str, **more: Any) -> dict[str, Any]:
    program, _, rest = line.partition(" ")
    return {
        "ScriptType": "PreInstall",
        "DeploymentOrder": order,
        "ErrorPolicy": "FailOnMatch",
        "ExecutableAndParams": {"Executable": program, "Parameters": rest},
        "TimeoutInSeconds": 600,
    } | more


def scripts(*items: dict[str, Any]) -> dict[str, Any]:
    return {"ProvisioningScripts": list(items)}


def test_warnings_and_patterns(run: Run) -> None:
    ran = run(SAMPLES / "warn")
    assert ran.outcomes == {"preinstall-1": "warned", "preinstall-2": "succeeded", "preinstall-3": "warned"}
    assert ran.steps["preinstall-2"].stdout == "still here\r\n"
    assert "time-out of 3 s" in (ran.steps["preinstall-3"].finding or "")
    assert (ran.steps["preinstall-3"].seconds or 0) >= 3


def test_a_step_that_needs_more_than_its_time_out_in_an_emulated_guest_is_a_warning(run: Run) -> None:
    ran = run(
        scripts(
            script(1, "cmd.exe /c ping.exe -n 4 127.0.0.1 >nul", TimeoutInSeconds=1),
            script(2, "cmd.exe /c echo quick", TimeoutInSeconds=600),
            script(3, "cmd.exe /c exit 3 & rem", TimeoutInSeconds=None),
        ),
        slowness=100.0,
    )
    assert ran.outcomes == {"preinstall-1": "warned", "preinstall-2": "succeeded", "preinstall-3": "failed"}
    first, second, third = ran.steps.values()
    assert first.timeout == StepTimeout(1, 100) and second.timeout == StepTimeout(600, 60000) and third.timeout is None
    assert re.search(r"it took \d+\.\d s, longer than its time-out of 1 s, .* 100 times to 100 s", first.finding or "")


def test_a_step_that_was_stopped_in_an_emulated_guest_says_what_its_author_gave_it(run: Run) -> None:
    endless = "cmd.exe /c ping.exe -n 120 127.0.0.1"
    ran = run(scripts(script(1, endless, TimeoutInSeconds=1), script(2, "cmd.exe /c echo never")), slowness=1.5)
    assert ran.outcomes == {"preinstall-1": "timed_out", "preinstall-2": "skipped"}
    said = ran.steps["preinstall-1"].finding or ""
    assert said.startswith("it was stopped at its time-out of 1.5 s") and "1 s, stretched 1.5 times" in said, said
    assert ran.steps["preinstall-2"].timeout == StepTimeout(600, 900)


def test_standard_error(run: Run, native_windows: NativeWindows) -> None:
    ran = run(SAMPLES / "stderr")
    assert ran.outcomes == {
        "preinstall-1": "warned", "preinstall-2": "succeeded", "preinstall-3": "succeeded", "preinstall-4": "warned",
    }  # fmt: skip
    assert "the console default" in (ran.steps["preinstall-1"].finding or "")
    assert ran.steps["preinstall-1"].stdout == "all is well\r\n"
    assert ran.steps["preinstall-1"].stderr.startswith("careful: ")
    log = native_windows.drive / "VMRole/Log"
    assert (log / "complain.out.txt").read_bytes() == b"all is well\r\n"
    assert (log / "complain.err.txt").read_bytes().startswith(b"careful: ")


def test_vbscript(run: Run, native_windows: NativeWindows) -> None:
    (native_windows.drive / "Resources/DiagnosticStore").mkdir(parents=True, exist_ok=True)
    ran = run(SAMPLES / "vbscript", "Greeting=Good day & more")
    assert ran.outcomes == {"greet": "succeeded"} or ran.outcomes == {"preinstall-1": "succeeded"}, ran.steps
    assert "Good day & more" in ran.steps["preinstall-1"].stdout


def test_msi(run: Run, native_windows: NativeWindows) -> None:
    ran = run(SAMPLES / "msi")
    assert set(ran.outcomes.values()) == {"succeeded"}, ran.steps
    assert (native_windows.drive / "Program Files/VM Role Sample/hello.txt").read_text() == "installed by the MSI\n"
    assert (native_windows.drive / "VMRole/Log/msi.log").stat().st_size


def test_command_lines_arrive_exactly(run: Run, native_windows: NativeWindows) -> None:
    tools = native_windows.drive / "Tools"
    tools.mkdir(exist_ok=True)
    program(tools / "tool.exe", RECORDER, "-municode")
    line = '  /a "b  c" \\"d\\\\ %NOT_SET% ^& | > "" é\t'
    run(scripts(script(1, f"C:\\Tools\\tool.exe {line}")))
    recorded = native_windows.drive / "recorded.txt"
    assert recorded.read_text("utf-8") == f'"C:\\Tools\\tool.exe" {line}\n'
    recorded.unlink()


def test_exit_codes_of_32_bits(run: Run) -> None:
    ran = run(
        scripts(
            script(1, "cmd.exe /c exit -1", ExitCodeRegex="^-1$", ErrorPolicy="WarnAndContinueOnMatch"),
            script(2, "cmd.exe /c exit -1073741819", ExitCodeRegex=None),
        )
    )
    assert [step.exit_code for step in ran.steps.values()] == [4294967295, 3221225477]
    assert list(ran.outcomes.values()) == ["warned", "succeeded"]


def test_a_failure_ends_the_deployment(run: Run) -> None:
    ran = run(scripts(script(1, "cmd.exe /c echo why 1>&2 & exit 9"), script(2, "cmd.exe /c echo never")))
    assert list(ran.outcomes.values()) == ["failed", "skipped"]
    assert "exit code 9 matches" in (ran.steps["preinstall-1"].finding or "")
    assert "why" in (ran.steps["preinstall-1"].finding or "")


def test_environment_input_folder_and_blocks(run: Run) -> None:
    ran = run(
        {
            "ScriptApplications": [
                script(1, "cmd.exe /c echo %FIRST%-%SECOND% & cd", WorkingDirectory="C:\\windows")
                | {"DeploymentName": "app", "EnvironmentVariables": [{"Name": "FIRST", "Value": "a=b"},
                                                                     {"Name": "SECOND", "Value": "c d"}],
                   "ScriptCommands": [script(1, "cmd.exe /c echo before %FIRST%"),
                                      {"ScriptType": "PostInstall", "ErrorPolicy": "FailOnMatch",
                                       "ScriptBlock": "@echo off\nset /p line=\necho [%line%] %SECOND%\nexit /b 3",
                                       "ExitCodeRegex": "", "StandardInput": "given\r\n", "TimeoutInSeconds": 60}]}
            ]
        }
    )  # fmt: skip
    out = {id: step.stdout for id, step in ran.steps.items()}
    assert out["script-app-app-install"] == "a=b-c d \r\nC:\\windows\r\n"
    assert out["script-app-app-preinstall-1"] == "before a=b\r\n"
    assert out["script-app-app-postinstall-1"] == "[given] c d\r\n"
    assert ran.steps["script-app-app-postinstall-1"].exit_code == 3


def test_what_cannot_be_executed_here(run: Run) -> None:
    powershell = "%WINDIR%\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe -Command .\\x.ps1"
    ran = run(
        {
            "WindowsServerRolesAndFeatures": ["Web-Server"],
            **scripts(
                script(1, powershell),
                script(2, "cmd.exe /c echo after"),
                script(3, "cmd.exe /c echo as another", ScriptCredential="domain\\user:secret"),
                script(4, "cmd.exe /c echo as the system", ScriptCredential="NT AUTHORITY\\System:"),
            ),
        },
        cannot=("powershell", "run-as", "features"),
    )
    assert list(ran.outcomes.values()) == [
        "not_executable", "not_executable", "succeeded", "not_executable", "succeeded",
    ]  # fmt: skip
    after = [step.after_unexecuted for step in ran.steps.values()]
    assert after == [False, True, True, True, True]
    findings = [step.finding or "" for step in ran.steps.values()]
    assert "roles and features" in findings[0] and "PowerShell" in findings[1] and "domain\\user" in findings[3]
    assert "secret" not in "".join(findings)


def test_a_swallowed_stub_is_seen(run: Run) -> None:
    swallow = "cmd.exe /c echo gpupdate>>C:\\windows\\vmrole-unavailable.log & exit 0"
    ran = run(scripts(script(1, swallow), script(2, "cmd.exe /c exit 0")))
    assert list(ran.outcomes.values()) == ["not_executable", "succeeded"]
    assert "gpupdate" in (ran.steps["preinstall-1"].finding or "")
    assert [step.after_unexecuted for step in ran.steps.values()] == [False, True]


def test_what_cannot_be_started(run: Run) -> None:
    ran = run(scripts(script(1, "nothing.exe"), script(2, "cmd.exe /c echo never")))
    assert "there is no such program" in (ran.steps["preinstall-1"].finding or "")
    assert list(ran.outcomes.values()) == ["failed", "skipped"]
    ran = run(scripts(script(1, "cmd.exe /c cd", WorkingDirectory="C:\\nowhere")))
    assert "there is no folder C:\\nowhere" in (ran.steps["preinstall-1"].finding or "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("C:\\old.exe", "it is a 32-bit program"),
        ("cmd.exe /c C:\\old.exe", "it started a 32-bit program"),
        ("cmd.exe /c C:\\old.exe & exit 0", "it started a 32-bit program"),
        ("rundll32.exe C:\\old.exe,Entry", "it started a 32-bit program"),
        ("%SystemRoot%\\SysWOW64\\reg.exe query HKLM", "it used reg.exe (32-bit)"),
        (
            "cmd.exe /c %SystemRoot%\\SysWOW64\\WindowsPowerShell\\v1.0\\powershell.exe 1",
            "it used powershell.exe (32-bit)",
        ),
    ],
)
def test_32_bit_programs_are_not_executable(run: Run, native_windows: NativeWindows, line: str, said: str) -> None:
    (native_windows.drive / "old.exe").write_bytes(program_32(7))
    ran = run(scripts(script(1, line), script(2, "cmd.exe /c echo after")), cannot=("programs-32",))
    assert ran.outcomes == {"preinstall-1": "not_executable", "preinstall-2": "succeeded"}, ran.steps
    assert ran.steps["preinstall-1"].finding == (
        f"{said}, which this guest cannot execute; "
        "'vmrole images build windows-stand-in --programs-32' makes an image that can"
    )


def test_an_installer_with_a_32_bit_action_is_not_executable(
    run: Run, native_windows: NativeWindows, tmp_path: Path
) -> None:
    """Wine's would wait without an end for the process that it runs the action in."""
    (tmp_path / "action.dll").write_bytes(program_32(0))
    (tmp_path / "old.wxs").write_text(INSTALLER)
    subprocess.run(["wixl", "-a", "x86", "-o", native_windows.drive / "old.msi", "old.wxs"], cwd=tmp_path, check=True)
    ran = run(scripts(script(1, "msiexec.exe /i C:\\old.msi /qn")), cannot=("programs-32",))
    assert ran.outcomes == {"preinstall-1": "not_executable"}, ran.steps
    assert "it used msiexec.exe (32-bit), which" in (ran.steps["preinstall-1"].finding or "")


def test_endless_output_is_cut(run: Run, native_windows: NativeWindows) -> None:
    endless = "cmd.exe /c for /l %i in (1,1,2000) do @echo 0123456789012345678901234567890123456789"
    ran = run(scripts(script(1, endless, MaxOutputSize=10_000, StandardOutputPath="C:\\new\\folder\\out.txt")))
    assert ran.outcomes == {"preinstall-1": "succeeded"}
    assert len(ran.steps["preinstall-1"].stdout) == 10_000
    assert "longer than is kept" in (ran.steps["preinstall-1"].finding or "")
    assert (native_windows.drive / "new/folder/out.txt").stat().st_size == 10_000


def test_the_author_s_file_gets_all(guest: WinRmGuest, native_windows: NativeWindows) -> None:
    endless = "line=cmd.exe /c for /l %25i in (1,1,500) do @echo 0123456789"
    for more, size in (((), 6000), (("most-kept=70",), 70)):
        _, ending = direct(guest, endless, "most=50", "stdout=C:\\all.txt", *more)
        assert ending.cut and (native_windows.drive / "all.txt").stat().st_size == size


def test_only_the_author_s_limit_is_one_of_the_file() -> None:
    for size, wanted in ((None, []), (10, [b"most-kept=10"]), (1 << 30, [b"most-kept=1073741824"])):
        step = Step(
            id="x", name="x", kind="script", os="windows", command="x", command_line="x", source="", applicable=True,
            account="x", max_output_size=size,
        )  # fmt: skip
        lines = job_of(step, None, watch=False).data.splitlines()
        assert [line for line in lines if line.startswith(b"most-kept")] == wanted
        assert [line for line in lines if line.startswith(b"most=")] == [
            f"most={min(size or MOST, MAX_OUTPUT)}".encode()
        ]


def test_output_files_by_variable_and_in_the_working_directory(
    run: Run, guest: WinRmGuest, native_windows: NativeWindows, tmp_path: Path
) -> None:
    app = script(
        1, "cmd.exe /c echo out& echo err>&2", WorkingDirectory="%SystemDrive%\\windows",
        StandardOutputPath="%SystemDrive%\\by variable\\%OWN%.txt", StandardErrorPath="beside\\err.txt",
    )  # fmt: skip
    own = {"DeploymentName": "app", "EnvironmentVariables": [{"Name": "Own", "Value": "out"}]}
    ran = run({"ScriptApplications": [app | own]})
    assert set(ran.outcomes.values()) == {"warned"}, ran.steps
    assert (native_windows.drive / "by variable/out.txt").read_bytes() == b"out\r\n"
    assert (native_windows.drive / "windows/beside/err.txt").read_bytes() == b"err\r\n"
    assert ran.plan is not None
    collect(guest, ran.plan, tmp_path / "log", mask=lambda data: data, deadline=Deadline(HANGS))
    index = json.loads((tmp_path / "log/index.json").read_text("utf-8")).values()
    assert {"C:\\by variable\\out.txt", "C:\\windows\\beside\\err.txt"} <= set(index), index


def test_the_folder_of_an_output_file_may_be_where_the_step_begins(run: Run, native_windows: NativeWindows) -> None:
    ran = run(scripts(script(1, "cmd.exe /c cd", WorkingDirectory="C:\\made", StandardOutputPath="C:\\made\\x.txt")))
    assert ran.outcomes == {"preinstall-1": "succeeded"}, ran.steps
    assert (native_windows.drive / "made/x.txt").read_bytes() == b"C:\\made\r\n"


def test_new_files_in_the_payload_are_told(run: Run) -> None:
    ran = run(scripts(script(1, "cmd.exe /c echo x>C:\\ProgramData\\VMRole\\Payload\\left.txt")))
    assert any("left.txt" in notice for notice in ran.notices)


def direct(guest: WinRmGuest, *lines: str, body: bytes = b"") -> tuple[int | None, Ending]:
    """A job that is given to the helper as it stands."""
    data = "".join(f"{line}\n" for line in ("nonce=n-1", *lines)).encode() + b"\n" + body
    done = guest.run_line(f'"{HELPER}" run', stdin=data, deadline=Deadline(HANGS))
    return done.exit_code, read_ending("n-1", done.stderr)[1]


def test_what_begins_is_noted(guest: WinRmGuest, native_windows: NativeWindows) -> None:
    begun = native_windows.drive / "ProgramData/VMRole/begun"
    begun.write_text("another one, longer than this")
    assert direct(guest, "line=nothing.exe")[0] == 1
    assert begun.read_text() == "another one, longer than this"
    # The program itself finds it.
    seen = "line=cmd.exe /c type C:\\ProgramData\\VMRole\\begun"
    assert direct(guest, seen, "stdout=C:\\seen.txt")[0] == 0
    assert begun.read_bytes() == (native_windows.drive / "seen.txt").read_bytes() == b"n-1"
    begun.unlink()
    begun.mkdir()
    assert direct(guest, "line=cmd.exe /c exit 7")[0] == 7, "what cannot be noted runs all the same"
    begun.rmdir()


@pytest.mark.parametrize(("announced", "told"), [(None, False), ("0", True), ("30", True), ("3600", False)])
def test_a_restart_that_was_asked_for_is_told(
    guest: WinRmGuest, native_windows: NativeWindows, announced: str | None, told: bool
) -> None:
    """With the end of the program that asked for it, and to whoever asks later. One that is far off does not count."""
    file = native_windows.drive / "ProgramData/VMRole/restarting"
    line = f"cmd.exe /c echo {announced}>C:\\ProgramData\\VMRole\\restarting" if announced else "cmd.exe /c exit 0"
    try:
        code, ending = direct(guest, f"line={line}")
        assert (code, ending.restarting, ending.forwarded) == (0, told, (0, 0))
        assert guest.restarting(deadline=Deadline(HANGS)) == told
    finally:
        file.unlink(missing_ok=True)


ENDS_ITS_HELPER = r"""
#include <windows.h>
#include <stdio.h>
#include <tlhelp32.h>
int main(void)
{
    PROCESSENTRY32 entry = {.dwSize = sizeof entry};
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    puts("once more");
    if (GetFileAttributesA("C:\\ended.txt") != INVALID_FILE_ATTRIBUTES)
        return 5;
    CloseHandle(CreateFileA("C:\\ended.txt", GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL));
    for (BOOL more = Process32First(all, &entry); more; more = Process32Next(all, &entry))
        if (!_stricmp(entry.szExeFile, "vmrole-run.exe"))
            TerminateProcess(OpenProcess(PROCESS_TERMINATE, FALSE, entry.th32ProcessID), 0);
}
"""
"""Ends what would tell of it, as if all were well; the next time itself with 5."""


@pytest.fixture
def ends_its_helper(native_windows: NativeWindows) -> Iterator[str]:
    program(native_windows.drive / "ends.exe", ENDS_ITS_HELPER)
    yield "C:\\ends.exe"
    (native_windows.drive / "ended.txt").unlink()


def test_a_telling_that_is_cut_is_not_judged(run: Run, ends_its_helper: str) -> None:
    with pytest.raises(GuestError, match="what became of step preinstall-1 is not known") as caught:
        run(scripts(script(1, ends_its_helper), script(2, "cmd.exe /c exit 0")))
    assert caught.value.exit_code == 3 and caught.value.blame == "guest"


def test_the_second_answer_of_a_step_counts_and_is_told(run: Run, ends_its_helper: str) -> None:
    asked: list[str] = []

    def again(step: Step, lost: Guest) -> Guest:
        asked.append(step.id)
        return lost

    ran = run(scripts(script(1, ends_its_helper), script(2, "cmd.exe /c exit 0")), again=again)
    assert (ran.outcomes, asked) == ({"preinstall-1": "failed", "preinstall-2": "skipped"}, ["preinstall-1"])
    step = ran.steps["preinstall-1"]
    assert step.exit_code == 5 and step.stdout == "once more\r\n"
    assert "this is its second answer: it was run again from the checkpoint before it" in (step.finding or "")


def test_a_step_whose_answer_is_lost_twice(run: Run, ends_its_helper: str, native_windows: NativeWindows) -> None:
    def again(_step: Step, lost: Guest) -> Guest:
        (native_windows.drive / "ended.txt").unlink()
        return lost

    with pytest.raises(GuestError, match="its answer was lost twice"):
        run(scripts(script(1, ends_its_helper)), again=again)


def test_two_answers_that_differ() -> None:
    def answer(code: int | None, outcome: Outcome = Outcome.succeeded) -> Done:
        return Done(outcome, GuestResult(code, b"", b"", 0.1), "the end was lost")

    lost = Outcome.unknown
    differ = _agreed(answer(5, lost), answer(0))
    assert differ.outcome is lost and differ.finding == (
        "two answers from the same checkpoint differ: exit code 5, then exit code 0"
    )
    assert _agreed(answer(5, lost), answer(None, Outcome.timed_out)).outcome is lost
    assert _agreed(answer(5, lost), answer(5, Outcome.failed)).outcome is Outcome.failed
    assert _agreed(answer(None, lost), answer(0)).outcome is Outcome.succeeded


def test_the_stand_in_s_own_exit_code_is_not_judged_either(run: Run) -> None:
    """Its name is not there where the end was cut."""
    ran = run(scripts(script(1, "cmd.exe /c exit 9150")))
    assert ran.outcomes == {"preinstall-1": "not_executable"}


def test_a_slow_client_gets_all(native_windows: NativeWindows, tmp_path: Path) -> None:
    filling, ended = tmp_path / "filling.exe", tmp_path / "ended"
    program(filling, FILLING)
    line = " ".join(f"Z:{path}".replace("/", "\\") for path in (filling, ended))
    helper = native_windows.drive / "Program Files/VMRole/vmrole-run.exe"
    with subprocess.Popen(
        in_wine(helper, "run"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=wine_environment(native_windows.drive.parent),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(f"nonce=n-1\nline={line}\n\n".encode())
        process.stdin.close()
        assert Deadline(HANGS).poll(lambda: ended.exists() or None)
        time.sleep(2)
        got = len(process.stdout.read())
        ending = read_ending("n-1", process.stderr.read())[1]
    assert ending.exit_code and got >= ending.exit_code * 4096 and not ending.cut


def test_what_is_left_running_and_talks_on_is_cut_off(guest: WinRmGuest, native_windows: NativeWindows) -> None:
    program(
        native_windows.drive / "talking.exe",
        "#include <windows.h>\n#include <stdio.h>\nint main(void) { for (int i = 0; i < 200; i++) "
        '{ fputs("on and on\\n", stderr); fflush(stderr); Sleep(20); } }',
    )
    code, ending = direct(guest, "line=cmd.exe /c start /b C:\\talking.exe & exit 3")
    assert (code, ending.exit_code, ending.cut) == (3, 3, True)
    code, ending = direct(guest, "line=cmd.exe /c start /b ping.exe -n 4 127.0.0.1 >nul & exit 3")
    assert (code, ending.exit_code, ending.cut) == (3, 3, False), "what is silent takes nothing away"


@pytest.mark.parametrize("wrong", ["stdin=C:\\none.txt", "stdout=C:\\windows", "stderr=C:\\windows"])
def test_a_script_that_cannot_begin_leaves_nothing(
    guest: WinRmGuest, native_windows: NativeWindows, wrong: str
) -> None:
    body = b"@echo a secret\r\n"
    code, ending = direct(guest, "script=C:\\Scripts\\x.cmd", f"script-size={len(body)}", wrong, body=body)
    assert code == 1 and wrong.partition("=")[2] in ending.failed
    assert not (native_windows.drive / "Scripts/x.cmd").exists()


PRODUCTS: dict[str, Any] = {
    "SQLProfile": {
        "SQLDeployments": [
            {"DeploymentName": "One", "InstanceName": "I1", "InstanceID": "I1", "MediaSource": "C:\\SQL\\setup.exe",
             "SQLAuthenticationType": "SQLServerAuthentication", "SAPassword": "Sa-Secret-1",
             "SQLServiceCredential": "NT AUTHORITY\\NetworkService:", "EnableTCP": True}
        ]
    },
    "WebDeployApplications": [
        {"DeploymentName": "Site", "ApplicationPayloadId": PAYLOAD, "PackagePassword": "Pack Secret",
         "WebDeployParameters": [{"ParameterName": "CONNECTION_STRING", "Value": "Server=x;Password=\"q\""}]}
    ],
    "SQLDacApplications": [
        {"DeploymentName": "Data", "ApplicationPayloadId": PAYLOAD, "DacInstance": "Shop", "SQLInstance": ".\\I1",
         "SQLAuthenticationType": "SQLServerAuthentication", "SQLDeploymentCredential": "sa:Sa-Secret-1",
         "UninstallMode": "DropDatabase",
         "SQLScriptCommands": [{"DatabaseName": "Shop", "ScriptType": "PostInstall", "DeploymentOrder": 1,
                                "SQLAuthenticationType": "SQLServerAuthentication",
                                "ScriptCredential": "sa:Sa-Secret-1", "SQLScriptApplicationPayloadId": PAYLOAD,
                                "OutputFilePath": "C:\\SqlLog\\out.log"}]}
    ],
}  # fmt: skip


def test_tools_that_are_missing(run: Run) -> None:
    ran = run(PRODUCTS, cannot=("run-as",))
    assert set(ran.outcomes.values()) == {"not_executable"}, ran.outcomes
    told = " ".join(ran.notices)
    assert all(tool in told for tool in ("setup.exe", "msdeploy.exe", "SqlPackage.exe", "sqlcmd.exe"))


def test_tools_get_their_command_lines(run: Run, native_windows: NativeWindows) -> None:
    drive = native_windows.drive
    source = drive / "tool.c"
    source.write_text(RECORDER)
    places = (
        "SQL/setup.exe",
        "Program Files/IIS/Microsoft Web Deploy V3/msdeploy.exe",
        "Program Files/Microsoft SQL Server/150/DAC/bin/SqlPackage.exe",
        "Program Files/Microsoft SQL Server/Client SDK/ODBC/170/Tools/Binn/sqlcmd.exe",
    )
    for place in places:
        (drive / place).parent.mkdir(parents=True, exist_ok=True)
        compile_windows(source, drive / place, "-municode")
    try:
        ran = run(PRODUCTS, cannot=("run-as",))
        assert set(ran.outcomes.values()) == {"succeeded"}, ran.steps
        lines = (drive / "recorded.txt").read_text("utf-8").splitlines()
        (drive / "recorded.txt").unlink()
        assert lines[0].startswith('"C:\\SQL\\setup.exe" /QUIET /ACTION=CompleteImage /IACCEPTSQLSERVERLICENSETERMS')
        assert '/SECURITYMODE=SQL /SAPWD="Sa-Secret-1"' in lines[0]
        assert lines[1] == (
            'msdeploy.exe -verb:sync -source:package="C:\\ProgramData\\VMRole\\Payload",encryptPassword="Pack Secret" '
            '-dest:auto -setParam:name="CONNECTION_STRING",value="Server=x;Password=\\"q\\""'
        )
        assert lines[2].startswith("SqlPackage.exe /Action:Publish ") and '/TargetUser:"sa"' in lines[2]
        assert lines[3].startswith("sqlcmd.exe -b ") and '-d "Shop"' in lines[3]
        assert (drive / "SqlLog").is_dir(), "the folder of its output file"
        ran = run(PRODUCTS, cannot=("run-as",), event="delete")
        assert "DROP DATABASE [Shop]" in (drive / "recorded.txt").read_text("utf-8")
    finally:
        for place in places:
            (drive / place).unlink()


def test_a_hundred_megabytes(run: Run, native_windows: NativeWindows) -> None:
    """Of endless output what is kept arrives, and the ending with it; the rest never leaves the guest."""
    program(
        native_windows.drive / "much.exe",
        "#include <stdio.h>\n#include <string.h>\nint main(void) { static char a[65536]; memset(a, 'x', sizeof a); "
        "for (int i = 0; i < 1600; i++) { fwrite(a, 1, sizeof a, stdout); fwrite(a, 1, sizeof a, stderr); } "
        "return 5; }",
    )
    ran = run(scripts(script(1, "C:\\much.exe", MaxOutputSize="20971520", ErrorPolicy="WarnAndContinueOnMatch",
                             TimeoutInSeconds=600)))  # fmt: skip
    step = ran.steps["preinstall-1"]
    assert (str(step.outcome), step.exit_code) == ("warned", 5)
    assert "exit code 5 matches" in (step.finding or "") and "longer than is kept" in (step.finding or "")


@pytest.mark.parametrize(("code", "then"), [(0, "went on"), (1, "ended with exit code 1")])
def test_a_command_that_powershell_does_not_know_proves_nothing(code: int, then: str) -> None:
    """Windows may have it, also where the script ended at it."""
    said = "Install-Thing: C:\\x.ps1:2\nLine |\n   2 | Install-Thing\n     | The term 'Install-Thing' is not "
    said += "recognized as a name of a cmdlet, function, script file, or executable program."
    told = f"it used Install-Thing, which the PowerShell of the stand-in guest does not know, and {then}"
    assert _engines_fault(code, "", said, warm=False) == told
    assert _engines_fault(code, "", "Get-Item: Cannot find path", warm=False) is None
