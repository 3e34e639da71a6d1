"""The statements of a vectorizer: identifiers are always quoted, whatever they are called."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import vectorizer.queries
from vectorizer.definition import Definition, Installation, KeyColumn, Relation
from vectorizer.queries import functions, migrations
from vectorizer.statements import Statements, compose, compose_query, relation, without_placeholders

NASTY = ['q"uote', "sin'gle", "per%cent", "%s", "%(x)s", "{brace}", "{}", "select", "Mixed Case",
         "back\\slash", "; drop table x; --", "é" * 31, "$1", "new\nline"]  # fmt: skip
FOLDER = Path(vectorizer.queries.__file__).resolve().parent.parent / "sql" / "queries"
# Composed by Statements: those that know an installed vectorizer's tables.
OWN = [
    "claim_changes", "claim_retries", "claim_lost", "close_lease", "copy_chunks", "delete_chunks",
    "extend_lease", "fail_rows", "fence_all", "finish_rows", "forget_rows", "hold_lease",
    "in_flight", "load_chunks", "load_rows", "load_source_rows", "open_lease",
    "pause_vectorizer", "reap_leases", "release_rows", "search", "start_sweep", "take_truncate",
    "update_chunks",
]  # fmt: skip


def known(kind: type, **values: Any) -> Any:
    """Make a dataclass from those values that it has fields for."""
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def installation(name: str) -> Installation:
    definition = Definition.parse(
        {
            "chunk_column": name,
            "metadata": [name],
            "time_column": name,
            "model": "m",
            "dimensions": 3,
        }
    )
    key = known(
        KeyColumn, column=name, current=name, name="source_" + name, type="integer", oid=23,
        number=1, send="pg_catalog.int4send", equals="operator(pg_catalog.=)",
    )  # fmt: skip
    return known(
        Installation, id=1, name=name, generation=1, serving=True, takes_over=False,
        revision=0, source=Relation(name, name), key=(key,),
        columns={name: name}, definition=definition, log_table=name + "_log",
        row_table=name + "_row", parents_table=None, joined_query=None, joined_view=None,
        destination=Relation(name, name), storage=Relation(name, name),
        paused_reason=None, vector_schema=name, vector_version=(0, 8),
        source_oid=1, source_columns="1 id",
    )  # fmt: skip


def text(composed: sql.Composable) -> str:
    return composed.as_string(None)


def parameters(composed: sql.Composable) -> set[str]:
    """Return the placeholders as the driver finds them; it raises what it would at a query."""
    from psycopg._queries import _query2pg_nocache  # noqa: PLC0415 - no public way

    return set(_query2pg_nocache(composed.as_bytes(None), "utf-8")[2] or ())


@pytest.mark.parametrize("name", NASTY)
def test_names_are_quoted(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    found = text(Statements("schema", installation(name))["search"])
    assert f"from {quoted}.{quoted} d" in found.replace("%%", "%")
    assert f'"d"."source_{quoted[1:]}' in found.replace("%%", "%")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_adds_no_placeholder_and_no_statement(name: str) -> None:
    plain, nasty = Statements("s", installation("plain")), Statements(name, installation(name))
    for query in sorted({*OWN} - {"copy_chunks"}):  # which takes no parameters
        assert parameters(nasty[query]) == parameters(plain[query]), query
    for query in ("claim_backfill", "claim_sweep"):
        for started in (False, True):
            assert parameters(nasty.after_cursor(query, started=started)) == parameters(
                plain.after_cursor(query, started=started)
            ), query


@pytest.mark.parametrize("name", NASTY)
def test_postgres_reads_a_name_as_it_was_given(vectorizer_url: str, name: str) -> None:
    with psycopg.connect(vectorizer_url) as connection:
        quoted = sql.Identifier(name)
        connection.execute(sql.SQL("create schema {0} create table {0} (a int)").format(quoted))
        table = without_placeholders(relation(Relation(name, name)))
        query = compose("select a, %(p)s::int from {t}", t=table)
        assert connection.execute(query, {"p": 1}).fetchall() == []


def test_a_statement_is_composed_once() -> None:
    statements = Statements("s", installation("plain"))
    assert statements["search"] is statements["search"]


def test_every_query_file_is_used_and_has_no_placeholder_left() -> None:
    names = {file.stem for file in FOLDER.glob("*.sql")}
    assert set(OWN) < names
    statements = Statements("s", installation("plain"))
    for query in OWN:
        assert not re.search(r"(?<!\{)\{\w+\}(?!\})", text(statements[query])), query
    code = "".join(
        file.read_text() for file in Path(vectorizer.queries.__file__).parent.rglob("*.py")
    )
    assert {name for name in names if f'"{name}"' not in code} <= {"claim_backfill", "claim_sweep"}


def test_an_unknown_query_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        compose_query("nothing")


def test_no_two_migrations_have_the_same_number() -> None:
    numbers = [step.number for step in migrations()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("part", [functions().text, *(step.text for step in migrations())])
def test_the_schema_is_named_everywhere(part: str) -> None:
    names = {"schema": sql.Identifier('my "schema"'), "schema_name": sql.Literal('my "schema"')}
    composed = text(compose(part, **names))
    assert "{schema" not in composed
    assert not re.search(r"(from|join|update|into|table|on) vectorizer\.", composed)


def test_functions_can_be_made_again() -> None:
    made = re.findall(r"^create .*", functions().text, re.MULTILINE)
    assert made
    assert all(line.startswith("create or replace ") for line in made)
