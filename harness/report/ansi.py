# SPDX-License-Identifier: Apache-2.0
"""Output with its colours as HTML: of all that a terminal would obey only colour and weight are left."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from harness.report.text import Masker, printable

_COLOUR = re.compile(r"\x1b\[([0-9;]{0,40})m")
_MOST = 4000
"""Changes of colour in one text; what has more is not meant to be read in colour."""
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def to_html(text: str, masker: Masker) -> Markup:
    """``text`` of any origin, masked, as HTML in the classes ``b`` and ``c-red`` and so on.

    Where a secret shows only once the sequences are gone, or there are too many of them, it is without colour.
    """
    plain = printable(text)
    safe = masker.text(plain)
    pieces = _COLOUR.split(text)  # text, parameters, text, parameters, ...
    if safe != plain or not 1 < len(pieces) <= 2 * _MOST:
        return escape(safe)
    # A sequence of another kind that a colour cuts in two would be read otherwise in pieces.
    if "".join(printable(piece) for piece in pieces[::2]) != plain:
        return escape(safe)
    bold, colour = False, ""
    out = [escape(printable(pieces[0]))]
    for parameters, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        bold, colour = _after(parameters, bold, colour)
        shown = escape(printable(piece))
        classes = " ".join(["b"] * bold + [f"c-{colour}"] * bool(colour))
        out.append(Markup('<span class="{}">{}</span>').format(classes, shown) if classes and piece else shown)
    return Markup("").join(out)


def _after(parameters: str, bold: bool, colour: str) -> tuple[bool, str]:
    """Weight and colour after a sequence (ECMA-48, SGR); backgrounds and the 256 colours are left out."""
    numbers = [int(number[:4] or 0) for number in parameters.split(";")]
    while numbers:
        number = numbers.pop(0)
        if number == 0:
            bold, colour = False, ""
        elif number in (1, 22):
            bold = number == 1
        elif 30 <= number <= 37 or 90 <= number <= 97:
            colour = _NAMES[number % 10]
        elif number == 39:
            colour = ""
        elif number in (38, 48):  # 38;5;N and 38;2;R;G;B
            del numbers[: {5: 2, 2: 4}.get(numbers[0] if numbers else 0, 0)]
    return bold, colour
