"""What must be embedded, computed anew from the source table without any of our SQL."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from stress_worker import DIMENSIONS

from vectorizer.definition import Definition
from vectorizer.testing import FakeEmbedder

__all__ = ["compare"]

_SAMPLES = 5


def compare(connection: psycopg.Connection[Any], name: str, definition: Definition) -> list[str]:
    """Return what differs between the source and what is kept about it: nothing, if all is well."""
    connection.execute("set timezone = 'UTC'")
    wanted, have = _wanted(connection, definition), _have(connection)
    texts = [text for _, _, text, _ in have["chunks"]]
    return [
        *_differences(definition, wanted, have["rows"]),
        *_wrong_vectors(texts, have["vectors"]),
        *_doubled(have["ids"]),
        *_leftovers(connection, name),
    ]


def _wanted(connection: psycopg.Connection[Any], definition: Definition) -> dict[int, Any]:
    chunker = definition.chunker
    rows = connection.execute(
        "select key, title, body, tag, published_at from source "
        "where not hidden and published_at is not null and body is not null"
    )
    return {
        key: (title, body, {"tag": tag}, published_at)
        for key, title, body, tag, published_at in rows.fetchall()
        if chunker.split(body)
    }


def _have(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    rows: dict[int, Any] = {}
    found = connection.execute(
        "select source_key, chunk, contents, metadata, time, embedding::text, id "
        "from source_embedding order by source_key, chunk"
    ).fetchall()
    grouped = defaultdict(list)
    for key, *rest in found:
        grouped[key].append(rest)
    for key, chunks in grouped.items():
        positions = [chunk for chunk, *_ in chunks]
        metadata, moment = chunks[0][2], chunks[0][3]
        alike = all(c[2] == metadata and c[3] == moment for c in chunks)
        texts = [c[1] for c in chunks]
        sound = alike and positions == sorted(set(positions))
        rows[key] = (texts, metadata, moment) if sound else ("torn", chunks)
    return {
        "rows": rows,
        "chunks": [(r[0], r[1], r[2], r[4]) for r in found],
        "vectors": [r[5] for r in found],
        "ids": [r[6] for r in found],
    }


def _differences(definition: Definition, wanted: dict[int, Any], have: dict[int, Any]) -> list[str]:
    wrong = [
        key
        for key in wanted.keys() | have.keys()
        if not _agree(definition, wanted.get(key), have.get(key))
    ]
    return [
        f"{len(wrong)} keys differ, among them {key}: wanted {_show(wanted.get(key))}, "
        f"found {_show(have.get(key))}"
        for key in sorted(wrong)[:_SAMPLES]
    ]


def _agree(definition: Definition, wanted: Any, have: Any) -> bool:
    """Whether the chunks hold the whole text, each in the template, none too long.

    Where an edited text is cut depends on how it was cut before.
    """
    if wanted is None or have is None or have[0] == "torn":
        return wanted is have
    title, body, *rest = wanted
    texts, *kept = have
    chunks = [definition.parsed_template.chunk_of({"title": title}, text) for text in texts]
    if rest != kept or not all(chunks):
        return False
    short = all(len(chunk or "") <= definition.chunker.max_chars for chunk in chunks)
    return short and "".join("".join(map(str, chunks)).split()) == "".join(body.split())


def _show(row: Any) -> str:
    if row is None:
        return "nothing"
    return " | ".join(str(part) if isinstance(part, datetime) else repr(part) for part in row)


def _wrong_vectors(texts: list[str], vectors: list[str]) -> list[str]:
    if not texts:
        return []
    wanted = FakeEmbedder(DIMENSIONS).embed(texts)
    have = np.array([np.fromstring(v.strip("[]"), sep=",", dtype="f4") for v in vectors])
    wrong = int((np.abs(wanted - have).max(axis=1) > 1e-6).sum())
    return [f"{wrong} vectors are not those of their texts"] if wrong else []


def _doubled(ids: list[Any]) -> list[str]:
    return [f"id {i} stands {n} times" for i, n in Counter(ids).most_common(1) if n > 1]


def _leftovers(connection: psycopg.Connection[Any], name: str) -> list[str]:
    checks = {
        "leases are left": "select count(*) from vectorizer.lease",
        "log entries are left": f"select count(*) from vectorizer.{name}_log",
        "rows are held": f"select count(*) from vectorizer.{name}_row where lease is not null",
        "rows wait": f"select count(*) from vectorizer.{name}_row where available_at is not null",
        "rows are dead": f"select count(*) from vectorizer.{name}_row where dead",
        "ledger and source differ in so many keys": (
            f"select count(*) from vectorizer.{name}_row r full join source s "
            "on s.key = r.source_key where s.key is null or r.source_key is null"
        ),
        "ids do not hold their row's time": (
            "select count(*) from source_embedding where extract(epoch from time) <> "
            "('x' || lpad(substr(id::text, 16, 3) || substr(id::text, 10, 4) || "
            "substr(id::text, 1, 8), 16, '0'))::bit(64)::bigint / 1e7 - 12219292800"
        ),
    }
    counts = {what: connection.execute(query).fetchone() for what, query in checks.items()}
    return [f"{what}: {count[0]}" for what, count in counts.items() if count and count[0]]
