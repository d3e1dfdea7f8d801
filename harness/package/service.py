# SPDX-License-Identifier: Apache-2.0
"""Service definition (`.csdef`) and service configuration (`.cscfg`) of the 2011 VM Role.

The definition of a ``VirtualMachineRole`` names certificates, local resources, endpoints and settings; the
configuration gives the certificates' thumbprints, the settings' values and the number of instances. Sources: [DOC
gg557554, gg465409], the elements of the configuration [DOC, OsImage INFER]. Elements are told apart by their local
names: the namespace is [INFER].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.errors import PackageError, UsageError
from harness.package.findings import Finding, Findings
from harness.package.xmltext import MAX_BYTES, Element, read_xml

#: Size of a local resource in MB without sizeInMB [DOC gg557554].
DEFAULT_SIZE_MB: Final = 100
DEFAULT_STORE: Final = "My"
_SIZES: Final = ("ExtraSmall", "Small", "Medium", "Large", "ExtraLarge")
_KNOWN: Final = frozenset({"Certificates", "LocalResources", "Endpoints", "ConfigurationSettings", "Imports"})
#: The seed's words.
_LOCAL_MACHINE: Final = (
    "all certificates are installed to the LocalMachine store location; it is not possible to install certificates to "
    "the CurrentUser store location or any other store location"
)
_SECRET_SETTING: Final = re.compile(r"(?i)password|secret|token|key|connectionstring")


@dataclass(frozen=True, slots=True)
class WantedCertificate:
    """A certificate in the store ``store`` of LocalMachine. ``thumbprint`` is SHA-1 in upper case, None if unknown."""

    name: str
    store: str = DEFAULT_STORE
    thumbprint: str | None = None


@dataclass(frozen=True, slots=True)
class WantedResource:
    """A local resource: the folder of its name. ``clean`` is whether it is emptied when the role is recycled."""

    name: str
    size_mb: int = DEFAULT_SIZE_MB
    clean: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint: ``kind`` is input, internal or instance-input; ports are numbers or None (any)."""

    name: str
    kind: str
    protocol: str
    port: int | None = None
    local_port: int | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceRole:
    """A VirtualMachineRole of a service definition; ``settings`` are names, their values are configured."""

    name: str
    vm_size: str | None = None
    certificates: tuple[WantedCertificate, ...] = ()
    local_resources: tuple[WantedResource, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    settings: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleConfiguration:
    """A Role of a service configuration; ``thumbprints`` by certificate name, SHA-1 in upper case."""

    name: str
    instances: int = 1
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    thumbprints: Mapping[str, str] = field(default_factory=dict)
    os_image: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What both documents say of one role: what a machine gets. Values of settings may be secret."""

    role: ServiceRole
    certificates: tuple[WantedCertificate, ...]
    local_resources: tuple[WantedResource, ...]
    settings: Mapping[str, str] = field(repr=False)
    instances: int
    findings: tuple[Finding, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values of settings whose names say that they are secret [GUESS]."""
        return tuple(value for name, value in self.settings.items() if value and _SECRET_SETTING.search(name))


class _Reader:
    """One document: its name and the findings about it."""

    def __init__(self, path: Path, root_name: str) -> None:
        self.file = path.name
        self.findings = Findings()
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise UsageError(f"there is no file {path}") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        self.root = read_xml(data, self.file)
        if self.root.name != root_name:
            raise PackageError(
                f"{self.file}, line {self.root.line}, column {self.root.column}: the root is {self.root.name[:60]}, "
                f"not {root_name}"
            )

    def report(self, code: str, sentence: str, at: Element, hint: str = "") -> None:
        self.findings.add(code, sentence, hint=hint, file=self.file, line=at.line, column=at.column)

    def need(self, element: Element, attribute: str) -> str | None:
        """A required attribute; None, with a finding, when it is missing or empty."""
        value = (element.get(attribute) or "").strip()
        if not value:
            self.report("service-attribute", f"{element.name} needs the attribute {attribute}", element)
        return value or None

    def number(self, element: Element, attribute: str, low: int, high: int) -> int | None:
        text = element.get(attribute)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not low <= int(text) <= high:
            what = f"{attribute} of {element.name} is not a whole number from {low} to {high}"
            self.report("service-value", what, element)
            return None
        return int(text)

    def unique(self, name: str, element: Element, seen: dict[str, Element]) -> bool:
        if name.lower() in seen:
            first = seen[name.lower()].line
            what = f"there are two of the name {name[:60]!r}, the first in line {first}"
            self.report("service-duplicate", what, element)
            return False
        seen[name.lower()] = element
        return True


def read_service_definition(path: Path) -> tuple[tuple[ServiceRole, ...], tuple[Finding, ...]]:
    """The VirtualMachineRoles of a `.csdef`, and what is odd about it.

    Raises UsageError when the file cannot be opened, PackageError when it is no service definition.
    """
    reader = _Reader(Path(path), "ServiceDefinition")
    roles = [_role(element, reader) for element in reader.root.all("VirtualMachineRole")]
    if not roles:
        others = ", ".join(child.name[:40] for child in reader.root.children[:5])
        raise PackageError(
            f"{reader.file}, line {reader.root.line}, column {reader.root.column}: there is no VirtualMachineRole"
            + (f", only {others}" if others else "")
        )
    return tuple(roles), tuple(reader.findings.sorted())


def _role(element: Element, reader: _Reader) -> ServiceRole:
    name = reader.need(element, "name") or ""
    size = element.get("vmsize")
    if size and size not in _SIZES:
        reader.report("service-value", f"vmsize {size[:40]!r} is none of {', '.join(_SIZES)}", element)
    for child in element.children:
        if child.name in _KNOWN:
            continue
        hint = "a Windows service of your own starts with the machine instead" if child.name == "Startup" else ""
        reader.report("service-element", f"a VirtualMachineRole has no {child.name[:60]}; it is ignored", child, hint)
    certificates = _certificates(element, reader)
    names: dict[str, Element] = {}
    settings = [
        found
        for setting in element.all("ConfigurationSettings", "Setting")
        if (found := reader.need(setting, "name")) and reader.unique(found, setting, names)
    ]
    imports = [found for item in element.all("Imports", "Import") if (found := reader.need(item, "moduleName"))]
    return ServiceRole(
        name,
        size,
        certificates,
        _resources(element, reader),
        _endpoints(element, reader, {certificate.name for certificate in certificates}),
        tuple(settings),
        tuple(imports),
    )


def _certificates(role: Element, reader: _Reader) -> tuple[WantedCertificate, ...]:
    found: list[WantedCertificate] = []
    names: dict[str, Element] = {}
    for element in role.all("Certificates", "Certificate"):
        name = reader.need(element, "name")
        location = (element.get("storeLocation") or "LocalMachine").strip()
        store = (element.get("storeName") or DEFAULT_STORE).strip()
        if location.lower() != "localmachine":
            what = f"the certificate {(name or '')[:60]!r} is for {location[:40]}: {_LOCAL_MACHINE}"
            reader.report("service-store", what, element, 'write storeLocation="LocalMachine"')
        elif not re.fullmatch(r"[\w.\- ]{1,64}", store) or store.strip(". ") != store:
            reader.report("service-value", f"the store name {store[:60]!r} is none", element)
        elif name and reader.unique(name, element, names):
            found.append(WantedCertificate(name, store))
    return tuple(found)


def _resources(role: Element, reader: _Reader) -> tuple[WantedResource, ...]:
    found: list[WantedResource] = []
    names: dict[str, Element] = {}
    for element in role.all("LocalResources", "LocalStorage"):
        name = reader.need(element, "name")
        size = reader.number(element, "sizeInMB", 1, 10_000_000)
        clean = (element.get("cleanOnRoleRecycle") or "true").strip().lower()
        if clean not in ("true", "false", "1", "0"):
            reader.report("service-value", "cleanOnRoleRecycle is not true or false", element)
        if not name or not reader.unique(name, element, names):
            continue
        if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", name) or name.strip(".") != name:
            reader.report("service-value", f"the local resource {name[:60]!r} cannot be the name of a folder", element)
            continue
        found.append(WantedResource(name, size or DEFAULT_SIZE_MB, clean not in ("false", "0")))
    return tuple(found)


def _endpoints(role: Element, reader: _Reader, certificates: set[str]) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    kinds = {"InputEndpoint": "input", "InternalEndpoint": "internal", "InstanceInputEndpoint": "instance-input"}
    names: dict[str, Element] = {}
    for group in role.all("Endpoints"):
        for element in group.children:
            kind = kinds.get(element.name)
            if kind is None:
                reader.report("service-element", f"{element.name[:60]} is no endpoint; it is ignored", element)
                continue
            name = reader.need(element, "name")
            protocol = (element.get("protocol") or "").strip().lower()
            port = reader.number(element, "port", 1, 65535)
            local = None if element.get("localPort") == "*" else reader.number(element, "localPort", 1, 65535)
            certificate = element.get("certificate")
            if kind == "input" and element.get("port") is None:
                reader.need(element, "port")
            if protocol == "https" and not certificate:
                reader.report("service-attribute", "an https endpoint needs the attribute certificate", element)
            elif certificate and certificate not in certificates:
                what = f"the endpoint's certificate {certificate[:60]!r} is none of the role's"
                reader.report("service-value", what, element)
            if name and reader.unique(name, element, names):
                found.append(Endpoint(name, kind, protocol, port, local or port, certificate))
    return tuple(found)


def read_service_configuration(path: Path) -> tuple[tuple[RoleConfiguration, ...], tuple[Finding, ...]]:
    """The Roles of a `.cscfg`, and what is odd about it. Raises as ``read_service_definition`` does."""
    reader = _Reader(Path(path), "ServiceConfiguration")
    roles: list[RoleConfiguration] = []
    names: dict[str, Element] = {}
    for element in reader.root.all("Role"):
        name = reader.need(element, "name")
        if not name or not reader.unique(name, element, names):
            continue
        if len(element.get("vmName") or "") > 10:
            reader.report("service-value", "vmName has more than 10 characters", element)
        count = next((reader.number(item, "count", 1, 1000) for item in element.all("Instances")), None)
        settings: dict[str, str] = {}
        seen: dict[str, Element] = {}
        for setting in element.all("ConfigurationSettings", "Setting"):
            key = reader.need(setting, "name")
            if key and reader.unique(key, setting, seen):
                settings[key] = setting.get("value") or ""
        image = next((item.get("href") for item in element.all("OsImage")), None)
        roles.append(RoleConfiguration(name, count or 1, settings, _thumbprints(element, reader), image))
    return tuple(roles), tuple(reader.findings.sorted())


def _thumbprints(role: Element, reader: _Reader) -> dict[str, str]:
    found: dict[str, str] = {}
    names: dict[str, Element] = {}
    for element in role.all("Certificates", "Certificate"):
        name, written = reader.need(element, "name"), reader.need(element, "thumbprint")
        if not name or not written or not reader.unique(name, element, names):
            continue
        algorithm = (element.get("thumbprintAlgorithm") or "sha1").strip()
        # the certificate dialog of Windows hands out blanks, and a mark of writing direction before the first digit
        thumbprint = re.sub(r"[\s\u200e\u200f\ufeff:]", "", written).upper()
        if algorithm.lower() != "sha1" or not re.fullmatch(r"[0-9A-F]{40}", thumbprint):
            what = f"the thumbprint of {name[:60]!r} is not SHA-1, 40 hexadecimal digits"
            reader.report("service-thumbprint", what, element)
            continue
        found[name] = thumbprint
    return found


def read_service(definition: Path, configuration: Path | None = None, role: str | None = None) -> Service:
    """What ``definition`` and ``configuration`` give one role's machine.

    ``role`` names it; without, it is the only one. Raises UsageError when it cannot be told which, PackageError when a
    document cannot be read or has an error among its findings: nothing is deployed with half of its certificates.
    """
    roles, found = read_service_definition(definition)
    findings = Findings(found)
    chosen = [item for item in roles if role is None or item.name.lower() == role.lower()]
    if len(chosen) != 1:
        names = ", ".join(item.name[:40] for item in roles[:10])
        what = f"has no role {role[:60]!r}" if role is not None else f"has {len(roles)} roles"
        raise UsageError(
            f"{Path(definition).name} {what}; there is {names}", hint="name one of them with --service-role"
        )
    mine = chosen[0]
    file = Path(configuration).name if configuration is not None else Path(definition).name
    configured = unconfigured = RoleConfiguration(mine.name)
    if configuration is not None:
        configurations, found = read_service_configuration(configuration)
        findings.extend(found)
        match = next((item for item in configurations if item.name.lower() == mine.name.lower()), None)
        if match is None:
            findings.add("service-unconfigured", f"the role {mine.name[:60]!r} has no configuration", file=file)
        else:
            configured = match
    if configuration is None or configured is not unconfigured:
        _compare(mine, configured, findings, file)
    bad = [finding for finding in findings.sorted() if finding.severity == "error"]
    if bad:
        first = bad[0]
        place = f"{first.file}, line {first.line}, column {first.column}: " if first.line is not None else ""
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise PackageError(f"{place}{first.sentence}{more}", hint=first.hint or None)
    prints = {name.lower(): thumbprint for name, thumbprint in configured.thumbprints.items()}
    certificates = tuple(
        WantedCertificate(item.name, item.store, prints.get(item.name.lower())) for item in mine.certificates
    )
    return Service(
        mine, certificates, mine.local_resources, configured.settings, configured.instances, tuple(findings.sorted())
    )


def _compare(role: ServiceRole, configured: RoleConfiguration, findings: Findings, file: str) -> None:
    for what, wanted, given in (
        ("setting", role.settings, tuple(configured.settings)),
        ("certificate", tuple(item.name for item in role.certificates), tuple(configured.thumbprints)),
    ):
        have, want = {name.lower() for name in given}, {name.lower() for name in wanted}
        for name in wanted:
            if name.lower() not in have:
                findings.add("service-unconfigured", f"the {what} {name[:60]!r} has no value", file=file)
        for name in given:
            if name.lower() not in want:
                findings.add("service-undeclared", f"the {what} {name[:60]!r} is not in the definition", file=file)
