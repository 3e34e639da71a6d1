"""How fast a table drains: backfill and changes through the whole protocol, beside bare COPY.

    python tests/bench/drain.py [--url URL] [--rows 20000] [--dimensions 384] [--batch-size 500]

The embedder hands out vectors made beforehand: what is measured is everything else. Workers are
threads with a connection each. COPY writes the same rows into the same kind of table from bytes
packed beforehand, over one connection.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from uuid import uuid4

import numpy as np
import psycopg
from bench_server import database
from numpy.typing import NDArray

from vectorizer import Vectorizer
from vectorizer.packing import field, int_field, jsonb_field, pack_rows, pack_vectors, time_field

TEXT = "A row of the benchmark with a text of about the length of a short comment, number {}."


class FreeEmbedder:
    """Answers at once, from a matrix made beforehand."""

    def __init__(self, dimensions: int) -> None:
        self.model = "free"
        self.dimensions = dimensions
        self._matrix = np.random.default_rng(0).random((4096, dimensions), dtype=np.float32)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return as many rows of the matrix."""
        return self._matrix[: len(texts)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with database(options.url) as url:
        copies, drains = [], {}
        for _ in range(options.rounds):
            prepare(url, options.rows)
            copies.append(copy(url, options.rows, options.dimensions))
            for workers in options.workers:
                for kind in ("backfill", "changes"):
                    rate = drain(url, options, workers, kind)
                    drains.setdefault((kind, workers), []).append(rate)
        bare = statistics.median(copies)
        print(f"{options.dimensions} dimensions, {options.rows} rows, batch {options.batch_size}")
        print(f"bare COPY              {bare:>10,.0f} rows/s")
        for (kind, workers), rates in drains.items():
            rate = statistics.median(rates)
            print(
                f"{kind:10} {workers} workers   {rate:>10,.0f} rows/s   {rate / bare:.2f} of COPY"
            )


def prepare(url: str, rows: int) -> None:
    """Make the source table and the one that COPY fills."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("drop table if exists item")
        connection.execute("create table item (id bigint primary key, body text)")
        connection.execute(
            "insert into item select i, format(%s, i) from generate_series(1, %s) i",
            [TEXT.replace("{}", "%s"), rows],
        )
        connection.execute("vacuum analyze item")


def copy(url: str, rows: int, dimensions: int) -> float:
    """Return rows a second of a bare binary COPY of what a drain writes."""
    vectors = pack_vectors(FreeEmbedder(dimensions).embed([""] * 1000))
    batches = [
        pack_rows(
            [
                field(uuid4().bytes),
                time_field(0),
                field(number.to_bytes(8, "big")),
                int_field(0),
                field(bytes(32)),
                jsonb_field(b"{}"),
                field(TEXT.format(number).encode()),
                vectors[number % len(vectors)],
            ]
            for number in range(start, min(start + 1000, rows))
        )
        for start in range(0, rows, 1000)
    ]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists bare_copy")
        connection.execute(
            "create table bare_copy (id uuid, time timestamptz, source_id bigint, chunk int, "
            f"content_hash bytea, metadata jsonb, contents text, embedding vector({dimensions}), "
            "primary key (id, time))"
        )
        connection.execute("create index on bare_copy (source_id)")
        connection.execute("create index on bare_copy using gin (metadata jsonb_path_ops)")
        began = time.perf_counter()
        for data in batches:
            with connection.cursor().copy("copy bare_copy from stdin (format binary)") as stream:
                stream.write(data)
        return rows / (time.perf_counter() - began)


def drain(url: str, options: argparse.Namespace, workers: int, kind: str) -> float:
    """Return rows a second until nothing is left, by so many workers."""
    vectorizers = [
        Vectorizer(
            url,
            "item",
            embedder=FreeEmbedder(options.dimensions),
            chunk_column="body",
            batch_size=options.batch_size,
        )
        for _ in range(workers)
    ]
    first = vectorizers[0]
    first.install()
    if kind == "changes":
        first.run()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("update item set body = body || '!'")
    threads = [threading.Thread(target=vectorizer.run) for vectorizer in vectorizers]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = options.rows / (time.perf_counter() - began)
    first.uninstall(drop_embeddings=True)
    for vectorizer in vectorizers:
        vectorizer.close()
    return float(rate)


if __name__ == "__main__":
    main()
