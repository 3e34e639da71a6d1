"""Everything passes through PgBouncer in transaction pooling, over two connections.

Each transaction may come to another session than the one before: what a session remembers
(prepared statements, settings, advisory locks, temporary tables) cannot be relied on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from pooler import POOL_SIZE
from subject import Subject
from waiting import until
from working import working

from vectorizer import (
    AsyncVectorizer,
    Vectorizer,
    Worker,
    WorkerOptions,
    client,
    pgvectorizer,
)
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs_apt

ROWS = 120
TABLE = "create table post (id bigint primary key, body text, views int default 0)"
FILL = f"insert into post select n, 'post number ' || n from generate_series(1, {ROWS}) n"


@pytest.fixture
def post(pooled_url: str, vectorizer_url: str) -> Iterator[Subject]:
    """A table whose vectorizer goes through the pooler; the application is connected directly."""
    with Subject(pooled_url, batch_size=7) as subject:
        subject.db.close()
        subject.url = vectorizer_url
        subject.db = subject.session()
        subject.db.execute(f"{TABLE}; {FILL}")
        subject.vectorizer.install()
        yield subject


def worker(url: str, batch_size: int = 7) -> Vectorizer:
    return Vectorizer.connect(url, "post", embedder=FakeEmbedder(), batch_size=batch_size)


def test_sessions_are_shared(pooled_url: str, vectorizer_url: str) -> None:
    with ExitStack() as stack:
        connect = [psycopg.connect(pooled_url, autocommit=True) for _ in range(POOL_SIZE * 3)]
        for connection in connect:
            stack.enter_context(connection)
            assert connection.execute("select 1").fetchone() == (1,)
        with psycopg.connect(vectorizer_url) as direct:
            found = direct.execute(
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and backend_type = 'client backend' and pid <> pg_backend_pid()"
            ).fetchone()
        assert found is not None
        assert 1 <= found[0] <= POOL_SIZE


def test_embed_change_verify_search(post: Subject) -> None:
    post.settle()
    assert len(post.embedded()) == ROWS
    for _ in range(3):
        post.script(
            "update post set body = body || ' again' where id <= 30;"
            "delete from post where id > 110;"
            "update post set id = id + 1000 where id between 50 and 60;"
            "insert into post select n, 'new ' || n from generate_series(500, 520) n "
            "on conflict (id) do update set body = excluded.body || ' newer'"
        )
        post.settle()
    post.script("truncate post; insert into post values (1, 'the only one')")
    post.settle()
    (found,) = post.vectorizer.search("the only one", limit=5)
    assert found.contents == "the only one"
    post.vectorizer.pause()
    assert "paused by hand" in str(post.vectorizer.status())
    post.vectorizer.resume()
    post.vectorizer.suspend()
    post.script("alter table post alter body type varchar; update post set body = 'another'")
    post.vectorizer.resume()
    post.settle()
    assert post.embedded() == {1: "another"}
    post.vectorizer.uninstall(drop_embeddings=True)
    assert post.value("select count(*) from vectorizer.vectorizer") == 0


def test_defects_are_found_and_mended(post: Subject) -> None:
    post.settle()
    post.script(
        "alter table post disable trigger user; update post set body = 'hidden' where id = 7;"
        "delete from post where id = 8; alter table post enable trigger user"
    )
    report = post.vectorizer.verify(repair=True, rows=10)
    assert not report.ok
    post.settle()
    assert post.embedded()[7] == "hidden"


def test_workers_share_the_work(post: Subject, pooled_url: str) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        workers = [stack.enter_context(worker(pooled_url)) for _ in range(2)]
        drains = [threads.submit(each.run) for each in workers]
        for _ in range(50):
            post.sql("update post set views = views + 1, body = body || '.' where id = 3")
        total = sum(drain.result().rows for drain in drains)
    assert total >= ROWS
    post.settle()
    assert sum(each.embedder.texts for each in workers) >= ROWS
    assert post.value("select count(*) from vectorizer.lease") == 0


def test_a_direct_worker_works_beside_it(
    post: Subject, pooled_url: str, vectorizer_url: str
) -> None:
    with worker(pooled_url) as pooled, worker(vectorizer_url) as direct:
        rows = [each.process() for _ in range(4) for each in (pooled, direct)]
    assert all(rows)
    assert pooled.embedder.texts == direct.embedder.texts == 28
    post.settle()
    assert post.embedder.texts == ROWS - 56


def test_a_text_is_embedded_once_by_two_workers(post: Subject, pooled_url: str) -> None:
    with worker(pooled_url) as one, worker(pooled_url) as two, ThreadPoolExecutor(2) as threads:
        list(threads.map(Vectorizer.run, (one, two)))
    assert one.embedder.texts + two.embedder.texts == ROWS
    post.settle()


async def test_asynchronous(post: Subject, pooled_url: str) -> None:
    async with await AsyncVectorizer.connect(
        pooled_url, "post", embedder=FakeEmbedder(), batch_size=7
    ) as vectorizer:
        await vectorizer.run()
        assert (await vectorizer.verify()).ok
        assert (await vectorizer.search("post number 5", limit=1))[0].contents
    post.settle()


def test_wait_for_sync(post: Subject, pooled_url: str) -> None:
    stop = threading.Event()

    def work() -> None:
        with worker(pooled_url) as working:
            while not stop.is_set():
                working.run()

    with ThreadPoolExecutor(1) as threads:
        background = threads.submit(work)
        try:
            for number in range(5):
                post.sql("update post set body = %s where id = 1", f"state {number}")
                post.vectorizer.wait_for_sync(timeout=120)
                assert post.embedded()[1] == f"state {number}"
        finally:
            stop.set()
        background.result()


def test_callback(pooled_url: str, vectorizer_url: str) -> None:
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as db,
        pgvectorizer.Vectorize(pooled_url, "post") as vectorizer,
    ):
        db.execute(f"{TABLE}; {FILL}; create table copy (id bigint primary key, body text)")
        written: dict[int, str | None] = {}

        def elsewhere(rows: list[dict], _: pgvectorizer.Vectorize) -> None:
            written.update((row["locked_id"], row["body"]) for row in rows)

        def fenced(rows: list[dict], vectorizer: pgvectorizer.Vectorize) -> None:
            for row in rows:
                vectorizer.connection.execute("delete from copy where id = %s", [row["locked_id"]])
                if row["body"] is not None:
                    vectorizer.connection.execute(
                        "insert into copy values (%s, %s)", [row["locked_id"], row["body"]]
                    )

        # In turns: some have written all of it, then the others have.
        assert sum(iter(lambda: vectorizer.process(elsewhere), 0)) == ROWS
        assert written == dict(db.execute("select id, body from post").fetchall())
        db.execute("update post set body = body || '!'")
        assert sum(iter(lambda: vectorizer.process(fenced), 0)) == ROWS
        db.execute("delete from post where id < 60")
        assert sum(iter(lambda: vectorizer.process(fenced), 0)) == 59
        same = "select id, body from {} order by id"
        expected = db.execute(same.format("post")).fetchall()
        assert db.execute(same.format("copy")).fetchall() == expected


@pytest.mark.parametrize("partitioned", [False, True])
def test_collection(pooled_url: str, partitioned: bool) -> None:
    options = {"time_partition_interval": timedelta(days=7)} if partitioned else {}
    with (
        client.Sync(pooled_url, "collection", 3, **options) as one,
        client.Sync(pooled_url, "collection", 3, **options) as two,
    ):
        for each in (one, two):
            each.create_tables()
        records = [
            (uuid.uuid1(), {"number": n, "even": n % 2 == 0}, f"text {n}", [1.0, n, 0.5])
            for n in range(20)
        ]
        # More often than psycopg needs to see a statement before it prepares it.
        for n in range(20):
            (one, two)[n % 2].upsert([records[n]])
            found = (two, one)[n % 2].search([1.0, n, 0.5], limit=1)
            assert [result.contents for result in found] == [f"text {n}"]
            params = client.HNSWIndexParams(ef_search=50 + n)
            found = one.search([1.0, n, 0.5], 1, {"number": n}, query_params=params)
            assert [result.contents for result in found] == [f"text {n}"]
        two.create_embedding_index()
        one.delete_by_metadata({"even": True})
        left = two.search(limit=50)
        assert sorted(result.metadata["number"] for result in left) == list(range(1, 20, 2))


def test_command_line(post: Subject, pooled_url: str) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "vectorizer.cli", *arguments, "--url", pooled_url],
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("run")
    run("verify")
    assert "post" in run("status")
    post.settle()
    assert post.embedder.texts == 0


def test_a_daemon_polls_through_it(post: Subject, pooled_url: str) -> None:
    options = WorkerOptions(concurrency=2, listen="news")
    count = "select count(*) from post_embedding"
    with working(Worker(pooled_url, options=options)):
        for number in (ROWS, ROWS + 1):
            until(lambda number=number: post.value(count) == number)
            post.db.execute("insert into post values (%s, 'one more')", [number + 1000])
