# SPDX-License-Identifier: Apache-2.0
"""Reading back from a Windows guest what it became, in one command, beside what it was told to become."""

from __future__ import annotations

import re
import time

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.protocol import Guest
from harness.guest.wintext import decode
from harness.run.readback import Observation, Told, shown
from harness.run.windows.answer import LOCALE, WindowsAnswer

GUEST = "C:\\Program Files\\VMRole\\vmrole-guest.exe"
_MAX_OUTPUT = 1024 * 1024
_MEBIBYTE = 1024 * 1024


def read_back(
    guest: Guest,
    answer: WindowsAnswer,
    *,
    components: str,
    stand_in: bool,
    deadline: Deadline,
    clock_tolerance: float = 2.0,
) -> list[Observation]:
    """Everything ``answer`` told the guest, as the guest now is.

    ``components`` is the version of the integration components it must have. What on a stand-in guest proves nothing
    about Windows is not provable. Raises what ``guest.run`` raises, and GuestError when the guest tells nothing.
    """
    before = time.time()
    done = guest.run([GUEST, "read-back"], deadline=deadline, max_output=_MAX_OUTPUT)
    after = time.time()
    if done.exit_code != 0:
        said = next(iter(decode(done.stderr).strip().splitlines()), "it does not say why")
        raise GuestError(f"the guest cannot tell what it became: {shown(said)}")
    told = Told(decode(done.stdout).replace("\r\n", "\n").encode("utf-8", "replace"))
    real = not stand_in
    seen = [
        _same(
            "computer-name",
            answer.computer_name.upper(),
            *(told[k].upper() for k in ("computer-name", "registry-name")),
        ),
        _time_zone(told, real),
        _locale(told, real),
        _updates(told, real),
        _account(told, real),
        _clock(told, before, after, clock_tolerance),
        _same("integration-components", components, told["components"]),
        _same("guest-service", "VMRoleGuest running", told["service"]),
        _answer_file(told),
        Observation("entropy", "its own", "cannot be seen from outside", True, provable=False),
    ]
    installed = {tuple(line.split(" ", 2)[:2]): line.split(" ", 2)[2:] for line in told.all("certificate")}
    for certificate in {(c.thumbprint, c.store): c for c in answer.certificates}.values():
        found = installed.get((certificate.store, certificate.thumbprint))
        name = f"certificate {certificate.store}"
        if found is None:
            seen.append(Observation(name, certificate.thumbprint, "missing", False))
        elif certificate.key_pem is not None and found in ([], ["-"]):
            seen.append(Observation(name, certificate.thumbprint, "has no private key", False))
        else:
            seen.append(Observation(name, certificate.thumbprint, certificate.thumbprint, True))
    resources = {}
    for line in told.all("resource"):
        free, rights, resource = [*line.split(" ", 2), "", ""][:3]
        resources[resource] = (free, rights)
    for one in answer.local_resources:
        seen.append(_resource(one.name, one.size_mb, resources.get(one.name), real))
    if answer.payload is not None:
        rights = told["payload"] or "missing"
        ok = _private(rights)
        wanted = f"{answer.payload}, for administrators only"
        seen.append(Observation("payload", wanted, wanted if ok else shown(rights), ok, provable=real))
    return seen


def _name(wanted: str, told: Told) -> Observation:
    """Windows shows its name in capitals."""
    return _same("computer-name", wanted.upper(), *(told[key].upper() for key in ("computer-name", "registry-name")))


def _same(name: str, wanted: str, *observed: str) -> Observation:
    """Every place must say ``wanted``; the first that does not is shown."""
    differs = [text for text in observed if text != wanted]
    return Observation(name, wanted, shown(differs[0] if differs else wanted) or "nothing", not differs)


def _time_zone(told: Told, real: bool) -> Observation:
    zone, bias = told["time-zone"], told["bias"]
    ok = zone in ("UTC", "Etc/UTC", "Coordinated Universal Time") and bias == "0"
    return Observation("time-zone", "UTC", shown(f"{zone or 'unknown'} (bias {bias or '?'})"), ok, provable=real)


def _locale(told: Told, real: bool) -> Observation:
    values = [told[key] for key in ("locale", "user-locale", "ui-language")]
    differs = [value for value in values if value.lower() != LOCALE.lower()]
    return Observation(
        "locale", LOCALE, shown(differs[0] if differs else LOCALE) or "unknown", not differs, provable=real
    )


def _updates(told: Told, real: bool) -> Observation:
    off = told["no-auto-update"] == "1" and told["wuauserv-start"] == "4"
    policy = f"NoAutoUpdate {told['no-auto-update'] or 'not set'}, wuauserv start {told['wuauserv-start'] or 'not set'}"
    return Observation("automatic-updates", "off", "off" if off else shown(policy), off, provable=real)


def _account(told: Told, real: bool) -> Observation:
    name, _, state = told["account"].partition(" ")
    # That it takes the password is proven by whoever asks: this connection was let in with it.
    ok = state == "enabled" or (state == "unknown" and not real)
    return Observation(
        "administrator-password", "set", "set" if ok else shown(f"{name} is {state or 'unknown'}"), ok, provable=real
    )


def _clock(told: Told, before: float, after: float, tolerance: float) -> Observation:
    wanted = f"the host's, within {tolerance:g} s"
    if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", told["time"]):
        return Observation("clock", wanted, "unknown", False)
    now = float(told["time"])
    # The guest read its clock at some moment between these two.
    off = now - min(max(now, before), after)
    return Observation("clock", wanted, f"{off:+.3f} s", abs(off) <= tolerance)


def _answer_file(told: Told) -> Observation:
    """No copy of the answer file that setup leaves behind may hold the password."""
    holding = [line.rpartition(" ")[0] for line in told.all("answer-file") if not line.endswith(" clean")]
    return Observation(
        "answer-file",
        "holds no password",
        shown(f"{holding[0]} holds it" if holding else "holds no password"),
        not holding,
    )


def _resource(name: str, size_mb: int, found: tuple[str, str] | None, real: bool) -> Observation:
    title, wanted = f"local-resource {name}", f"{size_mb} MB, for administrators only"
    if found is None:
        return Observation(title, wanted, "missing", False)
    free, rights = found
    wrong = []
    if not _private(rights):
        wrong.append(f"has the rights {rights or 'unknown'}")
    if not free.isdecimal() or int(free) < size_mb:
        wrong.append(f"has {free if free.isdecimal() else 'an unknown number of'} MB")
    seen = ", ".join(wrong) or f"{size_mb} MB, for administrators only"
    return Observation(title, wanted, shown(seen), not wrong, provable=real)


def _private(rights: str) -> bool:
    """Only administrators and the system: the word for it, or a security descriptor with no other trustee."""
    if rights == "administrators-only":
        return True
    entries = re.findall(r"\(([^()]*)\)", rights)
    trustees = {entry.rpartition(";")[2] for entry in entries if entry.startswith("A;")}
    return bool(trustees) and trustees <= {"BA", "SY", "LA", "CO"}
