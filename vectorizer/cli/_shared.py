"""What several commands share: which database, which vectorizers, how things are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console

from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer.cli._settings import is_quiet, settings
from vectorizer.errors import (
    BudgetExhausted,
    ConfigurationError,
    EmbedderUnavailable,
    LeaseLost,
    NotCaughtUp,
    NotInstalled,
    SyncFailed,
    SyncTimeout,
    VectorizerError,
    VectorizerPaused,
)

__all__ = [
    "DryRunOption",
    "JsonOption",
    "NameArgument",
    "UrlOption",
    "changing",
    "complain",
    "database_url",
    "exit_code",
    "flowing",
    "opened",
    "print_json",
    "print_sql",
    "print_version",
    "report",
    "schema_name",
    "selected",
]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=["VECTORIZER_URL", "DATABASE_URL"],
        show_envvar=True,
        help="Database to use; without one, the embedded database in your data folder.",
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Vectorizer.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the SQL that would be run, and run nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_version(value: bool) -> None:
    """Print the version and end, as --version asks."""
    if value:
        out.print(f"vectorizer {version('pg-vectorizer')}")
        raise typer.Exit


_PASSING = (
    BudgetExhausted,
    EmbedderUnavailable,
    LeaseLost,
    NotCaughtUp,
    SyncFailed,
    SyncTimeout,
    VectorizerPaused,
)


def exit_code(error: VectorizerError) -> int:
    """Return 1 for what may pass or is somebody's wish, 2 for what the user has to mend."""
    return 1 if isinstance(error, _PASSING) else 2


def flowing(text: str) -> str:
    """Return paragraphs without their line ends, for a terminal of any width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def complain(message: str) -> None:
    """Print what went wrong in one line."""
    print(f"vectorizer: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - this is the CLI


def database_url(url: str | None) -> str:
    """Return the URL to use; starts the embedded database, and says so, where none is given."""
    # A flag wins over the environment, and that over the file; typer has seen to the first two.
    if url := url or settings().config.database.url:
        return _checked(url)
    from vectorizer import embedded  # noqa: PLC0415 - only here is it needed

    server = embedded.start()
    if is_quiet():
        return server.url
    err.print(
        f"No --url, VECTORIZER_URL or DATABASE_URL: using the embedded database in {server.folder}",
        style="dim",
        soft_wrap=True,
    )
    return server.url


def schema_name() -> str:
    """Return the schema that holds our own tables."""
    return settings().config.database.schema_


def _checked(url: str) -> str:
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        # What libpq says of it repeats the whole text, with the password.
        raise ConfigurationError(
            "the given database URL is malformed: expected the form "
            "postgresql://user:password@host:port/database, or key=value pairs as for libpq"
        ) from None
    return url


@contextmanager
def opened(url: str) -> Iterator[Schema]:
    """Open a database that has our schema in it."""
    with Database(url, schema=schema_name()) as database:
        schema = Schema(database)
        schema.check()
        yield schema


@contextmanager
def changing(url: str | None, *, dry_run: bool) -> Iterator[Schema]:
    """Open a database to change it; in a dry run print the statements and end instead."""
    if not dry_run:
        with opened(database_url(url)) as schema:
            yield schema
        return
    script: list[str] = []
    yield Schema(Database("", schema=schema_name()), script=script)
    print_sql("\n".join(script))
    raise typer.Exit


def print_sql(script: str) -> None:
    """Print SQL as it is, to be piped into psql."""
    sys.stdout.write(script + "\n")


def report(json: bool, value: Any, text: str) -> None:
    """Print what was done: as JSON, or in words."""
    if json:
        print_json(value)
    elif not is_quiet():
        out.print(text, markup=False, soft_wrap=True)


def selected(schema: Schema, names: list[str] | None) -> list[str]:
    """Return the given vectorizers, or all; raise NotInstalled for a name that is unknown."""
    known = schema.names()
    for name in names or []:
        if name not in known:
            raise NotInstalled(
                f"there is no vectorizer {name!r}; installed: {', '.join(known) or 'none'}"
            )
    if not known:
        raise NotInstalled(
            "no vectorizer is installed in this database; run: vectorizer install TABLE"
        )
    return names or known


def print_json(value: Any) -> None:
    """Print a value as JSON; times in ISO form."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")
