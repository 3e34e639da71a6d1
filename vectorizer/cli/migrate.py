"""`vectorizer migrate`."""

from __future__ import annotations

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

Example: vectorizer migrate
"""


def command(dry_run: DryRunOption = False, json: JsonOption = False, url: UrlOption = None) -> None:
    """Migrate the schema."""
    if dry_run and _settings.offline():
        print_sql(Schema(Database("", schema=schema_name())).migration_script())
        return
    with Database(database_url(url), schema=schema_name()) as database:
        schema = Schema(database)
        if dry_run:
            print_sql(schema.migration_script(schema.version()))
            return
        applied = schema.migrate()
    text = "\n".join(f"applied {name}" for name in applied) or "The schema is up to date."
    report(json, {"applied": applied}, text)
