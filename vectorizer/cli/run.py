"""`vectorizer run`."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._progress import drained
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    complain,
    database_url,
    exit_code,
    opened,
    out,
    print_json,
    selected,
)
from vectorizer.errors import DatabaseError, VectorizerError

HELP = """Embed whatever waits, then end: for cron and Kubernetes jobs.

Exits with 1 if a dead letter or a pause is left, or a provider does not answer.
Running it twice at once is harmless.

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
    # The batch in hand is then given back, as after Ctrl-C, and need not wait for its lease.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    database = database_url(url)
    with opened(database) as schema:
        wanted = selected(schema, names)
    results: dict[str, dict[str, Any]] = {}
    code = 0
    for name in wanted:
        try:
            results[name] = _drain(database, name, batch_size, quiet=json)
        except DatabaseError:
            raise
        except VectorizerError as error:  # the others are served all the same
            complain(str(error) if name in str(error) else f"{name}: {error}")
            results[name] = {"error": str(error)}
            code = max(code, exit_code(error))
        else:
            code = max(code, 1 if results[name]["dead_letters"] else 0)
    if json:
        print_json(results)
    raise typer.Exit(code)


def _drain(database: str, name: str, batch_size: int, *, quiet: bool) -> dict[str, int]:
    with Vectorizer.connect(database, name, batch_size=batch_size) as vectorizer:
        counts = drained(vectorizer, quiet=quiet)
        dead = int(vectorizer.status()["dead_letters"])
    if not quiet:
        text = f"{name}: {describe(counts)}" + (f"; {dead} dead letters" if dead else "")
        out.print(text, markup=False, soft_wrap=True)
    return {**dict(counts), "dead_letters": dead}


def describe(counts: Counts) -> str:
    """Return counts in words."""
    text = (
        f"{counts.rows} rows; chunks: {counts.embedded} embedded, {counts.kept} kept, "
        f"{counts.deleted} deleted"
    )
    return f"{text}; {counts.failed} rows failed" if counts.failed else text
