"""How long a committed change takes until it can be searched, with a free embedder.

    python tests/bench/latency.py [--url URL] [--seconds 20]

Changes come to an idle worker (one at random times, seconds apart), then at 10 and at 100 a
second. A row is searchable when a chunk of its new text is in the destination: a trigger there
notes the commit, so watching costs the worker nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import psycopg
from bench_server import database
from daemon import install, worker

_TABLE = "create table latency (id bigint primary key, body text not null)"
_LAGS = """
select extract(epoch from pg_xact_commit_timestamp(d.xmin) - pg_xact_commit_timestamp(s.xmin))
from latency s join latency_embedding_g1 d on d.source_id = s.id"""
_DICE = random.Random(0)  # noqa: S311 - no secret
_IDLE_GAP = 3.0  # longer than the worker lingers at its quick pace


def main() -> None:
    """Run all, print medians and 99th percentiles."""
    arguments = _arguments()
    with (
        database(arguments.url, track_commit_timestamp="on") as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        connection.execute("drop table if exists latency cascade")
        connection.execute("create extension if not exists vector")
        connection.execute(_TABLE)
        install(url, "latency")
        began = time.monotonic()
        with worker(url):
            _write(connection, 0)
            _wait(connection, 1)
            print(f"start to first row searchable: {time.monotonic() - began:.2f} s")
            print(f"{'':<16}{'rows':>6}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
            idle = arguments.idle_rows
            _print("after idleness", _run(connection, idle, lambda: _IDLE_GAP + _DICE.random()))
            for rate in (10, 100):
                rows = max(rate * arguments.seconds, 1)
                _print(f"{rate} writes/s", _run(connection, rows, partial(float, 1 / rate)))


def _run(connection: psycopg.Connection, rows: int, gap: Callable[[], float]) -> list[float]:
    """Write rows a gap apart; return each one's seconds from commit to being searchable."""
    connection.execute("truncate latency")
    _wait(connection, 0)
    due = time.monotonic()
    for number in range(rows):
        due += gap()
        time.sleep(max(0.0, due - time.monotonic()))
        _write(connection, number)
    _wait(connection, rows)
    return [float(seconds) for (seconds,) in connection.execute(_LAGS)]


def _write(connection: psycopg.Connection, number: int) -> None:
    connection.execute("insert into latency values (%s, %s)", [number, f"text {_DICE.random()}"])


def _wait(connection: psycopg.Connection, rows: int) -> None:
    deadline = time.monotonic() + 60
    while connection.execute("select count(*) from latency_embedding").fetchone() != (rows,):
        if time.monotonic() > deadline:
            raise SystemExit(f"{rows} rows did not arrive in a minute")
        time.sleep(0.05)


def _print(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    p50 = statistics.median(ordered)
    print(f"{name:<16}{len(ordered):>6}{p50 * 1e3:>9.0f}{p99 * 1e3:>9.0f}{ordered[-1] * 1e3:>9.0f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="server with track_commit_timestamp = on")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--idle-rows", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
