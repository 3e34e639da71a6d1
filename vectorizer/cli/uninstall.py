"""`vectorizer uninstall`."""

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

HELP = """Detach a vectorizer from its table. Its embeddings stay unless you say otherwise.

Example: vectorizer uninstall blog --drop-embeddings
"""


def command(
    name: NameArgument,
    drop_embeddings: Annotated[
        bool, typer.Option("--drop-embeddings", help="Drop its embeddings, too.")
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Uninstall a vectorizer."""
    with changing(url, dry_run=dry_run) as schema:
        schema.uninstall(name, drop_embeddings=drop_embeddings)
    kept = "dropped" if drop_embeddings else "kept; installing it again takes them up"
    text = f"Vectorizer {name} is uninstalled; its embeddings are {kept}."
    value = {"name": name, "uninstalled": True, "embeddings_dropped": drop_embeddings}
    report(json, value, text)
