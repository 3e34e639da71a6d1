"""`vectorizer drop-generation`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli._shared import NameArgument, UrlOption, database_url, opened, out

HELP = """Drop a generation that readers do not see: its embeddings, its queue and its triggers.

Example: vectorizer drop-generation blog 1
"""


def command(
    name: NameArgument,
    generation: Annotated[int, typer.Argument(help="Number of the generation, see status.")],
    url: UrlOption = None,
) -> None:
    """Drop a generation."""
    with opened(database_url(url)) as schema:
        schema.drop_generation(name, generation)
    out.print(f"Generation {generation} of {name} is dropped.", markup=False)
