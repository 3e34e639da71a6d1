"""`vectorizer run`."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Annotated

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._progress import drained
from vectorizer.cli._settings import is_quiet, settings
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    complain,
    database_url,
    exit_code,
    opened,
    out,
    print_json,
    schema_name,
    selected,
)
from vectorizer.errors import DatabaseError, VectorizerError
from vectorizer.worker import WorkerOptions

HELP = """Embed whatever waits, then end: for cron and Kubernetes jobs.

Exits with 1 if a dead letter or a pause is left, or a provider does not answer.
Several vectorizers take turns, a batch of each. Running it twice at once is harmless.
--max-rows and --max-seconds leave the rest to the next run.

Example: vectorizer run blog
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows claimed at once.", show_default="200")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Begin no batch after so many rows.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin no batch after so many seconds.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Drain vectorizers."""
    # The batch in hand is then given back, as after Ctrl-C, and need not wait for its lease.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = settings(worker={"batch_size": batch_size}).config.worker
    database = database_url(url)
    with opened(database) as schema:
        wanted = selected(schema, names)
    with ExitStack() as stack:
        vectorizers, errors = _connected(database, dict.fromkeys(wanted), options, stack)
        rotation = drained(
            vectorizers, quiet=json or is_quiet(), max_rows=max_rows, max_seconds=max_seconds
        )
        dead = {v.name: int(v.status()["dead_letters"]) for v in vectorizers}
    errors |= rotation.errors
    counts = {name: done for name, done in rotation.counts.items() if name not in errors}
    for name, error in errors.items():
        _complain(name, error)
    if json:
        print_json(
            {name: {**dict(counts[name]), "dead_letters": dead[name]} for name in counts}
            | {name: {"error": str(error)} for name, error in errors.items()}
        )
    elif not is_quiet():
        for name, done in counts.items():
            _print_counts(name, done, dead[name])
    left = any(dead[name] for name in counts)
    raise typer.Exit(max([int(left), *(exit_code(error) for error in errors.values())]))


def _connected(
    database: str, names: Iterable[str], options: WorkerOptions, stack: ExitStack
) -> tuple[list[Vectorizer], dict[str, VectorizerError]]:
    vectorizers: list[Vectorizer] = []
    errors: dict[str, VectorizerError] = {}
    for name in names:
        try:
            vectorizer = Vectorizer.connect(
                database,
                name,
                batch_size=options.batch_size,
                lease_seconds=options.lease_seconds,
                schema=schema_name(),
            )
        except DatabaseError:
            raise
        except VectorizerError as error:  # the others are served all the same
            errors[name] = error
        else:
            vectorizers.append(stack.enter_context(vectorizer))
    return vectorizers, errors


def _complain(name: str, error: VectorizerError) -> None:
    complain(str(error) if name in str(error) else f"{name}: {error}")


def _print_counts(name: str, counts: Counts, dead: int) -> None:
    text = f"{name}: {describe(counts)}" + (f"; {dead} dead letters" if dead else "")
    out.print(text, markup=False, soft_wrap=True)


def describe(counts: Counts) -> str:
    """Return counts in words."""
    text = (
        f"{counts.rows} rows; chunks: {counts.embedded} embedded, {counts.kept} kept, "
        f"{counts.deleted} deleted"
    )
    return f"{text}; {counts.failed} rows failed" if counts.failed else text
