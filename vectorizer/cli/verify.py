"""`vectorizer verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vectorizer._sync.verify import Verifier
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    opened,
    out,
    print_json,
    selected,
)
from vectorizer.verification import Verification

HELP = """Compare every source row with what is embedded of it, from the data itself.

Exits with 1 if there is a defect; what waits in the queue or was given up is counted apart.

Where a function of yours writes the embeddings, --embedded names a query whose first columns are
the keys of what is embedded, such as "select post_id from my_embeddings".

Example: vectorizer verify blog --repair
"""


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Queue exactly the defective keys; run mends them.")
    ] = False,
    embedded: Annotated[
        str | None, typer.Option(metavar="QUERY", help="What your callback has embedded: its keys.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Keys compared in one statement.")] = 10_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what --repair would queue, and queue nothing.")
    ] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Verify vectorizers."""
    with opened(database_url(url)) as schema:
        reports = {
            name: Verifier(schema.database, schema.find(name)).verify(
                repair=repair and not dry_run, rows=rows, embedded=embedded
            )
            for name in selected(schema, names)
        }
    if json:
        print_json({name: {**asdict(report), "ok": report.ok} for name, report in reports.items()})
    else:
        for name, report in reports.items():
            _print_report(name, report)
            if dry_run and report.defects:
                count = sum(report.defects.values())
                out.print(f"   {count} keys would be queued: vectorizer verify {name} --repair")
    raise typer.Exit(0 if all(report.ok for report in reports.values()) else 1)


def _print_report(name: str, report: Verification) -> None:
    verdict = "ok" if report.ok else f"{sum(report.defects.values())} defects"
    out.print(
        f"{name}: {verdict}; {report.checked:,} rows checked, {report.pending} pending, "
        f"{report.dead} dead"
    )
    for kind, count in sorted(report.defects.items()):
        keys = ", ".join(_shown(key) for key in report.samples[kind])
        out.print(f"   {kind}: {count}, such as {keys}", soft_wrap=True)
    if report.repaired:
        out.print(f"   {report.repaired} keys are queued for repair: vectorizer run {name}")
    if report.unknown:
        out.print(f"   not checked: {report.unknown}", soft_wrap=True)


def _shown(key: dict[str, object]) -> str:
    return (
        "("
        + ", ".join(f"{name.removeprefix('source_')}={value}" for name, value in key.items())
        + ")"
    )
