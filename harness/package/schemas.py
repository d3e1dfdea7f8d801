# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas (draft 2020-12) of the authored documents, for editors; made from the models, by the format's names.

They say what an author should write: required members are required, and numbers and booleans may also be strings (as
the authoring tool wrote them [PKG]) or hold ``[Param.X]``. What is only read with goodwill is not in them.
"""

from __future__ import annotations

from typing import Any, Final

#: Name of a document -> the module and class of its model, and what it is.
DOCUMENTS: Final = {
    "resource-extension": ("harness.package.models", "ResourceExtension", "*.resext"),
    "resource-definition": ("harness.package.definition_models", "ResourceDefinition", "*.resdef"),
    "view-definition": ("harness.package.view_models", "ViewDefinition", "*.viewdef"),
    "resource-configuration": ("harness.package.definition_models", "ResourceConfiguration", "a configuration"),
    "virtual-machine-role": ("harness.package.definition_models", "VirtualMachineRole", "an instance"),
    "nightly": ("harness.nightly.model", "Nightly", "the matrix of vmrole nightly, TOML"),
}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The schema of a document; ``name`` is one of DOCUMENTS. Raises KeyError for another."""
    import importlib

    module, kind, _ = DOCUMENTS[name]
    imported = importlib.import_module(module)
    model = getattr(imported, kind)
    made: dict[str, Any] = model.model_json_schema(by_alias=True, mode="validation")
    from harness.package.models import Model

    required = {cls.__name__: cls.REQUIRED for cls in _subclasses(Model)}
    _finish(made, kind, required)
    for title, definition in made.get("$defs", {}).items():
        _finish(definition, title, required)
    return {"$schema": DIALECT, "$id": f"urn:vmrole:{name}", **made}


#: Values that authors choose from; they are compared without case, so they are no enumeration.
_EXAMPLES: Final[dict[tuple[str, str], list[str]]] = {
    ("Script", "ScriptType"): ["PreInstall", "PostInstall", "OnProvisionFirst", "OnProvisionRest", "OnDeleteLast"],
    ("Script", "ErrorPolicy"): ["FailOnMatch", "WarnAndContinueOnMatch"],
    ("ScriptApplication", "ErrorPolicy"): ["FailOnMatch", "WarnAndContinueOnMatch"],
    ("Parameter", "Type"): ["String", "Int", "Boolean", "Credential", "SecureString"],
    ("HardwareProfile", "VMSize"): ["ExtraSmall", "Small", "Medium", "Large", "ExtraLarge", "A6", "A7"],
    ("ViewParameter", "Type"): ["String", "Number", "Boolean", "Credential", "SecureString", "Option", "VMSize",
                                "OSVirtualHardDisk", "Network", "OSTimeZone", "ComputerNamePattern"],
    ("ResourceExtension", "Type"): ["Microsoft.Compute/EnterpriseApplicationExtension/1.0"],
    ("ResourceDefinition", "Type"): ["Microsoft.Compute/VMRole/1.0"],
}  # fmt: skip
_NULL: Final = {"type": "null"}


def _finish(definition: dict[str, Any], title: str, required: dict[str, tuple[str, ...]]) -> None:
    """The members that the format requires, and no defaults or titles that say nothing."""
    if title not in required:
        return
    definition["required"] = list(required[title])
    definition["additionalProperties"] = False
    if title == "ResourceExtension":  # the contract's name has three names itself
        definition["anyOf"] = [{"required": [n]} for n in ("Type", "ExtensionType", "ExtensionHostingContract")]
    for name, member in definition.get("properties", {}).items():
        member.pop("title", None)
        member.pop("default", None)
        if name in required[title]:
            _without_null(member)
        elif member.get("type") == "array":
            definition["properties"][name] = member = {"anyOf": [member, _NULL]}
        if name in ("DefaultValue", "Default"):  # views have native numbers and booleans
            member["anyOf"] = [{"type": "number"}, {"type": "boolean"}, *member["anyOf"]]
        if (title, name) in _EXAMPLES:
            member["examples"] = _EXAMPLES[title, name]


def _without_null(member: dict[str, Any]) -> None:
    rest = [choice for choice in member.pop("anyOf", []) if choice != _NULL]
    if len(rest) == 1:
        member.update(rest[0])
    elif rest:
        member["anyOf"] = rest


def _subclasses(kind: type[Any]) -> list[type[Any]]:
    return [found for direct in kind.__subclasses__() for found in (direct, *_subclasses(direct))]
