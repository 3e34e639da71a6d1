"""The source changes while a batch is at the model (faults 5 to 9, 11, 12, 21, 38)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from posts import Background, Gate, Rule, check, contents, create, posts

from vectorizer import Vectorizer

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture
def connection(vectorizer_url: str) -> Iterator[psycopg.Connection[Any]]:
    with create(vectorizer_url, rows=6) as connection:
        yield connection


CHANGES = {
    "update": "update posts set body = 'newest' where id = 1",
    "update_back": "update posts set body = 'post 1 as it was' where id = 1",
    "delete": "delete from posts where id = 1",
    "delete_and_insert": "begin; delete from posts where id = 1; "
    "insert into posts values (1, 'born again'); commit",
    "delete_then_insert": "delete from posts where id = 1; select; "
    "insert into posts values (1, 'born again')",
    "key_change": "update posts set id = 100 where id = 1",
    "key_change_far": "update posts set id = 5000000000 where id = 1",
    "key_swap": "begin; update posts set id = -1 where id = 1; "
    "update posts set id = 1 where id = 2; update posts set id = 2 where id = -1; commit",
    "blank": "update posts set body = '  ' where id = 1",
    "null": "update posts set body = null where id = 1",
    "truncate": "truncate posts",
    "truncate_and_reload": "begin; create temp table kept as select * from posts; truncate posts; "
    "insert into posts select * from kept where id <> 3; commit",
    "rolled_back": "begin; update posts set body = 'never'; delete from posts; rollback",
    "savepoint": "begin; savepoint a; delete from posts; rollback to savepoint a; "
    "update posts set body = 'newest' where id = 2; commit",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_what_changed_in_flight_is_right_in_the_end(
    vectorizer_url: str, connection: psycopg.Connection[Any], change: str, *, first: bool
) -> None:
    gate = Gate()
    with posts(vectorizer_url, gate) as vectorizer, posts(vectorizer_url) as other:
        vectorizer.install()
        if not first:
            gate.open()
            vectorizer.run()
            gate.close()
            connection.execute("update posts set body = 'second' where id in (1, 3)")
        worker = Background(vectorizer.run)
        assert gate.reached.wait(20)
        for statement in CHANGES[change].split("; select; "):
            connection.execute(statement)  # has a timeout: nobody waits for the worker
        other.process()
        gate.open()
        worker.result()
        vectorizer.run()
        check(connection, vectorizer)


def test_truncate_fences_what_is_in_flight(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    gate = Gate()
    with posts(vectorizer_url, gate) as vectorizer, posts(vectorizer_url) as other:
        vectorizer.install()
        worker = Background(vectorizer.process)
        assert gate.reached.wait(20)
        connection.execute("truncate posts")
        other.run()
        assert connection.execute("select count(*) from vectorizer.posts_row").fetchone() == (0,)
        gate.open()
        worker.result()
        assert contents(connection) == {}
        check(connection, vectorizer)


def test_truncate_with_reload_pays_for_nothing_that_is_the_same(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    embedder = Rule()
    with posts(vectorizer_url, embedder) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        before = connection.execute("select id from posts_embedding order by id").fetchall()
        embedder.seen.clear()
        with connection.transaction():
            connection.execute("create temp table kept as select * from posts")
            connection.execute("truncate posts")
            connection.execute("insert into posts select * from kept")
        vectorizer.run()
        assert embedder.seen == []
        check(connection, vectorizer)
        after = connection.execute("select id from posts_embedding order by id").fetchall()
        assert after == before


def test_two_workers_never_send_a_key_twice(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    gate = Gate()
    with posts(vectorizer_url, gate) as one, posts(vectorizer_url, gate, batch_size=2) as two:
        one.install()
        worker = Background(one.run)
        assert gate.reached.wait(20)
        connection.execute("update posts set note = 'untracked'")
        assert two.process() == 0
        gate.open()
        worker.result()
        two.run()
        assert sorted(gate.seen) == [f"post {n} as it was" for n in range(1, 7)]
        check(connection, one)


class OneAtATime(Rule):
    """Takes a while, and notes whether two calls meet over the hot key."""

    def __init__(self) -> None:
        super().__init__()
        self.met = False
        self._busy = threading.Lock()

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        if not any("hot" in text for text in texts):
            return super().embed(texts)
        self.met |= not self._busy.acquire(blocking=False)
        time.sleep(0.005)
        vectors = super().embed(texts)
        self._busy.release()
        return vectors


def test_a_key_that_never_rests_holds_up_nobody(
    vectorizer_url: str, connection: psycopg.Connection[Any], eventually: Eventually
) -> None:
    embedder = OneAtATime()
    stop = threading.Event()

    changes = 0

    def hammer() -> None:
        nonlocal changes
        with psycopg.connect(vectorizer_url, autocommit=True) as own:
            while not stop.is_set():
                own.execute("update posts set body = 'hot ' || %s where id = 1", [changes])
                changes += 1

    def drain(vectorizer: Vectorizer) -> None:
        while not stop.is_set():
            vectorizer.process()

    with posts(vectorizer_url, embedder) as one, posts(vectorizer_url, embedder) as two:
        one.install()
        writer = Background(hammer)
        workers = [Background(partial(drain, vectorizer)) for vectorizer in (one, two)]
        for n in range(10, 30):
            connection.execute("insert into posts values (%s, 'cold')", [n])
        eventually(lambda: len(contents(connection)) == 26 and changes > 100)
        stop.set()
        for worker in (writer, *workers):
            worker.result()
        one.run()
        check(connection, one)
    assert not embedder.met


def test_a_transaction_that_commits_late_is_not_passed_over(
    vectorizer_url: str, connection: psycopg.Connection[Any]
) -> None:
    with (
        psycopg.connect(vectorizer_url) as late,
        posts(vectorizer_url, batch_size=50) as vectorizer,
    ):
        vectorizer.install()
        vectorizer.run()
        late.execute("insert into posts values (1000, 'early bird')")
        late.execute("update posts set body = 'late' where id = 1")
        for n in range(5):
            connection.execute(
                "insert into posts select n, 'n ' || n from generate_series(%s::int, %s) n",
                [2000 + n * 400, 2399 + n * 400],
            )
            while vectorizer.process():
                pass
        late.commit()
        assert vectorizer.process() == 2
        check(connection, vectorizer)


def test_a_late_commit_in_front_of_the_circle_is_found_within_a_second(vectorizer_url: str) -> None:
    """However much waits behind the place where claims go on."""
    with create(vectorizer_url, rows=0) as connection, posts(vectorizer_url) as vectorizer:
        vectorizer.install()
        vectorizer.run()
        queue = vectorizer._generations._ready()[0].queue

        def claimed() -> set[int]:
            batch = queue.claim(10)
            assert batch is not None
            (keys,) = connection.execute(
                "select keys from vectorizer.lease where token = %s", [batch.token]
            ).fetchone() or ([],)
            return {key["source_id"] for key in keys}

        with psycopg.connect(vectorizer_url) as late:
            late.execute("insert into posts (id, body) values (1000, 'late')")
            connection.execute(
                "insert into posts (id, body) select n, 'text' from generate_series(1, 200) n"
            )
            queue._look_back_at = float("inf")
            assert claimed() == set(range(1, 11))
            late.commit()
        assert claimed() == set(range(11, 21))
        queue._look_back_at = 0.0  # a second later
        assert claimed() == {1000, *range(21, 30)}
        assert claimed() == set(range(30, 40))
