"""What a worker costs that has nothing to do: processor, memory, statements a second.

    python tests/bench/idle.py [--url URL] [--vectorizers 1 100] [--seconds 20]

Statements are counted in the server's own log (log_statement = all), so that none is missed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from bench_server import database
from daemon import cpu_seconds, install, memory_megabytes, worker

# Longer than until the first round of upkeep, which has something to do for each vectorizer.
_SETTLE_SECONDS = 45.0


def main() -> None:
    """Measure with each number of vectorizers, and print."""
    arguments = _arguments()
    settings = {"log_statement": "all", "logging_collector": "on", "log_destination": "stderr"}
    for number in arguments.vectorizers:
        with database(arguments.url, **settings) as url:
            _prepare(url, number)
            with worker(url) as process:
                time.sleep(_SETTLE_SECONDS)
                with _statements(url) as counted:
                    cpu, server, began = cpu_seconds(process.pid), _server(url), time.monotonic()
                    time.sleep(arguments.seconds)
                    seconds = time.monotonic() - began
                    cpu, server = cpu_seconds(process.pid) - cpu, _server(url) - server
                print(
                    f"{number} vectorizers: {cpu / seconds:.2%} CPU, "
                    f"{memory_megabytes(process.pid):.0f} MB, "
                    f"{len(counted) / seconds:.1f} statements/s, "
                    f"its server processes {server / seconds:.2%} CPU"
                )


def _prepare(url: str, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        for table in range(number):
            connection.execute(f"drop table if exists idle_{table} cascade")
            connection.execute(f"create table idle_{table} (id int primary key, body text)")
    for table in range(number):
        install(url, f"idle_{table}")


def _server(url: str) -> float:
    """Return the processor time of the server processes that serve the worker."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select pid from pg_stat_activity where application_name = 'vectorizer'"
        ).fetchall()
    return sum(cpu_seconds(process) for (process,) in found)


@contextmanager
def _statements(url: str) -> Iterator[list[str]]:
    """Collect the lines of the server's log that tell of a statement while the block runs."""
    with psycopg.connect(url, autocommit=True) as connection:
        [(path,)] = connection.execute(
            "select current_setting('data_directory') || '/' || pg_current_logfile()"
        )
    log = Path(path)
    start = log.stat().st_size
    lines: list[str] = []
    yield lines
    text = log.read_bytes()[start:].decode(errors="replace")
    lines += [line for line in text.splitlines() if "statement:" in line or "execute " in line]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--vectorizers", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--seconds", type=float, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
