"""`vectorizer search`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._shared import JsonOption, UrlOption, database_url, out, print_json, schema_name
from vectorizer.errors import ConfigurationError
from vectorizer.search import SearchResult

HELP = """Search what a vectorizer has embedded, by meaning.

Example: vectorizer search blog "posts about cats" --limit 3 --filter category=Pets
"""

_SHOWN_CHARACTERS = 160


def command(
    name: Annotated[str, typer.Argument(help="Vectorizer.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option(min=1, help="Most hits to show.")] = 10,
    filter: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option(help="Metadata that must match, key=value; may be repeated.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Search a vectorizer's embeddings."""
    with Vectorizer.connect(database_url(url), name, schema=schema_name()) as vectorizer:
        results = vectorizer.search(query, limit=limit, filter=parse_filter(filter))
    if json:
        print_json([{**asdict(result), "score": result.score} for result in results])
        return
    if not results:
        out.print("Nothing found.")
    for result in results:
        print_hit(result)


def parse_filter(pairs: list[str] | None) -> dict[str, Any] | None:
    """Return key=value pairs as a mapping; raise ConfigurationError for one without `=`."""
    if not pairs:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"--filter {pair!r}: give key=value, such as category=Pets")
    return dict(pair.split("=", 1) for pair in pairs)


def print_hit(result: SearchResult) -> None:
    """Print score, key, time and the beginning of a hit's text."""
    key = ", ".join(f"{name}={value}" for name, value in result.key.items())
    text = " ".join(result.contents.split())
    shown = (
        text
        if len(text) <= _SHOWN_CHARACTERS
        else text[:_SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " …"
    )
    out.print(f"[bold]{result.score:.3f}[/]  {escape(key)}  {result.time:%Y-%m-%d}")
    out.print(f"       {escape(shown)}", soft_wrap=True)
