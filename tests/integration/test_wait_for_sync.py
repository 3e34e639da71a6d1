"""Waiting until what is committed can be searched: by CALL and by method, with a worker beside."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from vectorizer import Vectorizer
from vectorizer.errors import (
    NotInstalled,
    SyncFailed,
    SyncTimeout,
    VectorizerError,
    VectorizerPaused,
)
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subject import Attach, Subject

POSTS = "create table post (id int primary key, body text); insert into post values (1, 'one')"
FOREVER = 60.0
"""Seconds; what has to come at once is not waited for so long."""


class Gate(FakeEmbedder):
    """Embeds once it is open, and refuses texts with `poison` in them."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.reached = threading.Event()
        self.open.set()

    def embed(self, texts: Any) -> Any:
        self.reached.set()
        assert self.open.wait(FOREVER)
        if any("poison" in text for text in texts):
            raise ValueError("this text cannot be embedded")
        return super().embed(texts)


@contextmanager
def working(post: Subject, embedder: FakeEmbedder) -> Iterator[None]:
    """Let a worker run in a thread; retries are due at once."""
    stop = threading.Event()
    failures: list[BaseException] = []
    worker = Vectorizer.connect(post.url, post.vectorizer.name, embedder=embedder)
    name = post.vectorizer.name

    def work() -> None:
        try:
            with psycopg.connect(post.url, autocommit=True) as connection:
                due = sql.SQL(
                    "update {} set available_at = now() where available_at > now() and not dead"
                ).format(sql.Identifier("vectorizer", f"{name}_row"))
                while not stop.is_set():
                    connection.execute(due)
                    try:
                        if not worker.process():
                            stop.wait(0.01)
                    except VectorizerPaused:
                        stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        if isinstance(embedder, Gate):
            embedder.open.set()
        stop.set()
        thread.join()
        worker.close()
    if failures:
        raise failures[0]


@pytest.fixture
def post(attach: Attach) -> Subject:
    return attach(POSTS)


def call(post: Subject, seconds: float) -> None:
    with post.session() as session:
        session.execute(
            "call vectorizer.wait_for_sync(%s, make_interval(secs => %s))",
            [post.vectorizer.name, seconds],
        )


def method(post: Subject, seconds: float) -> None:
    post.vectorizer.wait_for_sync(seconds)


WAYS = {"procedure": call, "method": method}


@pytest.fixture(params=WAYS)
def wait(request: pytest.FixtureRequest) -> Callable[[Subject, float], None]:
    way: Callable[[Subject, float], None] = WAYS[request.param]
    return way


Wait = "Callable[[Subject, float], None]"


def test_what_was_written_can_be_searched(post: Subject, wait: Wait) -> None:
    with working(post, FakeEmbedder()):
        for number in range(2, 12):
            post.sql("insert into post values (%s, %s)", number, f"text {number}")
            post.sql("update post set body = %s where id = 1", f"now {number}")
            wait(post, FOREVER)
            assert post.embedded()[number] == f"text {number}"
            assert post.embedded()[1] == f"now {number}"
        post.sql("delete from post where id = 2")
        wait(post, FOREVER)
        assert 2 not in post.embedded()
        post.sql("truncate post")
        wait(post, FOREVER)
        assert post.embedded() == {}


def test_the_backfill_is_waited_for(attach: Attach, wait: Wait) -> None:
    post = attach(
        "create table post (id int primary key, body text);"
        "insert into post select n, 'text ' || n from generate_series(1, 700) n",
        drained=False,
    )
    with working(post, FakeEmbedder()):
        wait(post, FOREVER)
        post.agree()
    assert len(post.embedded()) == 700


def test_a_batch_in_flight_is_waited_for(post: Subject, wait: Wait) -> None:
    gate = Gate()
    gate.open.clear()
    with working(post, gate):
        post.sql("insert into post values (2, 'two')")
        assert gate.reached.wait(FOREVER)
        with pytest.raises((SyncTimeout, psycopg.Error), match="did not catch up within"):
            wait(post, 0.2)
        assert 2 not in post.embedded()
        gate.open.set()
        wait(post, FOREVER)
        assert post.embedded() == {1: "one", 2: "two"}


def test_nothing_to_wait_for(post: Subject, wait: Wait) -> None:
    wait(post, 0.0)


def test_without_a_worker_it_times_out(post: Subject, wait: Wait) -> None:
    post.sql("insert into post values (2, 'two')")
    with pytest.raises((SyncTimeout, psycopg.Error), match=r"did not catch up within"):
        wait(post, 0.1)
    with post.session() as session, pytest.raises(psycopg.Error) as raised:
        session.execute("call vectorizer.wait_for_sync(%s, '0.1 s')", [post.vectorizer.name])
    assert raised.value.sqlstate == "VZ007"


def test_later_writes_are_not_waited_for(post: Subject, wait: Wait) -> None:
    gate = Gate()
    post.sql("insert into post values (2, 'two')")
    with post.session() as busy, working(post, gate):
        wait(post, FOREVER)
        busy.execute("begin; insert into post values (3, 'three')")  # committed by nobody yet
        wait(post, FOREVER)
        assert post.embedded() == {1: "one", 2: "two"}
        busy.execute("commit")
        wait(post, FOREVER)
        assert post.embedded() == {1: "one", 2: "two", 3: "three"}


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_pause_is_told_at_once(post: Subject, wait: Wait, moment: str) -> None:
    post.sql("insert into post values (2, 'two')")
    pause = "select vectorizer.pause(%s, 'the bill was not paid')"
    pausing = threading.Thread(
        target=lambda: when_waiting(post, lambda: post.sql(pause, post.vectorizer.name))
    )
    if moment == "before":
        post.vectorizer.pause("the bill was not paid")
    else:
        pausing.start()
    try:
        with pytest.raises((SyncFailed, psycopg.Error), match="the bill was not paid"):
            wait(post, FOREVER)
    finally:
        if moment == "meanwhile":
            pausing.join()


def when_waiting(post: Subject, act: Callable[[], object]) -> None:
    """Do something once somebody waits."""
    with psycopg.connect(post.url, autocommit=True) as connection:
        deadline = 2_000
        waiting = (
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and query ilike 'call %wait_for_sync%'"
        )
        while connection.execute(waiting).fetchone() == (0,):
            assert (deadline := deadline - 1), "nobody waits"
            connection.execute("select pg_sleep(0.01)")
    act()


def test_a_new_dead_letter_is_told_at_once_with_its_key(post: Subject, wait: Wait) -> None:
    gate = Gate()
    gate.open.clear()
    opening = threading.Thread(target=lambda: when_waiting(post, gate.open.set))
    with working(post, gate):
        post.sql("insert into post values (7, 'poison')")
        opening.start()
        with pytest.raises((SyncFailed, psycopg.Error), match=r'gave up rows: \{"id": 7\}'):
            wait(post, FOREVER)
        opening.join()
        # An old dead letter stands in nobody's way.
        post.sql("insert into post values (8, 'eight')")
        wait(post, FOREVER)
        assert post.embedded() == {1: "one", 8: "eight"}
        post.sql("update post set body = 'mended' where id = 7")
        wait(post, FOREVER)
    post.settle()
    assert post.embedded() == {1: "one", 7: "mended", 8: "eight"}


def test_under_repeatable_read(post: Subject) -> None:
    with post.session() as session, working(post, FakeEmbedder()):
        session.execute("set default_transaction_isolation = 'repeatable read'")
        session.execute("insert into post values (2, 'two')")
        session.execute("call vectorizer.wait_for_sync(%s)", [post.vectorizer.name])
        assert post.embedded() == {1: "one", 2: "two"}


def test_an_unknown_name(post: Subject) -> None:
    with post.session() as session, pytest.raises(psycopg.Error, match="there is no vectorizer"):
        session.execute("call vectorizer.wait_for_sync('nobody')")
    post.vectorizer.uninstall()
    with pytest.raises(NotInstalled):
        post.vectorizer.wait_for_sync(1.0)
    assert issubclass(SyncTimeout, VectorizerError)
