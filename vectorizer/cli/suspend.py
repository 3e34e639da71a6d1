"""`vectorizer suspend`."""

from __future__ import annotations

from vectorizer.cli._shared import NameArgument, UrlOption, database_url, opened, out

HELP = """Take the triggers off, for a migration that PostgreSQL would refuse because of them.

Example: vectorizer suspend blog
"""


def command(name: NameArgument, url: UrlOption = None) -> None:
    """Suspend a vectorizer."""
    with opened(database_url(url)) as schema:
        schema.suspend(name)
    out.print(f"Vectorizer {name} is suspended; after the migration: vectorizer resume {name}")
