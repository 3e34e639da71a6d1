"""The options that describe a vectorizer, for the commands that take them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, get_type_hints

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._shared import database_url
from vectorizer.embedders import create
from vectorizer.errors import ConfigurationError

__all__ = ["described", "parse_chunk_size", "parse_interval", "vectorizer_of"]

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_EMBEDDER = ("model", "dimensions", "base_url")


def _options(
    chunk_column: Annotated[
        str | None, typer.Option(help="Text column to split and embed.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help='What to embed: {chunk} and columns, such as "{title}: {chunk}".'),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help="Columns to copy to each embedding, by commas.")
    ] = None,
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
        str | None,
        typer.Option(help="Least and most characters of a chunk.", show_default="500,1000"),
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Characters that neighbouring chunks share.")
    ] = None,
    vectors: Annotated[
        str | None, typer.Option(help="vector, or halfvec: half the size.", show_default="vector")
    ] = None,
    on_long_text: Annotated[
        str | None,
        typer.Option(
            help="Of a text too long for the model: split, truncate or dead-letter.",
            show_default="split",
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Keep vectors for texts that come back.")
    ] = False,
    max_tokens_per_day: Annotated[
        int | None, typer.Option(help="Budget; what is beyond it waits for the next day.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition; rows that do not meet it are not embedded."),
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Capture what logical replication applies, too.")
    ] = False,
) -> dict[str, Any]:
    return {key: value for key, value in locals().items() if value not in (None, False)}


def described(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above; it takes those given as a mapping, `options`."""
    own = _parameters(command)
    theirs = _parameters(_options)
    parameters = [*(parameter for parameter in own if parameter.name != "options"), *theirs]

    def run(**values: Any) -> None:
        given = {parameter.name: values.pop(parameter.name) for parameter in theirs}
        command(**values, options=_options(**given))

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.__doc__
    return run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function).parameters.values()
    ]


def vectorizer_of(table: str, options: dict[str, Any], url: str | None) -> Vectorizer:
    """Return the vectorizer that these options describe.

    Raises ConfigurationError or what the embedder raises for its own options.
    """
    options = dict(options)
    embedder = {"provider": options.pop("embedder")}
    embedder |= {key: options.pop(key) for key in _EMBEDDER if key in options}
    schema_name, _, table_name = table.rpartition(".")
    if "chunk_column" not in options:
        raise ConfigurationError("--chunk-column is missing: name the column that is embedded")
    for option, parse in (
        ("metadata", _columns),
        ("partition_interval", parse_interval),
        ("chunk_size", parse_chunk_size),
    ):
        if option in options:
            options[option] = parse(options[option])
    return Vectorizer(
        database_url(url),
        table_name,
        schema_name=schema_name or "public",
        embedder=create(embedder),
        **options,
    )


def _columns(text: str) -> list[str]:
    return [column.strip() for column in text.split(",") if column.strip()]


def parse_interval(text: str) -> timedelta:
    """Return 24h, 30d or 4w as a timedelta; raise ConfigurationError for anything else."""
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
