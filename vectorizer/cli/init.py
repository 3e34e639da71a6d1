"""`vectorizer init`."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import tomlkit
import typer

from vectorizer.cli._shared import JsonOption, UrlOption, database_url, report
from vectorizer.cli._sources import columns_of
from vectorizer.config import DEFAULT_FILE, VectorizerConfig
from vectorizer.errors import ConfigurationError
from vectorizer.naming import default_name
from vectorizer.suggestion import Column, suggest
from vectorizer.worker import WorkerOptions

HELP = """Write a commented vectorizer.toml for a table, from a look at its columns.

On a terminal it asks, with a guess to each question; elsewhere, or with --yes, guesses count.

Example: vectorizer init blog --metadata author,category
"""

_HEAD = """\
# Configuration of pg-vectorizer; check it with: vectorizer config check
# An environment variable goes over a key of this file, a flag over both:
# VECTORIZER_WORKER_CONCURRENCY=8, --concurrency 8.

[database]
# A password is better kept in VECTORIZER_URL than here.
# url = "postgresql://user@host/database"

"""
_TAIL = """
# Then: vectorizer install; vectorizer worker
"""


def command(
    table: Annotated[
        str, typer.Argument(help="Source table, with its schema if that is not public.")
    ],
    chunk_column: Annotated[
        str | None, typer.Option(help="Text column to split and embed.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="What to embed: {chunk} and columns in braces.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help="Columns to copy to each embedding, by commas.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="The row's time; rows where it is NULL are not embedded.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the vectorizer; by default the table's.")
    ] = None,
    embedder: Annotated[str, typer.Option(help="minilm, openai, or module:name.")] = "minilm",
    model: Annotated[str | None, typer.Option(help="Model of the embedder.")] = None,
    output: Annotated[Path, typer.Option(help="File to write.")] = DEFAULT_FILE,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Write a configuration file."""
    if output.exists() and not force:
        raise ConfigurationError(f"{output} is there already; replace it with --force")
    columns = columns_of(database_url(url), table)
    given = {
        "chunk_column": chunk_column,
        "template": template,
        "metadata": metadata,
        "time_column": time_column,
    }
    answers = _answers(columns, given, ask=not yes and sys.stdin.isatty())
    schema, _, bare = table.rpartition(".")
    named = name or default_name(schema or "public", bare)
    provider = {"provider": embedder} | ({"model": model} if model else {})
    section = {"table": table, **answers, "embedder": provider}
    _check(section, columns)
    output.write_text(_document(named, section), encoding="utf-8")
    report(
        json,
        {"file": str(output), "name": named, "definition": section},
        f"Wrote {output}; look at it, then: vectorizer install",
    )


def _answers(columns: list[Column], given: dict[str, str | None], *, ask: bool) -> dict[str, Any]:
    guess = suggest(columns)
    guesses = {
        "chunk_column": guess.chunk_column,
        "template": guess.template or "{chunk}",
        "metadata": ",".join(guess.metadata),
        "time_column": guess.time_column or "",
    }
    answers: dict[str, Any] = {}
    for key, guessed in guesses.items():
        value = given[key]
        if value is None:
            value = typer.prompt(_QUESTIONS[key], default=guessed) if ask else guessed
        answers[key] = value.strip()
    answers["metadata"] = [part.strip() for part in answers["metadata"].split(",") if part.strip()]
    return {key: value for key, value in answers.items() if value}


_QUESTIONS = {
    "chunk_column": "Column with the text to embed",
    "template": "What to embed of each chunk",
    "metadata": "Columns to filter by, by commas",
    "time_column": "Column with the row's time, if it is published at some time",
}


def _check(section: dict[str, Any], columns: list[Column]) -> None:
    defined = VectorizerConfig(**section)
    named = [defined.chunk_column, *defined.metadata, *defined.parsed_template.columns]
    if defined.time_column is not None:
        named.append(defined.time_column)
    known = [column.name for column in columns]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ConfigurationError(
            f"table {section['table']} has no column {unknown[0]}; its columns are: "
            f"{', '.join(known)}"
        )


def _document(name: str, section: dict[str, Any]) -> str:
    defined = tomlkit.dumps({"vectorizers": {name: section}})
    defaults = WorkerOptions()
    worker = "".join(
        f"# {field.name} = {tomlkit.item(getattr(defaults, field.name)).as_string()}\n"
        for field in fields(WorkerOptions)
        if getattr(defaults, field.name) is not None and field.name != "schedules"
    )
    return (
        f"{_HEAD}[worker]\n# Every key with its default.\n{worker}"
        f'# schedules = {{ {tomlkit.key(name).as_string()} = "*/5 * * * *" }}\n\n'
        '[log]\n# format = "json"\n# level = "info"\n\n'
        '[metrics]\n# port = 9187\n# host = "127.0.0.1"\n\n'
        f"{defined}"
        '# partition_interval = "30d"\n# destination = "public.blog_embedding"\n'
        f"# chunk_size = [500, 1000]\n{_TAIL}"
    )
