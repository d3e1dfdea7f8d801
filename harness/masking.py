# SPDX-License-Identifier: Apache-2.0
"""Nothing that leaves the harness shows a secret: every one becomes ``__**__``, the portal's own mark.

A secret is recognised in plain, in JSON, XML, URL and shell quoting, as UTF-16 text, and in base64 (standard and
URL-safe alphabet, all three alignments, of the UTF-8 and the UTF-16LE bytes: the latter is what
``powershell -EncodedCommand`` takes). Secrets under four characters are not looked for in text, they would mask half
of it; where a value is known to be one, as in a plan, it is masked by field.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import shlex
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "__**__"
#: Shorter secrets are masked by field only.
SHORTEST: Final = 4
_BASE64: Final = "[A-Za-z0-9+/_-]"


class Masker:
    """Replaces secrets in text and bytes. Immutable; cheap to use often, built once per run."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets: Final = tuple(sorted({s for s in secrets if len(s) >= SHORTEST}, key=len, reverse=True))
        literals: set[str] = set()
        encoded: set[str] = set()
        for secret in self.secrets:
            literals |= _spellings(secret)
            encoded |= _base64_patterns(secret)
        texts = sorted(literals, key=len, reverse=True)
        blobs = {part for text in texts for part in _byte_spellings(text)}
        codes = sorted(encoded, key=len, reverse=True)
        # longest first: of two secrets that start alike the longer one is masked whole
        self._text = re.compile("|".join([re.escape(text) for text in texts] + codes)) if texts else None
        self._bytes = (
            re.compile(
                b"|".join([re.escape(b) for b in sorted(blobs, key=len, reverse=True)] + [c.encode() for c in codes])
            )
            if blobs
            else None
        )
        self.longest: Final = max([len(blob) for blob in blobs] + [len(code) for code in codes], default=1)

    def text(self, text: str) -> str:
        return text if self._text is None else self._text.sub(MASK, text)

    def bytes(self, data: bytes) -> bytes:
        return data if self._bytes is None else self._bytes.sub(MASK.encode(), data)

    def stream(self) -> MaskStream:
        """A filter for bytes that come in pieces: a secret cut by their borders is found too."""
        return MaskStream(self)


class MaskStream:
    """``feed`` pieces in order, write what it returns, and ``flush`` at the end."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        pattern = self._masker._bytes
        if pattern is None:
            return data
        data = self._rest + data
        # a match that starts before `sure` lies wholly in `data`, however long it is
        sure = len(data) - self._masker.longest
        out: list[bytes] = []
        at = 0
        for match in pattern.finditer(data):
            if match.start() >= sure:
                break
            out += (data[at : match.start()], MASK.encode())
            at = match.end()
        cut = max(at, sure, 0)
        out.append(data[at:cut])
        self._rest = data[cut:]
        return b"".join(out)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._masker.bytes(rest)


def _spellings(secret: str) -> set[str]:
    found = {secret}
    for variant in (json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        found |= {variant[1:-1], variant[1:-1].replace("/", "\\/")}
    xml = html.escape(secret, quote=False)
    quotes = (('"', "&quot;"), ('"', "&#34;"), ("'", "&apos;"), ("'", "&#39;"), ("'", "&#x27;"))
    found |= {xml, json.dumps(xml)[1:-1], *(xml.replace(mark, name) for mark, name in quotes)}
    found |= {xml.replace('"', double).replace("'", single) for _, double in quotes[:2] for _, single in quotes[2:]}
    with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair has no URL form
        found |= {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    shell = shlex.quote(secret)
    found |= {shell[1:-1] if shell.startswith("'") else shell, secret.replace("'", "''"), repr(secret)[1:-1]}
    found.add("\0".join(secret))  # UTF-16 that was read as if it were bytes
    return {text for text in found if len(text) >= SHORTEST}


def _byte_spellings(text: str) -> set[bytes]:
    return {
        text.encode("utf-8", "surrogatepass"),
        text.encode("utf-16-le", "surrogatepass"),
        text.encode("utf-16-be", "surrogatepass"),
    }


def _base64_patterns(secret: str) -> set[str]:
    """Regular expressions for the secret in base64, whatever stands before and after it.

    At each alignment some characters at the ends hold bits of the neighbours: they are matched as any character.
    """
    patterns: set[str] = set()
    for data in (secret.encode("utf-8", "surrogatepass"), secret.encode("utf-16-le", "surrogatepass")):
        for shift in range(3):
            code = base64.b64encode(bytes(shift) + data).decode()
            head = (0, 2, 3)[shift]
            tail = (0, 3, 2)[(shift + len(data)) % 3]
            core = code[head : len(code) - tail]
            if len(core) < SHORTEST:
                continue
            body = "".join({"+": r"[+\-]", "/": "[/_]"}.get(character, character) for character in core)
            before = f"{_BASE64}" if shift else ""
            after = f"{_BASE64}?=*" if tail else ""
            patterns.add(before + body + after.replace("=*", "={0,2}"))
    return patterns
