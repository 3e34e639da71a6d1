"""`vectorizer suspend`."""

from __future__ import annotations

from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    NameArgument,
    UrlOption,
    changing,
    report,
)

HELP = """Take the triggers off, for a migration that PostgreSQL would refuse because of them.

Example: vectorizer suspend blog
"""


def command(
    name: NameArgument,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Suspend a vectorizer."""
    with changing(url, dry_run=dry_run) as schema:
        schema.suspend(name)
    text = f"Vectorizer {name} is suspended; after the migration: vectorizer resume {name}"
    report(json, {"name": name, "suspended": True}, text)
