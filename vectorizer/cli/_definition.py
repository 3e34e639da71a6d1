"""The options that describe a vectorizer, for the commands that take them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from vectorizer._sync.vectorizer import Vectorizer
from vectorizer.cli._settings import offline, settings
from vectorizer.cli._shared import database_url, schema_name
from vectorizer.config import VectorizerConfig
from vectorizer.embedders import create
from vectorizer.errors import ConfigurationError
from vectorizer.naming import default_name

__all__ = ["as_defined", "described", "parse_chunk_size", "vectorizers_of"]

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
    key: Annotated[
        str | None, typer.Option(help="Columns of the unique index that names a row, by commas.")
    ] = None,
    partition_interval: Annotated[
        str | None, typer.Option(help="Partition by time, each this wide: 24h, 30d, 4w.")
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(help="Embed no row older than this by its time, drop older partitions: 52w."),
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="View to search; by default TABLE_embedding.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the vectorizer; by default the table's.")
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="minilm, openai, …, or a class or function as module:name.",
            show_default="minilm",
        ),
    ] = None,
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
    chunk_unit: Annotated[
        str | None,
        typer.Option(help="What these two count: characters or tokens.", show_default="characters"),
    ] = None,
    splitter: Annotated[
        str | None,
        typer.Option(
            help="How to cut: text, markdown, html, or none for one chunk a row.",
            show_default="text",
        ),
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
    index: Annotated[
        str | None,
        typer.Option(help="hnsw or ivfflat, built when everything is embedded; or none."),
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
    # In Python 3.10 get_type_hints puts an Optional around what has None for its default.
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
    ]


def vectorizers_of(
    table: str | None,
    options: dict[str, Any],
    url: str | None,
    *,
    script: bool = False,
    sends: bool = True,
) -> dict[str, Vectorizer]:
    """Return the vectorizer these options describe, over what vectorizer.toml says of it.

    Without a table and a name those that the file defines. script: no database is needed;
    sends: whether its model will be asked. Raises ConfigurationError or what the embedder raises
    for its own options.
    """
    database = "" if script and offline() else database_url(url)
    sends = sends and not script
    wanted = _wanted(table, options)
    return {name: _made(database, name, one, sends=sends) for name, one in wanted.items()}


def parse_chunk_size(text: str) -> tuple[int, int]:
    """Return "500,1000" as two numbers; raise ConfigurationError for anything else."""
    match = re.fullmatch(r"(\d+)\s*,\s*(\d+)", text.strip())
    if match is None:
        raise ConfigurationError(
            f"--chunk-size {text!r}: give two numbers of characters, such as 500,1000"
        )
    return int(match[1]), int(match[2])


def as_defined(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as a section of vectorizer.toml has them."""
    flags = dict(options)
    described = {key: flags.pop(key) for key in _EMBEDDER if key in flags}
    if described or "embedder" in flags:
        flags["embedder"] = {"provider": flags.get("embedder", "minilm"), **described}
    if "chunk_size" in flags:
        flags["chunk_size"] = parse_chunk_size(flags["chunk_size"])
    return flags


def _made(url: str, name: str, defined: VectorizerConfig, *, sends: bool) -> Vectorizer:
    schema, _, table = defined.table.rpartition(".")
    return Vectorizer(
        url,
        table,
        schema_name=schema or "public",
        name=name,
        embedder=create(defined.embedder, sends=sends),
        schema=schema_name(),
        **defined.options(),
    )


def _wanted(table: str | None, options: dict[str, Any]) -> dict[str, VectorizerConfig]:
    flags = dict(options)
    name = flags.pop("name", None)
    if table is not None:
        schema, _, bare = table.rpartition(".")
        name = name or default_name(schema or "public", bare)
        flags["table"] = table
    elif name is None and flags:
        raise ConfigurationError("these options need a TABLE, or the --name of one in the file")
    flags = as_defined(flags)
    defined = settings(vectorizers={name: flags} if name else {}).config.vectorizers
    if name is not None:
        if name not in defined:
            raise ConfigurationError(
                f"vectorizer.toml defines no vectorizer {name!r}; it defines: "
                f"{', '.join(defined) or 'none'}"
            )
        return {name: defined[name]}
    if not defined:
        raise ConfigurationError(
            "name a TABLE, or define vectorizers in vectorizer.toml: vectorizer init TABLE"
        )
    return defined
