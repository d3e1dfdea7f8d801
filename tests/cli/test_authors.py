# SPDX-License-Identifier: Apache-2.0
"""The commands for authors, as a user meets them; none starts a machine."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from pathlib import Path

import pytest

from harness.package import read_package
from tests.conftest import SAMPLES, vmrole
from tests.package.material import published_folders, seed_document, with_profile, write
from tests.package.test_service import CSCFG, CSDEF
from tests.plan.test_plan import script

KEYS = {"id", "name", "kind", "command", "script_type", "order", "working_directory", "account", "timeout", "reboot"}


def rebuilt(folder: Path, to: Path) -> Path:
    """A published package: its documents with payload files of our own, in the listed order."""
    target = to / folder.name.removesuffix(".parts")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for line in (folder / "ENTRIES.tsv").read_text().splitlines():
            name, size, kind = line.split("\t")
            if kind == "dir":
                archive.writestr(name, b"")
                continue
            known = folder / name
            archive.writestr(name, known.read_bytes() if known.is_file() else b"#" * int(size))
    return target


def test_check_of_the_sample(tmp_path: Path) -> None:
    done = vmrole("check", SAMPLES / "hello-linux.resextpkg", "--image", "debian-12", "--json")
    assert (done.code, done.json) == (0, {"findings": [], "errors": 0, "warnings": 0})


def test_check_shows_the_line_with_a_caret(tmp_path: Path) -> None:
    document = with_profile(windows={"ProvisioningScripts": [script(StandardOutputRegex="c:\\out.txt")]})
    path = write(tmp_path, document)
    path.write_text(json.dumps(document, indent=2))
    done = vmrole("check", path)
    assert done.code == 0
    told = done.stdout.splitlines()
    (at,) = (number for number, line in enumerate(told) if "[pattern-path]" in line)
    place = re.match(r"small\.resext:(\d+):(\d+): warning: ", told[at])
    assert place is not None
    shown, caret = told[at + 1], told[at + 2]
    assert shown == f'  {place[1]} | "StandardOutputRegex": "c:\\\\out.txt"'
    assert shown[caret.index("^")] == '"' and shown.index('"c:') == caret.index("^")
    assert told[at + 3].strip() == "write StandardOutputPath" and told[-1] == "no errors, 1 warning"


def test_check_of_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "seed.resext"
    path.write_bytes(seed_document())
    done = vmrole("check", path, "--json")
    assert done.code == 0 and done.json["errors"] == 0 and done.json["warnings"] > 20
    assert set(done.json) == {"findings", "errors", "warnings"}
    assert "the password of SAPassword is written in the document" in done.stdout
    human = vmrole("check", path)
    assert human.stdout.count("^") >= len(done.json["findings"])
    for secret in ("MySAPassword", "mypassword", "user:password"):
        assert secret not in human.stdout and secret not in done.stdout


def test_check_looks_at_the_linux_commands_of_a_windows_extension(tmp_path: Path) -> None:
    folder = tmp_path / "Both"
    assert vmrole("new", "Both", "--kind", "windows-script", "-o", folder).code == 0
    document = json.loads((folder / "Both.resext").read_text("utf-8"))
    profile = document["ExtensionSettings"]["ApplicationProfile"]
    profile["LinuxApplicationProfile"] = {"RunOnceCommands": ["", "/bin/echo [Param.Greeting] | cat", "/bin/echo 'a"]}
    (folder / "Both.resext").write_text(json.dumps(document, indent=1), "utf-8")
    found = {finding["code"]: finding for finding in vmrole("check", folder, "--json").json["findings"]}
    assert set(found) == {"command-empty", "command-shell-syntax", "command-quote"}
    assert found["command-quote"]["pointer"].endswith("/RunOnceCommands/2") and found["command-quote"]["line"]


def test_check_exit_codes(tmp_path: Path) -> None:
    document = with_profile("/bin/true")
    document["DataPackage"] = 7
    wrong = vmrole("check", write(tmp_path, document), "--json")
    assert wrong.code == 1 and wrong.json["errors"] == 1
    (tmp_path / "broken.resext").write_text("{")
    for arguments in (("broken.resext",), ("none.resext",), ("small.resext", "--image", "none")):
        done = vmrole("check", tmp_path / arguments[0], *arguments[1:])
        assert done.code == 2 and done.stdout == "", done
    tagged = with_profile("/bin/true")
    tagged["ResourceRequirements"] = {"OSVirtualHardDiskRequirements": ["SysprepSQL"]}
    done = vmrole("check", write(tmp_path, tagged), "--image", "debian-12")
    assert done.code == 0 and "[requirement-tag]" in done.stdout


def test_check_of_service_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csdef").write_text(CSDEF.replace("<Imports>", "<Startup><Task/></Startup><Imports>"))
    (tmp_path / "a.cscfg").write_text(CSCFG.replace('name="StorageKey"', 'name="StorageKey" odd="1"'))
    done = vmrole("check", tmp_path / "a.csdef")
    assert done.code in (0, 1) and "Startup" in done.stdout and "^" in done.stdout
    done = vmrole("check", tmp_path / "a.cscfg")
    assert done.code in (0, 1) and "c2VjcmV0" not in done.stdout
    assert vmrole("check", tmp_path / "none.csdef").code == 2


def test_check_of_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text(json.dumps({"Versoin": "1.0.0.0", "ParameterValues": json.dumps({"Who": "bob:Swordfish"})}))
    done = vmrole("check", path)
    assert done.code == 0 and "[unknown-field]" in done.stdout and "Swordfish" not in done.stdout
    path.write_text('{"x": 1}')
    assert vmrole("check", path).code == 2


def test_a_line_of_the_document_moves_no_cursor(tmp_path: Path) -> None:
    path = write(tmp_path, with_profile("/bin/true"))
    path.write_bytes(path.read_bytes().replace(b'"1.0.0.0"', b'"\x1b[2J\x1b]0;x\x07"'))
    done = vmrole("check", path)
    assert done.code == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_a_secret_beside_a_finding_in_a_long_line(tmp_path: Path) -> None:
    """Only a part of the line is looked at, and no part of a secret is shown in it."""
    for length in (10, 60, 300, 5000):
        secret = "Pq9" * (length // 3)
        odd = script(ScriptCredential=f"bob:{secret}", StandardOutputRegex="c:\\out.txt", ScriptBlock="rem" * 20000)
        document = with_profile(windows={"ProvisioningScripts": [script(), odd, script(ScriptBlock="rem" * 20000)]})
        shown = vmrole("check", write(tmp_path, document)).stdout
        assert "[pattern-path]" in shown and "Pq9" not in shown
        carets = [line for line in shown.splitlines() if line.endswith("^")]
        assert carets and all(len(line) < 120 for line in shown.splitlines() if " | " in line)


def test_published_packages_have_no_errors_and_are_planned(tmp_path: Path) -> None:
    for folder in published_folders():
        path = rebuilt(folder, tmp_path)
        done = vmrole("check", path, "--json")
        assert done.code == 0 and done.json["errors"] == 0, (path.name, done)
        if path.suffix == ".resextpkg":
            told = {finding["code"] for finding in done.json["findings"]}
            assert told <= {"command-single-quotes", "command-value"}, (path.name, told)
            plan = vmrole("plan", path, "--json")
            assert plan.code == 1  # nothing has a value
            assert all(set(step) >= KEYS | {"source"} for step in plan.json["steps"])


def test_plan_json(tmp_path: Path) -> None:
    done = vmrole("plan", SAMPLES / "hello-linux.resextpkg", "-p", "Greeting=hi", "--json")
    assert done.code == 0 and set(done.json) == {"steps"}
    first = done.json["steps"][0]
    assert set(first) >= KEYS | {"source"} and first["timeout"] == 300 and first["kind"] == "run-once"


def test_plan_marks_what_does_not_resolve() -> None:
    done = vmrole("plan", SAMPLES / "hello-linux.resextpkg")
    assert done.code == 1
    assert "!" in done.stdout and "no value for Greeting" in done.stdout and "-p Greeting=..." in done.stdout


def test_plan_masks_and_takes_values(tmp_path: Path) -> None:
    windows = {"ProvisioningScripts": [script(run="net use [Param.Who]", ScriptCredential="[Param.Who]")]}
    path = write(tmp_path, with_profile(windows=windows, parameters=(("Who", "Credential"),)))
    (tmp_path / "values.json").write_text(json.dumps({"Who": "corp\\bob:Swordfish"}))
    for extra in (["--parameters", str(tmp_path / "values.json")], ["-p", "Who=corp\\bob:Swordfish"]):
        for form in ([], ["--json"]):
            done = vmrole("plan", path, *extra, *form)
            assert done.code == 0 and "Swordfish" not in done.stdout + done.stderr
            assert "__**__" in done.stdout
    assert vmrole("plan", path, "-p", "Nope=1").code == 2


def test_plan_of_events(tmp_path: Path) -> None:
    types = ("OnProvisionFirst", "OnProvisionRest", "PreInstall", "OnDeleteLast", "PreService")
    path = write(tmp_path, with_profile(windows={"ProvisioningScripts": [script(ScriptType=kind) for kind in types]}))

    def ids(*arguments: str) -> list[str]:
        return [step["id"] for step in vmrole("plan", path, "--json", *arguments).json["steps"]]

    assert ids() == ["on-provision-first-1", "preinstall-1"]
    assert ids("--instance", "2") == ["on-provision-rest-1", "preinstall-1"]
    assert ids("--event", "delete") == ["on-delete-last-1"]
    assert ids("--event", "update") == ["preservice-1"]
    linux = vmrole("plan", path, "--os", "linux")
    assert linux.code == 0 and "not run here: for windows" in linux.stdout


@pytest.mark.parametrize("kind", ["linux", "windows-batch", "windows-script", "msi"])
def test_new_makes_what_check_likes(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "Fresh"
    made = vmrole("new", "Fresh", "--kind", kind, "-o", folder)
    assert made.code == 0
    for line in made.stdout.splitlines()[1:]:  # what it suggests works as it stands
        program, *arguments = shlex.split(line)
        assert program == "vmrole"
        if arguments[0] != "run":  # which needs a machine, and values that are none of "..."
            assert vmrole(*arguments).code == 0, line
    (tmp_path / "Fresh.resextpkg").unlink()
    done = vmrole("check", folder, "--json")
    assert (done.code, done.json["findings"]) == (0, [])
    assert vmrole("new", "Fresh", "-o", folder).code == 2
    packed = vmrole("pack", folder)
    assert packed.code == 0 and (tmp_path / "Fresh.resextpkg").is_file()
    assert vmrole("check", tmp_path / "Fresh.resextpkg", "--json").json["findings"] == []
    name = "InstallFolder" if kind == "msi" else "Greeting"
    assert vmrole("plan", folder, "-p", f"{name}=x").code == 0


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("../up", "a b", "", "1st", "x" * 65):
        assert vmrole("new", name, "-o", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()


def test_pack_read_pack_is_the_identity(tmp_path: Path) -> None:
    first, second = tmp_path / "1.resextpkg", tmp_path / "2.resextpkg"
    assert vmrole("pack", SAMPLES / "hello-linux", "-o", first).code == 0
    package = read_package(first)
    folder = tmp_path / "again"
    package.payload.extract(folder / package.payload.location)
    (folder / package.document.file).write_text(package.text, "utf-8", newline="")
    assert vmrole("pack", folder, "-o", second).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert vmrole("pack", folder, "-o", folder / "in.resextpkg").code == 2


def test_definitions_are_packed_too(tmp_path: Path) -> None:
    for folder in published_folders():
        if ".resdefpkg" not in folder.name:
            continue
        copy = tmp_path / folder.name
        for source in folder.rglob("*"):
            if source.is_file() and source.name != "ENTRIES.tsv":
                (copy / source.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                (copy / source.relative_to(folder)).write_bytes(source.read_bytes())
        one, two = tmp_path / "1.resdefpkg", tmp_path / "2.resdefpkg"
        assert vmrole("pack", copy, "-o", one).code == 0
        again = tmp_path / f"{folder.name}.again"
        with zipfile.ZipFile(one) as archive:
            names = archive.namelist()
            archive.extractall(again)
        listed = [line.split("\t")[0] for line in (folder / "ENTRIES.tsv").read_text().splitlines()]
        # the icons are not among the published documents
        assert names == [name for name in listed if not name.endswith(".png")]
        assert vmrole("pack", again, "-o", two).code == 0 and one.read_bytes() == two.read_bytes()
        assert vmrole("check", one).code == 0


def test_a_definition_with_its_extension(tmp_path: Path) -> None:
    folders = {folder.name: folder for folder in published_folders()}
    definition = rebuilt(folders["RDSSH.resdefpkg.parts"], tmp_path)
    extension = rebuilt(folders["RDSSH.resextpkg.parts"], tmp_path)
    other = rebuilt(folders["SQLServer2016.resextpkg.parts"], tmp_path)
    assert vmrole("check", definition, "--extension", extension).code == 0
    wrong = vmrole("check", definition, "--extension", other, "--json")
    assert wrong.code == 1 and "reference-mismatch" in {finding["code"] for finding in wrong.json["findings"]}
    assert vmrole("plan", definition).code == 2
    plan = vmrole("plan", definition, "--extension", extension, "--json")
    assert plan.code in (0, 1) and len(plan.json["steps"]) == 12


def test_plan_says_why_a_script_has_no_folder(tmp_path: Path) -> None:
    scripts = [script(DeploymentOrder=1), script(DeploymentOrder=2, ApplicationPayloadId="gone")]
    windows = {"WindowsServerRolesAndFeatures": ["DNS"], "ProvisioningScripts": scripts}
    done = vmrole("plan", write(tmp_path, with_profile(windows=windows)))
    folders = [line.split(None, 1)[1] for line in done.stdout.splitlines() if line.strip().startswith("folder ")]
    assert folders == ["no payload", "no payload has the ID gone"]
