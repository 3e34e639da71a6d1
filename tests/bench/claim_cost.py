"""What a claim and its ack of 500 keys cost, whatever state the change log is in.

    python tests/bench/claim_cost.py [--dead 300000 3000000] [--waiting 10000000]

Each case begins on a fresh log. Printed are the median and the middle half of the milliseconds,
and the ratio to the quiet case.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import psycopg

from vectorizer import Vectorizer, embedded
from vectorizer._sync.database import Database
from vectorizer._sync.queue import Queue
from vectorizer._sync.schema import Schema
from vectorizer.batch import Batch, LoadedRow
from vectorizer.testing import FakeEmbedder

ROWS = 500
ROUNDS = 40
SOURCE_ROWS = 20_000
LOG = "vectorizer.item_log"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dead", type=int, nargs="*", default=[300_000, 3_000_000])
    parser.add_argument("--waiting", type=int, default=10_000_000)
    parser.add_argument("--leased", type=int, default=100_000)
    options = parser.parse_args()
    cases: dict[str, Callable[[str, ExitStack], object]] = {"quiet": lambda _url, _stack: None}
    for dead in options.dead:
        cases[f"{dead:,} dead, held snapshot"] = lambda url, stack, n=dead: (
            hold(url, stack, "begin isolation level repeatable read", "select 1"),
            kill(url, n),
        )
        cases[f"{dead:,} dead, idle transaction with xid"] = lambda url, stack, n=dead: (
            hold(url, stack, "begin", "select pg_current_xact_id()"),
            kill(url, n),
        )
        cases[f"{dead:,} dead, prepared transaction"] = lambda url, stack, n=dead: (
            prepare(url, stack),
            kill(url, n),
        )
    cases[f"{options.waiting:,} waiting"] = lambda url, _stack: wait(url, options.waiting)
    cases[f"{options.leased:,} of one leased key"] = lambda url, _stack: lease(url, options.leased)
    quiet = 0.0
    with server() as url:
        for name, arrange in cases.items():
            with ExitStack() as stack:
                times = measure(url, lambda a=arrange, s=stack: a(url, s))
            low, middle, high = statistics.quantiles(times, n=4)
            quiet = quiet or middle
            print(f"{name:42} {middle:8.2f} ms ({low:.2f}-{high:.2f})   {middle / quiet:.2f}")


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a fresh embedded server that allows prepared transactions."""
    with tempfile.TemporaryDirectory() as folder:
        running = embedded.start(Path(folder) / "postgres", keep_running=True)
        with psycopg.connect(running.url, autocommit=True) as connection:
            connection.execute("alter system set max_prepared_transactions = 5")
        running.stop()
        running = embedded.start(Path(folder) / "postgres", keep_running=True)
        try:
            yield running.url
        finally:
            running.stop()


def measure(url: str, arrange: Callable[[], object]) -> list[float]:
    """Return the milliseconds of each claim with its ack."""
    with Vectorizer(url, "item", embedder=FakeEmbedder(2), chunk_column="body") as vectorizer:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop table if exists item cascade")
            connection.execute("create table item (id bigint primary key, body text)")
        vectorizer.install()
        vectorizer.run()
        with Database(url) as database:
            installation = Schema(database).find("item")
            queue = Queue(database, installation)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "insert into item select i, '' from generate_series(1, %s) i", [SOURCE_ROWS]
                )
                connection.execute("delete from vectorizer.item_log")
                connection.execute("vacuum vectorizer.item_log")
            arrange()
            append(url, SOURCE_ROWS + ROUNDS)
            times = [timed(database, queue) for _ in range(ROUNDS)]
        vectorizer.uninstall(drop_embeddings=True)
    # The first claims pass over what is dead, once.
    return times[2:]


def timed(database: Database, queue: Queue) -> float:
    """Claim and ack one batch; return the milliseconds."""
    began = time.perf_counter()
    batch = queue.claim(ROWS)
    assert batch is not None
    with database.transaction(pinned_plans=True) as connection:
        queue.hold(connection, batch)
        queue.finish(connection, batch, done=done(batch), gone=[], failed=[])
    return (time.perf_counter() - began) * 1000


def done(batch: Batch) -> list[tuple[LoadedRow, datetime, int]]:
    """Return what finishes every row of a batch."""
    now = datetime.now(timezone.utc)
    return [
        (
            LoadedRow(n, (), True, None, None, None, 0, bytes(32), 0, None, ()),
            now,
            1,
        )
        for n in range(1, batch.size + 1)
    ]


def execute(url: str, statement: str, *parameters: object) -> None:
    """Run one statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), parameters)


def append(url: str, entries: int) -> None:
    """Log changes of the source's rows."""
    execute(
        url,
        f"insert into {LOG} (source_id) select mod(i, %s) + 1 from generate_series(1, %s) i",
        SOURCE_ROWS,
        entries,
    )


def kill(url: str, entries: int) -> None:
    """Leave dead entries in the log."""
    append(url, entries)
    execute(url, f"delete from {LOG}")


def wait(url: str, entries: int) -> None:
    """Log changes of more keys than the source has."""
    execute(url, f"insert into {LOG} (source_id) select i from generate_series(1, %s) i", entries)


def lease(url: str, entries: int) -> None:
    """Log changes of one key that a worker holds."""
    execute(
        url,
        "insert into vectorizer.item_row (source_id, lease) values (1000000, gen_random_uuid())",
    )
    execute(
        url, f"insert into {LOG} (source_id) select 1000000 from generate_series(1, %s)", entries
    )


def hold(url: str, stack: ExitStack, *statements: str) -> None:
    """Keep a transaction open until the case is over."""
    connection = stack.enter_context(psycopg.connect(url, autocommit=True))
    for statement in statements:
        connection.execute(statement.encode())
    stack.callback(connection.execute, "rollback")


def prepare(url: str, stack: ExitStack) -> None:
    """Leave a prepared transaction behind until the case is over."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("begin")
        connection.execute("select pg_current_xact_id()")
        connection.execute("prepare transaction 'forgotten'")
    stack.callback(execute, url, "rollback prepared 'forgotten'")


if __name__ == "__main__":
    main()
