# SPDX-License-Identifier: Apache-2.0
"""From the tree of any document to its pydantic model: what does not fit becomes findings, all of them at once."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from harness.errors import PackageError
from harness.package.jsontree import Document, Node
from harness.package.models import Model

M = TypeVar("M", bound=Model)
_PASS_LIMIT: Final = 50


def validate(kind: type[M], document: Document) -> M:
    """The model of a document; each value that does not fit is a ``bad-value`` and counts as missing."""
    data = document.root.plain()
    told: set[str] = set()
    for _ in range(_PASS_LIMIT):
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            mended: set[str] = set()
            for problem in error.errors(include_url=False, include_input=False, include_context=False):
                node = _locate(document, problem["loc"])
                if node.pointer in mended:  # a union reports each of its members
                    continue
                mended.add(node.pointer)
                if node.pointer not in told:
                    document.report("bad-value", f"{_title(node)}: {_sentence(problem, node)}", node)
                told.add(node.pointer)
                data = _without(data, node)
    raise PackageError(f"{document.file} has more wrong values than can be told one by one")


def _locate(document: Document, path: tuple[str | int, ...]) -> Node:
    """The node that pydantic's location means: it names unions too, and members in the format's letters."""
    node = document.root
    for key in path:
        child = node.get(key)
        if child is None and isinstance(key, str) and isinstance(node.value, dict):
            child = next((value for name, value in node.value.items() if name.lower() == key.lower()), None)
        if child is None:
            break
        node = child
    return node


def _title(node: Node) -> str:
    names = [str(part.key) for part in (node, node.parent) if part is not None and part.key is not None]
    if names and names[0].isdigit() and len(names) > 1:
        return f"element {int(names[0]) + 1} of {names[1]}"
    return names[0] if names else "the document"


def _sentence(problem: Any, node: Node) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    is_now = kinds.get(type(node.value), "a number")
    wanted = {
        "string_type": "a string",
        "tuple_type": "a list",
        "model_type": "an object",
        "model_attributes_type": "an object",
        "dict_type": "an object",
    }
    want = wanted.get(problem["type"])
    return f"this is {is_now} and has to be {want}" if want else str(problem["msg"])


def _without(data: Any, node: Node) -> Any:
    """``data`` with the value at ``node`` taken out: members go, elements become what is skipped."""
    path: list[str | int] = []
    at: Node | None = node
    while at is not None and at.parent is not None:
        assert at.key is not None
        path.append(at.key)
        at = at.parent
    path.reverse()
    if not path:
        return {}
    here = data
    for key in path[:-1]:
        here = here[key]
    if isinstance(here, dict):
        here.pop(path[-1], None)
    else:
        # positions of the other elements must not move: an empty value of a kind that the list accepts
        previous = here[int(path[-1])]
        here[int(path[-1])] = {} if not isinstance(previous, dict) and previous != "" else ""
    return data


def compare(model: Model, node: Node, document: Document, noun: str) -> None:
    """Unknown and missing members, recursively; ``noun`` is what the whole document is called."""
    if not isinstance(node.value, dict):
        return
    names = model.names()
    lower = {name.lower(): name for name in names}
    found: dict[str, Node] = {}
    for key, child in node.value.items():
        if key in names:
            found[key] = child
            continue
        if key == "$schema" or key.startswith("odata."):  # of editors and of the service's interface
            continue
        same = lower.get(key.lower())
        if same is not None and same not in node.value:
            found[same] = child
            document.report(
                "field-case", f"the member {key[:60]!r} is read as {same!r}", child, hint=f"write {same}", at_key=True,
            )  # fmt: skip
            continue
        told = document.findings.full("unknown-field", document.file)
        near = get_close_matches(key, list(names), n=1, cutoff=0.75) if len(key) < 80 and not told else []
        document.report(
            "unknown-field",
            f"{_owner(node, noun)} has no member {key[:60]!r}",
            child,
            hint=f"did you mean {near[0]}?" if near else "it is ignored",
            at_key=True,
        )
    for name in model.REQUIRED:
        if name not in found:
            document.report("missing-field", f"{_owner(node, noun)} needs a member {name}", node)
    for name, child in found.items():
        value = getattr(model, names[name])
        if isinstance(value, Model):
            compare(value, child, document, noun)
        elif isinstance(value, tuple) and isinstance(child.value, list):
            for element, part in zip(value, child.value, strict=False):
                if isinstance(element, Model):
                    compare(element, part, document, noun)


def _owner(node: Node, noun: str) -> str:
    return noun if node.parent is None else _title(node)
