"""`vectorizer status`."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from vectorizer._sync.schema import Schema
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

Example: vectorizer status --watch
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show the status of vectorizers."""
    with opened(database_url(url)) as schema:
        if not watch:
            _show(_rows(schema, names), json=json)
        elif json or not out.is_terminal:
            _watch(schema, names, every, json=json)
        else:
            _watch_live(schema, names, every)


def _rows(schema: Schema, names: list[str] | None) -> list[dict[str, Any]]:
    wanted = selected(schema, names)
    return [row for row in schema.status() if row["name"] in wanted]


def _show(rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(rows)
        return
    for row in rows:
        out.print(_table(row))


def _watch(schema: Schema, names: list[str] | None, every: float, *, json: bool) -> None:
    """Print a line a look: for logs, and for programs."""
    with suppress(KeyboardInterrupt):
        while True:
            for row in _rows(schema, names):
                sys.stdout.write(f"{_json_line(row) if json else _line(row)}\n")
            sys.stdout.flush()
            time.sleep(every)


def _watch_live(schema: Schema, names: list[str] | None, every: float) -> None:
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        while True:
            live.update(Group(*map(_table, _rows(schema, names))), refresh=True)
            time.sleep(every)


def _json_line(row: dict[str, Any]) -> str:
    return jsonlib.dumps(row, default=str, ensure_ascii=False)


def _line(row: dict[str, Any]) -> str:
    now = datetime.now(timezone.utc)
    return (
        f"{now:%H:%M:%S} {row['name']}{_generation(row)} {row['state']}: "
        f"{row['waiting']} waiting{_age(row['oldest_change'])}, {row['in_flight']} in flight, "
        f"{row['retrying']} to retry, {row['dead_letters']} dead, "
        f"backfill {row['backfill_claimed']}/{row['backfill_total']}"
    )


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
