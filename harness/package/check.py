# SPDX-License-Identifier: Apache-2.0
"""From the tree of a document to its model, with everything that is odd about it as findings with a place.

All problems are found at once: a value that cannot be understood is a finding and counts as missing, so that the rest
is still read, planned and, where it does not matter, run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from harness.errors import PackageError
from harness.package.credentials import is_credential, is_password, password
from harness.package.jsontree import Document, Node
from harness.package.models import Parameter, ResourceExtension
from harness.package.substitution import placeholders
from harness.package.validate import compare, validate

_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
VERSION: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10}){3}")
#: The spellings of the extension type that are known to have been accepted, in lower case [DOC, GUIDE, PKG].
TYPE_NAMES: Final = frozenset(
    {
        "microsoft.compute/enterpiseapplicationextension/1.0",  # sic: the reference page
        "microsoft.compute/enterpriseapplicationextension/1.0",  # every published package
        "microsoftcompute/vmrole/1.0.0.0",  # the authoring guide
    }
)
#: Types of extension parameters, in lower case [GUIDE 18275, PKG].
PARAMETER_TYPES: Final = frozenset({"string", "int", "number", "boolean", "bool", "credential", "securestring"})
#: Script types, in lower case [VMM Add-SCScriptCommand; OnProvisionLast: DOC dn249753, sic].
SCRIPT_TYPES: Final = frozenset(
    {
        *("preinstall", "postinstall", "preservice", "postservice", "preuninstall", "postuninstall", "install"),
        *("savestate", "restorestate", "orderedcommand"),
        *("onprovisionfirst", "onprovisionrest", "onprovisionlast", "ondeletelast", "ondeleterest"),
    }
)

SCHEMA_VERSIONS: Final = ("1.0", "1.0.0.0")
"""[PKG: all of them; DOC, GUIDE]"""
_LIMITS: Final = frozenset(
    {
        "timeoutinseconds",
        "deploymenttimeoutinseconds",
        "executiontimeoutseconds",
        "logintimeoutseconds",
        "maxoutputsize",
    }
)
"""Members that no process can be given below 0, in lower case."""


def build_extension(document: Document) -> ResourceExtension:
    """The model of a `.resext` document; what is wrong with it is added to the document's findings.

    Raises PackageError when the document is no JSON object, or is evidently another kind of document.
    """
    root = document.root
    if not isinstance(root.value, dict):
        raise PackageError(f"{document.file} is no resource extension: it is not a JSON object")
    if "IntrinsicSettings" in root.value:
        raise PackageError(
            f"{document.file} is a resource definition, and a resource extension is wanted here",
            hint="give the resource extension (.resextpkg, .resext) that it references",
        )
    marks = {"extensionsettings", "extensiontype", "resourceextensionparameters"}
    if not marks & {key.lower() for key in root.value}:
        raise PackageError(
            f"{document.file}, line {root.line}, column {root.column}: this is no resource extension, "
            "it has no ExtensionSettings",
        )
    extension = validate(ResourceExtension, document)
    compare(extension, root, document, "the resource extension")
    _check_identity(extension, document)
    check_schema_version(root, document)
    check_schema_version(root.get("ExtensionSettings"), document)
    _check_values(document)
    _check_payloads(extension, document)
    _check_parameters(extension, document)
    _check_script_types(document)
    _check_secrets(document)
    return extension


def _check_identity(extension: ResourceExtension, document: Document) -> None:
    root = document.root
    version = root.get("Version")
    if version is not None and extension.version is not None and not VERSION.fullmatch(extension.version):
        document.report(
            "version-format",
            f"the version {extension.version[:60]!r} is not four numbers",
            version,
            hint="write 1.0.0.0",
        )
    for name in ("Type", "ExtensionType", "ExtensionHostingContract"):
        node = root.get(name)
        if node is not None and isinstance(node.value, str) and node.value.lower() not in TYPE_NAMES:
            hint = "write Microsoft.Compute/EnterpriseApplicationExtension/1.0"
            document.report("type-name", f"the type {node.value[:80]!r} is not one that is known", node, hint=hint)
    if extension.contract is None:
        document.report(
            "missing-field", "the resource extension needs a member ExtensionType or Type", root,
            hint="write Microsoft.Compute/EnterpriseApplicationExtension/1.0",
        )  # fmt: skip


def check_schema_version(node: Node | None, document: Document) -> None:
    """Report a SchemaVersion of ``node`` that no platform is known to read."""
    version = node.get("SchemaVersion") if node is not None else None
    if version is None or not isinstance(version.value, str | int | float) or isinstance(version.value, bool):
        return
    text = str(version.value)
    if text.strip() not in SCHEMA_VERSIONS and not placeholders(text):
        what = f"the schema version {text[:60]!r} is not one that is known"
        document.report("schema-version", what, version, hint="write 1.0")


def _check_values(document: Document) -> None:
    """Values of the right type that cannot be meant."""
    for node in document.root.walk():
        name = node.key.lower() if isinstance(node.key, str) else ""
        if isinstance(node.value, str) and "\0" in node.value:
            what = "there is a NUL character in the text: what is behind it is lost"
            document.report("nul-character", what, node, hint="remove \\u0000")
        if name in _LIMITS and _is_negative(node.value):
            what = f"{node.key} is negative: nothing can run with it"
            document.report("limit-negative", what, node, hint="leave it out to set no limit")
        elif name == "deploymentorder" and _is_negative(node.value):
            what = "the order is negative: the script comes before those without an order"
            document.report("order-negative", what, node, hint="count from 1")
        elif name == "windowsserverrolesandfeatures" and isinstance(node.value, list):
            for element in node.value:
                if isinstance(element.value, str) and not element.value.strip():
                    document.report("feature-empty", "the role or feature has no name", element, hint="remove it")


def _is_negative(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"-0*[1-9][0-9]*", value.strip()) is not None
    return isinstance(value, int | float) and value < 0


def _check_payloads(extension: ResourceExtension, document: Document) -> None:
    known: dict[str, Node] = {}
    base = "/ExtensionSettings/ApplicationProfile/ApplicationPayload"
    for index, payload in enumerate(extension.profile.application_payload):
        node = document.find(f"{base}/{index}/ID")
        if payload.id is None or node is None:
            continue
        _check_identifier(payload.id, node, document)
        key = identifier(payload.id)
        if key in known:
            document.report("payload-duplicate-id", f"the payload {payload.id[:60]!r} is there twice", node)
        known[key] = node
    for node in document.root.walk():
        if not isinstance(node.key, str) or not node.key.endswith(("ApplicationPayloadId", "PayloadId")):
            continue
        if not isinstance(node.value, str) or not node.value or placeholders(node.value):
            continue
        _check_identifier(node.value, node, document)
        if identifier(node.value) not in known:
            document.report(
                "payload-unknown-id",
                f"no ApplicationPayload has the ID {node.value[:60]!r}",
                node,
                hint="declare it in ApplicationPayload",
            )


def _check_identifier(text: str, node: Node, document: Document) -> None:
    if re.search(r"\s", text):
        document.report("identifier-blank", f"the identifier {text[:60]!r} has a blank in it", node, hint="remove it")
    elif not _GUID.fullmatch(text.strip("{}")):
        document.report("identifier-format", f"the identifier {text[:60]!r} is no GUID", node)


def identifier(text: str) -> str:
    """A payload identifier as it is compared: without case, braces and blanks [PKG, GUESS]."""
    return re.sub(r"[\s{}]", "", text).lower()


def _check_script_types(document: Document) -> None:
    for node in document.root.walk():
        if node.key != "ScriptType" or not isinstance(node.value, str) or placeholders(node.value):
            continue
        kind = node.value.strip().lower()
        if kind not in SCRIPT_TYPES:
            document.report("script-type", f"{node.value[:60]!r} is no script type; the script is never run", node)
        elif kind == "install" and "/ProvisioningScripts/" in node.pointer:
            what = "a provisioning script of the type Install is never run: that is an application's own command"
            document.report("script-type", what, node, hint="PreInstall or PostInstall run when it is deployed")


def _check_secrets(document: Document) -> None:
    for node in document.root.walk():
        secret = (is_credential(node) and password(node.value)) or (is_password(node) and node.value)
        if secret and not placeholders(node.value):
            what = f"the password of {node.key} is written in the document"
            document.report("secret-in-plain-text", what, node, hint="declare a Credential or SecureString parameter")


def declared_parameters(
    parameters: Sequence[Parameter], document: Document, section: str, hint: str
) -> dict[str, Node]:
    """The declarations of ``section`` by name; what is declared twice or has no known type is reported."""
    declared: dict[str, Node] = {}
    for index, parameter in enumerate(parameters):
        node = document.find(f"/{section}/{index}")
        if parameter.name is None or node is None:
            continue
        if parameter.name in declared:
            document.report("parameter-duplicate", f"the parameter {parameter.name[:60]!r} is declared twice", node)
        declared[parameter.name] = node
        if parameter.type is not None and parameter.type.lower() not in PARAMETER_TYPES:
            what = f"the parameter {parameter.name[:60]!r} has the type {parameter.type[:60]!r}"
            document.report("parameter-type", what, node.get("Type") or node, hint=hint)
    return declared


def _check_parameters(extension: ResourceExtension, document: Document) -> None:
    hint = "String, Int, Boolean, Credential or SecureString"
    parameters = extension.resource_extension_parameters
    declared = declared_parameters(parameters, document, "ResourceExtensionParameters", hint)
    used: set[str] = set()
    lower = {name.lower(): name for name in declared}
    for node in document.root.walk():
        if not isinstance(node.value, str):
            continue
        for name in placeholders(node.value):
            if name in declared:
                used.add(name)
            elif name.lower() in lower:
                right = lower[name.lower()]
                used.add(right)
                what = f"[Param.{name[:60]}] is used and {right[:60]} is declared: names are case-sensitive"
                document.report("parameter-case", what, node, hint=f"write [Param.{right[:60]}]")
            else:
                what = f"the parameter {name[:60]!r} is used and not declared"
                document.report("parameter-undeclared", what, node, hint="declare it in ResourceExtensionParameters")
    for name, node in declared.items():
        if name not in used:
            document.report("parameter-unused", f"the parameter {name[:60]!r} is used nowhere", node)
