"""`vectorizer migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer.cli import _settings
from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    UrlOption,
    database_url,
    print_sql,
    report,
    schema_name,
)

HELP = """Bring our schema in the database to this program's version. Install does so, too.

--dry-run prints the SQL that this database lacks, vectorizer sql migrate what an empty one needs:
BEGIN, COMMIT and all between, for psql -v ON_ERROR_STOP=1. Tools that open a transaction of
their own, such as Alembic and Flyway, want --no-transaction.

Example: vectorizer migrate --dry-run
"""


_NOTHING = "-- The schema is up to date."


def command(
    transaction: Annotated[
        bool,
        typer.Option(
            "--transaction/--no-transaction", help="With --dry-run: print BEGIN and COMMIT."
        ),
    ] = True,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Migrate the schema."""
    if dry_run and _settings.offline():
        schema = Schema(Database("", schema=schema_name()))
        print_sql(schema.migration_script(transaction=transaction))
        return
    with Database(database_url(url), schema=schema_name()) as database:
        schema = Schema(database)
        if dry_run:
            print_sql(schema.missing_script(transaction=transaction) or _NOTHING)
            return
        applied = schema.migrate()
    text = "\n".join(f"applied {name}" for name in applied) or "The schema is up to date."
    report(json, {"applied": applied}, text)
