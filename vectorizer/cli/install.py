"""`vectorizer install`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from vectorizer.cli._definition import described, vectorizer_of
from vectorizer.cli._plan import print_plan
from vectorizer.cli._shared import UrlOption, out
from vectorizer.errors import ConfigurationError

HELP = """Attach a vectorizer to a table: from then on every change of it reaches its embeddings.

Installing it again changes nothing. With other options it is refused, unless --change is given:
that shows what would change and what it costs, asks, and does it.

Example: vectorizer install blog --chunk-column contents --metadata author,category
"""


@described
def command(
    table: Annotated[
        str, typer.Argument(help="Source table, with its schema if that is not public.")
    ],
    options: dict[str, Any],
    change: Annotated[
        bool, typer.Option("--change", help="Change one that is installed with other options.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlOption = None,
) -> None:
    """Install a vectorizer."""
    with vectorizer_of(table, options, url) as vectorizer:
        if change:
            print_plan(vectorizer.plan())
            _confirm(yes=yes)
        vectorizer.install(change=change)
        status = vectorizer.status()
    out.print(
        f"Vectorizer {vectorizer.name} is installed on {status['source']}; "
        f"embeddings go to {status['destination']}.\n"
        f"Embed what is there: vectorizer run {vectorizer.name}",
        markup=False,
        soft_wrap=True,
    )


def _confirm(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to ask whether to go on; say --yes")
    typer.confirm("Go on?", abort=True)
