# SPDX-License-Identifier: Apache-2.0
"""The answer file of Windows Setup, as the integration components install it [DOC gg465409]: unattend.xml.

Its effects are the four that the documentation names: locale EN-US, time zone UTC, Windows Update off, administrator
password. Beyond them it names the computer and starts our guest service, which announces that the guest is ready, last
of all.

``SetupFile`` is the other one, for making an image of an installation medium: Setup puts Windows on a blank disk, and
generalizes it in the end.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from lxml import etree

from harness.errors import HarnessError, UsageError
from harness.guest.wintext import GUEST

NAMESPACE: Final = "urn:schemas-microsoft-com:unattend"
_WCM: Final = "http://schemas.microsoft.com/WMIConfig/2002/State"
_ADD: Final = {f"{{{_WCM}}}action": "add"}
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_TOKEN: Final = "31bf3856ad364e35"
"""The public key token of every component of Windows."""
LOCALE: Final = "en-US"
TIME_ZONE: Final = "UTC"
MAX_FILE: Final = 1 << 20

SHELL: Final = "Microsoft-Windows-Shell-Setup"
INTERNATIONAL: Final = "Microsoft-Windows-International-Core"
DEPLOYMENT: Final = "Microsoft-Windows-Deployment"
SETUP: Final = "Microsoft-Windows-Setup"
INTERNATIONAL_PE: Final = "Microsoft-Windows-International-Core-WinPE"

Pass = Literal["windowsPE", "specialize", "oobeSystem"]
_PASSES: Final = ("windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem")

MSI: Final = "WaIntegrationComponents-x64.msi"
SERVICE: Final = "VMRoleGuest"
_DRIVES: Final = "D E F G H I J K L"
"""Where Windows puts the instance medium: behind its disks, of which there are a few."""
_AU: Final = r"HKLM\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU"
_SERVICES: Final = r"HKLM\SYSTEM\CurrentControlSet\Services"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the answer file, and what it is for."""

    line: str
    why: str


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the disk that Setup makes, in their order. ``size_mb`` None is the rest of the disk; ``format``
    None leaves it as it is; ``letter`` is of the one that Windows gets."""

    type: Literal["Primary", "EFI", "MSR"]
    size_mb: int | None
    format: Literal["NTFS", "FAT32"] | None
    label: str = ""
    letter: str = ""
    active: bool = False


BIOS_DISK: Final = (
    Partition("Primary", 500, "NTFS", "System", active=True),
    Partition("Primary", None, "NTFS", "Windows", "C"),
)
UEFI_DISK: Final = (
    Partition("EFI", 260, "FAT32", "System"),
    Partition("MSR", 128, None),
    Partition("Primary", None, "NTFS", "Windows", "C"),
)


@dataclass(frozen=True, slots=True)
class SetupFile:
    """What the answer file for Windows Setup says, autounattend.xml. ``edition`` is the name of an image on the medium,
    or its number there; ``product_key`` None is none, as of evaluation media. ``begin`` runs in Windows PE."""

    edition: str
    product_key: str | None = field(default=None, repr=False)
    disk: Sequence[Partition] = BIOS_DISK
    begin: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """What the answer file says. ``policy`` runs before anybody can log on, ``last`` at the very end."""

    computer_name: str
    password: str = field(repr=False)
    policy: tuple[Command, ...] = ()
    last: tuple[Command, ...] = ()
    auto_logon: bool = False
    """Real Windows runs the last commands at the first log-on, which nobody else does."""


def answer_file(computer_name: str, password: str, *, stand_in: bool, install: bool) -> AnswerFile:
    """The answer file of a machine; with ``install`` the integration components come from its medium.

    On the stand-in our guest program alone does what the other commands are for: each of them is a process, 0.3 to 1 s
    on an emulated processor.
    """
    last = [Command(f'"{GUEST}" specialize', "the guest becomes the instance")]
    if install:
        last.insert(0, install_components())
    if stand_in:
        return AnswerFile(computer_name, password, last=tuple(last))
    policy = (
        Command(f"reg.exe add {_AU} /v NoAutoUpdate /t REG_DWORD /d 1 /f", "Windows Update off"),
        Command(rf"reg.exe add {_SERVICES}\wuauserv /v Start /t REG_DWORD /d 4 /f", "its service too"),
        # The image may start it; nobody is to be let in before the specialization has ended.
        Command(rf"reg.exe add {_SERVICES}\WinRM /v Start /t REG_DWORD /d 4 /f", "no WinRM before the end"),
    )
    return AnswerFile(computer_name, password, policy, tuple(last), auto_logon=True)


def install_components() -> Command:
    """The MSI, from whichever medium has it.

    The service of an earlier version is stopped before: msiexec stops it, too, but may come to its program while that
    still runs. Then the old one stays until a restart (exit code 3010; 5 of 50 on a busy host, measured with Wine).
    """
    stop = f"net.exe stop {SERVICE} >nul 2>&1"
    find = f"for %d in ({_DRIVES}) do if exist %d:\\{MSI} msiexec.exe /i %d:\\{MSI} /qn /norestart"
    return Command(f'cmd.exe /c "{stop} & {find}"', "the integration components")


def encode_password(password: str, element: Literal["AdministratorPassword", "Password"]) -> str:
    """How Windows' answer files hide a password (PlainText false): the element's name is part of it. No encryption."""
    return base64.b64encode((password + element).encode("utf-16-le", "surrogatepass")).decode("ascii")


def render(answer: AnswerFile, merged: bytes | None = None) -> bytes:
    """The document, UTF-8; the same answer gives the same bytes. ``merged`` is the user's own answer file.

    Raises UsageError for a file of the user's that cannot be merged.
    """
    root = _parse(merged) if merged is not None else _empty()
    _fill(root, answer)
    return _finished(root)


def render_setup(setup: SetupFile, then: AnswerFile) -> bytes:
    """autounattend.xml, UTF-8: Setup installs what ``setup`` says, and goes on after ``then``."""
    root = _empty()
    settings = _settings(root, "windowsPE")
    international = _component(settings, INTERNATIONAL_PE)
    _set(_child(international, "SetupUILanguage"), "UILanguage", LOCALE)
    _locale(international)
    component = _component(settings, SETUP)
    _disk(component, setup.disk)
    image = _child(_child(component, "ImageInstall"), "OSImage")
    chosen = etree.SubElement(_child(image, "InstallFrom"), _tag("MetaData"), _ADD)
    _set(chosen, "Key", "/IMAGE/INDEX" if setup.edition.isdecimal() else "/IMAGE/NAME")
    _set(chosen, "Value", setup.edition)
    target = _child(image, "InstallTo")
    _set(target, "DiskID", "0")
    _set(target, "PartitionID", str(len(setup.disk)))
    _set(image, "WillShowUI", "OnError")
    user = _child(component, "UserData")
    _set(user, "AcceptEula", "true")
    if setup.product_key:
        key = _child(user, "ProductKey")
        _set(key, "Key", setup.product_key)
        _set(key, "WillShowUI", "OnError")
    update = _child(component, "DynamicUpdate")
    _set(update, "Enable", "false")
    _set(update, "WillShowUI", "Never")
    _commands(component, "RunSynchronous", "RunSynchronousCommand", "Path", setup.begin)
    _fill(root, then)
    return _finished(root)


def _disk(component: Any, partitions: Sequence[Partition]) -> None:
    """Disk 0, wiped, with ``partitions``; the last of them is for Windows."""
    configuration = _child(component, "DiskConfiguration")
    disk = etree.SubElement(configuration, _tag("Disk"), _ADD)
    _set(disk, "DiskID", "0")
    _set(disk, "WillWipeDisk", "true")
    made, formed = _child(disk, "CreatePartitions"), _child(disk, "ModifyPartitions")
    for number, partition in enumerate(partitions, 1):
        create = etree.SubElement(made, _tag("CreatePartition"), _ADD)
        _set(create, "Order", str(number))
        if partition.size_mb is None:
            _set(create, "Extend", "true")
        else:
            _set(create, "Size", str(partition.size_mb))
        _set(create, "Type", partition.type)
        modify = etree.SubElement(formed, _tag("ModifyPartition"), _ADD)
        if partition.active:
            _set(modify, "Active", "true")
        for name, value in (("Format", partition.format), ("Label", partition.label), ("Letter", partition.letter)):
            if value:
                _set(modify, name, value)
        _set(modify, "Order", str(number))
        _set(modify, "PartitionID", str(number))
    _set(configuration, "WillShowUI", "OnError")


def _empty() -> Any:
    return etree.Element(_tag("unattend"), nsmap={None: NAMESPACE})


def _fill(root: Any, answer: AnswerFile) -> None:
    """The passes of a Windows that is on its disk."""
    specialize, oobe = _settings(root, "specialize"), _settings(root, "oobeSystem")
    shell = _component(specialize, SHELL)
    _set(shell, "ComputerName", answer.computer_name)
    _set(shell, "TimeZone", TIME_ZONE)
    for settings in (specialize, oobe):
        _locale(_component(settings, INTERNATIONAL))
    _commands(_component(specialize, DEPLOYMENT), "RunSynchronous", "RunSynchronousCommand", "Path", answer.policy)
    shell = _component(oobe, SHELL)
    accounts = _child(shell, "UserAccounts")
    _password(_child(accounts, "AdministratorPassword", first=True), answer.password, "AdministratorPassword")
    if answer.auto_logon:
        logon = _fresh(shell, "AutoLogon")
        _password(_child(logon, "Password"), answer.password, "Password")
        _set(logon, "Enabled", "true")
        _set(logon, "LogonCount", "1")
        _set(logon, "Username", "Administrator")
    screens = _child(shell, "OOBE")
    for name, value in (
        ("HideEULAPage", "true"),
        ("HideOEMRegistrationScreen", "true"),
        ("HideOnlineAccountScreens", "true"),
        ("HideWirelessSetupInOOBE", "true"),
        ("NetworkLocation", "Work"),
        ("ProtectYourPC", "3"),
    ):
        if screens.find(_tag(name)) is None or name == "ProtectYourPC":
            _set(screens, name, value)
    _set(shell, "TimeZone", TIME_ZONE)
    _commands(shell, "FirstLogonCommands", "SynchronousCommand", "CommandLine", answer.last)


def _locale(component: Any) -> None:
    for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
        _set(component, name, LOCALE)


def _finished(root: Any) -> bytes:
    """The document as it is written. Raises HarnessError for one that is not valid."""
    _in_order(root)
    for element in root.iter():
        if isinstance(element.tag, str):
            # What the user wrote between the elements; the document is laid out anew.
            element.tail = None
            if len(element):
                element.text = None
    etree.cleanup_namespaces(root, keep_ns_prefixes=["wcm"])
    if problem := schema_problem(root):
        raise HarnessError(f"the answer file that was made is not valid: {problem}")
    etree.indent(root, space="  ")
    return bytes(etree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def schema_problem(root: Any) -> str:
    """What our RelaxNG finds wrong with an answer file, "" for nothing."""
    schema = _schema()
    if schema.validate(root):
        return ""
    found = list(schema.error_log)
    # Of what libxml2 says of one mistake, a wrong value tells more than that nothing fits any more.
    best = next((entry for entry in found if "doesn't allow value" in entry.message), found[0] if found else None)
    return f"line {best.line}: {best.message}" if best else "it is not valid"


@cache
def _schema() -> Any:
    text = resources.files("harness.run.windows").joinpath("unattend.rng").read_bytes()
    return etree.RelaxNG(etree.fromstring(text))


def _parse(data: bytes) -> Any:
    """The user's answer file, checked for what must not be in it."""
    if len(data) > MAX_FILE:
        raise UsageError(f"the answer file is larger than {MAX_FILE >> 10} KiB")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise UsageError(f"the answer file is not XML, line {line}, column {column}: {error.msg}") from None
    if root.getroottree().docinfo.doctype:
        raise UsageError("the answer file has a document type", hint="take the DOCTYPE out")
    if root.tag != _tag("unattend"):
        raise UsageError(
            f"the answer file is not one: its root is {str(root.tag)[:100]}",
            hint=f'an answer file begins with <unattend xmlns="{NAMESPACE}">',
        )
    if problem := schema_problem(root):
        raise UsageError(f"the answer file is not valid: {problem}")
    for zone in root.iter(_tag("TimeZone")):
        if (zone.text or "").strip().upper() not in ("UTC", "ETC/UTC", "COORDINATED UNIVERSAL TIME"):
            raise UsageError(
                f"the answer file sets the time zone {(zone.text or '').strip()[:60]!r}, line {zone.sourceline}; it "
                'has to stay UTC (the platform: "You must not change this setting value")',
                hint="take TimeZone out, or write UTC",
            )
    return root


def check_user_file(data: bytes) -> None:
    """Raise UsageError for an answer file of a user that cannot be merged."""
    render(answer_file("CHECKED", "checked", stand_in=False, install=True), data)


def secrets_of(data: bytes) -> list[str]:
    """The passwords and product keys that a user's answer file holds, passwords also decoded; unreadable files have
    none. The integration components look for the same (settings.c): the text of the element, or of a value in it."""
    try:
        root = _parse(data)
    except UsageError:
        return []
    found = []
    for element in root.iter():
        name = etree.QName(element).localname if isinstance(element.tag, str) else ""
        if name == "ProductKey":
            found += [text.strip() for text in _texts(element) if text.strip()]
        if not name.endswith("Password"):
            continue
        for text in _texts(element):
            found.append(text)
            try:
                plain = base64.b64decode(text, validate=True).decode("utf-16-le")
            except ValueError:
                continue
            found.append(plain.removesuffix(name))
    return found


def _texts(element: Any) -> list[str]:
    """What ``element`` holds, itself or as the value in it."""
    texts = [element.text, *(inner.text for name in ("Value", "Key") for inner in element.iter(_tag(name)))]
    return [text for text in texts if text and text.strip()]


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _settings(root: Any, of: Pass) -> Any:
    for settings in root.findall(_tag("settings")):
        if settings.get("pass") == of:
            return settings
    return etree.SubElement(root, _tag("settings"), {"pass": of})


def _component(settings: Any, name: str) -> Any:
    for component in settings.findall(_tag("component")):
        if component.get("name") == name and component.get("processorArchitecture") == "amd64":
            return component
    facts = {
        "name": name,
        "processorArchitecture": "amd64",
        "publicKeyToken": _TOKEN,
        "language": "neutral",
        "versionScope": "nonSxS",
    }
    return etree.SubElement(settings, _tag("component"), facts, nsmap={None: NAMESPACE, "wcm": _WCM})


def _child(parent: Any, name: str, *, first: bool = False) -> Any:
    found = parent.find(_tag(name))
    if found is not None:
        return found
    if first:
        made = etree.Element(_tag(name))
        parent.insert(0, made)
        return made
    return etree.SubElement(parent, _tag(name))


def _fresh(parent: Any, name: str) -> Any:
    found = parent.find(_tag(name))
    if found is not None:
        parent.remove(found)
    return etree.SubElement(parent, _tag(name))


def _set(parent: Any, name: str, value: str) -> None:
    element = _child(parent, name)
    del element[:]
    element.text = value


def _password(element: Any, password: str, kind: Literal["AdministratorPassword", "Password"]) -> None:
    del element[:]
    _set(element, "Value", encode_password(password, kind))
    _set(element, "PlainText", "false")


def _commands(component: Any, name: str, item: str, key: str, commands: Sequence[Command]) -> None:
    """Add ``commands`` after the user's own, which keep their order."""
    if not commands:
        return
    group = _child(component, name)
    last = max((int(order.text) for order in group.iter(_tag("Order"))), default=0)
    for number, command in enumerate(commands, last + 1):
        made = etree.SubElement(group, _tag(item), _ADD)
        _set(made, key, command.line)
        _set(made, "Description", command.why)
        _set(made, "Order", str(number))


def _in_order(root: Any) -> None:
    """The passes as Windows goes through them, each with its components by name: our own file has them so anyway."""
    order = {name: number for number, name in enumerate(_PASSES)}
    root[:] = sorted(root, key=lambda settings: order.get(settings.get("pass"), len(order)))
    for settings in root:
        settings[:] = sorted(settings, key=lambda component: str(component.get("name")))
