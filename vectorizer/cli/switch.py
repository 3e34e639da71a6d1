"""`vectorizer switch`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    NameArgument,
    UrlOption,
    changing,
    report,
)

HELP = """Let readers see another generation of a vectorizer, all at once.

A new generation, after a change of model or chunking, takes over by itself when it has caught up.
This is the way back, as long as the old one is kept, and forth again.

Example: vectorizer switch blog 1
"""


def command(
    name: NameArgument,
    generation: Annotated[
        int | None, typer.Argument(help="Number of the generation; by default the newest.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also to one that has not caught up.")
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Switch to another generation."""
    with changing(url, dry_run=dry_run) as schema:
        serving = schema.switch(name, generation, force=force)
        rows = [] if dry_run else schema.status(name)
    others = [row["generation"] for row in rows if not row["serving"]]
    kept = [
        f"Generation {other} is kept in step and can be switched to; when it is not needed any "
        f"more: vectorizer drop-generation {name} {other}"
        for other in others
    ]
    text = "\n".join([f"Readers of {name} see generation {serving} now.", *kept])
    report(json, {"serving": serving, "kept": others}, text)
