# SPDX-License-Identifier: Apache-2.0
"""`vmrole schema`."""

from __future__ import annotations

import json
from difflib import get_close_matches

import click

from harness.errors import UsageError


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Without NAME: all schemas by name, as one JSON document.")
def command(name: str | None, as_json: bool) -> None:
    """Print the JSON Schema of the document NAME, for editors; without NAME, which documents there are."""
    from harness.package.schemas import DOCUMENTS, schema

    if name is not None:
        if name not in DOCUMENTS:
            meant = [
                known for known, (_module, _kind, what) in DOCUMENTS.items() if what.endswith("." + name.lstrip("*."))
            ]
            near = meant or get_close_matches(name, DOCUMENTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(DOCUMENTS)}"
            raise UsageError(f"there is no schema {name[:60]!r}", hint=hint)
        click.echo(json.dumps(schema(name), indent=2))
    elif as_json:
        click.echo(json.dumps({known: schema(known) for known in DOCUMENTS}, indent=2))
    else:
        for known, (_module, _kind, what) in DOCUMENTS.items():
            click.echo(f"{known:24}{what}")
