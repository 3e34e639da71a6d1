"""`vectorizer sql`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli import _settings
from vectorizer.errors import ConfigurationError

HELP = """Print the SQL of a command, for psql, Alembic, Django or Flyway; no database is needed.

It takes these commands, with their options: install, uninstall, migrate,
grant, pause, suspend, resume, retry, collapse, switch, drop-generation.

Example: vectorizer sql install blog --chunk-column contents
"""

_COMMANDS = (
    "install",
    "uninstall",
    "migrate",
    "grant",
    "pause",
    "suspend",
    "resume",
    "retry",
    "collapse",
    "switch",
    "drop-generation",
)


def command(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="COMMAND", help=", ".join(_COMMANDS))],
) -> None:
    """Print the SQL of a command."""
    if what not in _COMMANDS:
        raise ConfigurationError(
            f"there is no SQL for {what!r}; choose one of: {', '.join(_COMMANDS)}"
        )
    from vectorizer.cli import app  # noqa: PLC0415 - it imports this module

    with _settings.going_offline():
        code = app([what, *context.args, "--dry-run"], standalone_mode=False)
    raise typer.Exit(code or 0)
