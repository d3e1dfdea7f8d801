# SPDX-License-Identifier: Apache-2.0
"""The reader for authored XML: small documents, no DOCTYPE, no entities but XML's own, and the place of every element.

libxml2 is told to load and expand nothing; a DOCTYPE is refused before it sees the text, so that no entity can be
declared at all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.errors import PackageError

MAX_BYTES: Final = 1 << 20
MAX_ELEMENTS: Final = 20_000
_PROLOG: Final = re.compile(r"(?:\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_DECLARATION: Final = re.compile(r"<\?xml\s.*?\?>", re.DOTALL)
#: Markup of a document that is known to be well-formed; group 1 is a start tag.
_MARKUP: Final = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|</[^>]*>|(<(?:[^<>\"']|\"[^\"]*\"|'[^']*')*>)", re.DOTALL
)
#: The encodings of one byte that documents declare, of Windows and of ISO.
_ENCODING: Final = re.compile(
    rb"<\?xml\s[^>]{0,100}?encoding\s*=\s*[\"'](windows-125[0-8]|iso-8859-(?:[1-9]|1[013-6])|us-ascii)[\"']",
    re.IGNORECASE,
)
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Element:
    """An element: its name and ``attributes`` without namespaces, its children, and where its start tag begins."""

    name: str
    attributes: dict[str, str]
    children: tuple[Element, ...]
    namespace: str
    line: int
    column: int

    def all(self, *path: str) -> Iterator[Element]:
        """The elements at a path of names, e.g. ``all("Certificates", "Certificate")``; compared exactly."""
        for child in self.children:
            if child.name == path[0]:
                if len(path) == 1:
                    yield child
                else:
                    yield from child.all(*path[1:])

    def get(self, name: str) -> str | None:
        """An attribute, by its name in any letters: the pages spell sizeInMB and sizeInMb [DOC gg557554]."""
        if name in self.attributes:
            return self.attributes[name]
        return next((value for key, value in self.attributes.items() if key.lower() == name.lower()), None)


def read_xml(data: bytes, file: str) -> Element:
    """The root of a document of ``file``. Raises PackageError with file, line and column for what cannot be read."""
    from lxml import etree  # takes a while to import

    if len(data) > MAX_BYTES:
        raise PackageError(f"{file} has {len(data)} bytes; XML documents of more than {MAX_BYTES} bytes are not read")
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    declared = _ENCODING.match(data)
    encoding = "utf-16" if utf16 else declared[1].decode("ascii") if declared else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise PackageError(
            f"{file} is not {encoding.removesuffix('-sig').upper()} text", hint="save the file as UTF-8"
        ) from None
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def place(offset: int) -> tuple[int, int]:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    prolog = _PROLOG.match(text)
    assert prolog is not None  # it matches the empty string
    if text[prolog.end() : prolog.end() + 9].upper() == "<!DOCTYPE":
        line, column = place(prolog.end())
        raise PackageError(
            f"{file}, line {line}, column {column}: a DOCTYPE is not read",
            hint="remove it; service definitions and configurations have none",
        )
    # what was decoded here must not be decoded another way there
    plain = _DECLARATION.sub(lambda match: re.sub(r"[^\r\n]", " ", match.group()), text, count=1)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
        encoding="utf-8", remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(plain.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        what = re.sub(r", line \d+, column \d+( \(.*\))?$", "", str(error.msg or "it is no XML"))
        raise PackageError(f"{file}, line {line}, column {column}: {' '.join(what.split())[:200]}") from None
    tags = (match.start(1) for match in _MARKUP.finditer(text, prolog.end()) if match.start(1) >= 0)
    count = 0

    def build(node: etree._Element) -> Element:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS:
            raise PackageError(f"{file} has more than {MAX_ELEMENTS} elements")
        line, column = place(next(tags, 0))
        name = etree.QName(node)
        attributes = {etree.QName(str(key)).localname: str(value) for key, value in node.attrib.items()}
        # what is no element is an entity reference that was left unexpanded
        children = tuple(build(child) for child in node if isinstance(child.tag, str))
        return Element(name.localname, attributes, children, name.namespace or "", line, column)

    return build(root)
