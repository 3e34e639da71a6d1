"""Do writers wait for locks of ours, or fail because of us, while workers run flat out?

    python tests/bench/lock_waits.py [--transactions 100000] [--writers 4] [--workers 2]

Each writer has keys of its own, so that writers do not wait for each other's rows. The same
transactions run once on the bare table and once with a vectorizer, whose workers drain and do
all chores of upkeep over and over. The server logs every wait of more than a millisecond with
who holds the lock; counted are those of writers, by whether a writer or one of ours holds it,
deadlocks, and serialization failures: half of the transactions are REPEATABLE READ or
SERIALIZABLE.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from vectorizer import Vectorizer, embedded
from vectorizer._sync.database import Database
from vectorizer._sync.upkeep import Upkeep
from vectorizer.errors import VectorizerError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

TABLE = """
create table post (id bigint primary key, body text, views int not null default 0);
insert into post select n, 'text ' || n from generate_series(1, 20000) n
"""
LEVELS = ("read committed", "read committed", "repeatable read", "serializable")
KEYS = 5_000  # of each writer
WAIT = re.compile(
    r"process (\d+) still waiting for (.*?) after [\d.]+ ms.*?"
    r"DETAIL:  Process(?:es)? holding the lock: ([\d, ]+)\.",
    re.DOTALL,
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'':12}{'transactions':>14}{'per second':>12}{'waits for us':>14}"
          f"{'for writers':>13}{'deadlocks':>11}{'serialization':>15}{'drained':>12}")  # fmt: skip
    for kind in ("bare", "vectorizer"):
        with server() as (url, log):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(TABLE.encode())
            prove(url, log)
            drained: list[int] = []
            write(url, options.transactions // 10, options.writers)  # warms up
            if kind == "bare":
                written = write(url, options.transactions, options.writers)
            else:
                with working(url, options.workers, drained):
                    written = write(url, options.transactions, options.writers)
            report(kind, log, *written, drained)


@contextmanager
def server() -> Iterator[tuple[str, Path]]:
    """Start a server that logs who waits for whom."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "postgres"
        started = embedded.start(home, durable=False)
        try:
            with psycopg.connect(started.url, autocommit=True) as connection:
                for setting in ("log_lock_waits = on", "deadlock_timeout = '1ms'"):
                    connection.execute(f"alter system set {setting}".encode())
                connection.execute("select pg_reload_conf()")
                connection.execute("create extension if not exists vector")
            yield started.url, home / "data" / "server.log"
        finally:
            started.stop()


def prove(url: str, log: Path) -> None:
    """Make a wait, and find it in the log: otherwise finding none would mean nothing."""
    with psycopg.connect(url) as holder, psycopg.connect(url) as waiter:
        holder.execute("update post set views = 1 where id = 1")
        waiter.execute("set local lock_timeout = '50ms'")
        try:
            waiter.execute("update post set views = 2 where id = 1")
        except psycopg.errors.LockNotAvailable:
            waiter.rollback()
        holder.rollback()
        waiting, holding = waiter.info.backend_pid, holder.info.backend_pid
    if [holders for _, holders in waits(log, {waiting})] != [{holding}]:
        raise SystemExit("the server's log does not tell of a wait that was there")


def waits(log: Path, processes: set[int]) -> list[tuple[str, set[int]]]:
    """Return what these processes waited for, and the processes that held it."""
    return [
        (what, {int(one) for one in holders.split(",")})
        for waiter, what, holders in WAIT.findall(log.read_text(errors="replace"))
        if int(waiter) in processes
    ]


@contextmanager
def working(url: str, workers: int, drained: list[int]) -> Iterator[None]:
    """Attach a vectorizer and let workers drain it flat out; note the rows each has drained."""
    with vectorizer(url) as installed:
        installed.install()
    context = get_context("spawn")
    ended, rows = context.Event(), context.Queue()
    processes = [context.Process(target=work, args=(url, ended, rows)) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        ended.set()
        drained.extend(rows.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()


def vectorizer(url: str) -> Vectorizer:
    """Return the vectorizer of the table."""
    return Vectorizer(url, "post", embedder=FakeEmbedder(8), chunk_column="body", batch_size=200)


def work(url: str, ended: Event, rows: object) -> None:
    """Drain without a pause, and do every chore again and again."""
    done = 0
    with vectorizer(url) as worker, Database(url) as database:
        upkeep = Upkeep(database)
        while not ended.is_set():
            try:
                done += worker.process()
                if random.random() < 0.02:  # noqa: S311 - no secret
                    with database.connection() as connection:
                        connection.execute("update vectorizer.upkeep set due_at = now()")
                    upkeep.run_due()
            except VectorizerError as error:
                print(f"a worker: {error}")
    rows.put(done)  # type: ignore[attr-defined]


def write(url: str, transactions: int, writers: int) -> tuple[int, float, set[int], Counter[str]]:
    """Run the transactions; return how many, their seconds, the writers' processes, errors."""
    processes: set[int] = set()
    errors: Counter[str] = Counter()
    each = transactions // writers
    threads = [
        threading.Thread(target=writer, args=(url, number, each, processes, errors))
        for number in range(writers)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * writers, time.perf_counter() - began, processes, errors


def writer(
    url: str, number: int, transactions: int, processes: set[int], errors: Counter[str]
) -> None:
    """Insert, update and delete rows that no other writer touches."""
    dice = random.Random(number)  # noqa: S311 - no secret
    first = 1_000_000 + number * KEYS
    with psycopg.connect(url, autocommit=True) as connection:
        processes.add(connection.info.backend_pid)
        for _ in range(transactions):
            key = first + dice.randrange(KEYS)
            try:
                with connection.transaction():
                    connection.execute(f"set transaction isolation level {dice.choice(LEVELS)}")
                    step(connection, dice, key)
            except psycopg.Error as error:
                errors[error.sqlstate or "?"] += 1


def step(connection: psycopg.Connection, dice: random.Random, key: int) -> None:
    """Do one of the things that an application does."""
    match dice.randrange(8):
        case 0 | 1 | 2:
            connection.execute(
                "insert into post values (%s, %s) on conflict (id) do update "
                "set body = excluded.body",
                [key, f"text {dice.random()}"],
            )
        case 3 | 4:
            connection.execute("update post set body = body || '.' where id = %s", [key])
        case 5:
            connection.execute("update post set views = views + 1 where id = %s", [key])
        case 6:
            connection.execute(
                "update post set body = left(body, 50) || '!' where id between %s and %s",
                [key - key % 100, key - key % 100 + 30],
            )
        case 7:
            connection.execute("delete from post where id = %s", [key])


def report(
    kind: str,
    log: Path,
    count: int,
    seconds: float,
    processes: set[int],
    errors: Counter[str],
    drained: list[int],
) -> None:
    """Print one line, then what was waited for."""
    found = waits(log, processes)
    ours = [what for what, holders in found if not holders <= processes]
    print(
        f"{kind:12}{count:>14,}{count / seconds:>12,.0f}{len(ours):>14}"
        f"{len(found) - len(ours):>13}{errors['40P01']:>11}{errors['40001']:>15}"
        f"{sum(drained):>12,} rows"
    )
    for what, times in Counter(re.sub(r"\d+", "N", what) for what in ours).most_common(10):
        print(f"   {times} times: {what}")
    others = {state: n for state, n in errors.items() if state not in ("40P01", "40001")}
    if others:
        print(f"   other errors: {others}")


if __name__ == "__main__":
    main()
