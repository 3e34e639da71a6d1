"""`vectorizer pause`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli._shared import NameArgument, UrlOption, database_url, opened, out

HELP = """Stop embedding. Changes go on being captured, so nothing is lost.

Example: vectorizer pause blog --reason "moving to another provider"
"""


def command(
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Shown in status.")] = "paused by hand",
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Stop capturing, too, and empty the log; resume compares."),
    ] = False,
    url: UrlOption = None,
) -> None:
    """Pause a vectorizer."""
    with opened(database_url(url)) as schema:
        schema.pause(name, reason, discard=discard)
    out.print(f"Vectorizer {name} is paused; go on with: vectorizer resume {name}")
