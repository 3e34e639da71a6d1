"""How fast a collection takes records, against a bare binary COPY of the same rows.

    python tests/bench/client_upsert.py --dimensions 384

`packed` copies bytes made beforehand, which is the limit; `rows` is psycopg's copy.write_row of
the records themselves. Each run empties the table but for its indexes; medians of interleaved
runs. timescale_vector and vecs are measured too where they are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import psycopg
from bench_server import database
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from vectorizer import client
from vectorizer.records import Packer

COPY = "copy items (id, metadata, contents, embedding) from stdin (format binary)"
TYPES = ("uuid", "jsonb", "text", "vector")


def records(count: int, dimensions: int, *, lists: bool, seed: int = 1) -> list[Any]:
    """Return records with metadata and a text of about 200 characters."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimensions), dtype=np.float32)
    rows: Sequence[Any] = vectors.tolist() if lists else list(vectors)
    return [
        (uuid.UUID(int=n << 64 | seed), {"blog_id": n, "author": f"author {n % 100}"},
         f"text {n} " * 20, row)
        for n, row in enumerate(rows)
    ]  # fmt: skip


def packed_copy(connection: psycopg.Connection, data: bytes) -> None:
    with connection.cursor().copy(COPY) as copy:
        for start in range(0, len(data), 1 << 18):
            copy.write(data[start : start + (1 << 18)])


def row_copy(connection: psycopg.Connection, rows: Sequence[Any]) -> None:
    with connection.cursor().copy(COPY) as copy:
        copy.set_types(TYPES)
        for identifier, metadata, contents, vector in rows:
            copy.write_row((identifier, Jsonb(metadata), contents, np.asarray(vector, "f4")))


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(url: str, rows: list[Any], dimensions: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run by name."""
    took: dict[str, list[float]] = {}
    with (
        client.Sync(url, "items", dimensions) as store,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        store.drop_table()
        store.create_tables()
        register_vector(connection)
        packer = Packer(dimensions, "vector", uuids=True)
        ids = packer.positions(rows, 0)
        data = b"".join(packer.stream(ids, rows, 0))
        ways: dict[str, Callable[[], Any]] = {
            "copy, packed": lambda: packed_copy(connection, data),
            "copy, rows": lambda: row_copy(connection, rows),
            "upsert, new": lambda: store.upsert(rows),
        }
        ways |= rivals(url, rows, dimensions)
        for _ in range(rounds):
            for name, work in ways.items():
                connection.execute("truncate items")
                connection.execute("checkpoint")
                took.setdefault(name, []).append(timed(work))
                if name == "upsert, new":
                    took.setdefault("upsert, existing", []).append(timed(work))
    return took


def rivals(url: str, rows: list[Any], dimensions: int) -> dict[str, Callable[[], Any]]:
    """Return the same by timescale_vector and vecs, as far as they are installed."""
    ways: dict[str, Callable[[], Any]] = {}
    if find_spec("timescale_vector"):
        from timescale_vector import client as theirs  # noqa: PLC0415

        one = theirs.Sync(url, "items", dimensions)
        loop = asyncio.new_event_loop()
        other = theirs.Async(url, "items", dimensions)
        ways["timescale_vector Sync"] = lambda: one.upsert(rows)
        ways["timescale_vector Async"] = lambda: loop.run_until_complete(other.upsert(rows))
    if find_spec("vecs"):
        import vecs  # noqa: PLC0415

        documents = vecs.create_client(url).get_or_create_collection("docs", dimension=dimensions)
        pairs = [(str(i), vector, metadata) for i, metadata, _, vector in rows]
        ways["vecs"] = lambda: documents.upsert(pairs)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="server to use; an embedded one by default")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lists", action="store_true", help="embeddings as lists of floats")
    options = parser.parse_args()
    rows = records(options.records, options.dimensions, lists=options.lists)
    with database(options.url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create extension if not exists vector")
        took = measure(url, rows, options.dimensions, options.rounds)
    base = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in base.items():
        print(
            f"{name:24} {options.records / seconds:9,.0f} rows/s"
            f"   {base['copy, packed'] / seconds:5.2f} of packed"
            f"   {base['copy, rows'] / seconds:5.2f} of rows"
        )


if __name__ == "__main__":
    main()
