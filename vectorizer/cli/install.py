"""`vectorizer install`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._shared import UrlOption, database_url, out
from vectorizer.embedders import create
from vectorizer.errors import ConfigurationError

HELP = """Attach a vectorizer to a table: from then on every change of it reaches its embeddings.

Example: vectorizer install blog --chunk-column contents --metadata author,category
"""

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def command(
    table: Annotated[
        str, typer.Argument(help="Source table, with its schema if that is not public.")
    ],
    chunk_column: Annotated[str, typer.Option(help="Text column to split and embed.")],
    template: Annotated[
        str | None,
        typer.Option(help='What to embed: {chunk} and columns, such as "{title}: {chunk}".'),
    ] = None,
    metadata: Annotated[
        str, typer.Option(help="Columns to copy to each embedding, by commas.")
    ] = "",
    time_column: Annotated[
        str | None, typer.Option(help="The row's time; rows where it is NULL are not embedded.")
    ] = None,
    partition_interval: Annotated[
        str | None, typer.Option(help="Partition by time, each this wide: 24h, 30d, 4w.")
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="View to search; by default TABLE_embedding.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the vectorizer; by default the table's.")
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="minilm, openai, or a class as module:name.")
    ] = "minilm",
    model: Annotated[str | None, typer.Option(help="Model of the embedder.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Dimensions of its vectors.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Server that speaks OpenAI's protocol.")
    ] = None,
    chunk_size: Annotated[
        str, typer.Option(help="Least and most characters of a chunk.")
    ] = "500,1000",
    chunk_overlap: Annotated[
        int, typer.Option(help="Characters that neighbouring chunks share.")
    ] = 0,
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition; rows that do not meet it are not embedded."),
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Capture what logical replication applies, too.")
    ] = False,
    url: UrlOption = None,
) -> None:
    """Install a vectorizer."""
    options = {"provider": embedder, "model": model, "dimensions": dimensions, "base_url": base_url}
    schema_name, _, table_name = table.rpartition(".")
    definition: dict[str, Any] = {
        "schema_name": schema_name or "public",
        "name": name,
        "embedder": create({key: value for key, value in options.items() if value is not None}),
        "chunk_column": chunk_column,
        "template": template,
        "metadata": [column.strip() for column in metadata.split(",") if column.strip()],
        "time_column": time_column,
        "partition_interval": parse_interval(partition_interval),
        "destination": destination,
        "chunk_size": parse_chunk_size(chunk_size),
        "chunk_overlap": chunk_overlap,
        "where": where,
        "always": always,
    }
    with Vectorizer(database_url(url), table_name, **definition) as vectorizer:
        vectorizer.install()
        status = vectorizer.status()
    out.print(
        f"Vectorizer {vectorizer.name} is installed on {status['source']}; "
        f"embeddings go to {status['destination']}.\n"
        f"Embed what is there: vectorizer run {vectorizer.name}",
        markup=False,
        soft_wrap=True,
    )


def parse_interval(text: str | None) -> timedelta | None:
    """Return 24h, 30d or 4w as a timedelta; raise ConfigurationError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})\s*([hdw])", text.strip())
    if match is None or not int(match[1]):
        raise ConfigurationError(
            f"--partition-interval {text!r}: give hours, days or weeks, such as 24h, 30d or 4w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_chunk_size(text: str) -> tuple[int, int]:
    """Return "500,1000" as two numbers; raise ConfigurationError for anything else."""
    match = re.fullmatch(r"(\d+)\s*,\s*(\d+)", text.strip())
    if match is None:
        raise ConfigurationError(
            f"--chunk-size {text!r}: give two numbers of characters, such as 500,1000"
        )
    return int(match[1]), int(match[2])
