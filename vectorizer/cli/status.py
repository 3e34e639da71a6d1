"""`vectorizer status`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    opened,
    out,
    print_json,
    selected,
)

HELP = """Show what waits, what is in flight, what failed and what is embedded.

Example: vectorizer status
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the status of vectorizers."""
    with opened(database_url(url)) as schema:
        wanted = selected(schema, names)
        rows = [row for row in schema.status() if row["name"] in wanted]
    if json:
        print_json(rows)
        return
    for row in rows:
        out.print(_table(row))


def _table(row: dict[str, Any]) -> Table:
    table = Table(
        title=escape(f"{row['name']}{_generation(row)}: {row['state']}"),
        title_justify="left",
        show_header=False,
        box=None,
    )
    table.add_row("source", escape(row["source"]))
    if row["destination"] is not None:
        table.add_row("destination", escape(f"{row['destination']} ({row['model']})"))
        table.add_row("embeddings", f"{row['embeddings']:,}")
    if row["reason"]:
        table.add_row("reason", escape(row["reason"]))
    table.add_row("waiting changes", f"{row['waiting']:,}{_age(row['oldest_change'])}")
    table.add_row("in flight", f"{row['in_flight']:,} rows")
    table.add_row("waiting to retry", f"{row['retrying']:,} rows")
    table.add_row("dead letters", f"{row['dead_letters']:,} rows")
    table.add_row("sent today", f"{row['tokens_today'] or 0:,} tokens")
    done = "done" if row["backfill_done"] else f"of about {row['backfill_total']:,}"
    left = _left(row["backfill_eta"])
    table.add_row("backfill", f"{row['backfill_claimed']:,} rows, {done}{left}")
    table.add_row("queue on disk", f"{row['log_bytes'] / 1024:,.0f} KB")
    for warning in row["warnings"]:
        table.add_row("[bold]warning[/]", escape(warning))
    return table


def _generation(row: dict[str, Any]) -> str:
    return "" if row["serving"] and row["generation"] == 1 else f", generation {row['generation']}"


def _left(eta: datetime | None) -> str:
    if eta is None:
        return ""
    left = max(eta - datetime.now(timezone.utc), timedelta(0))
    return f", about {timedelta(seconds=round(left.total_seconds()))} left"


def _age(oldest: datetime | None) -> str:
    if oldest is None:
        return ""
    seconds = (datetime.now(timezone.utc) - oldest).total_seconds()
    return f", the oldest for {max(seconds, 0):,.0f} s"
