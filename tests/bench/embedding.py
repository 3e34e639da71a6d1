"""How well requests to a provider are used: its rate, a storm of 429, the memory of a worker.

    python tests/bench/embedding.py rate      # 200 ms a request, 128 texts each, 16 at once
    python tests/bench/embedding.py storm     # at most 10 requests a second, the others get 429
    python tests/bench/embedding.py memory --rows 1000000

The provider is tests/openai_server.py in a process of its own, with answers made beforehand: it is
not what is measured. What the worker does besides (claim, load, write, ack) goes on an embedded
PostgreSQL and counts. `rate` drains as `vectorizer run` does, `--kind worker` as the daemon does,
in this process and with an embedder that has connected before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psycopg
from bench_server import database
from starlette.responses import Response

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from openai_server import Fault, Recorded, after, answer, limited, serve

from vectorizer import AsyncVectorizer, OpenAIEmbedder, Vectorizer
from vectorizer.batch import Counts
from vectorizer.cli._garbage import collect_seldom
from vectorizer.worker import Drain, Worker, WorkerOptions

LATENCY = 0.2
PER_SECOND = 10


def main() -> None:
    """Measure what is asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rate", "storm", "memory", "serve"])
    parser.add_argument("rule", nargs="?", default="plain")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--kind", choices=["run", "worker"], default="run")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--retry-after")
    given = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    collect_seldom()
    if given.what == "serve":
        provide(given)
    else:
        {"rate": rate, "storm": storm, "memory": memory}[given.what](given)


def provide(given: argparse.Namespace) -> None:
    """Serve until the input ends."""
    ready = answers(given.dimensions)
    rules = {
        "plain": lambda: ready,
        "slow": lambda: after(LATENCY, ready),
        "limited": lambda: limited(PER_SECOND, given.retry_after),
    }
    same = np.full(given.dimensions, given.dimensions**-0.5, dtype=np.float32)
    with serve(dimensions=given.dimensions, made=lambda *_: same) as server:
        server.script(then=rules[given.rule]())
        server.requests = _Nothing()
        print(server.url, flush=True)
        sys.stdin.read()


def answers(dimensions: int) -> Fault:
    """Return what answers with vectors that were encoded when as many were first asked for."""
    random = np.random.default_rng(0)

    @cache
    def ready(texts: int, *, base64: bool) -> bytes:
        made = random.random((texts, dimensions), dtype=np.float32)
        request = Recorded({"model": "bench"}, {}, 0, {}, base64)
        return bytes(answer(request, list(enumerate(made))).body)

    return lambda request, items: Response(
        ready(len(items), base64=request.base64), media_type="application/json"
    )


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


Show = Callable[[str, Counts], None]


def drain(
    url: str, embedder: OpenAIEmbedder, given: argparse.Namespace, show: Show | None = None
) -> float:
    """Return the seconds that a drain takes from the first claim to the last ack."""
    with Vectorizer(url, "item", embedder=embedder, chunk_column="body") as vectorizer:
        vectorizer.install()
    began = perf_counter()
    asyncio.run(work(url, given) if given.kind == "worker" else run(url, embedder, given, show))
    seconds = perf_counter() - began
    with psycopg.connect(url) as connection:
        query = "select (select count(*) from item) - (select count(*) from item_embedding)"
        assert connection.execute(query).fetchone() == (0,), "not all rows are embedded"
        attempts = connection.execute("select max(attempts) from vectorizer.item_row").fetchone()
        assert attempts == (0,), "attempts were burned"
    return seconds


async def run(
    url: str, embedder: OpenAIEmbedder, given: argparse.Namespace, show: Show | None
) -> None:
    """Do what `vectorizer run` does."""
    drain = Drain(concurrency=given.concurrency)
    async with await AsyncVectorizer.connect(
        url, "item", embedder=embedder, batch_size=given.batch_size, observer=drain.observe
    ) as vectorizer:
        drain.add(vectorizer)
        await drain.run(show)
    for error in drain.errors.values():
        raise error


async def work(url: str, given: argparse.Namespace) -> None:
    """Do what `vectorizer worker` does, until nothing is left; it makes an embedder of its own."""
    options = WorkerOptions(concurrency=given.concurrency, batch_size=given.batch_size)
    worker = Worker(url, options=options)
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(wait_until_done, url)
    worker.stop()
    await running


def wait_until_done(url: str) -> None:
    """Wait until nothing is left to do."""
    with psycopg.connect(url, autocommit=True) as connection:
        left = "waiting + backfill_total - backfill_claimed + in_flight"
        query = f"select {left} from vectorizer.status".encode()
        while connection.execute(query).fetchone() != (0,):
            time.sleep(0.05)


def described(given: argparse.Namespace) -> str:
    """Return the command that does what is measured."""
    options = f"--concurrency {given.concurrency}"
    if given.batch_size is not None:
        options += f" --batch-size {given.batch_size}"
    return f"vectorizer {given.kind} {options}"


def rate(given: argparse.Namespace) -> None:
    """Print the texts a second against what 16 requests at once could do."""
    rows, texts, concurrency = given.rows or 120_000, 128, 16
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
        before = process_time()
        whole = rows / drain(url, embedder, given)
        cost = (process_time() - before) / rows * 1e6
    print(
        f"{described(given)}: {rows:,} rows of {given.dimensions} dimensions, "
        f"{cost:.0f} µs of CPU each; load {os.getloadavg()[0]:.1f}"
    )
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
        marks = iter(range(rows // 10, rows + 1, rows // 10))
        following = next(marks)

        def show(_: str, counts: Counts) -> None:
            nonlocal following
            if counts.rows >= following:
                print(f"{counts.rows:>10,} rows   {resident():>6.1f} MB", flush=True)
                following = next(marks, rows * 2)

        print(f"{described(given)}, {given.dimensions} dimensions")
        print(f"{rows / drain(url, embedder, given, show):,.0f} rows/s")


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
