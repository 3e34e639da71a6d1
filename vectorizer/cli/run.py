"""`vectorizer run`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.vectorizer import AsyncVectorizer
from vectorizer.batch import Counts
from vectorizer.cli._garbage import collect_seldom
from vectorizer.cli._leaving import interruptible
from vectorizer.cli._progress import shown, waiting
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
from vectorizer.errors import BudgetExhausted, ConfigurationError, DatabaseError, VectorizerError
from vectorizer.types import JSON
from vectorizer.worker import Drain, WorkerOptions

HELP = """Embed whatever waits, then end: for cron and Kubernetes jobs.

Exits with 1 if a dead letter or a pause is left, or a provider does not answer.
Several vectorizers take turns, a batch of each. While a batch is at the model the next one is
prepared: --concurrency says how many are in flight. Running it twice at once is harmless.
--max-rows, --max-seconds and --max-tokens leave the rest to the next run.

Example: vectorizer run blog
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows claimed at once.", show_default="as the model takes them"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Batches in flight over all.", show_default="4")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Begin no batch after so many rows.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin no batch after so many seconds.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Send models no more than so many tokens.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Drain vectorizers."""
    # As Ctrl-C: what is in flight is given back, and need not wait for its lease.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    collect_seldom()
    options = settings(worker={"batch_size": batch_size, "concurrency": concurrency}).config.worker
    database = database_url(url)
    with opened(database) as schema:
        wanted = selected(schema, names)
    drain, dead = interruptible(
        _drained(
            database,
            list(dict.fromkeys(wanted)),
            options,
            quiet=json or is_quiet(),
            max_rows=max_rows,
            max_seconds=max_seconds,
            max_tokens=max_tokens,
        )
    )
    # What was to be left to the next run is no error.
    short = {name for name, why in drain.errors.items() if isinstance(why, BudgetExhausted)}
    errors = {name: error for name, error in drain.errors.items() if name not in short}
    for name, error in errors.items():
        _complain(name, error)
    if json:
        print_json(_as_json(drain.counts, dead, errors))
    elif not is_quiet():
        for name, done in drain.counts.items():
            if done.rows or name not in errors:
                _print_counts(name, done, dead[name], short=name in short)
    left = any(dead.values())
    raise typer.Exit(max([int(left), *(exit_code(error) for error in errors.values())]))


async def _drained(
    url: str,
    names: Sequence[str],
    options: WorkerOptions,
    *,
    quiet: bool,
    max_rows: int | None,
    max_seconds: float | None,
    max_tokens: int | None,
) -> tuple[Drain, dict[str, int]]:
    """Drain these vectorizers; return what came of it, and how many dead letters each has."""
    drain = Drain(concurrency=options.concurrency)
    async with AsyncDatabase(
        url,
        schema=schema_name(),
        # One a batch, some for heartbeats and upkeep.
        max_connections=options.concurrency + 3,
        silence_seconds=options.lease_seconds,
    ) as database:
        vectorizers = await _connected(database, names, options, drain)
        rows = {one.name: waiting(await one.status()) for one in vectorizers}
        with shown(rows, quiet=quiet) as show:
            await drain.run(show, max_rows=max_rows, max_seconds=max_seconds, max_tokens=max_tokens)
        await _note_unserved(AsyncSchema(database), drain.errors)
        dead = {one.name: int((await one.status())["dead_letters"]) for one in vectorizers}
    return drain, dead


async def _connected(
    database: AsyncDatabase, names: Sequence[str], options: WorkerOptions, drain: Drain
) -> list[AsyncVectorizer]:
    vectorizers: list[AsyncVectorizer] = []
    for name in names:
        try:
            vectorizer = await AsyncVectorizer.connect(
                database.url,
                name,
                batch_size=options.batch_size,
                lease_seconds=options.lease_seconds,
                schema=database.schema,
                database=database,
                observer=drain.observe,
            )
        except DatabaseError:
            raise
        except VectorizerError as error:  # the others are served all the same
            drain.errors[name] = error
        else:
            vectorizers.append(vectorizer)
            drain.add(vectorizer)
    return vectorizers


async def _note_unserved(schema: AsyncSchema, errors: Mapping[str, VectorizerError]) -> None:
    """Let status tell what this process cannot serve; a daemon elsewhere may be able to."""
    for name, error in errors.items():
        if isinstance(error, ConfigurationError):
            await schema.note_unserved(name, str(error))


def _complain(name: str, error: VectorizerError) -> None:
    complain(str(error) if name in str(error) else f"{name}: {error}")


def _as_json(
    counts: Mapping[str, Counts], dead: Mapping[str, int], errors: Mapping[str, VectorizerError]
) -> dict[str, dict[str, JSON]]:
    told: dict[str, dict[str, JSON]] = {
        name: {**dict(done), "dead_letters": dead[name]} for name, done in counts.items()
    }
    for name, error in errors.items():
        told.setdefault(name, {})["error"] = str(error)
    return told


def _print_counts(name: str, counts: Counts, dead: int, *, short: bool) -> None:
    text = f"{name}: {describe(counts)}" + (f"; {dead} dead letters" if dead else "")
    if counts.failed and not dead:
        text += f", see: vectorizer status {name}"
    if short:
        text += "; the tokens of --max-tokens are sent, and the rest waits for the next run"
    out.print(text, markup=False, soft_wrap=True)


def describe(counts: Counts) -> str:
    """Return counts in words."""
    text = (
        f"{counts.rows} rows; chunks: {counts.embedded} embedded, {counts.kept} kept, "
        f"{counts.deleted} deleted"
    )
    return f"{text}; {counts.failed} rows failed" if counts.failed else text
