# SPDX-License-Identifier: Apache-2.0
"""`vmrole run` as a user meets it, in real machines."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, SAMPLES, inventory, vmrole
from tests.run.test_certificates import make, thumbprint, write

pytestmark = pytest.mark.vm

REFERENCE = Path(os.environ.get("VMROLE_REFERENCE_DOCS", REPOSITORY.parent / "shared"))


def test_sample_end_to_end(image: str, state_folder: Path, tmp_path: Path) -> None:
    """The main job: certificate, local resources, payload, steps, logs, report; and nothing is left."""
    pair = make("sample")
    pfx = write(tmp_path, pair.pfx(b"certificate secret"), "cert.pfx")
    wanted = thumbprint(write(tmp_path, pair.pem(), "cert.pem"))
    (tmp_path / "password").write_text("certificate secret\n")
    (tmp_path / "admin").write_text("Correct-Horse-9\n")
    before = inventory(state_folder)
    output = tmp_path / "out"
    done = vmrole(
        "run", SAMPLES / "hello-linux.resextpkg", "-p", "Greeting=Good day", "--output", output, "--json",
        "--certificate", pfx, "--certificate", f"{pfx}:Root", "--certificate-password-file", tmp_path / "password",
        "--local-resource", "Data=20", "--computer-name", "web-##", "--admin-password-file", tmp_path / "admin",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    result = done.json
    assert result == json.loads((output / "result.json").read_text())
    assert result["schema"] == 1 and result["verdict"] == "succeeded" and result["blame"] is None, result["summary"]
    assert result["accelerator"]["kind"] in ("kvm", "tcg") and result["accelerator"]["reason"]
    instance = result["instances"][0]
    assert all(seen["ok"] for seen in instance["specialization"]), instance["specialization"]
    observed = {seen["name"]: seen["observed"] for seen in instance["specialization"]}
    assert observed["computer-name"] == "web-01"
    assert {c["store"] for c in instance["certificates"]} == {"My", "Root"}
    assert {c["thumbprint"] for c in instance["certificates"]} == {wanted}
    assert {r["name"] for r in instance["local_resources"]} == {"Data", "DiagnosticStore"}
    first = instance["steps"][0]
    assert (first["id"], first["outcome"], first["exit_code"]) == ("run-once-1", "succeeded", 0)
    assert "Good day" in first["stdout"] and "Good day" in (output / "steps/run-once-1/stdout").read_text()
    for name in ("events.jsonl", "report.html", "console.log", "findings.json", "guest/journal.log"):
        assert (output / name).stat().st_size > 0, name
    secret = re.compile(rb"certificate secret|Correct-Horse-9|PRIVATE KEY|\$2b\$")
    for path in output.rglob("*"):
        assert path.is_dir() or not secret.search(path.read_bytes()), path
    assert not secret.search(done.stderr.encode())
    assert inventory(state_folder) == before


def test_seed_document(image: str, tmp_path: Path) -> None:
    """The published sample, as it stands: its Linux command runs, its Windows steps do not apply."""
    seed = REFERENCE / "seeds/002_3b33f800d39e2464.txt"
    if not seed.exists():
        pytest.skip(f"the reference documents are not at {REFERENCE}")
    text = seed.read_text("utf-8")
    start = text.index('{\n"Name": "MyVirtualMachineRoleExtension"')
    end = text.index("另请参阅", start)
    document = tmp_path / "seed.resext"
    document.write_text(text[start:end].rstrip(), "utf-8")
    done = vmrole("run", document, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    steps = done.json["instances"][0]["steps"]
    ran = [step for step in steps if step["outcome"] != "not_applicable"]
    assert [(step["id"], step["outcome"]) for step in ran] == [("run-once-1", "succeeded")]
    assert "lo" in ran[0]["stdout"] and len(steps) > 5
    findings = json.loads((tmp_path / "out/findings.json").read_text())
    assert findings["errors"] == 0 and findings["warnings"] > 3
    told = (tmp_path / "out/events.jsonl").read_text() + done.stdout
    assert "MySAPassword" not in told and "mypassword" not in told


def test_failing_command_warns(image: str, tmp_path: Path) -> None:
    done = vmrole("run", SAMPLES / "failing.resext", "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert done.json["verdict"] == "warnings"
    outcomes = [step["outcome"] for step in done.json["instances"][0]["steps"]]
    assert outcomes == ["succeeded", "warned", "warned", "succeeded"]
    strict = vmrole("run", SAMPLES / "failing.resext", "--output", tmp_path / "strict", "--strict")
    assert strict.code == 1


def test_exec(image: str, state_folder: Path) -> None:
    """The command's own exit code and streams, argv untouched by any shell."""
    before = inventory(state_folder)
    done = vmrole(
        "exec", "--image", image, "--json", "--", "sh", "-c", 'echo "$1"; echo e >&2; exit 7', "x", "a 'b' $c"
    )
    assert done.code == 7, done.stderr
    machine = done.json["instances"][0]
    assert (machine["stdout"], machine["stderr"], machine["exit_code"]) == ("a 'b' $c\n", "e\n", 7)
    assert all(seen["ok"] for seen in machine["specialization"])
    assert inventory(state_folder) == before


def test_a_step_that_reboots_and_secrets_that_change_their_form(image: str, tmp_path: Path) -> None:
    """The guest comes back for its logs; the run ended in that step; no form of a secret is in what is shared."""
    document = {
        "SchemaVersion": "1.0",
        "Name": "Reboots",
        "Version": "1.0.0.0",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "ResourceExtensionParameters": [{"Name": "Key", "Type": "SecureString"}],
        "ExtensionSettings": {
            "ApplicationProfile": {
                "Name": "Reboots",
                "LinuxApplicationProfile": {
                    "RunOnceCommands": [
                        '/bin/sh -c \'echo "$1" | tee /resources/DiagnosticStore/a.txt; cat /etc/shadow '
                        '/etc/ssh/ssh_host_ed25519_key; head -c 3000000 /dev/zero | tr "\\0" x; echo $LANG; '
                        'echo "$1" | gzip >/resources/DiagnosticStore/z.gz; sync\' x "[Param.Key]"',
                        "/bin/sh -c 'reboot -ff; sleep 30'",
                        "/bin/echo after",
                    ]
                },
            }
        },
    }
    (tmp_path / "reboots.resext").write_text(json.dumps(document))
    (tmp_path / "key").write_text('Back\\slash"Secret77')
    output = tmp_path / "out"
    done = vmrole("run", tmp_path / "reboots.resext", "-p", f"Key=@{tmp_path}/key", "--output", output, "--json")
    assert done.code == 3 and done.json["blame"] == "guest", done.stderr
    steps = done.json["instances"][0]["steps"]
    assert [step["outcome"] for step in steps] == ["succeeded", "interrupted", "skipped"]
    assert "the guest restarted" in steps[1]["finding"]
    assert "en_US.UTF-8" in steps[0]["stdout"], "steps see the specialised locale"
    assert "of Key has quotes or backslashes" in done.stderr
    index = json.loads((output / "guest/index.json").read_text())
    assert "/resources/DiagnosticStore/a.txt" in index.values()
    assert "z.gz is compressed" in done.stderr and "/resources/DiagnosticStore/z.gz" not in index.values()
    secret = re.compile(rb"lashSecret77|\$2b\$|b3BlbnNzaC1rZXk")
    for path in output.rglob("*"):
        assert path.is_dir() or not secret.search(path.read_bytes()), path
    assert not secret.search((done.stdout + done.stderr).encode())
