# SPDX-License-Identifier: Apache-2.0
"""From the trees of a definition and its view to their models, with everything that is odd as findings.

Errors are only for what cannot work on any platform; a view that says too little is none, the portal alone reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from harness.errors import PackageError
from harness.package.check import PARAMETER_TYPES, VERSION, check_schema_version, declared_parameters
from harness.package.check_machine import check_machine
from harness.package.credentials import few_enough, is_credential, is_password, password
from harness.package.definition_models import ResourceDefinition
from harness.package.jsontree import Document, Node
from harness.package.nested import Nested, read_nested
from harness.package.rules import Patience, broken_rule, pattern_problem
from harness.package.sizes import SIZES, size_of
from harness.package.substitution import placeholders, substitute
from harness.package.validate import compare, validate
from harness.package.view_models import ViewDefinition, ViewParameter

#: A text of a view that is looked up in its resources.
KEY: Final = re.compile(r"\{\{\s*([^{}]{1,200}?)\s*\}\}")
#: Spellings of the definition's type, in lower case [DOC dn249735, PKG; GUIDE 18273].
TYPE_NAMES: Final = frozenset(
    {"microsoft.compute/vmrole/1.0", "microsoftcompute/vmrole", "microsoftcompute/vmrole/1.0.0.0"}
)
#: Types of a view's fields, in lower case [GUIDE 18273, PKG].
VIEW_TYPES: Final = PARAMETER_TYPES | {
    *("osvirtualharddisk", "datavirtualharddisk", "network", "vmsize", "ostimezone", "computernamepattern", "option"),
}


def build_definition(document: Document) -> ResourceDefinition:
    """The model of a `.resdef`; what is wrong with it is added to the document's findings.

    Raises PackageError when the document is no JSON object, or evidently another kind of document.
    """
    root = document.root
    if not isinstance(root.value, dict):
        raise PackageError(f"{document.file} is no resource definition: it is not a JSON object")
    names = {key.lower() for key in root.value}
    if not names & {"intrinsicsettings", "resourceparameters", "resourceextensionreferences"}:
        what = "; it is a resource extension" if "extensionsettings" in names else ", it has no IntrinsicSettings"
        raise PackageError(
            f"{document.file}, line {root.line}, column {root.column}: this is no resource definition{what}"
        )
    definition = validate(ResourceDefinition, document)
    compare(definition, root, document, "the resource definition")
    _check_identity(definition, document)
    _check_references(definition, document)
    _check_parameters(definition, document)
    _check_machine(definition, document)
    check_machine(document, lambda text: None if placeholders(text) else substitute(text, {}).text)
    for secret, place in _secret_nodes(document):
        what = f"the password of {secret.key} is written in the document"
        document.report("secret-in-plain-text", what, place, hint="declare a Credential or SecureString parameter")
    return definition


def nested_values(document: Document) -> Iterator[tuple[int, Nested]]:
    """The extension parameter values of each reference that has readable ones, by the reference's index.

    Each reading adds its findings to the document: callers after ``build_definition`` pass a document of their own.
    """
    references = document.root.get("ResourceExtensionReferences")
    for index, reference in enumerate(_elements(references)):
        node = reference.get("ResourceExtensionParameterValues")
        if node is not None:
            nested = read_nested(node)
            if nested is not None:
                yield index, nested


def secrets_of(document: Document) -> tuple[str, ...]:
    """Passwords that a definition has in plain text, those inside its nested JSON too."""
    found = dict.fromkeys(
        password(node.value) if is_credential(node) else str(node.value) for node, _ in _secret_nodes(document)
    )
    return few_enough(found, document.file)


def _secret_nodes(document: Document) -> Iterator[tuple[Node, Node]]:
    """Each password in plain text, and the node of this document that has it: inside nested JSON it is the string."""
    scratch = Document(document.text, document.file)  # takes the findings: they were made already
    trees: list[tuple[Node, Node | None]] = [(document.root, None)]
    for reference in _elements(document.root.get("ResourceExtensionReferences")):
        node = reference.get("ResourceExtensionParameterValues")
        if node is not None and isinstance(node.value, str):
            quiet = Node(scratch, node.parent, node.key, node.start)
            quiet.end, quiet.value = node.end, node.value
            nested = read_nested(quiet)
            if nested is not None:
                trees.append((nested.root, node))
    for tree, outer in trees:
        for node in tree.walk():
            secret = (is_credential(node) and password(node.value)) or (is_password(node) and node.value)
            if secret and not placeholders(node.value):
                yield node, outer or node


def _elements(node: Node | None) -> list[Node]:
    return (
        [item for item in node.value if isinstance(item.value, dict)] if node and isinstance(node.value, list) else []
    )


def _check_identity(definition: ResourceDefinition, document: Document) -> None:
    root = document.root
    version = root.get("Version")
    if version is not None and definition.version is not None and not VERSION.fullmatch(definition.version):
        what = f"the version {definition.version[:60]!r} is not four numbers"
        document.report("version-format", what, version, hint="write 1.0.0.0")
    check_schema_version(root, document)
    node = root.get("Type")
    if node is not None and isinstance(node.value, str) and node.value.lower() not in TYPE_NAMES:
        what = f"the type {node.value[:80]!r} is not one that is known"
        document.report("definition-type", what, node, hint="write Microsoft.Compute/VMRole/1.0")


def _check_references(definition: ResourceDefinition, document: Document) -> None:
    references = definition.resource_extension_references
    node = document.root.get("ResourceExtensionReferences") or document.root
    if not references:
        what = "the definition refers to no extension: nothing is installed in its machines"
        document.report("reference-missing", what, node)
    elif len(references) > 1:
        what = f"the definition refers to {len(references)} extensions"
        document.report("reference-many", what, node, hint="the platform deployed one extension per definition")
    for _ in nested_values(document):
        pass  # what is wrong with them is told by the reading


def _check_parameters(definition: ResourceDefinition, document: Document) -> None:
    hint = "String, Int, Boolean, Credential or SecureString; views have more types"
    declared = declared_parameters(definition.resource_parameters, document, "ResourceParameters", hint)
    used: set[str] = set()
    lower = {name.lower(): name for name in declared}
    for node in document.root.walk():
        for name in placeholders(node.value) if isinstance(node.value, str) else ():
            if name in declared:
                used.add(name)
            elif name.lower() in lower:
                right = lower[name.lower()]
                used.add(right)
                what = f"[Param.{name[:60]}] is used and {right[:60]} is declared: names are case-sensitive"
                document.report("parameter-case", what, node, hint=f"write [Param.{right[:60]}]")
            else:
                what = f"the parameter {name[:60]!r} is used and not declared"
                document.report("parameter-undeclared", what, node, hint="declare it in ResourceParameters")
    for name, node in declared.items():
        if name not in used:
            document.report("parameter-unused", f"the parameter {name[:60]!r} is used nowhere", node)


def _check_machine(definition: ResourceDefinition, document: Document) -> None:
    settings = definition.intrinsic
    base = "/IntrinsicSettings"

    def at(pointer: str) -> Node:
        return document.find(base + pointer) or document.find(base) or document.root

    size = settings.hardware_profile.vm_size if settings.hardware_profile else None
    if size and not placeholders(size) and size_of(size) is None:
        what = f"{size[:60]!r} is none of the default size profiles"
        document.report("definition-size", what, at("/HardwareProfile/VMSize"), hint=", ".join(SIZES))
    system = settings.operating_system_profile
    if system is not None:
        windows = system.windows_operating_system_profile
        here = at("/OperatingSystemProfile")
        if windows is not None and system.linux_operating_system_profile is not None:
            what = "there are a Windows and a Linux profile"
            document.report("definition-profiles", what, here, hint="write null for the one that is not meant")
        if windows is not None and windows.workgroup_name and windows.domain_join is not None:
            what = "there are a workgroup and a domain to join"
            document.report("definition-profiles", what, at("/OperatingSystemProfile/WindowsOperatingSystemProfile"))
        zone = system.time_zone
        if zone and not placeholders(zone) and not is_utc(zone):
            what = f"the definition sets the time zone {zone[:60]!r}; the machine stays on UTC"
            document.report("timezone-kept-utc", what, at("/OperatingSystemProfile/TimeZone"))
    _check_scale(definition, at("/ScaleOutSettings"), document)
    for i, adapter in enumerate(settings.network_profile.network_adapters if settings.network_profile else ()):
        for j, address in enumerate(adapter.ip_addresses):
            for k, balanced in enumerate(address.load_balancer_configurations):
                ports = balanced.port_config
                front, back = (ports.front_end_port, ports.back_end_port) if ports else (None, None)
                if isinstance(front, int) and isinstance(back, int) and front != back:
                    path = f"/NetworkProfile/NetworkAdapters/{i}/IPAddresses/{j}/LoadBalancerConfigurations/{k}"
                    what = f"the front end port {front} and the back end port {back} differ"
                    document.report("definition-ports", what, at(path + "/PortConfig"), hint="they have to be equal")


def _check_scale(definition: ResourceDefinition, node: Node, document: Document) -> None:
    scale = definition.intrinsic.scale_out_settings
    if scale is None:
        return
    low, first, most = scale.minimum_instance_count, scale.initial_instance_count, scale.maximum_instance_count
    order = [number for number in (low, first, most) if isinstance(number, int)]
    if order != sorted(order):
        what = "MinimumInstanceCount, InitialInstanceCount and MaximumInstanceCount do not grow in this order"
        document.report("definition-scale", what, node)


def is_utc(zone: str) -> bool:
    """Whether a time zone (an identifier of tzutil) is UTC; "" is no choice at all [PKG: an empty default]."""
    return zone.strip().lower() in ("", "utc", "etc/utc", "coordinated universal time")


def build_view(document: Document) -> ViewDefinition:
    """The model of a `.viewdef`; raises PackageError when the document is no JSON object with Sections."""
    root = document.root
    if not isinstance(root.value, dict) or "sections" not in {key.lower() for key in root.value}:
        raise PackageError(f"{document.file} is no view definition: it has no Sections")
    view = validate(ViewDefinition, document)
    compare(view, root, document, "the view definition")
    version = root.get("Version")
    if version is not None and view.version is not None and not VERSION.fullmatch(view.version):
        document.report("version-format", f"the version {view.version[:60]!r} is not four numbers", version)
    patience = Patience()
    for parameter, node in fields(view, document):
        _check_field(parameter, node, document, patience)
    return view


def fields(view: ViewDefinition, document: Document) -> Iterator[tuple[ViewParameter, Node]]:
    """The fields of a view with their nodes, in the order of the form."""
    for i, section in enumerate(view.sections):
        for j, category in enumerate(section.categories):
            for k, parameter in enumerate(category.parameters):
                node = document.find(f"/Sections/{i}/Categories/{j}/Parameters/{k}")
                yield parameter, node or document.root


def _check_field(parameter: ViewParameter, node: Node, document: Document, patience: Patience) -> None:
    title = f"the field {(parameter.name or '')[:60]!r}"
    if parameter.type is not None and parameter.type.lower() not in VIEW_TYPES:
        document.report("view-type", f"{title} has the type {parameter.type[:60]!r}", node.get("Type") or node)
    rules, rule_node = parameter.rules, node.get("Validation") or node
    for low, high in ((rules.min_length, rules.max_length), (rules.min_range, rules.max_range)):
        if isinstance(low, int) and isinstance(high, int) and high and low > high:
            document.report("view-rule", f"{title} has a smallest value above its largest", rule_node)
    problem = pattern_problem(rules.pattern)
    if problem:
        pattern_node = rule_node.get("RegExp") or rule_node.get("RegEx") or rule_node
        document.report("view-rule", f"the pattern of {title} is not used: {problem}", pattern_node)
    initial = parameter.initial
    if initial:  # an empty default is no value: the tenant is asked
        broken = broken_rule(parameter, initial, patience)
        if broken:
            place = node.get("DefaultValue") or node.get("Default") or node
            document.report("view-default", f"the default of {title} {broken}", place)


def check_together(
    document: Document,
    definition: ResourceDefinition,
    view_document: Document | None,
    view: ViewDefinition | None,
    resources: Mapping[str, Mapping[str, str]],
) -> None:
    """What a definition, its view and its texts say about each other."""
    if view is None or view_document is None:
        document.report("view-missing", "there is no view definition: the portal has no form for it", document.root)
        return
    declared = {parameter.name for parameter in definition.resource_parameters if parameter.name}
    asked: set[str] = set()
    for parameter, node in fields(view, view_document):
        name = parameter.name
        if not name:
            continue
        if name in asked:
            view_document.report("view-parameter-duplicate", f"{name[:60]!r} is asked for twice", node)
        asked.add(name)
        if name not in declared:
            same = next((other for other in declared if other.lower() == name.lower()), None)
            hint = f"the definition has {same}" if same else "declare it in the definition's ResourceParameters"
            what = f"{name[:60]!r} is no parameter of the definition"
            view_document.report("view-parameter-unknown", what, node.get("Name") or node, hint=hint)
    for index, declaration in enumerate(definition.resource_parameters):
        if declaration.name and declaration.name not in asked:
            node = document.find(f"/ResourceParameters/{index}") or document.root
            what = f"the view does not ask for {declaration.name[:60]!r}: it has to be in the configuration"
            document.report("view-parameter-missing", what, node)
    language = (view.default_language_code or "").lower()
    if not resources:
        texts = (node for node in view_document.root.walk() if isinstance(node.value, str))
        first = next((node for node in texts if KEY.search(node.value)), None)
        if first is not None:
            what = "the view takes its texts from .resources files, and there are none"
            hint = f"add {view.default_language_code or 'en-US'}/1.resources"
            view_document.report("resource-key-missing", what, first, hint=hint)
        return
    table = next((texts for name, texts in resources.items() if name.lower() == language), None)
    if table is None:
        table = {key: text for texts in resources.values() for key, text in texts.items()}
    for node in view_document.root.walk():
        for key in KEY.findall(node.value) if isinstance(node.value, str) else ():
            if key not in table:
                view_document.report("resource-key-missing", f"no text has the key {key[:60]!r}", node)
