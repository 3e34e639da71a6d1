"""How well requests to a provider are used: its rate, a storm of 429, the memory of a worker.

    python tests/bench/embedding.py rate      # 200 ms a request, 128 texts each, 16 at once
    python tests/bench/embedding.py storm     # at most 10 requests a second, the others get 429
    python tests/bench/embedding.py memory --rows 1000000

The provider is tests/openai_server.py in a process of its own; what the worker does besides
(claim, load, write, ack) goes on an embedded PostgreSQL and counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import psycopg
from bench_server import database

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from openai_server import after, answer, limited, serve

from vectorizer import OpenAIEmbedder, Vectorizer

LATENCY = 0.2
PER_SECOND = 10


def main() -> None:
    """Measure what is asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rate", "storm", "memory", "serve"])
    parser.add_argument("rule", nargs="?", default="plain")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--retry-after")
    given = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    if given.what == "serve":
        provide(given)
    else:
        {"rate": rate, "storm": storm, "memory": memory}[given.what](given)


def provide(given: argparse.Namespace) -> None:
    """Serve until the input ends."""
    rules = {
        "plain": lambda: answer,
        "slow": lambda: after(LATENCY),
        "limited": lambda: limited(PER_SECOND, given.retry_after),
    }
    with serve(dimensions=given.dimensions) as server:
        server.script(then=rules[given.rule]())
        server.requests = _Nothing()
        print(server.url, flush=True)
        sys.stdin.read()


class _Nothing(list):  # type: ignore[type-arg] # requests are not kept: they would be the memory
    def append(self, _: object) -> None:
        pass


@contextmanager
def provider(rule: str, given: argparse.Namespace) -> Iterator[str]:
    """Yield the address of a provider in a process of its own."""
    options = ["--dimensions", str(given.dimensions)]
    if given.retry_after:
        options += ["--retry-after", given.retry_after]
    command = [sys.executable, __file__, "serve", rule, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


def fill(url: str, rows: int) -> None:
    """Make the source table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("create table item (id bigint primary key, body text)")
        connection.execute(
            "insert into item select n, 'A text of the length of a short comment, number ' || n "
            "from generate_series(1, %s) n",
            [rows],
        )
        connection.execute("vacuum analyze item")


def drain(url: str, embedder: OpenAIEmbedder, given: argparse.Namespace) -> float:
    """Return the seconds that the workers take, threads of this process."""
    vectorizers = [
        Vectorizer(url, "item", embedder=embedder, chunk_column="body", batch_size=given.batch_size)
        for _ in range(given.workers)
    ]
    vectorizers[0].install()
    threads = [threading.Thread(target=vectorizer.run) for vectorizer in vectorizers]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    with psycopg.connect(url) as connection:
        query = "select (select count(*) from item) - (select count(*) from item_embedding)"
        assert connection.execute(query).fetchone() == (0,), "not all rows are embedded"
        attempts = connection.execute("select max(attempts) from vectorizer.item_row").fetchone()
        assert attempts == (0,), "attempts were burned"
    for vectorizer in vectorizers:
        vectorizer.close()
    return seconds


def rate(given: argparse.Namespace) -> None:
    """Print the texts a second against what 16 requests at once could do."""
    rows, texts, concurrency = given.rows or 60_000, 128, 16
    ideal = concurrency * texts / LATENCY
    with provider("slow", given) as address, database(None) as url:
        embedder = OpenAIEmbedder(
            "bench", dimensions=given.dimensions, base_url=address, max_texts=texts,
            concurrency=concurrency,
        )  # fmt: skip
        embedder.embed(["warm"])
        began = perf_counter()
        embedder.embed([f"text {n}" for n in range(rows)])
        alone = rows / (perf_counter() - began)
        fill(url, rows)
        whole = rows / drain(url, embedder, given)
    print(f"ideal               {ideal:>9,.0f} texts/s")
    print(f"embed() alone       {alone:>9,.0f} texts/s   {alone / ideal:.2f}")
    print(f"the whole pipeline  {whole:>9,.0f} texts/s   {whole / ideal:.2f}")


def storm(given: argparse.Namespace) -> None:
    """Print the requests a second against the limit."""
    rows, texts = given.rows or 6000, 10
    with provider("limited", given) as address, database(None) as url:
        embedder = OpenAIEmbedder(
            "bench", dimensions=given.dimensions, base_url=address, max_texts=texts,
            concurrency=16,
        )  # fmt: skip
        fill(url, rows)
        got = rows / texts / drain(url, embedder, given)
    print(
        f"limit {PER_SECOND} requests/s, got {got:.2f}: {got / PER_SECOND:.2f}, no attempt burned"
    )


def memory(given: argparse.Namespace) -> None:
    """Print the resident memory of this process as the work goes on."""
    rows = given.rows or 100_000
    with provider("plain", given) as address, database(None) as url:
        embedder = OpenAIEmbedder("bench", dimensions=given.dimensions, base_url=address)
        fill(url, rows)
        with Vectorizer(
            url, "item", embedder=embedder, chunk_column="body", batch_size=1000
        ) as vectorizer:
            vectorizer.install()
            marks = iter(range(rows // 10, rows + 1, rows // 10))
            following = next(marks)

            def show(counts: object) -> None:
                nonlocal following
                done = getattr(counts, "rows", 0)
                if done >= following:
                    print(f"{done:>10,} rows   {resident():>6.1f} MB", flush=True)
                    following = next(marks, rows * 2)

            began = perf_counter()
            vectorizer.run(show)
            print(f"{rows / (perf_counter() - began):,.0f} rows/s")


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
