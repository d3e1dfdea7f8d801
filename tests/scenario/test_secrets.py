# SPDX-License-Identifier: Apache-2.0
"""Secrets planted wherever a run can meet them, in a real machine; and then looked for in everything that is left."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import vmrole
from tests.run.test_certificates import make, thumbprint, write
from tests.scenario.test_plugin import session

pytestmark = pytest.mark.vm

CREDENTIAL = "Cr3dential&<secret>-x"
STRING = "secure:string+planted=42"
ADMINISTRATOR = "Adm1n-planted-secret"
PFX = "pfx-planted-password"

SCRIPT = r"""#!/bin/sh
# Says what it was given in every way that programs do.
password=${1#*:} string=$2
echo "plain $password $string"
printf '%s' "$string" | base64
printf '%s' "x$string" | base64
printf '%s' "$string" | sed 's/./&\x00/g' | base64 -w0; echo
printf '%s' "$string" | sed 's/./&\x00/g'
printf '\033[31m%s\033[1m%s\033[0m\n' "$(printf %s "$string" | cut -c1-9)" "$(printf %s "$string" | cut -c10-)"
cat /var/lib/waagent/*.prv >&2
mkdir -p "/resources/DiagnosticStore/$string"
echo "in a file: $string" >"/resources/DiagnosticStore/$string/$string.log"
echo "$string" >"/var/log/planted-$string.log"
echo "console says $string" >/dev/console
logger "journal has $string"
echo "it ends with $string" >&2
exit 3
"""


def planted(folder: Path) -> tuple[list[bytes], str]:
    """An extension that plants them, and what must be nowhere; also the thumbprint of the certificate."""
    pair = make("planted")
    (folder / "payload").mkdir()
    (folder / "payload/tell.sh").write_text(SCRIPT)
    command = '/bin/sh /var/lib/vmrole/payload/tell.sh "[Param.Account]" "[Param.Key]"'
    (folder / "planted.resext").write_text(json.dumps({
        "SchemaVersion": "1.0", "Name": "Planted", "Version": "1.0.0.0", "Publisher": "tests",
        "Type": "Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        "DataPackage": {"Version": "1.0.0.0", "Location": "payload"},
        "ResourceExtensionParameters": [
            {"Name": "Account", "Type": "Credential"}, {"Name": "Key", "Type": "SecureString"},
        ],
        "ExtensionSettings": {"ApplicationProfile": {"Name": "Planted", "LinuxApplicationProfile": {
            "RunOnceCommands": [command, "/bin/echo [Param.Key]", '/bin/sh -c "echo [Param.Key]; no-such [Param.Key]"'],
        }}},
    }))  # fmt: skip
    write(folder, pair.pfx(PFX.encode()), "planted.pfx")
    (folder / "pfx-password").write_text(f"{PFX}\n")
    (folder / "admin-password").write_text(f"{ADMINISTRATOR}\n")
    keys = (pair.key_pem(), pair.key_pem(traditional=True))
    lines = [line for key in keys for line in key.splitlines() if len(line) >= 32 and b"-----" not in line]
    return [*spellings(), *lines, b"$2b$"], thumbprint(write(folder, pair.pem(), "planted.pem"))


def spellings() -> list[bytes]:
    """The planted secrets as text, and as JSON, XML, URLs, UTF-16 and base64 have them."""
    found = set()
    for secret in (CREDENTIAL, STRING, ADMINISTRATOR, PFX):
        texts = {secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret, safe="")}
        found |= {text.encode() for text in texts} | {secret.encode("utf-16-le")}
        for data in (secret.encode(), secret.encode("utf-16-le")):
            for shift in range(3):
                # Without the characters at the ends, which hold bits of what stands beside it.
                found.add(base64.b64encode(bytes(shift) + data)[4:-4])
    return sorted(found)


def leaks(place: Path, wanted: list[bytes]) -> list[str]:
    """Files below ``place`` that have one of ``wanted`` in them or in their names."""
    found = []
    for path in (place, *place.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        found += [f"{path}: {secret!r}" for secret in wanted if secret in data or secret in path.name.encode()]
    return found


def test_the_command_leaves_none(image: str, tmp_path: Path) -> None:
    wanted, _ = planted(tmp_path)
    (tmp_path / "key").write_text(STRING)
    done = vmrole(
        "run", tmp_path / "planted.resext", "--output", tmp_path / "out", "--json",
        "-p", "Account=env:PLANTED_ACCOUNT", "-p", f"Key=@{tmp_path / 'key'}",
        "--certificate", tmp_path / "planted.pfx", "--certificate-password-file", tmp_path / "pfx-password",
        "--admin-password-file", tmp_path / "admin-password", PLANTED_ACCOUNT=f"CORP\\svc:{CREDENTIAL}",
    )  # fmt: skip
    assert done.code == 0 and done.json["verdict"] == "warnings", done.stderr
    told = done.json["instances"][0]["steps"][0]
    assert told["exit_code"] == 3 and "plain" in told["stdout"], told
    for secret in wanted:
        assert secret not in (done.stdout + done.stderr).encode()
    assert leaks(tmp_path / "out", wanted) == []
    # It was all there: the mask stands where the secrets did.
    assert (tmp_path / "out/guest/index.json").read_text().count("__**__") == 3
    for name in (
        "steps/run-once-1/stdout",
        "steps/run-once-1/stderr",
        "console.log",
        "guest/journal.log",
        "report.html",
    ):
        assert "__**__" in (tmp_path / "out" / name).read_text("utf-8", "replace"), name
    again = next(line for line in done.stderr.splitlines() if " again: " in line)
    assert "-p Account=env:PLANTED_ACCOUNT" in again and f"-p Key=@{tmp_path / 'key'}" in again


def test_a_session_leaves_none(image: str, tmp_path: Path) -> None:
    """Nor do JUnit, the index, and what is printed, though an assertion shows what the guest said."""
    wanted, mark = planted(tmp_path)
    (tmp_path / "credential").write_text(CREDENTIAL)
    (tmp_path / "key").write_text(STRING)
    done = session(tmp_path, f'''
from pathlib import Path
CREDENTIAL = "Cr3dential&<secret>-x"
KEY = Path("key").read_text()

def test_planted(vm_role: VmRole) -> None:
    role = vm_role(
        "planted.resext", parameters={{"Account": "CORP\\\\svc:" + CREDENTIAL, "Key": KEY}},
        certificates=["planted.pfx"], certificate_password_file=Path("pfx-password"),
        admin_password_file=Path("admin-password"),
    )
    print("printed", KEY)
    assert role.certificate("{mark}").store == "My"
    role.guest.put(KEY, "/root/key")
    role.guest.run(["sh", "-c", "echo console: $0 >/dev/console", KEY])
    assert role.guest.get("/root/key").decode() == CREDENTIAL
''', "-rA", "--showlocals")  # fmt: skip
    assert done.code == 1, done.text
    assert "assert" in done.text and "__**__" in done.text, done.text
    for secret in wanted:
        assert secret not in done.text.encode()
    assert leaks(done.output, wanted) == []
    assert leaks(tmp_path / "junit.xml", wanted) == []
    run = done.output / "test_planted-1"
    assert "-p Key=@Key.secret" in (run / "events.jsonl").read_text()
    assert "console: __**__" in (run / "console.log").read_text()
    assert "__**__" in (tmp_path / "junit.xml").read_text()
