# SPDX-License-Identifier: Apache-2.0
"""Reading back from a Windows guest what it became, in one command, beside what it was told to become."""

from __future__ import annotations

import re
import time

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.protocol import Guest
from harness.guest.wintext import GUEST, decode
from harness.run.readback import Components, Observation, Told, components_observation, shown
from harness.run.windows.answer import LOCALE, WindowsAnswer

_MAX_OUTPUT = 1024 * 1024
_MEBIBYTE = 1024 * 1024
_LANGUAGE = "0409"
"""English (United States)."""


def read_back(
    guest: Guest,
    answer: WindowsAnswer,
    *,
    components: Components,
    stand_in: bool,
    deadline: Deadline,
    clock_tolerance: float = 2.0,
) -> list[Observation]:
    """Everything ``answer`` told the guest, as the guest now is.

    What on a stand-in guest proves nothing about Windows is not provable. Raises what ``guest.run`` raises, and
    GuestError when the guest tells nothing.
    """
    before = time.time()
    done = guest.run([GUEST, "read-back"], deadline=deadline, max_output=_MAX_OUTPUT)
    after = time.time()
    if done.exit_code != 0:
        raise GuestError(f"the guest cannot tell what it became: {done.said}")
    told = Told(decode(done.stdout).replace("\r\n", "\n").encode("utf-8", "replace"))
    real = not stand_in
    seen = [
        _name(answer.computer_name, told),
        _time_zone(told, real),
        _locale(told, real),
        _updates(told, real),
        _password(told, real),
        _clock(told, before, after, clock_tolerance),
        *_components(components, told),
        _answer_files(told),
        Observation("entropy", "its own", "cannot be seen from outside", True, provable=False),
    ]
    installed = {(store, thumbprint): key for thumbprint, key, store in _words(told, "certificate", 3)}
    for certificate in {(c.thumbprint, c.store): c for c in answer.certificates}.values():
        key = installed.get((certificate.store, certificate.thumbprint))
        lacks = certificate.key_pem is not None and key in ("", "-")
        said = "missing" if key is None else "has no private key" if lacks else certificate.thumbprint
        ok = said == certificate.thumbprint
        seen.append(Observation(f"certificate {certificate.store}", certificate.thumbprint, said, ok))
    resources = {name: (free, rights) for free, _all, rights, name in _words(told, "resource", 4)}
    for one in answer.local_resources:
        seen.append(_resource(one.name, one.size_mb, resources.get(one.name), real))
    if answer.payload is not None:
        rights = next((rights for rights, path in _words(told, "payload", 2) if path == answer.payload), "missing")
        wanted = f"{answer.payload}, for administrators only"
        ok = _private(rights)
        seen.append(Observation("payload", wanted, wanted if ok else shown(rights), ok, provable=real or not ok))
    return seen


def _words(told: Told, key: str, count: int) -> list[list[str]]:
    """The values of ``key`` as so many words, of which the last may have blanks."""
    split = (line.split(" ", count - 1) for line in told.all(key))
    return [words for words in split if len(words) == count]


def _name(wanted: str, told: Told) -> Observation:
    """Windows shows its name in capitals."""
    seen = (told[key].upper() for key in ("computer-name", "computer-name-registry"))
    return _same("computer-name", wanted.upper(), *seen)


def _components(wanted: Components, told: Told) -> list[Observation]:
    """The installer's product, what is running of it, and the program that answers."""
    product, _, versions = told["msi"].partition(" ")
    installed = versions.rpartition(" ")[2]
    return [
        components_observation(wanted, told["version"], installed if product not in ("", "-") else "not installed"),
        _same("guest-service", "running, automatic", told["service"].replace(" 2", ", automatic")),
    ]


def _same(name: str, wanted: str, *observed: str) -> Observation:
    """Every place must say ``wanted``; the first that does not is shown."""
    differs = [text for text in observed if text != wanted]
    return Observation(name, wanted, shown(differs[0] if differs else wanted) or "nothing", not differs)


def _time_zone(told: Told, real: bool) -> Observation:
    zone, _, bias = told["time-zone"].rpartition(" ")
    ok = bias == "0" and zone in ("UTC", "Etc/UTC", "Coordinated Universal Time")
    return Observation("time-zone", "UTC", shown(f"{zone or 'unknown'} (bias {bias or '?'})"), ok, provable=real)


def _locale(told: Told, real: bool) -> Observation:
    system, user, language = [*told["locale"].split(" "), "", "", ""][:3]
    ok = (system, user, language) == (LOCALE, LOCALE, _LANGUAGE)
    seen = LOCALE if ok else f"{system or 'unknown'}, user's {user or 'unknown'}, language {language or 'unknown'}"
    return Observation("locale", LOCALE, shown(seen), ok, provable=real)


def _updates(told: Told, real: bool) -> Observation:
    policy, _, start = told["updates"].partition(" ")
    off = policy == "1" and start in ("4", "-")  # Server Core images may lack the service
    seen = "off" if off else f"NoAutoUpdate {policy or 'not set'}, start of wuauserv {start or 'not set'}"
    return Observation("automatic-updates", "off", shown(seen), off, provable=real)


def _password(told: Told, real: bool) -> Observation:
    """That it is the administrator's is seen by who asks: the guest let this very connection in with it."""
    return Observation("administrator-password", "set", "set", True, provable=real)


def _clock(told: Told, before: float, after: float, tolerance: float) -> Observation:
    wanted = f"the host's, within {tolerance:g} s"
    if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", told["clock"]):
        return Observation("clock", wanted, "unknown", False)
    now = float(told["clock"])
    # The guest read its clock at some moment between these two.
    off = now - min(max(now, before), after)
    return Observation("clock", wanted, f"{off:+.3f} s", abs(off) <= tolerance)


def _answer_files(told: Told) -> Observation:
    """No copy of the answer file that setup leaves behind may hold a password."""
    left = told.all("password-left")
    seen = f"{left[0]} holds one" if left else "no password in any"
    return Observation("answer-files", "no password in any", shown(seen), not left)


def _resource(name: str, size_mb: int, found: tuple[str, str] | None, real: bool) -> Observation:
    title, wanted = f"local-resource {name}", f"{size_mb} MB, for administrators only"
    if found is None:
        return Observation(title, wanted, "missing", False)
    free, rights = found
    wrong = []
    if not _private(rights):
        wrong.append(f"has the rights {rights}")
    megabytes = int(free) // _MEBIBYTE if re.fullmatch("[0-9]{1,15}", free) else None
    if megabytes is None or megabytes < size_mb:
        wrong.append(f"has {'an unknown number of' if megabytes is None else megabytes} MB")
    seen = ", ".join(wrong) or wanted
    # Rights that the stand-in shows are Wine's; that they are wrong would be ours.
    return Observation(title, wanted, shown(seen), not wrong, provable=real or bool(wrong))


def _private(rights: str) -> bool:
    """Whether a security descriptor lets nobody in but administrators and the system."""
    entries = re.findall(r"\(([^()]*)\)", rights)
    trustees = {entry.rpartition(";")[2] for entry in entries if entry.startswith("A;")}
    return bool(trustees) and trustees <= {"BA", "SY", "LA"}
