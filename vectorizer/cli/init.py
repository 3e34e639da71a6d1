"""`vectorizer init`."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import tomlkit
import typer

from vectorizer.cli._definition import as_defined, described
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
_EMBEDDER = {"provider": "minilm"}
# Options of the worker that have no default, or none that would tell what to write.
_EXAMPLES = {
    "batch_size": "200",
    "schedules": '{{ {name} = "*/5 * * * *" }}',
    "listen": '"changed"',
    "verify_schedule": '"@daily"',
}
_MORE = {
    "partition_interval": '"30d"',
    "retention": '"520w"',
    "destination": '"public.another_name"',
    "chunk_size": "[500, 1000]",
    "index": '"hnsw"',
}
_TAIL = """
# Then: vectorizer install; vectorizer worker
"""


@described
def command(
    table: Annotated[
        str, typer.Argument(help="Source table, with its schema if that is not public.")
    ],
    options: dict[str, Any],
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
    given = as_defined(options)
    schema, _, bare = table.rpartition(".")
    named = given.pop("name", None) or default_name(schema or "public", bare)
    answers = _answers(columns, given, ask=not yes and sys.stdin.isatty())
    section = {"table": table, **answers, "embedder": given.get("embedder", _EMBEDDER)}
    _check(section, columns)
    output.write_text(_document(named, section), encoding="utf-8")
    report(
        json,
        {"file": str(output), "name": named, "definition": section},
        f"Wrote {output}; look at it, then: vectorizer install",
    )


def _answers(columns: list[Column], given: dict[str, Any], *, ask: bool) -> dict[str, Any]:
    guess = suggest(columns)
    guesses = {
        "chunk_column": guess.chunk_column,
        "template": guess.template or "{chunk}",
        "metadata": ",".join(guess.metadata),
        "time_column": guess.time_column or "",
    }
    answers = dict(given)
    for key, guessed in guesses.items():
        if key not in given:
            answers[key] = typer.prompt(_QUESTIONS[key], default=guessed) if ask else guessed
        answers[key] = answers[key].strip()
    for key in ("metadata", "key"):
        parts = answers.get(key, "").split(",")
        answers[key] = [part.strip() for part in parts if part.strip()]
    ordered = {**dict.fromkeys(guesses), **answers}  # what was asked stands first
    return {key: value for key, value in ordered.items() if value}


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
    # In one line, so that what is added below belongs to the vectorizer.
    embedder = tomlkit.inline_table()
    embedder.update(section["embedder"])
    defined = tomlkit.dumps({"vectorizers": {name: {**section, "embedder": embedder}}})
    more = "".join(f"# {key} = {value}\n" for key, value in _MORE.items() if key not in section)
    defaults = WorkerOptions()
    worker = "".join(
        f"# {field.name} = {tomlkit.item(getattr(defaults, field.name)).as_string()}\n"
        for field in fields(WorkerOptions)
        if field.name not in _EXAMPLES
    )
    examples = "".join(
        f"# {key} = {example.format(name=tomlkit.key(name).as_string())}\n"
        for key, example in _EXAMPLES.items()
    )
    return (
        f"{_HEAD}[worker]\n# Every key with its default, then examples.\n{worker}{examples}\n"
        '[log]\n# format = "json"\n# level = "info"\n\n'
        '[metrics]\n# port = 9464\n# host = "127.0.0.1"\n\n'
        f"{defined}{more}{_TAIL}"
    )
