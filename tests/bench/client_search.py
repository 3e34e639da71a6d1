"""What a search through a collection costs, beside the same statement by psycopg alone.

    python tests/bench/client_search.py --dimensions 384

`plain` is a prepared statement over one connection, its vector in binary form, its rows read by
psycopg; `client` is Sync.search with what it returns. Queries per second and recall (against an
exact scan) are those of an HNSW index with the same ef_search. Interleaved, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from typing import Any

import numpy as np
import psycopg
from bench_server import database
from pgvector.psycopg import register_vector

from vectorizer import client

PLAIN = """select id, metadata, contents, embedding, embedding <=> %s as distance from items
order by distance limit 10"""
FILTERED = PLAIN.replace("order by", "where metadata @> %s::jsonb order by")


class Plain:
    """The statement as one would write it by hand."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        register_vector(self._connection)

    def search(self, vector: Any, kind: int | None = None) -> list[Any]:
        """Return ids, nearest first."""
        if kind is None:
            found = self._connection.execute(PLAIN, [vector], prepare=True, binary=True)
        else:
            values = [vector, f'{{"kind": {kind}}}']
            found = self._connection.execute(FILTERED, values, prepare=True, binary=True)
        return [row[0] for row in found.fetchall()]

    def close(self) -> None:
        self._connection.close()


def fill(store: client.Sync, count: int, dimensions: int) -> None:
    random = np.random.default_rng(1)
    centres = random.standard_normal((100, dimensions), dtype=np.float32)
    vectors = centres[random.integers(0, 100, count)] + 0.7 * random.standard_normal(
        (count, dimensions), dtype=np.float32
    )
    store.create_tables()
    store.upsert(
        (uuid.UUID(int=n), {"kind": n % 10}, f"text {n}", vector)
        for n, vector in enumerate(vectors)
    )


def queries(count: int, dimensions: int) -> Any:
    random = np.random.default_rng(1)
    centres = random.standard_normal((100, dimensions), dtype=np.float32)
    noise = np.random.default_rng(2).standard_normal((count, dimensions), dtype=np.float32)
    return centres[np.arange(count) % 100] + 0.7 * noise


def median_ms(calls: dict[str, Any], vectors: Any) -> dict[str, float]:
    """Return the median of each way, one query by each in turn."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for vector in vectors:
        for name, call in calls.items():
            started = time.perf_counter()
            call(vector)
            took[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(times) for name, times in took.items()}


def recall(found: list[list[Any]], exact: list[list[Any]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]))


async def one_after_another(url: str, dimensions: int, vectors: Any) -> float:
    async with client.Async(url, "items", dimensions) as store:
        await store.search(vectors[0])
        times = []
        for vector in vectors:
            started = time.perf_counter()
            await store.search(vector)
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="server to use; an embedded one by default")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=400)
    options = parser.parse_args()
    vectors = queries(options.queries, options.dimensions)
    with database(options.url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create extension if not exists vector")
        with client.Sync(url, "items", options.dimensions) as store:
            store.drop_table()
            fill(store, options.records, options.dimensions)
            plain = Plain(url)
            exact = [plain.search(vector) for vector in vectors]
            store.create_embedding_index(client.HNSWIndex())
            plain.close()
            plain = Plain(url)
            params = client.HNSWIndexParams(ef_search=40)
            took = median_ms(
                {
                    "plain": plain.search,
                    "client": store.search,
                    "client, with query_params": lambda v: store.search(v, query_params=params),
                    "plain, filtered": lambda v: plain.search(v, 3),
                    "client, filtered": lambda v: store.search(v, filter={"kind": 3}),
                    "client, without embedding": lambda v: store.search(v, include=["contents"]),
                },
                vectors,
            )
            took["client Async"] = asyncio.run(one_after_another(url, options.dimensions, vectors))
            print(f"{options.records:,} records, {options.dimensions} dimensions, limit 10")
            for name, milliseconds in took.items():
                print(f"{name:28} {milliseconds:7.3f} ms   {1000 / milliseconds:7,.0f} queries/s")
            ours = [[hit.id for hit in store.search(vector)] for vector in vectors]
            theirs = [plain.search(vector) for vector in vectors]
            print(f"recall: plain {recall(theirs, exact):.4f}, client {recall(ours, exact):.4f}")
            plain.close()


if __name__ == "__main__":
    main()
