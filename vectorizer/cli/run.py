"""`vectorizer run`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._progress import drained
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    opened,
    out,
    print_json,
    selected,
)

HELP = """Embed whatever waits, then end: for cron and Kubernetes jobs.

Exits with 1 if something is left dead or paused. Running it twice at once is harmless.

Example: vectorizer run blog
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows claimed at once.")] = 200,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Drain vectorizers."""
    database = database_url(url)
    with opened(database) as schema:
        wanted = selected(schema, names)
    results: dict[str, dict[str, int]] = {}
    trouble = False
    for name in wanted:
        with Vectorizer.connect(database, name, batch_size=batch_size) as vectorizer:
            counts = drained(vectorizer, quiet=json)
            dead = vectorizer.status()["dead_letters"]
        results[name] = {**dict(counts), "dead_letters": dead}
        trouble = trouble or bool(dead)
        if not json:
            out.print(f"{name}: {describe(counts)}" + (f"; {dead} dead letters" if dead else ""))
    if json:
        print_json(results)
    raise typer.Exit(1 if trouble else 0)


def describe(counts: Counts) -> str:
    """Return counts in words."""
    text = (
        f"{counts.rows} rows; chunks: {counts.embedded} embedded, {counts.kept} kept, "
        f"{counts.deleted} deleted"
    )
    return f"{text}; {counts.failed} rows failed" if counts.failed else text
