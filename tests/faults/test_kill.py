"""Workers are killed and stopped at any moment; what is searchable in the end must be right.

The oracle knows nothing of our queue: it splits and renders the source itself and compares.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

ROWS = 300
KILLS = 12
SEED = int(os.environ.get("VECTORIZER_TEST_SEED", "20"))
TEMPLATE = "{title}: {chunk}"
SIZE = (40, 90)
OPTIONS: dict[str, Any] = {
    "chunk_column": "contents",
    "template": TEMPLATE,
    "metadata": ["category"],
    "time_column": "published_time",
    "partition_interval": timedelta(days=90),
    "chunk_size": SIZE,
    "batch_size": 16,
    "lease_seconds": 1.0,
}
# A server from which workers are forked: each starts in milliseconds instead of a second.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["pytest", "numpy", "vectorizer._sync.vectorizer", "vectorizer.testing", "pgvector",
     "semantic_text_splitter"]
)  # fmt: skip


class Obedient(FakeEmbedder):
    """Says when a call begins and ends, and waits for leave in between."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def embed(self, texts: Sequence[str]) -> Any:
        self._pipe.send_bytes(b"begin")
        self._pipe.recv_bytes()
        vectors = super().embed(texts)
        self._pipe.send_bytes(b"end")
        return vectors


def work(url: str, pipe: Connection) -> None:
    with Vectorizer(url, "blog", embedder=Obedient(pipe), **OPTIONS) as vectorizer:
        vectorizer.run()


@contextmanager
def worker(url: str) -> Iterator[tuple[Any, Connection]]:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=work, args=(url, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def told(pipe: Connection) -> bool:
    """Wait for the next message; return False if the worker has ended."""
    try:
        assert pipe.poll(20), "the worker stands still"
        pipe.recv_bytes()
    except EOFError:
        return False
    return True


def kill(process: Any, pipe: Connection, stage: str, chance: random.Random) -> bool:
    """Kill a worker at a stage of its work; return whether it lived until then."""
    if stage == "any":
        process.join(chance.uniform(0, 0.3))
    else:
        for _ in range(chance.randint(0, 3)):
            told(pipe)
            pipe.send_bytes(b"go")
            told(pipe)
        told(pipe)
        if stage == "finishing":
            pipe.send_bytes(b"go")
            told(pipe)
            process.join(chance.choice([0, 0.001, 0.002, 0.004, 0.008]))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute(
            "create table blog (id serial primary key, title text, contents text, category text, "
            "published_time timestamptz, views integer default 0)"
        )
        connection.execute(
            "insert into blog (title, contents, category, published_time) select 'Post ' || n, "
            "(select string_agg(format('In post %%s paragraph %%s says %%s.', n, p, "
            "md5((n * 100 + p)::text)), E'\\n\\n') from generate_series(0, n %% 4) p), "
            "'c' || n %% 5, "
            "case when n %% 6 > 0 then '2024-01-01'::timestamptz + n * interval '1 day' end "
            "from generate_series(1, %s) n",
            [ROWS],
        )
        yield connection


def searchable_exactly_once(db: psycopg.Connection) -> None:
    """Assert that the destination holds what the source says, and that nothing is left over."""
    for empty in ("vectorizer.lease", "vectorizer.blog_log", "vectorizer.dead_letters"):
        assert db.execute(f"select * from {empty}").fetchall() == []
    held = "select count(*) from vectorizer.blog_row where lease is not null"
    assert db.execute(held).fetchone() == (0,)
    # Where a text is cut depends on its history: what stands is left where it is.
    found: dict[int, list[tuple[Any, ...]]] = {}
    for key, *chunk in db.execute(
        "select source_id, contents, chunk, time, metadata ->> 'category' from blog_embedding "
        "order by source_id, chunk"
    ):
        found.setdefault(key, []).append(tuple(chunk))
    expected = {
        key: rest
        for key, *rest in db.execute(
            "select id, title, contents, category, published_time from blog "
            "where published_time is not null"
        )
    }
    assert found.keys() == expected.keys()
    for key, (title, text, category, moment) in expected.items():
        contents, numbers, times, categories = zip(*found[key], strict=True)
        assert len(set(numbers)) == len(numbers)
        assert (set(times), set(categories)) == ({moment}, {category})
        assert all(chunk.startswith(f"{title}: ") for chunk in contents)
        bodies = [chunk.removeprefix(f"{title}: ") for chunk in contents]
        assert " ".join(bodies).split() == text.split()


def change(connection: psycopg.Connection, chance: random.Random) -> None:
    """Change some row in some way."""
    key = chance.randint(1, ROWS)
    text = "\n\n".join(
        f"Now {chance.random()} is what paragraph {n} of this row says." for n in range(3)
    )
    statement, *parameters = chance.choice(
        [
            ("update blog set contents = %s where id = %s", text, key),
            ("update blog set contents = contents || %s where id = %s", "\n\n" + text, key),
            ("update blog set category = %s where id = %s", f"c{chance.random()}", key),
            ("update blog set views = views + 1 where id = %s", key),
            ("update blog set published_time = null where id = %s", key),
            ("update blog set published_time = now() - %s where id = %s",
             timedelta(days=chance.randint(0, 900)), key),
            ("delete from blog where id = %s", key),
            ("insert into blog (title, contents, published_time) values (%s, %s, now())",
             "New", text),
        ]
    )  # fmt: skip
    connection.execute(statement, parameters)


@contextmanager
def writers(url: str, seed: int) -> Iterator[None]:
    stop = threading.Event()

    def write(chance: random.Random) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.02):
                change(connection, chance)

    threads = [
        threading.Thread(target=write, args=(random.Random(seed + number),))  # noqa: S311
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_killed_at_any_moment_every_row_is_searchable_exactly_once(
    vectorizer_url: str, db: psycopg.Connection, seed: int
) -> None:
    print(f"VECTORIZER_TEST_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - so that a failure can be repeated
    killed = 0
    with Vectorizer(vectorizer_url, "blog", embedder=FakeEmbedder(), **OPTIONS) as vectorizer:
        vectorizer.install()
        with writers(vectorizer_url, seed):
            for number in range(KILLS):
                db.execute("update blog set title = title || '.' where id %% 5 = %s", [number % 5])
                stage = ("embedding", "finishing", "any")[number % 3]
                with worker(vectorizer_url) as (process, pipe):
                    killed += kill(process, pipe, stage, chance)
        vectorizer.run()
        assert killed == KILLS
        searchable_exactly_once(db)
        assert vectorizer.run().embedded == 0


def test_a_worker_stopped_past_its_lease_writes_nothing(
    vectorizer_url: str, db: psycopg.Connection, eventually: Callable[..., None]
) -> None:
    state = "select id, xmin::text, chunk, contents, time from blog_embedding_g1 order by id"
    expired = "select bool_and(expires_at < clock_timestamp()) from vectorizer.lease"
    with Vectorizer(vectorizer_url, "blog", embedder=FakeEmbedder(), **OPTIONS) as vectorizer:
        vectorizer.install()
        with worker(vectorizer_url) as (process, pipe):
            assert told(pipe)
            os.kill(process.pid, signal.SIGSTOP)
            pipe.send_bytes(b"go")
            held = db.execute("select keys from vectorizer.lease").fetchone()[0]
            # All of them, so that nothing but the fence keeps the old texts out.
            held_ids = [key["source_id"] for key in held]
            db.execute(
                "update blog set contents = 'Written meanwhile to ' || id where id = any(%s)",
                [held_ids],
            )
            db.execute("delete from blog where id = %s", [held_ids[0]])
            eventually(lambda: db.execute(expired).fetchone() == (True,))
            vectorizer.run()
            searchable_exactly_once(db)
            before = db.execute(state).fetchall()
            os.kill(process.pid, signal.SIGCONT)
            process.join(20)
            assert process.exitcode == 0
        assert db.execute(state).fetchall() == before
        searchable_exactly_once(db)
        assert vectorizer.run().rows == 0
