"""`vectorizer plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._definition import described, vectorizers_of
from vectorizer.cli._plan import print_plan
from vectorizer.cli._settings import settings
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    opened,
    print_json,
    schema_name,
)
from vectorizer.embedders import create

HELP = """Tell what an install, a change or a run would send to the model and cost. Nothing is done.

With the options of install it is about a table, else about a vectorizer that vectorizer.toml
defines, or one that is installed. Without a name it is about all that the file defines. No API key
is needed.

Example: vectorizer plan blog --chunk-column contents --embedder openai
"""


@described
def command(
    options: dict[str, Any],
    name_or_table: Annotated[
        str | None, typer.Argument(metavar="NAME|TABLE", help="Vectorizer, or source table.")
    ] = None,
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
    plans = []
    for vectorizer in _vectorizers(name_or_table, options, url):
        with vectorizer:
            plans.append(
                vectorizer.plan(
                    sample=sample,
                    price=price,
                    tokens_per_minute=tokens_per_minute,
                    requests_per_minute=requests_per_minute,
                )
            )
    if json:
        said = [plan.to_json() for plan in plans]
        print_json(said if name_or_table is None else said[0])
        return
    for plan in plans:
        print_plan(plan)


def _vectorizers(
    name_or_table: str | None, options: dict[str, Any], url: str | None
) -> list[Vectorizer]:
    if name_or_table is None or options:
        return list(vectorizers_of(name_or_table, options, url, sends=False).values())
    if name_or_table in settings().config.vectorizers:
        return list(vectorizers_of(None, {"name": name_or_table}, url, sends=False).values())
    return [_installed(name_or_table, database_url(url))]


def _installed(name: str, url: str) -> Vectorizer:
    with opened(url) as schema:
        config = schema.find(name).definition.embedder
    embedder = create(config, sends=False)
    return Vectorizer.connect(url, name, embedder=embedder, schema=schema_name())
