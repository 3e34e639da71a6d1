"""`vectorizer plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._definition import described, vectorizer_of
from vectorizer.cli._plan import print_plan
from vectorizer.cli._settings import settings
from vectorizer.cli._shared import JsonOption, UrlOption, database_url, print_json, schema_name

HELP = """Tell what an install, a change or a run would send to the model and cost. Nothing is done.

With the options of install it is about a table, else about a vectorizer that vectorizer.toml
defines, or one that is installed.

Example: vectorizer plan blog --chunk-column contents --embedder openai
"""


@described
def command(
    name_or_table: Annotated[
        str, typer.Argument(metavar="NAME|TABLE", help="Vectorizer, or source table.")
    ],
    options: dict[str, Any],
    sample: Annotated[
        int, typer.Option(min=1, help="Of a larger table only about so many rows are read.")
    ] = 10_000,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars a million tokens.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="What the provider allows.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="What the provider allows.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show a plan."""
    if options:
        vectorizer = vectorizer_of(name_or_table, options, url)
    elif name_or_table in settings().config.vectorizers:
        vectorizer = vectorizer_of(None, {"name": name_or_table}, url)
    else:
        vectorizer = Vectorizer.connect(database_url(url), name_or_table, schema=schema_name())
    with vectorizer:
        plan = vectorizer.plan(
            sample=sample,
            price=price,
            tokens_per_minute=tokens_per_minute,
            requests_per_minute=requests_per_minute,
        )
    if json:
        print_json(plan.to_json())
    else:
        print_plan(plan)
