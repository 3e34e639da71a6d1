"""A table that a subscription feeds, and publications of the database that holds our objects."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from subject import Subject

from vectorizer import embedded, pgvectorizer
from vectorizer.testing.pytest_plugin import database, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "create table post (id int primary key, body text, views int default 0)"
PUBLISHED = f"""
{TABLE};
insert into post select n, 'text ' || n from generate_series(1, 20) n;
create publication posts for table post;
select pg_create_logical_replication_slot('posts', 'pgoutput')
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of a server that can publish, and its template."""
    folder = tmp_path_factory.mktemp("logical")
    with embedded.start(folder, durable=False) as started:
        with psycopg.connect(started.url, autocommit=True) as connection:
            connection.execute("alter system set wal_level = logical")
        started.stop()
    with embedded.start(folder, durable=False) as started:
        with template(started.url) as name:
            yield started.url, name
        started.close(delete=True)


@pytest.fixture
def publisher(server: tuple[str, str]) -> Iterator[psycopg.Connection]:
    """A database with a published table of twenty rows."""
    with database(*server) as url, psycopg.connect(url, autocommit=True) as connection:
        for statement in PUBLISHED.split(";"):
            connection.execute(statement)
        try:
            yield connection
        finally:
            connection.execute("select pg_drop_replication_slot('posts')")


@pytest.fixture
def subscriber_url(server: tuple[str, str]) -> Iterator[str]:
    with database(*server) as url:
        yield url


@contextmanager
def subscribed(db: psycopg.Connection, publisher: psycopg.Connection) -> Iterator[None]:
    """Subscribe; on leaving, give the slot up before its database is dropped."""
    # The slot is there already: a server cannot make one for itself while it waits for it.
    db.execute(
        f"create subscription posts connection '{conninfo(publisher)}' publication posts "
        "with (create_slot = false, slot_name = posts)"
    )
    try:
        yield
    finally:
        db.execute("alter subscription posts disable")
        db.execute("alter subscription posts set (slot_name = none)")
        db.execute("drop subscription posts")
        active = "select pg_terminate_backend(active_pid) from pg_replication_slots where active"
        while publisher.execute(active).fetchall():
            pass


def conninfo(connection: psycopg.Connection) -> str:
    info = connection.info
    url = make_conninfo("", host=info.host, port=info.port, user=info.user, dbname=info.dbname)
    return url.replace("'", "''")


@pytest.fixture
def arrived(
    publisher: psycopg.Connection, eventually: Callable[[Callable[[], object]], None]
) -> Callable[[Subject], None]:
    """Wait until the subscriber holds what the publisher holds."""
    rows = "select id, body from post order by id"

    def wait(post: Subject) -> None:
        eventually(lambda: post.sql(rows) == publisher.execute(rows).fetchall())

    return wait


CHANGES = {
    "insert": "insert into post values (21, 'new'), (22, 'newer')",
    "update": "update post set body = body || '!' where id < 5",
    "untracked update": "update post set views = 1; update post set body = 'seen' where id = 1",
    "key": "update post set id = 100 where id = 1",
    "delete": "delete from post where id between 5 and 9",
    "truncate": "truncate post",
    "truncate and reload": "begin; truncate post; insert into post values (1, 'one'); commit",
}


@pytest.fixture
def post(
    subscriber_url: str,
    publisher: psycopg.Connection,
    arrived: Callable[[Subject], None],
) -> Iterator[Subject]:
    """A table attached before the subscription's initial copy, which is embedded then."""
    with Subject(subscriber_url, always=True) as subject:
        subject.db.execute(TABLE)
        subject.vectorizer.install()
        subject.settle()
        with subscribed(subject.db, publisher):
            arrived(subject)
            subject.settle()
            assert len(subject.embedded()) == 20
            yield subject


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_replicated_is_embedded(
    post: Subject, publisher: psycopg.Connection, arrived: Callable[[Subject], None], change: str
) -> None:
    for statement in CHANGES[change].split(";"):
        publisher.execute(statement)
    arrived(post)
    post.settle()
    expected = dict(publisher.execute("select id, body from post").fetchall())
    assert post.embedded() == expected


def test_local_writes_are_followed_too(post: Subject) -> None:
    post.script("insert into post values (50, 'local'); update post set body = 'x' where id = 1")
    post.settle()
    assert post.embedded()[50] == "local"


def test_without_always_nothing_is_captured_and_verify_says_so(
    subscriber_url: str, publisher: psycopg.Connection, arrived: Callable[[Subject], None]
) -> None:
    with Subject(subscriber_url) as post:
        post.db.execute(TABLE)
        post.vectorizer.install()
        post.settle()
        with subscribed(post.db, publisher):
            arrived(post)
            publisher.execute("update post set body = 'unseen' where id = 1")
            arrived(post)
            report = post.vectorizer.verify(repair=True)
            assert report.defects == {"missing": 20}
            post.settle()


def test_a_table_that_was_subscribed_before_the_install(
    subscriber_url: str, publisher: psycopg.Connection, arrived: Callable[[Subject], None]
) -> None:
    with Subject(subscriber_url, always=True) as post:
        post.db.execute(TABLE)
        with subscribed(post.db, publisher):
            arrived(post)
            post.vectorizer.install()
            publisher.execute("delete from post where id > 10")
            arrived(post)
            post.settle()
            assert len(post.embedded()) == 10


# Publications of the database with our objects. Whoever publishes everything needs a replica
# identity on every table that is updated or deleted from: ours have one.


@pytest.mark.parametrize("partition_interval", [None, "7 days"])
def test_a_publication_for_all_tables_does_not_stop_the_worker(
    subscriber_url: str, partition_interval: str | None
) -> None:
    options: dict[str, Any] = {}
    if partition_interval:
        options = {"time_column": "at", "partition_interval": timedelta(days=7)}
    with Subject(subscriber_url, batch_size=3, **options) as post:
        post.db.execute(f"{TABLE}; alter table post add at timestamptz default now()")
        post.db.execute("create publication everything for all tables")
        # Without a replica identity this is what would happen.
        post.db.execute("create table bare (n int); insert into bare values (1)")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            post.db.execute("delete from bare")
        post.vectorizer.install()
        post.script("insert into post select n, 'text ' || n from generate_series(1, 20) n")
        post.settle()
        for script in (
            "update post set body = body || '!' where id < 9; delete from post where id > 15",
            "truncate post",
            "insert into post select n, 'text ' || n from generate_series(1, 5) n",
        ):
            post.script(script)
            post.settle()
        post.script("alter table post disable trigger user; delete from post where id = 1")
        post.script("alter table post enable trigger user")
        post.vectorizer.verify(repair=True)
        post.settle()
        post.vectorizer.suspend()
        post.vectorizer.resume()
        post.settle()
        post.vectorizer.uninstall(drop_embeddings=True)


def test_callback_mode_under_a_publication_for_all_tables(subscriber_url: str) -> None:
    seen: list[int] = []
    with (
        psycopg.connect(subscriber_url, autocommit=True) as db,
        pgvectorizer.Vectorize(subscriber_url, "post") as vectorizer,
    ):
        db.execute(f"{TABLE}; insert into post select n from generate_series(1, 25) n")
        db.execute("create publication everything for all tables")

        def note(rows: list[dict], _: object) -> None:
            seen.extend(row["locked_id"] for row in rows)

        assert sum(iter(lambda: vectorizer.process(note), 0)) == 25
        db.execute("delete from post where id < 4")
        assert sum(iter(lambda: vectorizer.process(note), 0)) == 3
    assert sorted(seen) == sorted([*range(1, 26), 1, 2, 3])
