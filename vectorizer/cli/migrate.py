"""`vectorizer migrate`."""

from __future__ import annotations

from vectorizer._sync.database import Database
from vectorizer._sync.schema import Schema
from vectorizer.cli._shared import UrlOption, database_url, out

HELP = """Bring our schema in the database to this program's version. Install does so, too.

Example: vectorizer migrate
"""


def command(url: UrlOption = None) -> None:
    """Migrate the schema."""
    with Database(database_url(url)) as database:
        applied = Schema(database).migrate()
    out.print("\n".join(f"applied {name}" for name in applied) or "The schema is up to date.")
