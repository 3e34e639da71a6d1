"""What capture costs the application: each kind of write, beside the bare table, in one run.

    python tests/bench/writer_cost.py [--url URL] [--rows 20000] [--rounds 9]

Rounds are interleaved: every table sees each kind of write once before the next round begins.
Printed is the median of the ratios to the bare table of the same round, by the clock and by CPU
time of the backend (Linux), with the middle half of the ratios as spread. With the packages
pgai (--no-deps) installed its triggers are measured, too; pgvectorizer's are short enough to
stand here, as timescale_vector 0.0.7 makes them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg
from bench_server import database
from psycopg import sql

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

COLUMNS = "(id bigint primary key, title text, body text, views int not null default 0)"
PARTS = 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with database(options.url) as url:
        for title, tables in (
            ("plain table", plain_tables(url)),
            ("partitioned table", partitioned_tables(url)),
        ):
            print(f"\n{title}, {options.rows} rows, median of {options.rounds} rounds")
            report(measure(url, tables, options.rows, options.rounds))


def plain_tables(url: str) -> list[str]:
    """Make the bare table and those with triggers; the first is what others are compared with."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("bare", "ours", "pgvectorizer", "pgai"):
            connection.execute(sql.SQL("create table {} " + COLUMNS).format(sql.Identifier(name)))
        tables = ["bare", "ours", "pgvectorizer"]
        connection.execute(PGVECTORIZER)
        if add_pgai(connection):
            tables.append("pgai")
    attach(url, "ours")
    return tables


def partitioned_tables(url: str) -> list[str]:
    """Make a bare partitioned table and one with a vectorizer."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("parted_bare", "parted_ours"):
            connection.execute(
                sql.SQL("create table {} " + COLUMNS + " partition by hash (id)").format(
                    sql.Identifier(name)
                )
            )
            for part in range(PARTS):
                connection.execute(
                    sql.SQL(
                        "create table {} partition of {} for values with (modulus {}, remainder {})"
                    ).format(sql.Identifier(f"{name}_{part}"), sql.Identifier(name), PARTS, part)
                )
    attach(url, "parted_ours")
    return ["parted_bare", "parted_ours"]


def attach(url: str, table: str) -> None:
    """Install a vectorizer that tracks title and body."""
    with Vectorizer(
        url, table, embedder=FakeEmbedder(), chunk_column="body", template="{title}: {chunk}"
    ) as vectorizer:
        vectorizer.install()


def add_pgai(connection: psycopg.Connection) -> bool:
    """Install pgai's own SQL and its triggers, if the package is there."""
    package = find_spec("pgai")
    if package is None or not package.submodule_search_locations:
        return False
    script = Path(package.submodule_search_locations[0]) / "data" / "ai.sql"
    connection.execute("create extension if not exists vector")
    # As CREATE EXTENSION would, for it is an extension's script.
    connection.execute(script.read_bytes().replace(b"@extschema:vector@", b"public"))
    connection.execute("create table pgai_store (id bigint, chunk text)")
    connection.execute("create index on pgai_store (id)")
    connection.execute("create table pgai_queue (id bigint, queued_at timestamptz default now())")
    connection.execute("create index on pgai_queue (id)")
    connection.execute(
        "select ai._vectorizer_create_source_trigger('pgai_trigger', 'public', 'pgai_queue', "
        """'public', 'pgai', 'public', 'pgai_store', '[{"attnum": 1, "attname": "id"}]')"""
    )
    return True


PGVECTORIZER = """
create table pgvectorizer_queue (id bigint);
create index on pgvectorizer_queue (id);
create function pgvectorizer_queued() returns trigger language plpgsql as $$
begin
  if (tg_op = 'DELETE') then
    insert into pgvectorizer_queue values (old.id);
  else
    insert into pgvectorizer_queue values (new.id);
  end if;
  return null;
end $$;
create trigger track_changes_for_embedding after insert or update or delete on pgvectorizer
for each row execute procedure pgvectorizer_queued();
"""

Work = Callable[[psycopg.Connection, sql.Identifier, int], object]


def statement(text: str) -> Work:
    """Return one statement over a whole table as a piece of work."""

    def work(connection: psycopg.Connection, table: sql.Identifier, rows: int) -> object:
        return connection.execute(sql.SQL(text).format(t=table, n=rows), prepare=False)

    return work


def single_commits(connection: psycopg.Connection, table: sql.Identifier, rows: int) -> None:
    """Update one row a transaction."""
    update = sql.SQL("update {} set title = title || '.' where id = %s").format(table)
    for key in range(1, rows // 20):
        connection.execute(update, [key])


WORK: dict[str, Work] = {
    "INSERT": statement(
        "insert into {t} select i, 'title ' || i, repeat('some words ', 20) "
        "from generate_series(1, {n}) i"
    ),
    "UPDATE tracked": statement("update {t} set title = title || '!'"),
    "UPDATE untracked": statement("update {t} set views = views + 1"),
    "single commits": single_commits,
    "DELETE": statement("delete from {t}"),
}


def measure(
    url: str, tables: list[str], rows: int, rounds: int
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return (seconds, CPU seconds) of each round by table and kind of work."""
    measured: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with psycopg.connect(url, autocommit=True) as connection:
        for round_ in range(rounds + 1):
            for kind, work in WORK.items():
                for table in tables:
                    taken = timed(connection, work, table, rows)
                    if round_:  # the first one warms caches and plans
                        measured[table, kind].append(taken)
            clean(connection, tables)
    return measured


def timed(connection: psycopg.Connection, work: Work, table: str, rows: int) -> tuple[float, float]:
    """Run a piece of work; return its seconds by the clock and of the backend's CPU."""
    before, began = cpu(connection), time.perf_counter()
    work(connection, sql.Identifier(table), rows)
    return time.perf_counter() - began, cpu(connection) - before


def cpu(connection: psycopg.Connection) -> float:
    """Return the CPU seconds of the backend so far, 0 where the system does not tell."""
    try:
        line = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text()
    except OSError:
        return 0.0
    return int(line.split()[0]) / 1e9


def clean(connection: psycopg.Connection, tables: list[str]) -> None:
    """Empty the queues and what deleted rows left, so that rounds are alike."""
    queues = connection.execute(
        "select format('%I.%I', schemaname, tablename) from pg_tables "
        "where tablename like '%\\_queue' or tablename like '%\\_log'"
    ).fetchall()
    for (queue,) in queues:
        connection.execute(sql.SQL("truncate {}").format(sql.SQL(queue)))
    for table in tables:
        connection.execute(sql.SQL("vacuum {}").format(sql.Identifier(table)))
    connection.execute("checkpoint")


def report(measured: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """Print ratios to the first table, by the clock and by CPU."""
    tables = list(dict.fromkeys(table for table, _ in measured))
    bare = tables[0]
    print(f"{'':18}" + "".join(f"{table:>34}" for table in tables[1:]))
    for kind in WORK:
        cells = []
        for table in tables[1:]:
            pairs = list(zip(measured[table, kind], measured[bare, kind], strict=True))
            clock = [mine[0] / its[0] for mine, its in pairs]
            work = [mine[1] / its[1] for mine, its in pairs if its[1]]
            low, middle, high = statistics.quantiles(clock, n=4)
            busy = f"cpu {statistics.median(work):.2f}" if work else ""
            cells.append(f"{middle:>16.2f} ({low:.2f}-{high:.2f}) {busy}")
        print(f"{kind:18}" + "".join(f"{cell:>34}" for cell in cells))


if __name__ == "__main__":
    main()
