"""`vectorizer dead-letters`."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer
from rich.markup import escape

from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    opened,
    out,
    print_json,
    selected,
)

HELP = """List the rows that were given up, with the error of their last attempt.

Example: vectorizer dead-letters blog
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List dead letters."""
    with opened(database_url(url)) as schema:
        wanted = selected(schema, names)
        letters = [letter for letter in schema.dead_letters() if letter["name"] in wanted]
    if json:
        print_json(letters)
        return
    if not letters:
        out.print("No dead letters.")
    for letter in letters:
        key = jsonlib.dumps(letter["key"], ensure_ascii=False)
        out.print(
            f"{escape(letter['name'])}  {escape(key)}  after {letter['attempts']} attempts: "
            f"{escape(' '.join((letter['error'] or '').split()))}",
            soft_wrap=True,
        )
