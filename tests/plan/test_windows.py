# SPDX-License-Identifier: Apache-2.0
"""What the steps of the Windows profile hold, beyond their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.package import read_package, read_parameters
from harness.package.patterns import Defaults
from harness.plan import Event, Plan, make_plan
from harness.plan.guestpaths import PAYLOAD_FOLDER, expand_environment, parent_folders
from tests.package.material import published_folders, seed_document, with_profile, write
from tests.plan.test_plan import script

ID = "49c1ccdb-9068-4b91-9409-0a7ca8a1d291"


def plan_of(
    folder: Path,
    windows: dict[str, Any],
    *given: str,
    event: Event = "deploy",
    instance: int = 1,
    pattern_defaults: Defaults = "recorded",
    payload: str = "Scripts",
    parameters: tuple[tuple[str, str], ...] = (),
) -> Plan:
    document = with_profile(windows=windows, parameters=parameters)
    document["ExtensionSettings"]["ApplicationProfile"]["ApplicationPayload"] = [{"ID": ID, "RelativePath": payload}]
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src"}
    (folder / "src/Scripts").mkdir(parents=True, exist_ok=True)
    (folder / "src/Scripts/a.ps1").write_text("exit 0")
    write(folder, document)
    package = read_package(folder)
    return make_plan(
        package,
        read_parameters(package, given),
        os="windows",
        event=event,
        instance=instance,
        strict=False,
        pattern_defaults=pattern_defaults,
    )


def test_scripts_start_in_their_payload(tmp_path: Path) -> None:
    scripts = [
        script(ApplicationPayloadId=ID.upper()),
        script(ApplicationPayloadId=ID, WorkingDirectory="sub"),
        script(ApplicationPayloadId=ID, WorkingDirectory="%TEMP%\\x"),
        script(),
        script(ScriptType="OnDeleteLast", ApplicationPayloadId=ID),
    ]
    folders = [step.working_directory for step in plan_of(tmp_path, {"ProvisioningScripts": scripts}).steps]
    assert folders == [f"{PAYLOAD_FOLDER}\\Scripts", f"{PAYLOAD_FOLDER}\\Scripts\\sub", "%TEMP%\\x", None]
    (step,) = plan_of(tmp_path, {"ProvisioningScripts": scripts}, event="delete").steps
    assert (step.id, step.working_directory, step.payload_id) == ("on-delete-last-1", None, None)
    plan = plan_of(tmp_path, {"ProvisioningScripts": scripts[:1]}, payload="Scripts/a.ps1")
    assert plan.steps[0].working_directory == f"{PAYLOAD_FOLDER}\\Scripts"


def test_everything_about_a_script(tmp_path: Path) -> None:
    full = script(
        StandardOutputPath="c:\\VMRole\\Log\\out.txt",
        StandardErrorPath="C:\\vmrole\\log\\err.txt",
        StandardInput="yes",
        MaxOutputSize="1048576",
        RestartOnRetry="true",
        RestartOnExitCodeReboot=True,
        RebootExitCodeRegex="{1641}|{3010}",
        ExitCodeRegex="[[1-9][[0-9]*",
        StandardErrorRegex="[Param.Bad]",
    )
    given = {"parameters": (("Bad", "String"),)}
    (step,) = plan_of(tmp_path, {"ProvisioningScripts": [full]}, "Bad=oops", **given).steps  # type: ignore[arg-type]
    assert (step.executable, step.parameters, step.script_block) == ("cmd.exe", "/c ver", None)
    assert step.folders == ("c:\\VMRole\\Log",) and step.max_output_size == 1048576
    assert (step.stdin, step.stdin_path) == (b"yes", None)
    assert step.policy is not None and step.policy.restart_on_retry and step.policy.restart_on_exit_code_reboot
    assert step.policy.exit_code.pattern == "[1-9][0-9]*"
    assert step.policy.judge(0, "", "oops").outcome == "failed" and step.policy.judge(3010).rerun
    assert step.as_json()["patterns"] == {"exit_code": "[1-9][0-9]*", "stdout": None, "stderr": "oops"}
    assert step.reboot == "exit code 1641, 3010"


def test_a_script_block_is_a_batch_text(tmp_path: Path) -> None:
    block = {"ScriptBlock": "rem one\r\nrem two", "ExecutableAndParams": None, "StandardInput": "c:\\in.txt"}
    (step,) = plan_of(tmp_path, {"ProvisioningScripts": [script(**block)]}).steps
    assert (step.script_block, step.executable, step.name) == ("rem one\r\nrem two", None, "rem one rem two")
    assert (step.stdin, step.stdin_path) == (b"", "c:\\in.txt")


def test_pattern_defaults(tmp_path: Path) -> None:
    windows = {"ProvisioningScripts": [script()]}
    recorded, console = (plan_of(tmp_path, windows, pattern_defaults=name).steps[0] for name in ("recorded", "console"))
    assert recorded.policy is not None and recorded.policy.judge(0, "", "x").outcome == "warned"
    assert console.policy is not None and console.policy.judge(0, "", "x").outcome == "failed"


def test_variables_of_an_application_are_those_of_its_scripts_too(tmp_path: Path) -> None:
    application = {
        "DeploymentName": "App",
        "ErrorPolicy": "FailOnMatch",
        "ExecutableAndParams": {"Executable": "a.exe"},
        "EnvironmentVariables": [{"Name": "A", "Value": "[Param.X]"}, {"Name": "B", "Value": "[Param.Y]"}],
        "ScriptCommands": [script()],
    }
    plan = plan_of(tmp_path, {"ScriptApplications": [application]}, "X=1")
    assert [step.id for step in plan.steps] == ["script-app-App-preinstall-1", "script-app-App-install"]
    for step in plan.steps:
        assert step.environment == (("A", "1"), ("B", "[Param.Y]")) and step.unresolved == ("Y",)
    assert [step.id for step in plan_of(tmp_path, {"ScriptApplications": [application]}, event="update").steps] == [
        "script-app-App-install"
    ]


def test_instances_and_events(tmp_path: Path) -> None:
    types = ("OnProvisionFirst", "OnProvisionRest", "PreInstall", "OnDeleteLast", "OnDeleteRest", "PreUninstall")
    windows = {"ProvisioningScripts": [script(ScriptType=name, DeploymentOrder=1) for name in types]}
    cases: list[tuple[Event, int, list[str]]] = [
        ("deploy", 1, ["on-provision-first-1", "preinstall-1"]),
        ("deploy", 2, ["on-provision-rest-1", "preinstall-1"]),
        ("scale-out", 1, ["on-provision-rest-1", "preinstall-1"]),
        ("delete", 1, ["preuninstall-1", "on-delete-last-1"]),
        ("delete", 2, ["preuninstall-1", "on-delete-rest-1"]),
        ("update", 1, []),
    ]
    for event, instance, expected in cases:
        plan = plan_of(tmp_path, windows, event=event, instance=instance)
        assert [step.id for step in plan.steps] == expected


@pytest.mark.parametrize(("mode", "said"), [("DropDatabase", "DROP DATABASE [a]]b]"), ("DetachDatabase", "sp_detach")])
def test_databases_are_removed_at_delete(tmp_path: Path, mode: str, said: str) -> None:
    dac = {"DeploymentName": "D", "DacInstance": "a]b", "SQLInstance": "S", "UninstallMode": mode}
    (step,) = plan_of(tmp_path, {"SQLDacApplications": [dac]}, event="delete").steps
    assert step.id == "sqldac-D-uninstall" and said in step.command
    dac["UninstallMode"] = "MakeUnmanaged"
    assert plan_of(tmp_path, {"SQLDacApplications": [dac]}, event="delete").steps == ()


def test_a_database_without_a_name_yet_is_shown_as_written(tmp_path: Path) -> None:
    dac = {"DeploymentName": "D", "DacInstance": "[Param.Db]", "SQLInstance": "S", "UninstallMode": "DropDatabase"}
    path = write(tmp_path, with_profile(windows={"SQLDacApplications": [dac]}, parameters=(("Db", "String"),)))
    package = read_package(path)
    plan = make_plan(package, read_parameters(package), os="windows", event="delete", strict=False)
    assert plan.steps[0].command.endswith('-Q "DROP DATABASE [[Param.Db]]"')
    plan = make_plan(package, read_parameters(package, ["Db=a]b"]), os="windows", event="delete")
    assert plan.steps[0].command.endswith('-Q "DROP DATABASE [a]]b]"')


@pytest.mark.parametrize(
    ("key", "given", "secrets"),
    [
        ("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", (), ("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",)),
        ("[Param.Key]", ("Key=AAAAA-BBBBB",), ("AAAAA-BBBBB",)),
        ("*", (), ("*",)),  # too short to be looked for in text
        ("Evaluation", (), ()),
    ],
)
def test_a_product_key_is_a_secret(tmp_path: Path, key: str, given: tuple[str, ...], secrets: tuple[str, ...]) -> None:
    deployment = {"DeploymentName": "D", "InstanceName": "I", "ProductKey": key}
    windows = {"SQLProfile": {"SQLDeployments": [deployment]}, "ProvisioningScripts": [script(run="say Evaluation")]}
    path = write(tmp_path, with_profile(windows=windows, parameters=(("Key", "String"),) if given else ()))
    package = read_package(path)
    parameters = read_parameters(package, given)
    assert parameters.secrets == secrets
    plan = make_plan(package, parameters, os="windows")
    setup = plan.step("sql-D")
    assert setup is not None and '/PID="__**__"' in setup.command
    value = given[0].removeprefix("Key=") if given else key
    assert f'/PID="{value}"' in setup.command_line
    assert any("say Evaluation" in step.command for step in plan.steps)


def test_the_seeds_products(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    package = read_package(path)
    values = (
        "SQLInstance=PROD",
        "ConnectionString=server='x'",
        "SharepointDB=Share",
        "SQLScriptCommandCredential=corp\\sql:Swordfish",
        "SQLDeploymentCredential=corp\\dac:Swordfish",
    )
    parameters = read_parameters(package, values)
    plan = make_plan(package, parameters, os="windows")
    setup = plan.step("sql-SQL-Deployment-1")
    assert setup is not None and setup.timeout == 3600
    assert setup.command_line.startswith('"c:\\SQLMediaPath\\sqlsetup.exe" /QUIET /ACTION=CompleteImage')
    assert "abcdefghijklmnopqrstuvwxyz" in setup.command_line and "abcdefghijklmnopqrstuvwxyz" not in setup.command
    for part in (
        '/INSTANCENAME="PROD"',
        "/TCPENABLED=1",
        "/NPENABLED=0",
        '/SQLSVCACCOUNT="NT AUTHORITY\\NetworkService"',
    ):
        assert part in setup.command
    web = plan.step("webdeploy-Deployment1")
    assert web is not None and '-setParam:name="CONNECTION_STRING",value="server=\'x\'"' in web.command
    assert "mypassword2" in web.command_line and "mypassword2" not in web.command
    sql = plan.step("sqldac-Deployment1-sql-postinstall-1")
    assert sql is not None and sql.timeout == 500 and '-S "PROD" -E -d "Share" -l 50 -t 500' in sql.command
    assert '-o "c:\\sharepointDB.sql.log"' in sql.command
    install = plan.step("script-app-ScriptDeployment1-install")
    assert install is not None and dict(install.environment) == {"envvar1": "foo", "envvar2": "bar"}
    assert (install.stdout_path, install.stderr_path, install.folders) == ("c:\\out.txt", "c:\\err.txt", ())
    assert install.working_directory == f"{PAYLOAD_FOLDER}\\sharepointfiles"
    assert "Swordfish" not in json.dumps(plan.as_json())
    assert all(step.policy for step in plan.applicable if step.kind != "feature")
    removal = make_plan(package, parameters, os="windows", event="delete")
    assert [step.id for step in removal.applicable] == ["sqldac-Deployment1-uninstall"]


def test_published_packages_run_as_their_authors_saw_it() -> None:
    plans = {}
    for folder in published_folders():
        for path in folder.glob("*.resext"):
            package = read_package(path)
            plans[folder.name.split(".")[0]] = make_plan(package, read_parameters(package), os="windows", strict=False)
    session_host = plans["RDSSH"].steps
    assert [step.kind for step in session_host[:10]] == ["feature"] * 10
    # the array has order 2 before order 1; the first only forces a restart between features and script
    assert [(step.order, step.reboot) for step in session_host[10:]] == [(1, "always"), (2, "always")]
    sleep = session_host[10]
    assert sleep.on_failure == "warn" and sleep.policy is not None and sleep.policy.judge(1).reboot
    sql = plans["SQLServer2016"].steps
    assert [step.order for step in sql] == [1, 2, 3, 4]
    assert [step.on_failure for step in sql] == ["fail", "fail", "warn", "fail"]
    assert all(step.folders == ("c:\\VMRole\\Log",) and step.timeout for step in sql)
    assert all(step.executable == "%WINDIR%\\System32\\WindowsPowerShell\\v1.0\\PowerShell.exe" for step in sql)
    assert all(step.working_directory == f"{PAYLOAD_FOLDER}\\Scripts" for step in sql)


def test_a_feature_is_one_argument(tmp_path: Path) -> None:
    steps = plan_of(tmp_path, {"WindowsServerRolesAndFeatures": ["NLB", "x'; format c:"]}).steps
    assert [step.command for step in steps] == [
        "Install-WindowsFeature -Name NLB",
        "Install-WindowsFeature -Name 'x''; format c:'",
    ]


@pytest.mark.parametrize("source", ["C:\\SQL Media", "C:\\SQL Media\\"])
def test_setup_in_a_folder_and_backslashes_before_quotation_marks(tmp_path: Path, source: str) -> None:
    """Undoubled, they would make the mark a part of the value, and what follows too."""
    deployment = {"DeploymentName": "D", "InstanceName": "C:\\a\\", "InstanceID": '\\"y', "MediaSource": source}
    step = plan_of(tmp_path, {"SQLProfile": {"SQLDeployments": [deployment]}}).step("sql-D")
    assert step is not None and step.command_line.startswith('"C:\\SQL Media\\setup.exe" /QUIET ')
    assert step.command_line.endswith('/INSTANCENAME="C:\\a\\\\" /INSTANCEID="\\\\\\"y"')


def test_paths() -> None:
    environment = {"WINDIR": "C:\\Windows"}
    assert expand_environment("%windir%\\x %NOPE% 100%", environment) == "C:\\Windows\\x %NOPE% 100%"
    assert parent_folders(["c:\\err.txt", None, "d:\\a\\b.txt", "D:\\A\\c.txt", "x.txt"]) == ("d:\\a",)
