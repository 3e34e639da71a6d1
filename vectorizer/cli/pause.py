"""`vectorizer pause`."""

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

HELP = """Stop embedding. Changes go on being captured, so nothing is lost.

Example: vectorizer pause blog --reason "moving to another provider"
"""


def command(
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Shown in status.")] = "paused by hand",
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Stop capturing, too, and empty the log; resume compares."),
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Pause a vectorizer."""
    with changing(url, dry_run=dry_run) as schema:
        schema.pause(name, reason, discard=discard)
    text = f"Vectorizer {name} is paused; go on with: vectorizer resume {name}"
    report(json, {"name": name, "paused": True, "reason": reason, "discarded": discard}, text)
