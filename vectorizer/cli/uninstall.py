"""`vectorizer uninstall`."""

from __future__ import annotations

from typing import Annotated

import typer

from vectorizer.cli._shared import UrlOption, database_url, opened, out

HELP = """Detach a vectorizer from its table. Its embeddings stay unless you say otherwise.

Example: vectorizer uninstall blog --drop-embeddings
"""


def command(
    name: Annotated[str, typer.Argument(help="Vectorizer.")],
    drop_embeddings: Annotated[
        bool, typer.Option("--drop-embeddings", help="Drop its embeddings, too.")
    ] = False,
    url: UrlOption = None,
) -> None:
    """Uninstall a vectorizer."""
    with opened(database_url(url)) as schema:
        schema.uninstall(name, drop_embeddings=drop_embeddings)
    kept = "dropped" if drop_embeddings else "kept; installing it again takes them up"
    text = f"Vectorizer {name} is uninstalled; its embeddings are {kept}."
    out.print(text, markup=False, soft_wrap=True)
