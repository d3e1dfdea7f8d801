# SPDX-License-Identifier: Apache-2.0
"""A guest looked into as by hand: what it became, rights, trust, accounts, and that no secret is left on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.deadline import Deadline
from harness.masking import Masker
from harness.run.answer import LocalResource
from harness.run.deploy import Deployed
from harness.run.events import EventBus
from harness.run.recorder import Recorder
from harness.run.request import MachineRequest
from tests import machines
from tests.conftest import HANGS, linux
from tests.run.test_certificates import load_certificate, make, write

pytestmark = pytest.mark.vm

PASSWORD = "Correct-Horse-9"


@pytest.fixture(scope="module")
def deployed(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployed, Recorder]]:
    folder = tmp_path_factory.mktemp("inspection")
    pair = make("inspection")
    mine = load_certificate(write(folder, pair.pfx(b"pw"), "mine.pfx"), "My", b"pw")
    trusted = load_certificate(write(folder, make("trusted root").pem(), "root.pem"), "Root")
    request = MachineRequest(
        image=image,
        computer_name="inspect-##",
        instance=7,
        administrator_password=PASSWORD,
        certificates=(mine, trusted),
        local_resources=(LocalResource("Data", 20),),
    )
    bus, recorder = EventBus(), Recorder()
    bus.subscribe(recorder)
    with machines.machine(request, bus) as deployed:
        yield deployed, recorder


def ask(deployed: Deployed, *argv: str) -> str:
    done = deployed.guest.run(argv, deadline=Deadline(HANGS))
    assert done.exit_code == 0, (argv, done)
    return done.stdout.decode().strip()


def test_everything_is_as_wanted(deployed: tuple[Deployed, Recorder]) -> None:
    machine, recorder = deployed
    seen = recorder.instances[0].specialization
    assert [o for o in seen if not o.ok] == []
    assert {"computer-name", "time-zone", "locale", "automatic-updates", "administrator-password", "ssh-host-key"} <= {
        o.name for o in seen
    }
    assert ask(machine, "hostname") == "inspect-07"
    assert ask(machine, "date", "+%Z") == "UTC"
    assert "LANG=en_US.UTF-8" in ask(machine, "cat", "/etc/default/locale")
    # Ready comes before systemd has finished: whoever asks has to wait for it.
    assert ask(machine, "systemctl", "is-system-running", "--wait") == "running"
    assert "apt" not in ask(machine, "systemctl", "list-timers", "--no-legend")


def test_certificates_and_trust(deployed: tuple[Deployed, Recorder]) -> None:
    machine, _ = deployed
    mine, trusted = linux(machine).answer.certificates
    folder = "/var/lib/waagent"
    assert ask(machine, "stat", "-c", "%U %a", f"{folder}/{mine.thumbprint}.prv") == "root 600"
    of = f"openssl x509 -in {folder}/{mine.thumbprint}.crt -noout -fingerprint -sha1"
    assert ask(machine, "sh", "-c", of).replace(":", "").endswith(mine.thumbprint)
    pair = f"openssl pkey -in {folder}/{mine.thumbprint}.prv -pubout; openssl x509 -in {folder}/{mine.thumbprint}.crt"
    keys = ask(machine, "sh", "-c", f"{pair} -pubkey -noout").split("-----END PUBLIC KEY-----")
    assert keys[0].strip() == keys[1].strip()
    assert ask(machine, "openssl", "verify", f"{folder}/{trusted.thumbprint}.crt").endswith("OK")
    assert machine.guest.run(
        ["openssl", "verify", f"{folder}/{mine.thumbprint}.crt"], deadline=Deadline(HANGS)
    ).exit_code not in (0, None)


def test_local_resources(deployed: tuple[Deployed, Recorder]) -> None:
    machine, _ = deployed
    assert ask(machine, "stat", "-c", "%U %a", "/resources/Data", "/resources/DiagnosticStore") == "root 700\nroot 700"
    fits = "dd if=/dev/zero of=/resources/Data/fits bs=1M count=20 status=none"
    assert ask(machine, "sh", "-c", f"{fits} && rm /resources/Data/fits") == ""
    over = machine.guest.run(
        ["dd", "if=/dev/zero", "of=/resources/Data/over", "bs=1M", "count=22"], deadline=Deadline(HANGS)
    )
    assert over.exit_code == 1 and b"No space left" in over.stderr
    ask(machine, "rm", "/resources/Data/over")
    denied = machine.guest.run(["runuser", "-u", "nobody", "--", "ls", "/resources/Data"], deadline=Deadline(HANGS))
    assert denied.exit_code == 2 and b"Permission denied" in denied.stderr


def test_password_works_and_others_do_not(deployed: tuple[Deployed, Recorder]) -> None:
    machine, _ = deployed
    host, port = machine.machine.endpoint(22)
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        kind, data = linux(machine).host_key.public.split()[:2]
        client.get_host_keys().add(f"[{host}]:{port}", kind, paramiko.PKey.from_type_string(kind, _decode(data)))
        options = {"username": "root", "allow_agent": False, "look_for_keys": False, "timeout": 60, "auth_timeout": 60}
        with pytest.raises(paramiko.AuthenticationException):
            client.connect(host, port, password="wrong", **options)  # type: ignore[arg-type]
        client.connect(host, port, password=PASSWORD, **options)  # type: ignore[arg-type]


def _decode(data: str) -> bytes:
    import base64

    return base64.b64decode(data)


def test_no_secret_is_left(deployed: tuple[Deployed, Recorder]) -> None:
    """Neither the password nor the client's key is anywhere; the hash is where it belongs and nowhere else."""
    machine, _ = deployed
    secret = re.sub(r"\s", "", linux(machine).client_key.private.decode().split("-----")[2])[40:100]
    digest = linux(machine).answer.administrator_password_hash[7:]
    # Wherever something is written at run time; the packages' own files are the image's.
    search = 'grep -rlsF -e "$1" /etc /var /root /home /run /tmp /usr/local /usr/lib/vmrole /resources; true'
    for wanted, where in ((PASSWORD, ""), (secret, ""), (digest, "/etc/shadow")):
        assert ask(machine, "sh", "-c", search, "sh", wanted) == where
    assert ask(machine, "sh", "-c", "ls /dev/sr0 >/dev/null && blkid /dev/sr0 || echo empty") == "empty"
    assert Masker((PASSWORD,)).text(PASSWORD) == "__**__"


def test_medium_is_gone_from_the_host(deployed: tuple[Deployed, Recorder], state_folder: Path) -> None:
    assert not list(state_folder.rglob("*.iso"))


def test_reboot(deployed: tuple[Deployed, Recorder]) -> None:
    """Proven by the boot id; the agent starts again and brings back network, resources and the marker."""
    machine, _ = deployed
    before = machine.guest.boot_id(deadline=Deadline(HANGS))
    ask(machine, "sh", "-c", "echo stays >/resources/Data/file")
    after = machine.guest.reboot(deadline=Deadline(HANGS))
    assert after != before and machine.guest.boot_id(deadline=Deadline(HANGS)) == after
    assert ask(machine, "cat", "/resources/Data/file") == "stays"
    assert ask(machine, "hostname") == "inspect-07"
    assert ask(machine, "cat", "/run/vmrole/ready").split()[-1] == after
