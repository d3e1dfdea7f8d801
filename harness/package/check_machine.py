# SPDX-License-Identifier: Apache-2.0
"""What a definition asks of a machine that no platform can give it, or that there is none of here.

Looked at twice: as the definition is written, and with the values of its parameters.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Final

from harness.errors import UsageError
from harness.package.computer_names import MAX_COMPUTER_NAME, computer_name
from harness.package.credentials import MAX_PASSWORD_BYTES, password
from harness.package.jsontree import Document, Node
from harness.package.substitution import placeholders

Fill = Callable[[str], str | None]
"""A text with its parameters filled in; None when one has no value."""

LUNS: Final = 64
_PORTS: Final = 65535
#: Member -> the values that it may have, in lower case [DOC dn249752, PKG].
_CHOICES: Final = {
    "AllocationMethod": ("Dynamic", "Static"),
    "Type": ("IPV4", "IPV6"),
    "Protocol": ("TCP", "UDP"),
}
#: Least values of the numbers of instances.
_COUNTS: Final = {
    "MinimumInstanceCount": 0,
    "InitialInstanceCount": 1,
    "MaximumInstanceCount": 1,
    "UpgradeDomainCount": 1,
}


def check_machine(document: Document, fill: Fill) -> None:
    """Add findings about the IntrinsicSettings of a definition to its document, but not about what has no value yet."""
    settings = member(document.root, "IntrinsicSettings")
    if settings is not None:
        _Look(document, fill).settings(settings)


def member(node: Node | None, name: str) -> Node | None:
    """A member by its name, in other letters where the right ones are missing; None for null."""
    if node is None or not isinstance(node.value, dict):
        return None
    found = node.value.get(name)
    if found is None:
        found = next((child for key, child in node.value.items() if key.lower() == name.lower()), None)
    return found if found is not None and found.value is not None else None


def elements(node: Node | None) -> Iterator[Node]:
    """The objects of a list."""
    for element in node.value if node is not None and isinstance(node.value, list) else ():
        if isinstance(element.value, dict):
            yield element


class _Look:
    def __init__(self, document: Document, fill: Fill) -> None:
        self.document = document
        self.fill = fill

    def text(self, node: Node | None) -> str | None:
        if node is None or isinstance(node.value, dict | list | bool | None):
            return None
        return self.fill(node.value) if isinstance(node.value, str) else str(node.value)

    def number(self, node: Node | None) -> int | None:
        text = (self.text(node) or "").strip()
        return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None

    def settings(self, settings: Node) -> None:
        scale = member(settings, "ScaleOutSettings")
        self.counts(scale)
        self.disks(member(member(settings, "StorageProfile"), "DataVirtualHardDisks"))
        adapters = list(elements(member(member(settings, "NetworkProfile"), "NetworkAdapters")))
        if len(adapters) > 1:
            what = f"the definition has {len(adapters)} network adapters, and a machine has one here"
            self.refused(what, adapters[1], "leave one in its NetworkProfile")
        for adapter in adapters:
            self.adapter(adapter)
        system = member(settings, "OperatingSystemProfile")
        most = self.number(member(scale, "MaximumInstanceCount")) or self.number(member(scale, "InitialInstanceCount"))
        self.name(member(system, "ComputerNamePattern"), most or 1)
        self.credential(member(system, "AdminCredential"), used=True)
        windows = member(system, "WindowsOperatingSystemProfile")
        self.workgroup(member(windows, "WorkgroupName"))
        self.domain(member(windows, "DomainJoin"))

    def wrong(self, what: str, node: Node, hint: str = "") -> None:
        self.document.report("definition-value", what, node, hint=hint)

    def refused(self, what: str, node: Node, hint: str) -> None:
        self.document.report("definition-not-here", what, node, hint=hint)

    def counts(self, scale: Node | None) -> None:
        for name, least in _COUNTS.items():
            node = member(scale, name)
            number = self.number(node)
            if node is not None and number is not None and number < least:
                what = f"{name} is {number}, and has to be at least {least}"
                self.document.report("definition-scale", what, node)

    def disks(self, disks: Node | None) -> None:
        seen: set[int] = set()
        for disk in elements(disks):
            node = member(disk, "Lun")
            lun = self.number(node)
            if node is None or lun is None:
                continue
            if lun in seen or not 0 <= lun < LUNS:
                what = f"two data disks have the logical unit number {lun}" if lun in seen else (
                    f"the logical unit number {lun} is none of 0 to {LUNS - 1}"
                )  # fmt: skip
                self.document.report("definition-lun", what, node, hint=f"0 to {LUNS - 1}, each once")
            seen.add(lun)

    def adapter(self, adapter: Node) -> None:
        for address in elements(member(adapter, "IPAddresses")):
            self.choice(address, "AllocationMethod")
            self.choice(address, "Type")
            for balanced in elements(member(address, "LoadBalancerConfigurations")):
                ports = member(balanced, "PortConfig")
                if ports is not None:
                    self.choice(ports, "Protocol")
                for name in ("FrontEndPort", "BackEndPort"):
                    node = member(ports, name)
                    port = self.number(node)
                    if node is not None and port is not None and not 0 < port <= _PORTS:
                        what = f"{name} is {port}, and a port is a number from 1 to {_PORTS}"
                        self.document.report("definition-ports", what, node)

    def choice(self, owner: Node, name: str) -> None:
        node = member(owner, name)
        text = (self.text(node) or "").strip()
        if node is not None and text and text.lower() not in map(str.lower, _CHOICES[name]):
            what = f"{name} is {text[:60]!r}, which is not one that is known"
            self.document.report("definition-choice", what, node, hint=" or ".join(_CHOICES[name]))

    def name(self, node: Node | None, most: int) -> None:
        """``most`` is how many instances there may be."""
        pattern = self.text(node)
        if node is None or not pattern:
            return
        if len(pattern) > MAX_COMPUTER_NAME:
            what = f"the pattern has {len(pattern)} characters, computer names have at most {MAX_COMPUTER_NAME}"
            self.document.report("computer-name", what, node)
            return
        try:
            computer_name(pattern, 1, random.Random(0))
        except UsageError as error:
            what = f"the computer name pattern {pattern[:60]!r} makes no computer name: {error.message}"
            self.wrong(what, node, hint=error.hint or "")
            return
        if "*" in pattern or most <= 1:
            return
        digits = pattern.count("#")
        if digits < len(str(most)):
            what = f"{most} instances would have the same name: the pattern has no # for their number"
            if digits:
                what = f"there may be {most} instances, and the pattern has room for {10**digits - 1}"
            self.document.report("computer-name", what, node, hint=f"write {'#' * len(str(most))} where the number is")

    def credential(self, node: Node | None, *, used: bool = False) -> None:
        """``used`` is whether a machine here gets the password, too."""
        if node is None:
            return
        user: str | None
        secret: str | None
        if isinstance(node.value, dict):
            part = member(node, "Password")
            secret = self.text(part) if part is not None else ""
            user = self.text(member(node, "UserName"))
        else:
            before, colon, behind = str(node.value).partition(":")
            whole = self.text(node)
            user = self.fill(before) if colon else whole and whole.partition(":")[0]
            secret = self.fill(behind) if colon else password(whole) if whole is not None else None
        if user is not None and not used and "@" in user:
            what = f"the user of {node.key} is written as user@domain, which the platform cannot join with"
            self.wrong(what, node, hint="write domain\\user:password")
        if user == "" and secret != "":
            self.wrong(f"{node.key} has no user", node, hint="write user:[Param.X], or a Credential parameter")
        if secret == "":
            names = placeholders(str(node.value)) if isinstance(node.value, str) else ()
            if names:  # what a form begins with, as Administrator:
                what = f"the value of the parameter {names[0][:60]!r} has no password"
                self.document.report("value-missing", what, node, hint=f"give it with -p {names[0][:60]}=user:password")
            else:
                self.wrong(f"{node.key} has no password", node, hint="write user:[Param.X], or a Credential parameter")
        elif secret and used and len(secret.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
            what = f"the password of {node.key} has more than the {MAX_PASSWORD_BYTES} bytes that a machine here takes"
            self.refused(what, node, "use a shorter one")

    def workgroup(self, node: Node | None) -> None:
        text = self.text(node)
        if (
            node is not None
            and text
            and (len(text) > MAX_COMPUTER_NAME or re.search(r'[\x00-\x1f"/\\\[\]:;|=,+*?<>]', text))
        ):
            what = f"the workgroup {text[:60]!r} has more than {MAX_COMPUTER_NAME} characters, or a wrong one"
            self.wrong(what, node)

    def domain(self, join: Node | None) -> None:
        if join is None or not isinstance(join.value, dict):
            return
        node = member(join, "DomainToJoin")
        if node is None or (isinstance(node.value, str) and self.text(node) == ""):
            return
        domain = self.text(node)
        name = f"domain {domain[:60]!r}" if domain else "domain of a parameter"
        what = f"the definition joins the machine to the {name}, and there is none here"
        self.refused(what, node, "give it a workgroup instead of DomainJoin")
        self.credential(member(join, "DomainJoinCredentials"))
