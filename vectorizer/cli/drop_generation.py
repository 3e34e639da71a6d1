"""`vectorizer drop-generation`."""

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

HELP = """Drop a generation that readers do not see: its embeddings, its queue and its triggers.

Example: vectorizer drop-generation blog 1
"""


def command(
    name: NameArgument,
    generation: Annotated[int, typer.Argument(help="Number of the generation, see status.")],
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Drop a generation."""
    with changing(url, dry_run=dry_run) as schema:
        schema.drop_generation(name, generation)
    text = f"Generation {generation} of {name} is dropped."
    report(json, {"name": name, "dropped": generation}, text)
