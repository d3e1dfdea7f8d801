# SPDX-License-Identifier: Apache-2.0
"""What a result on a Windows image does not prove, told in every run; docs/verified-on-windows.md has all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.image.recipe import Recipe

_PROGRAMS_32: Final = "32-bit programs"
NOT_ON_STAND_IN: Final = (
    "PowerShell",
    "roles and features",
    "accounts, log-on and rights",
    "time zone, locale and Windows Update by Windows' own means",
    "private keys in use",
    "scheduled tasks and the firewall",
    _PROGRAMS_32,
    "restarts of Windows itself",
)
"""Each is a row of the page, too."""


def caveat(recipe: Recipe) -> str:
    """One sentence about what the image cannot show."""
    if recipe.stand_in:
        supplied = "; the PowerShell in it is one that was supplied, and runs on Wine: it is no Windows PowerShell 5.1"
        engine = supplied if recipe.powershell else ""
        lacks = [what for what in NOT_ON_STAND_IN if recipe.lacks_programs_32 or what != _PROGRAMS_32]
        return (
            f"{recipe.name} stands in for Windows; it proves nothing about {', '.join(lacks[:-1])} and "
            f"{lacks[-1]}{engine} (docs/verified-on-windows.md)"
        )
    return (
        "no real Windows was at hand when this harness was made: what it does there is written after its documents and "
        "not verified (docs/verified-on-windows.md)"
    )
