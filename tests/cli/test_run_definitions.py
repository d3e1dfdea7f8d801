# SPDX-License-Identifier: Apache-2.0
"""`vmrole run` with a definition, service documents, events and external payload, in real machines."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SAMPLES, inventory, vmrole
from tests.package.material import definition, with_profile, write
from tests.package.test_download import Server
from tests.run.test_certificates import make, thumbprint
from tests.run.test_certificates import write as write_bytes

pytestmark = pytest.mark.vm

SECRET = re.compile(rb"Correct-Horse-9|Sw0rdfish-key|PRIVATE KEY|\$2b\$")


def steps_of(result: Any) -> dict[str, Any]:
    return {step["id"]: step for step in result["instances"][0]["steps"]}


def nothing_secret(output: Path, *texts: str) -> None:
    for path in output.rglob("*"):
        assert path.is_dir() or not SECRET.search(path.read_bytes()), path
    assert not SECRET.search("".join(texts).encode())


def test_a_definition_with_its_configuration(image: str, state_folder: Path, tmp_path: Path) -> None:
    """Size, name, password, time zone and the extension's parameters come from the definition and its values."""
    commands = (
        "/usr/bin/nproc",
        "/bin/grep MemTotal /proc/meminfo",
        '/bin/sh -c \'printf %s "$1"\' x "[Param.Text]"',
        '/bin/sh -c \'echo "$0" | openssl sha256 -r\' "[Param.Account]"',
    )
    inner = write(
        tmp_path, with_profile(*commands, parameters=(("Text", "String"), ("Account", "Credential"))), "small.resext"
    )
    outer = definition(
        parameters=(("Motto", "String"), ("Admin", "Credential"), ("Size", "String")),
        values={"Text": "<[Param.Motto]>", "Account": "[Param.Admin]"},
    )
    outer["IntrinsicSettings"] |= {
        "HardwareProfile": {"VMSize": "[Param.Size]"},
        "OperatingSystemProfile": {
            "ComputerNamePattern": "ROLE-##",
            "TimeZone": "Pacific Standard Time",
            "AdminCredential": "[Param.Admin]",
            "LinuxOperatingSystemProfile": {"DNSDomainName": "example.org"},
        },
    }
    (tmp_path / "role").mkdir()
    write(tmp_path / "role", outer, "role.resdef")
    assert vmrole("pack", tmp_path / "role").code == 0
    values = {"Motto": 'a "b" it\'s c\\d', "Admin": "corp\\root:Correct-Horse-9", "Size": "extrasmall"}
    configuration = write(tmp_path, {"Version": "1.0.0.0", "ParameterValues": json.dumps(values)}, "values.json")
    before = inventory(state_folder)
    done = vmrole(
        "run", tmp_path / "role.resdefpkg", "--extension", inner, "--parameters", configuration, "-p", "Motto=of mine",
        "--instance", "7", "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    steps = steps_of(done.json)
    assert {step["outcome"] for step in steps.values()} == {"succeeded"}, steps
    assert steps["run-once-1"]["stdout"] == "1\n"
    memory = int(re.findall(r"\d+", steps["run-once-2"]["stdout"])[0]) // 1024
    assert 768 - 150 < memory < 768, memory
    assert steps["run-once-3"]["stdout"] == "<of mine>"
    # the agent's tokenizer takes the backslash away
    wanted = hashlib.sha256(b"corproot:Correct-Horse-9\n").hexdigest()
    assert steps["run-once-4"]["stdout"].startswith(wanted)
    observed = {seen["name"]: seen for seen in done.json["instances"][0]["specialization"]}
    assert all(seen["ok"] for seen in observed.values()), observed
    assert observed["computer-name"]["observed"] == "ROLE-07" and observed["time-zone"]["observed"].startswith("UTC")
    findings = json.loads((tmp_path / "out/findings.json").read_text())["findings"]
    (zone,) = (finding for finding in findings if finding["code"] == "timezone-kept-utc")
    assert zone["file"] == "role.resdef" and zone["pointer"].endswith("/TimeZone")
    assert "[timezone-kept-utc]" in done.stderr and "'example.org' of the definition is not set" in done.stderr
    nothing_secret(tmp_path / "out", done.stdout, done.stderr)
    assert inventory(state_folder).processes == before.processes


def test_service_documents(image: str, state_folder: Path, tmp_path: Path) -> None:
    """Certificates in the declared stores, local resources of the declared sizes, settings in their file."""
    web, other = make("web"), make("other")
    pfx = write_bytes(tmp_path, web.pfx(b"certificate secret"), "web.pfx")
    pem = write_bytes(tmp_path, other.pem(), "other.pem")
    mine, second = (thumbprint(write_bytes(tmp_path, pair.pem(), "t.pem")) for pair in (web, other))
    (tmp_path / "password").write_text("certificate secret\n")
    (tmp_path / "a.csdef").write_text(
        """<?xml version="1.0"?>
        <ServiceDefinition name="Shop" xmlns="http://schemas.microsoft.com/ServiceHosting/2008/10/ServiceDefinition">
          <VirtualMachineRole name="Web">
            <Certificates><Certificate name="Ssl" storeLocation="LocalMachine" storeName="Root"/></Certificates>
            <LocalResources><LocalStorage name="Cache" sizeInMB="30"/><LocalStorage name="Logs"/></LocalResources>
            <ConfigurationSettings><Setting name="Colour"/><Setting name="StorageKey"/></ConfigurationSettings>
            <Startup/>
          </VirtualMachineRole>
        </ServiceDefinition>"""
    )
    (tmp_path / "a.cscfg").write_text(f"""<?xml version="1.0"?>
        <ServiceConfiguration serviceName="Shop"
            xmlns="http://schemas.microsoft.com/ServiceHosting/2008/10/ServiceConfiguration">
          <Role name="web">
            <Instances count="2"/>
            <ConfigurationSettings>
              <Setting name="Colour" value="blau &amp; grün"/><Setting name="StorageKey" value="Sw0rdfish-key"/>
            </ConfigurationSettings>
            <Certificates>
              <Certificate name="Ssl" thumbprint="{mine.lower()}" thumbprintAlgorithm="sha1"/>
            </Certificates>
          </Role>
        </ServiceConfiguration>""")
    document = with_profile(
        "/bin/cat /var/lib/vmrole/configuration-settings.json",
        "/usr/bin/stat -c '%U %a' /var/lib/vmrole/configuration-settings.json /resources/Cache /resources/Logs",
        "/bin/df --output=size -m /resources/Cache",
    )
    document["ResourceRequirements"] = {"OSVirtualHardDiskRequirements": ["LINUX", "LedgerReady"]}
    path = write(tmp_path, document)
    service = ["--service-definition", str(tmp_path / "a.csdef"), "--service-configuration", str(tmp_path / "a.cscfg")]
    certificates = ["--certificate", str(pfx), "--certificate-password-file", str(tmp_path / "password")]
    missing = vmrole("run", path, *service, "--output", tmp_path / "none")
    assert missing.code == 2 and "the certificate Ssl" in missing.stderr and "--certificate FILE" in missing.stderr
    strict = vmrole("run", path, *service, *certificates, "--strict", "--output", tmp_path / "none")
    assert strict.code == 2 and "requires LedgerReady, which the image debian-12 does not declare" in strict.stderr
    assert not (tmp_path / "none").exists()
    before = inventory(state_folder)
    done = vmrole(
        "run", path, *service, *certificates, "--certificate", f"{pem}:Rot", "--local-resource", "logs=12",
        "--instance", "2", "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0 and done.json["verdict"] == "warnings", done.stderr
    instance = done.json["instances"][0]
    assert {(c["store"], c["thumbprint"]) for c in instance["certificates"]} == {("Root", mine), ("Rot", second)}
    sizes = {resource["name"]: resource["size_mb"] for resource in instance["local_resources"]}
    assert sizes == {"logs": 12, "Cache": 30, "DiagnosticStore": 100}
    steps = steps_of(done.json)
    assert json.loads(steps["run-once-1"]["stdout"]) == {"Colour": "blau & grün", "StorageKey": "__**__"}
    assert steps["run-once-2"]["stdout"].splitlines()[:2] == ["root 600", "root 700"]
    assert 24 <= int(steps["run-once-3"]["stdout"].split()[-1]) <= 36
    for told in ("did you mean Root?", "LedgerReady", "a VirtualMachineRole has no Startup"):
        assert told in done.stderr, told
    nothing_secret(tmp_path / "out", done.stdout, done.stderr)
    assert inventory(state_folder).processes == before.processes


def test_events_and_external_payload_on_one_machine(image: str, tmp_path: Path) -> None:
    """Two events make two plans for one machine; files of the external payload arrive from a folder and an address."""
    # unlike any before: what was loaded once is not loaded again
    data, other = os.urandom(20_000), b"another"
    items = [
        {"RelativePath": "big/ledger.bin", "Hash": hashlib.sha256(data).hexdigest(), "URLHint": "http://x.example/l"},
        {"RelativePath": "other.bin", "Hash": hashlib.sha256(other).hexdigest().upper()},
    ]
    document = with_profile(
        "/bin/sh -c 'cd $VMROLE_PAYLOAD && sha256sum big/ledger.bin other.bin'",
        "/bin/sh -c 'echo made >>/root/made; cat /root/made'",
        windows={"ScriptApplications": [{"DeploymentName": "S", "ErrorPolicy": "FailOnMatch", "ScriptBlock": "ver"}]},
    )
    document["DataPackage"] = {"Version": "1.0.0.0", "Location": "src", "ExternalPayload": items}
    path = write(tmp_path, document)
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/other.bin").write_bytes(other)
    refused = vmrole("run", path, "--output", tmp_path / "none")
    assert refused.code == 2 and "'big/ledger.bin' is not in the package" in refused.stderr
    assert "--external-payload" in refused.stderr
    with Server({"/files/big/ledger.bin": data}) as server:
        done = vmrole(
            "run", path, "--external-payload", tmp_path / "allowed", "--external-payload", server.url + "/files/",
            "--event", "deploy,update,deploy", "--output", tmp_path / "out", "--json",
            # a cache of its own for downloads, on the images of everybody
        )  # fmt: skip
        assert server.asked == ["/files/big/ledger.bin"]
    assert done.code == 0, done.stderr
    steps = steps_of(done.json)
    outcomes = [(id, step["outcome"]) for id, step in steps.items()]
    assert outcomes == [
        ("run-once-1", "succeeded"), ("run-once-2", "succeeded"), ("script-app-S-install", "not_applicable"),
        ("deploy-2-run-once-1", "succeeded"), ("deploy-2-run-once-2", "succeeded"),
    ]  # fmt: skip
    assert [line.split()[0] for line in steps["run-once-1"]["stdout"].splitlines()] == [
        hashlib.sha256(data).hexdigest(), hashlib.sha256(other).hexdigest(),
    ]  # fmt: skip
    assert steps["run-once-2"]["stdout"] == "made\n" and steps["deploy-2-run-once-2"]["stdout"] == "made\nmade\n"
    assert "deploy and deploy each make an instance" in done.stderr


def test_the_sample_definition(image: str, tmp_path: Path) -> None:
    done = vmrole(
        "run", SAMPLES / "hello-role", "--extension", SAMPLES / "hello-linux.resextpkg",
        "--parameters", SAMPLES / "hello-role.configuration.json", "--cpus", "2", "--memory", "512",
        "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "Good morning from a definition from HELLO-001" in steps_of(done.json)["run-once-1"]["stdout"]
    told = "".join(path.read_text("utf-8", "replace") for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert "Hello-World-7" not in told
