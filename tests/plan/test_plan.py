# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import PackageError, VmRoleError
from harness.package import Package, read_package, read_parameters
from harness.package.jsontext import read_json
from harness.package.jsontree import Node
from harness.plan import Event, Plan, make_plan
from tests.package.material import SAMPLES, published_folders, seed_document, with_profile, write


def script(**members: Any) -> dict[str, Any]:
    program = {"Executable": "cmd.exe", "Parameters": "/c " + members.pop("run", "ver")}
    return {"ErrorPolicy": "FailOnMatch", "ScriptType": "PreInstall", "ExecutableAndParams": program, **members}


def package_of(folder: Path, **windows: Any) -> Package:
    return read_package(write(folder, with_profile(windows=windows)))


def plan_of(package: Package, event: Event = "deploy", instance: int = 1) -> Plan:
    return make_plan(package, read_parameters(package), os="windows", event=event, instance=instance, strict=False)


def ids(package: Package, event: Event = "deploy", instance: int = 1) -> list[str]:
    return [step.id for step in plan_of(package, event, instance).steps]


def test_order_of_a_deployment(tmp_path: Path) -> None:
    package = package_of(
        tmp_path,
        ProvisioningScripts=[
            script(ScriptType="PostInstall", DeploymentOrder="1"),
            script(ScriptType="PreInstall", DeploymentOrder="6"),
            script(ScriptType="preinstall", DeploymentOrder="5"),
            script(ScriptType="OnProvisionFirst", DeploymentOrder="1"),
            script(ScriptType="OnProvisionLast", DeploymentOrder="1"),  # sic
            script(ScriptType="OnDeleteLast"),
            script(ScriptType="PreService"),
        ],
        WindowsServerRolesAndFeatures=["Web-Server", "NLB", "web-server"],
        SQLProfile={"SQLDeployments": [{"DeploymentName": "My SQL", "InstanceName": "X"}]},
        WebDeployApplications=[{"DeploymentName": "W", "ScriptCommands": [script()]}],
        SQLDacApplications=[
            {
                "DeploymentName": "D",
                "ScriptCommands": [script(ScriptType="PostInstall")],
                "SQLScriptCommands": [{"DatabaseName": "x", "ScriptType": "PreInstall", "DeploymentOrder": 4}],
            }
        ],
        ScriptApplications=[{"DeploymentName": "S", "ScriptCommands": [script(), script(ScriptType="PostService")]}],
    )
    features = ["feature-Web-Server", "feature-NLB"]
    rest = [
        "preinstall-5",
        "preinstall-6",
        "sql-My-SQL",
        "webdeploy-W-preinstall-1",
        "webdeploy-W",
        "sqldac-D-sql-preinstall-4",
        "sqldac-D",
        "sqldac-D-postinstall-1",
        "script-app-S-preinstall-1",
        "script-app-S-install",
        "postinstall-1",
    ]
    assert ids(package) == [*features, "on-provision-first-1", *rest]
    assert ids(package, "scale-out", 2) == [*features, "on-provision-rest-1", *rest]
    assert ids(package, "update") == ["preservice-1", "script-app-S-install", "script-app-S-postservice-1"]
    assert ids(package, "delete") == ["on-delete-last-1"]


def test_ids_are_unique_and_do_not_move_when_others_are_edited(tmp_path: Path) -> None:
    one = script(DeploymentOrder=1, run="one")
    two = script(DeploymentOrder=2, run="two")
    assert ids(package_of(tmp_path, ProvisioningScripts=[one, one, two])) == [
        "preinstall-1",
        "preinstall-1-2",
        "preinstall-2",
    ]
    assert ids(package_of(tmp_path, ProvisioningScripts=[two])) == ["preinstall-2"]
    assert ids(package_of(tmp_path, ProvisioningScripts=[script(), script()])) == ["preinstall-1", "preinstall-2"]
    odd = {"DeploymentName": "a/../b c:\u00e4"}
    assert ids(package_of(tmp_path, ScriptApplications=[odd, odd])) == [
        "script-app-a-..-b-c-install",
        "script-app-a-..-b-c-install-2",
    ]


def test_a_script_step(tmp_path: Path) -> None:
    full = script(
        run="x [Param.Gone]",
        DeploymentOrder="3",
        AlwaysReboot="true",
        ErrorPolicy="WarnAndContinueOnMatch",
        ScriptCredential={"UserName": "corp\\bob", "Password": "hush-hush"},
        TimeoutInSeconds="60",
        WorkingDirectory="c:\\x",
        ApplicationPayloadId="49c1",
    )
    (step,) = plan_of(package_of(tmp_path, ProvisioningScripts=[full])).steps
    assert (step.name, step.command, step.argv) == ("cmd.exe /c x [Param.Gone]", "cmd.exe /c x [Param.Gone]", None)
    assert (step.script_type, step.order, step.timeout, step.reboot) == ("PreInstall", 3, 60.0, "always")
    assert (step.account, step.on_failure, step.working_directory) == ("corp\\bob", "warn", "c:\\x")
    assert step.credential is not None and step.credential.password == "hush-hush"
    assert "hush-hush" not in repr(step)
    assert (step.unresolved, step.payload_id) == (("Gone",), "49c1")
    assert step.source.endswith("/ProvisioningScripts/0")
    assert set(step.as_json()) >= {
        *("id", "name", "kind", "command", "script_type", "order"),
        *("working_directory", "account", "timeout", "reboot", "source"),
    }


@pytest.mark.parametrize(
    ("members", "reboot"),
    [
        ({}, "exit code 1641, 3010, 3011"),
        ({"RebootExitCodeRegex": None}, "never"),
        ({"RebootExitCodeRegex": ""}, "never"),
        ({"RebootExitCodeRegex": "*"}, "never"),
        ({"RebootExitCodeRegex": "{1}"}, "exit code 1"),
        ({"AlwaysReboot": "false", "RebootExitCodeRegex": "3010"}, "exit code 3010"),
    ],
)
def test_what_restarts(tmp_path: Path, members: dict[str, Any], reboot: str) -> None:
    (step,) = plan_of(package_of(tmp_path, ProvisioningScripts=[script(**members)])).steps
    assert step.reboot == reboot


def test_steps_of_the_other_system_are_not_applicable(tmp_path: Path) -> None:
    document = with_profile("/bin/true", windows={"ProvisioningScripts": [script(run="[Param.Gone]")]})
    package = read_package(write(tmp_path, document))
    plan = make_plan(package, read_parameters(package), os="linux")
    assert [(step.id, step.applicable) for step in plan.steps] == [("run-once-1", True), ("preinstall-1", False)]
    (finding,) = plan.findings
    assert finding.code == "parameter-unresolved" and "-p Gone=" in finding.hint and finding.line == 1
    with pytest.raises(PackageError, match=r"Gone has no value.*-p Gone=\.\.\."):
        make_plan(package, read_parameters(package), os="windows")


def test_nothing_applicable_is_an_error(tmp_path: Path) -> None:
    package = package_of(tmp_path, ProvisioningScripts=[script()])
    with pytest.raises(PackageError, match="nothing to run on linux; its only step is for windows") as caught:
        make_plan(package, read_parameters(package), os="linux")
    assert caught.value.exit_code == 2
    with pytest.raises(PackageError, match="nothing to run on windows at delete"):
        make_plan(package, read_parameters(package), os="windows", event="delete")
    package = read_package(write(tmp_path, with_profile("/bin/true")))
    assert make_plan(package, read_parameters(package), os="linux", event="scale-out", instance=2).applicable
    with pytest.raises(PackageError, match="nothing to run on linux at update"):
        make_plan(package, read_parameters(package), os="linux", event="update")


def test_a_missing_value_names_the_parameter_and_what_to_do(tmp_path: Path) -> None:
    document = with_profile("/bin/echo [Param.A] [Param.B]", parameters=(("A", "String"), ("B", "String")))
    package = read_package(write(tmp_path, document))
    with pytest.raises(PackageError, match=r"parameters A, B have no value.*run-once-1.*-p A=\.\.\. -p B=\.\.\."):
        make_plan(package, read_parameters(package), os="linux")
    plan = make_plan(package, read_parameters(package), os="linux", strict=False)
    assert plan.steps[0].unresolved == ("A", "B")
    assert make_plan(package, read_parameters(package, ("A=", "B=2")), os="linux").steps[0].argv == ("/bin/echo", "2")


def test_the_seeds_own_sample(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    package = read_package(path)
    parameters = read_parameters(package)
    plan = make_plan(package, parameters, os="linux")
    assert [step.id for step in plan.steps] == [
        "run-once-1",
        "feature-TFTP-Client",
        "preinstall-1",
        "sql-SQL-Deployment-1",
        "webdeploy-Deployment1-preinstall-1",
        "webdeploy-Deployment1",
        "sqldac-Deployment1-preinstall-1",
        "sqldac-Deployment1",
        "sqldac-Deployment1-sql-postinstall-1",
        "script-app-ScriptDeployment1-preinstall-1",
        "script-app-ScriptDeployment1-install",
    ]
    assert [step.applicable for step in plan.steps] == [True] + [False] * 10
    assert all(step.source and package.document.find(step.source) for step in plan.steps)
    shown = str(plan.as_json())
    assert not [secret for secret in parameters.secrets if secret in shown]


def test_plans_of_the_published_packages() -> None:
    for folder in published_folders():
        for path in folder.glob("*.resext"):
            package = read_package(path)
            plan = plan_of(package)
            assert plan.steps and len({step.id for step in plan.steps}) == len(plan.steps)
            orders = [step.order for step in plan.steps if step.kind == "script"]
            assert orders == sorted(orders, key=lambda order: order or 0)


def test_the_samples_can_be_planned() -> None:
    hello = read_package(SAMPLES / "hello-linux.resextpkg")
    plan = make_plan(hello, read_parameters(hello, ("Greeting=Good morning",)), os="linux")
    assert plan.steps[0].argv == ("/bin/sh", "/var/lib/vmrole/payload/scripts/hello.sh", "Good morning")
    assert not plan.findings and not hello.findings
    folder = read_package(SAMPLES / "hello-linux")
    assert [entry.path for entry in folder.payload.files] == [entry.path for entry in hello.payload.files]
    assert all(entry.executable for entry in folder.payload.files)
    failing = read_package(SAMPLES / "failing.resext")
    assert len(make_plan(failing, read_parameters(failing), os="linux").applicable) == 4
    everything = read_package(SAMPLES / "everything.resext")
    plan = make_plan(everything, read_parameters(everything), os="linux")
    assert len(plan.applicable) == 10 and len(plan.steps) > 20
    assert "__**__" in plan.steps[9].command


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_with_anything_anywhere_are_planned_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Values of the sample replaced by arbitrary ones: findings and our own errors, never another exception."""
    document = read_json((SAMPLES / "everything.resext").read_bytes(), "x").root
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.sampled_from(["[Param.Port]", ":"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        max_leaves=6,
    )
    nodes = [node for node in document.walk() if node.parent is not None]
    for node in data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=4)):
        node.value = data.draw(anything)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(_plain(document)), encoding="utf-8")
    try:
        package = read_package(path)
        parameters = read_parameters(package)
        for os in ("linux", "windows"):
            for event in ("deploy", "update", "scale-out", "delete"):
                plan = make_plan(package, parameters, os=os, event=event, strict=False)
                assert len({step.id for step in plan.steps}) == len(plan.steps)
                json.dumps(plan.as_json())
    except VmRoleError as error:
        assert error.exit_code == 2


NAMES = [
    "Name",
    "Type",
    "ID",
    "ScriptType",
    "Password",
    "UserName",
    "DeploymentName",
    "Executable",
    "RelativePath",
    "x",
]


def _plain(node: Any) -> Any:
    """Like Node.plain, for trees whose values were replaced by plain ones."""
    value = node.value if isinstance(node, Node) else node
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def test_no_password_of_the_document_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.resext"
    script = r'{"ErrorPolicy": "FailOnMatch", "ScriptType": "PreInstall", "ScriptCredential": "corp\eve:hush-hush",'
    text = json.dumps(with_profile("/bin/echo hush-hush", windows={"ProvisioningScripts": ["SCRIPT"]}))
    path.write_text(text.replace('"SCRIPT"', script + ' "ScriptBlock": "net use hush-hush\\nver"}'))
    package = read_package(path)
    plan = make_plan(package, read_parameters(package), os="linux")
    shown = f"{package.findings} {plan.findings} {plan.as_json()} {[step.name for step in plan.steps]}"
    assert "json-lone-backslash" in shown and "hush-hush" not in shown
    assert plan.steps[0].argv == ("/bin/echo", "hush-hush")
    assert plan.steps[1].name == "net use __**__ ver" and plan.steps[1].account == "corp\\eve"
