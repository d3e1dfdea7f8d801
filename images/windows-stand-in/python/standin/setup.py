# SPDX-License-Identifier: Apache-2.0
"""Windows Setup's part: a generalized stand-in becomes the machine that unattend.xml describes, by its commands too."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from standin import places
from standin.auth import password_hash, write_hash
from standin.runner import Runner, StartError

_NAMESPACE = "{urn:schemas-microsoft-com:unattend}"
_SHELL = "Microsoft-Windows-Shell-Setup"
_INTERNATIONAL = "Microsoft-Windows-International-Core"
_DEPLOYMENT = "Microsoft-Windows-Deployment"
_SUCCESS = (0, 3010)
_COMMAND_SECONDS = 600.0
_SAID = 300
"""Characters of a failed command's output that are told."""


class SetupError(Exception):
    """One sentence: why the guest cannot become this machine."""


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """What of unattend.xml this understands. ``password`` is a secret."""

    computer_name: str | None
    time_zone: str | None
    locale: str | None
    password: str | None
    synchronous: tuple[str, ...]
    """Command lines of the pass specialize."""
    first_logon: tuple[str, ...]


def read_answer_file(path: Path) -> AnswerFile:
    """Raises SetupError for a file that is missing or cannot be understood."""
    try:
        root = ET.fromstring(path.read_bytes())
    except OSError as error:
        raise SetupError(f"the answer file cannot be read: {error.strerror}") from None
    except ET.ParseError as error:
        raise SetupError(f"the answer file is not XML: {error}") from None
    if root.tag != f"{_NAMESPACE}unattend":
        raise SetupError("the answer file's root is not unattend")
    return AnswerFile(
        computer_name=_value(root, "specialize", _SHELL, "ComputerName"),
        time_zone=_value(root, "specialize", _SHELL, "TimeZone") or _value(root, "oobeSystem", _SHELL, "TimeZone"),
        locale=_value(root, "oobeSystem", _INTERNATIONAL, "SystemLocale")
        or _value(root, "specialize", _INTERNATIONAL, "SystemLocale"),
        password=_password(root),
        synchronous=_commands(root, "specialize", _DEPLOYMENT, "RunSynchronous/RunSynchronousCommand", "Path"),
        first_logon=_commands(root, "oobeSystem", _SHELL, "FirstLogonCommands/SynchronousCommand", "CommandLine"),
    )


def specialize(folder: Path, runner: Runner, open_account: Callable[[], None]) -> None:
    """Become the machine that the instance data in ``folder`` describe. Raises SetupError.

    ``open_account`` is called as soon as the password is set.
    """
    answers = read_answer_file(folder / "unattend.xml")
    if answers.time_zone not in (None, "UTC"):
        raise SetupError(f"the answer file sets the time zone {answers.time_zone}, and a machine stays on UTC")
    keep_listener_certificate(folder, _answers(folder / "answer.conf"))
    with _drive(folder):
        _set_values(runner, answers)
        # Windows keeps a copy with what it was given, and its password is the integration components' to remove.
        panther = places.DRIVE / "windows/Panther"
        panther.mkdir(exist_ok=True)
        shutil.copyfile(folder / "unattend.xml", panther / "unattend.xml")
        for line in answers.synchronous:
            _execute(runner, line)
        if answers.password is None:
            raise SetupError("the answer file sets no administrator password")
        write_hash(places.PASSWORD, password_hash(answers.password))
        open_account()
        for line in answers.first_logon:
            _execute(runner, line)


def keep_listener_certificate(folder: Path, answers: dict[str, str]) -> None:
    """Write the certificate of the HTTPS listener, with its key, to where later boots find it. Raises SetupError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12

    thumbprint = answers.get("winrm-certificate")
    if thumbprint is None:
        raise SetupError("the answer document names no certificate for WinRM")
    try:
        data = (folder / "certificates" / f"{thumbprint}.pfx").read_bytes()
        password = answers.get("pfx-password", "").encode()
        key, certificate, _ = pkcs12.load_key_and_certificates(data, password or None)
    except OSError as error:
        raise SetupError(f"the certificate for WinRM cannot be read: {error.strerror}") from None
    except ValueError:
        raise SetupError("the certificate for WinRM cannot be read: its password is another one") from None
    if key is None or certificate is None:
        raise SetupError("the certificate for WinRM has no private key")
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(places.CERTIFICATE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(pem)


def _answers(path: Path) -> dict[str, str]:
    """The answer document; of keys that repeat the last, which none does that is needed here."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        raise SetupError("the answer document cannot be read") from None
    pairs = (line.partition("=") for line in lines)
    return {key: _decode(value) for key, _, value in pairs}


def _decode(value: str) -> str:
    from urllib.parse import unquote  # the same escapes

    return unquote(value)


def _components(root: ET.Element, settings: str, name: str) -> Iterator[ET.Element]:
    for element in root.findall(f"{_NAMESPACE}settings"):
        if element.get("pass") == settings:
            yield from (c for c in element.findall(f"{_NAMESPACE}component") if c.get("name") == name)


def _path(path: str) -> str:
    return "/".join(f"{_NAMESPACE}{part}" for part in path.split("/"))


def _value(root: ET.Element, settings: str, component: str, path: str) -> str | None:
    for element in _components(root, settings, component):
        if value := (element.findtext(_path(path)) or "").strip():
            return value
    return None


def _password(root: ET.Element) -> str | None:
    for component in _components(root, "oobeSystem", _SHELL):
        element = component.find(_path("UserAccounts/AdministratorPassword"))
        if element is None:
            continue
        value = element.findtext(_path("Value")) or ""
        if (element.findtext(_path("PlainText")) or "true").strip().lower() == "true":
            return value
        try:
            # Not encryption: the name of the element is appended, and all of it encoded.
            text = base64.b64decode(value.strip(), validate=True).decode("utf-16-le")
        except (binascii.Error, UnicodeDecodeError):
            raise SetupError("the answer file's administrator password cannot be decoded") from None
        return text.removesuffix("AdministratorPassword")
    return None


def _commands(root: ET.Element, settings: str, component: str, path: str, line: str) -> tuple[str, ...]:
    found: list[tuple[int, str]] = []
    for element in _components(root, settings, component):
        for command in element.findall(_path(path)):
            order = (command.findtext(_path("Order")) or "").strip()
            text = (command.findtext(_path(line)) or "").strip()
            if not order.isdecimal() or not text:
                raise SetupError("the answer file has a command without an order or a command line")
            found.append((int(order), text))
    return tuple(text for _, text in sorted(found, key=lambda pair: pair[0]))


@contextlib.contextmanager
def _drive(folder: Path) -> Iterator[None]:
    """The instance data as drive D:, where Windows would have the disc."""
    link = places.DEVICES / "d:"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    try:
        yield
    finally:
        link.unlink()


def _set_values(runner: Runner, answers: AnswerFile) -> None:
    """Name and settings, where Windows keeps them. Linux has the name already, and both have UTC."""
    control = "SYSTEM\\CurrentControlSet\\Control"
    parameters = "SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters"
    values: list[tuple[str, str, str]] = [(f"{control}\\TimeZoneInformation", "TimeZoneKeyName", "UTC")]
    if (name := answers.computer_name) and name != "*":
        values += [
            (f"{control}\\ComputerName\\ComputerName", "ComputerName", name.upper()),
            (f"{control}\\ComputerName\\ActiveComputerName", "ComputerName", name.upper()),
            (parameters, "Hostname", name),
            (parameters, "NV Hostname", name),
        ]
    if answers.locale:
        values.append(("HKCU\\Control Panel\\International", "LocaleName", answers.locale))
    if code := runner.set_values(values):
        raise SetupError(f"the guest's registry cannot be written: Windows error {code}")


def _execute(runner: Runner, line: str) -> None:
    name = line.split()[0].strip('"')
    try:
        process = runner.run(line, places.SYSTEM)
    except (StartError, OSError) as error:
        raise SetupError(f"the answer file's command {name} cannot be started: {error}") from None
    said, code = process.finish(_COMMAND_SECONDS, _SAID)
    if code is None:
        raise SetupError(f"the answer file's command {name} does not end")
    if code not in _SUCCESS:
        text = " ".join(said.decode("cp1252", "replace").split())
        raise SetupError(text or f"the answer file's command {name} ended with code {code}")
