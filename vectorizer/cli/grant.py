"""`vectorizer grant`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from vectorizer.cli._settings import is_quiet, offline
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    changing,
    complain,
    database_url,
    opened,
    out,
    print_json,
)

HELP = """Give a role the rights of a worker or of a reader, and no others.

A worker embeds and keeps the tables of the queue in shape; a reader searches. It holds for all
vectorizers of the database, also for those installed later. To take it back: DROP OWNED BY the
role, or REVOKE. Exit code 1: an owner has to run the statements that are printed.

Example: vectorizer grant worker shop_worker --dry-run
"""


class Kind(str, Enum):
    """What the role is to do."""

    worker = "worker"
    reader = "reader"


def command(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="worker or reader.")],
    role: Annotated[str, typer.Argument(metavar="ROLE", help="An existing role.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL instead of running it.")
    ] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Grant a role what it needs."""
    if dry_run and offline():
        with changing(url, dry_run=True) as schema:
            schema.grant_role(kind.value, role)
    with opened(database_url(url)) as schema:
        act = schema.role_grants if dry_run else schema.grant_role
        statements = act(kind.value, role)
    if json:
        print_json({"dry_run": dry_run, "statements": statements})
    elif dry_run or statements:
        for statement in statements:
            out.print(f"{statement};", markup=False, soft_wrap=True)
    elif not is_quiet():
        out.print(f"{role} can do the work of a {kind.value}.", markup=False)
    if statements and not dry_run:
        complain(f"{role} lacks rights that this role may not give: let the owners run the above")
        raise typer.Exit(1)
