"""`vectorizer retry`."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from vectorizer._sync.schema import Schema
from vectorizer.cli._settings import offline
from vectorizer.cli._shared import (
    DryRunOption,
    JsonOption,
    NameArgument,
    UrlOption,
    changing,
    database_url,
    opened,
    report,
)
from vectorizer.errors import ConfigurationError

_EXAMPLE = '{"id": 7}'
HELP = """Give dead letters another life: those with the given keys, or all.

A key is what dead-letters prints, such as '{"id": 7}', or just 7 where it has one column.

Example: vectorizer retry blog 7 12
"""


def command(
    name: NameArgument,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Retry dead letters."""
    if bool(keys) == all_:
        raise ConfigurationError("retry needs either keys or --all")
    wanted = None
    if keys and offline():
        wanted = [_parsed(key) for key in keys]
    elif keys:
        with opened(database_url(url)) as schema:
            wanted = _wanted(schema, name, keys)
    with changing(url, dry_run=dry_run) as schema:
        revived = schema.retry(name, wanted)
    text = f"{revived} rows will be tried again: vectorizer run {name}"
    report(json, {"name": name, "retried": revived}, text)


def _wanted(schema: Schema, name: str, keys: list[str]) -> list[dict[str, Any]]:
    columns = [column.column for column in schema.find(name).key]
    dead = [letter["key"] for letter in schema.dead_letters(name)]
    return [_matching(key, columns, dead) for key in keys]


def _matching(text: str, columns: list[str], dead: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the dead letter's key that a user's words mean."""
    for key in dead:
        if text == str(key[columns[0]]) and len(columns) == 1:
            return key
        if text.startswith("{") and _parsed(text) == key:
            return key
    raise ConfigurationError(f"no dead letter has the key {text}; see: vectorizer dead-letters")


def _parsed(text: str) -> Any:
    try:
        return jsonlib.loads(text)
    except ValueError:
        raise ConfigurationError(
            f"key {text} is no JSON object: give it as dead-letters prints it, such as '{_EXAMPLE}'"
        ) from None
