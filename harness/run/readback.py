# SPDX-License-Identifier: Apache-2.0
"""Reading back from a Linux guest what it became, in one command, beside what it was told to become."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.deadline import Deadline
from harness.guest.protocol import Guest
from harness.quoting import quoted
from harness.run.answer import Answer, LocalResource

if TYPE_CHECKING:
    from harness.run.certificates import Certificate

CERTIFICATES = "/var/lib/waagent"
RESOURCES = "/resources"
_PRIVATE_FOLDER = "700 0 0"
_PRIVATE_FILE = "600 0 0"
_MAX_OUTPUT = 1024 * 1024
_MAX_TEXT = 200
_UPDATE_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
_TRUST = "/etc/ssl/certs/ca-certificates.crt"
_MEBIBYTE = 1024 * 1024

# Shell builtins wherever they do: every program that is started costs an emulated processor tens of milliseconds,
# systemctl a quarter of a second, which is why it runs beside the rest. From there on every line is one write.
# What is looked for comes by standard input, as the hash must not be in a command line. Answers are lines key=value.
_SCRIPT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
first() { l=; [ -r "$2" ] && read -r l <"$2"; say "$1" "$l"; }
lang=
[ -r /etc/default/locale ] && while read -r l; do case $l in LANG=*) lang=${l#LANG=};; esac; done </etc/default/locale
say locale "$lang"
printf date=; date '+%Z %z %s.%N'
printf charmap=; LC_ALL=$lang locale charmap || echo
systemctl is-active UNITS </dev/null | while read -r l; do say active "$l"; done &
first name /proc/sys/kernel/hostname
first hostname-file /etc/hostname
first time-zone /etc/timezone
first machine-id /etc/machine-id
first marker /run/vmrole/ready
first host-key /etc/ssh/ssh_host_ed25519_key.pub
for u in UNITS; do
  [ /etc/systemd/system/$u -ef /dev/null ] || [ /lib/systemd/system/$u -ef /dev/null ] || \
  [ ! -e /lib/systemd/system/$u ] || say unit "$u"
done
while IFS= read -r line; do kind=${line%% *} value=${line#* }; case $kind in
  zone) if [ /etc/localtime -ef "/usr/share/zoneinfo/$value" ]; then say localtime "/usr/share/zoneinfo/$value"
    else say localtime "$(readlink /etc/localtime)"; fi;;
  hash) while IFS=: read -r u p _; do [ "$u" = root ] && case $p in
      "$value") say password set;; '!'*|'*'*) say password locked;; '') say password empty;; *) say password other;;
    esac; done </etc/shadow;;
  certificate) f=CERTIFICATES/$value.crt; [ -r "$f" ] && while read -r l; do say "crt-$value" "$l"; done <"$f";;
  key) f=CERTIFICATES/$value.prv; set -- "$@" "$f"; say "key-$value" "$(sha256sum <"$f")";;
  trust) grep -qxF -e "${value#* }" TRUST </dev/null && say "trust-${value%% *}" yes;;
  path) set -- "$@" "$value";;
esac; done
[ $# = 0 ] || {
  stat --printf 'stat=%a %u %g\t%m\t%n\n' -- "$@"
  stat -f --printf 'free=%a %S\t%n\n' -- "$@"
} </dev/null
wait
"""


@dataclass(frozen=True, slots=True)
class Components:
    """The version of the integration components that a guest must have, and that of its image, "" where it has none."""

    wanted: str
    of_image: str


READ_BEFORE = Components("", "")
"""Of a machine that goes on from a checkpoint: it was read back when it was specialised."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing the guest was told to become, and what it says it is; texts for people.

    ``provable`` is whether the guest can tell at all; what it cannot is taken for ``ok``.
    """

    name: str
    wanted: str
    observed: str
    ok: bool
    provable: bool = True


def read_back(
    guest: Guest,
    answer: Answer,
    *,
    host_key: str,
    components: Components,
    deadline: Deadline,
    clock_tolerance: float = 2.0,
) -> list[Observation]:
    """Everything ``answer`` told the guest, and the SSH host key (public line), as the guest now is.

    ``clock_tolerance`` in seconds. A guest that tells nothing gives observations that are not ok; secrets are compared
    in the guest and are in no observation. Raises what ``guest.run`` raises.
    """
    before = time.time()
    result = guest.run(
        ["sh", "-c", _script(), "sh"], stdin=_questions(answer), deadline=deadline, max_output=_MAX_OUTPUT
    )
    told = Told(result.stdout)
    return [
        _same("computer-name", answer.computer_name, told["name"], told["hostname-file"]),
        _time_zone(answer.time_zone, told),
        _locale(answer.locale, told),
        _updates(answer.automatic_updates, told),
        _password(told),
        _same("ssh-host-key", fingerprint(host_key), fingerprint(told["host-key"])),
        _same("machine-id", answer.machine_id, told["machine-id"]),
        _clock(told, before, time.time(), clock_tolerance),
        components_observation(components, "".join(told["marker"].split(" ")[1:2])),
        Observation("entropy", "its own", "cannot be seen from outside", True, provable=False),
        *(_certificate(certificate, told) for certificate in _unique(answer)),
        *(_resource(resource, told) for resource in answer.local_resources),
        *_payload(answer, told),
    ]


def fingerprint(public_key: str) -> str:
    """``SHA256:...`` of a public key line as ssh-keygen shows it, empty for what is no key."""
    try:
        data = base64.b64decode(public_key.split()[1], validate=True)
    except (IndexError, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _script() -> str:
    text = _SCRIPT.replace("UNITS", " ".join(_UPDATE_UNITS)).replace("CERTIFICATES", CERTIFICATES)
    return text.replace("TRUST", _TRUST)


def _questions(answer: Answer) -> bytes:
    lines = [f"zone {answer.time_zone}", f"hash {answer.administrator_password_hash}"]
    for certificate in _unique(answer):
        lines.append(f"certificate {certificate.thumbprint}")
        if certificate.key_pem is not None:
            lines.append(f"key {certificate.thumbprint}")
        if certificate.store in ("Root", "CA"):
            # A whole line of the signature is in no other certificate.
            lines.append(f"trust {certificate.thumbprint} {certificate.crt_pem.decode().splitlines()[-3]}")
    lines += [f"path {RESOURCES}/{resource.name}" for resource in answer.local_resources]
    if answer.payload:
        lines.append(f"path {answer.payload}")
    return "".join(f"{line}\n" for line in dict.fromkeys(lines)).encode("utf-8", "surrogateescape")


def _unique(answer: Answer) -> list[Certificate]:
    return list({(c.thumbprint, c.store): c for c in answer.certificates}.values())


class Told:
    """The guest's answers: key to lines, made harmless; what it did not say is empty."""

    def __init__(self, output: bytes) -> None:
        self._lines: dict[str, list[str]] = {}
        for line in output.decode("utf-8", "surrogateescape").split("\n"):
            key, equals, value = line.partition("=")
            if equals:
                self._lines.setdefault(key, []).append(value)

    def __getitem__(self, key: str) -> str:
        return self.all(key)[0] if self.all(key) else ""

    def all(self, key: str) -> list[str]:
        return self._lines.get(key, [])


def shown(text: str) -> str:
    """What a guest says, fit to be shown."""
    return quoted("".join(c if c.isprintable() else "?" for c in text), _MAX_TEXT)


def _same(name: str, wanted: str, *observed: str) -> Observation:
    """Every place must say ``wanted``; the first that does not is shown."""
    differs = [text for text in observed if text != wanted]
    seen = differs[0] if differs else wanted
    return Observation(name, wanted, shown(seen) or "nothing", not differs)


def components_observation(components: Components, *observed: str) -> Observation:
    """Every place must say the wanted version; that it is not the image's own is told."""
    seen = _same("integration-components", components.wanted, *observed)
    if not seen.ok or components.of_image == components.wanted:
        return seen
    had = f"the image has {components.of_image}" if components.of_image else "the image has none"
    return replace(seen, observed=shown(f"{components.wanted}, from the instance medium: {had}"))


def _time_zone(wanted: str, told: Told) -> Observation:
    zone = told["localtime"].partition("/zoneinfo/")[2] or "unknown"
    name, offset, *_ = [*told["date"].split(" "), "", ""]
    # The clock in use, the link it comes from and the name on file: any of them may be forgotten.
    seen = f"{zone} ({name} {offset})"
    aliases = {"UTC", "Etc/UTC"}
    same = zone == wanted or {zone, wanted} <= aliases
    on_file = told["time-zone"] in ({wanted} | (aliases if wanted in aliases else set()))
    ok = same and on_file and (wanted not in aliases or offset == "+0000")
    return Observation("time-zone", wanted, shown(seen if on_file else f"{seen}, on file {told['time-zone']}"), ok)


def _locale(wanted: str, told: Told) -> Observation:
    seen = told["locale"].strip("\"'")
    # A locale that is set but was never generated is C: its character set gives it away.
    works = told["charmap"].casefold() == (wanted.partition(".")[2] or told["charmap"]).casefold()
    return Observation(
        "locale", wanted, shown(seen if works else f"{seen}, which it does not have"), seen == wanted and works
    )


def _updates(wanted: str, told: Told) -> Observation:
    # Neither allowed to run (masked or absent) nor running since before it was forbidden.
    states = told.all("active")
    running = [unit for unit, state in zip(_UPDATE_UNITS, states, strict=False) if state not in ("inactive", "failed")]
    on = list(dict.fromkeys([*told.all("unit"), *running]))
    heard = len(states) == len(_UPDATE_UNITS)
    seen = f"on: {', '.join(on)}" if on else "off" if heard else "unknown"
    return Observation("automatic-updates", wanted, shown(seen), heard and (seen == "off") == (wanted == "off"))


def _password(told: Told) -> Observation:
    seen = told["password"]
    told_as = {"other": "another one", "": "unknown"}.get(seen, seen)
    return Observation("administrator-password", "set", shown(told_as), seen == "set")


def _clock(told: Told, before: float, after: float, tolerance: float) -> Observation:
    wanted = f"the host's, within {tolerance:g} s"
    try:
        now = float(told["date"].split(" ")[2])
    except (IndexError, ValueError):
        return Observation("clock", wanted, "unknown", False)
    # The guest read its clock at some moment between these two.
    off = now - min(max(now, before), after)
    return Observation("clock", wanted, f"{off:+.3f} s", abs(off) <= tolerance)


def _certificate(certificate: Certificate, told: Told) -> Observation:
    thumbprint = certificate.thumbprint
    wrong = []
    try:
        pem = "\n".join(told.all(f"crt-{thumbprint}"))
        seen = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False).hexdigest().upper()
    except ValueError:
        return Observation(f"certificate {certificate.store}", thumbprint, "missing", False)
    if seen != thumbprint:
        wrong.append(f"is another one, {seen}")
    if certificate.key_pem is not None:
        rights, _ = _stats(told).get(f"{CERTIFICATES}/{thumbprint}.prv", ("unknown", ""))
        if told[f"key-{thumbprint}"].split(" ")[0] != hashlib.sha256(certificate.key_pem).hexdigest():
            wrong.append("its private key is missing or another one")
        elif rights != _PRIVATE_FILE:
            wrong.append(f"its private key has the mode and owner {rights}")
    if certificate.store in ("Root", "CA") and told[f"trust-{thumbprint}"] != "yes":
        wrong.append("the system does not trust it")
    return Observation(f"certificate {certificate.store}", thumbprint, shown(", ".join(wrong) or thumbprint), not wrong)


def _resource(resource: LocalResource, told: Told) -> Observation:
    path = f"{RESOURCES}/{resource.name}"
    name, wanted = f"local-resource {resource.name}", f"{resource.size_mb} MB, for root only"
    if path not in _stats(told):
        return Observation(name, wanted, "missing", False)
    rights, mount = _stats(told)[path]
    wrong = []
    if rights != _PRIVATE_FOLDER:
        wrong.append(f"has the mode and owner {rights}")
    if mount != path:
        wrong.append("is not a file system of its own")
    free = _free(told).get(path)
    size = free // _MEBIBYTE if free is not None else None
    # More than declared only by what a file system cannot be cut to exactly.
    if size is None or not resource.size_mb <= size <= resource.size_mb * 1.1 + 8:
        wrong.append(f"has {size if size is not None else 'an unknown number of'} MB")
    seen = ", ".join(wrong) if wrong else f"{size} MB, for root only"
    return Observation(name, wanted, shown(seen), not wrong)


def _payload(answer: Answer, told: Told) -> Iterator[Observation]:
    if answer.payload is not None:
        seen, _ = _stats(told).get(answer.payload, ("missing", ""))
        ok = seen == _PRIVATE_FOLDER
        yield Observation("payload", f"{answer.payload}, for root only", answer.payload if ok else shown(seen), ok)


def _stats(told: Told) -> Mapping[str, tuple[str, str]]:
    """Path to "mode owner group" and mount point."""
    found: dict[str, tuple[str, str]] = {}
    for line in told.all("stat"):
        rights, mount, path, *_ = [*line.split("\t"), "", ""]
        found.setdefault(path, (rights, mount))
    return found


def _free(told: Told) -> Mapping[str, int]:
    """Path to bytes that can be written."""
    found: dict[str, int] = {}
    for line in told.all("free"):
        if match := re.fullmatch(r"([0-9]{1,15}) ([0-9]{1,9})\t(.*)", line):
            found.setdefault(match[3], int(match[1]) * int(match[2]))
    return found
