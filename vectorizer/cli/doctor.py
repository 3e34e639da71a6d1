"""`vectorizer doctor`."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from vectorizer._sync.database import Database
from vectorizer._sync.doctor import Doctor
from vectorizer.cli._settings import settings
from vectorizer.cli._shared import (
    JsonOption,
    UrlOption,
    database_url,
    out,
    print_json,
    schema_name,
)
from vectorizer.concurrency import call_sync
from vectorizer.database_errors import place
from vectorizer.diagnosis import Finding, Level
from vectorizer.embedders import create
from vectorizer.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from vectorizer.vectors import as_matrix

HELP = """Examine everything that can be wrong, and say what to do about it.

Configuration, connection, extension, schema, grants, triggers, autovacuum, old transactions, lag,
and whether the models answer: each of them is asked for one short embedding, unless --no-models
is given. Exits with 1 if a check fails.

Example: vectorizer doctor
"""

_COLOURS = {Level.ok: "green", Level.warn: "yellow", Level.fail: "bold red"}
_TEXT = "Does it work?"


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Vectorizers; by default all.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Ask each model for an embedding.")
    ] = True,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Examine everything."""
    findings = []
    for finding in _findings(names, url, models=models):
        findings.append(finding)
        if not json:
            _print(finding)
    if json:
        print_json([asdict(finding) for finding in findings])
    raise typer.Exit(1 if any(finding.level is Level.fail for finding in findings) else 0)


def _findings(names: list[str] | None, url: str | None, *, models: bool) -> Iterator[Finding]:
    try:
        loaded = settings()
    except ConfigurationError as error:
        yield Finding("configuration", Level.fail, str(error), "see: vectorizer config check")
        return
    yield Finding("configuration", Level.ok, str(loaded.file or "no vectorizer.toml"))
    address = database_url(url)
    database = Database(address, schema=schema_name())
    try:
        database.open()
        yield Finding("connection", Level.ok, place(address))
        yield from _of_database(Doctor(database), names, models=models)
    except DatabaseUnavailable as error:
        yield Finding("connection", Level.fail, str(error), "start the server, or mend the URL")
    except DatabaseError as error:
        remedy = "let the worker's role do what a worker does, or examine it as another role"
        yield Finding("database", Level.fail, str(error), remedy)
    finally:
        database.close()


def _of_database(doctor: Doctor, names: list[str] | None, *, models: bool) -> Iterator[Finding]:
    found = doctor.examine(names)
    yield from found
    unusable = any(one.check == "schema" and one.level is Level.fail for one in found)
    if models and not unusable:
        yield from _models(doctor.embedders(names))


def _models(embedders: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    asked: dict[str, list[str]] = {}
    for name, config in embedders.items():
        asked.setdefault(jsonlib.dumps(config, sort_keys=True), []).append(name)
    for text, names in asked.items():
        yield _model(jsonlib.loads(text), ", ".join(names))


def _model(config: Mapping[str, Any], names: str) -> Finding:
    check = f"{names}: model"
    try:
        embedder = create(config)
        started = time.monotonic()
        as_matrix(call_sync(embedder.embed, [_TEXT]), 1, embedder.dimensions)
    except Exception as error:  # noqa: BLE001 - whatever it is, this is where to say it
        text = " ".join(str(error).split()) or type(error).__name__
        return Finding(check, Level.fail, text, "mend its configuration, key or network")
    milliseconds = (time.monotonic() - started) * 1000
    return Finding(check, Level.ok, f"{embedder.model} answers in {milliseconds:,.0f} ms")


def _print(finding: Finding) -> None:
    colour = _COLOURS[finding.level]
    level = f"[{colour}]{finding.level.value:<4}[/]"
    out.print(f"{level}  {escape(finding.check)}: {escape(finding.text)}", soft_wrap=True)
    if finding.level is not Level.ok and finding.remedy:
        out.print(f"      {escape(finding.remedy)}", soft_wrap=True)
