"""The source of a callback changes its form between two batches, or within one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import pgvectorizer
from vectorizer.errors import DatabaseError, VectorizerPaused

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = {
    "nothing": "select",
    "a new column": "alter table post add fresh text default 'x'",
    "a dropped column": "alter table post drop spare",
    "the key renamed": "alter table post rename id to number",
    "names swapped": "alter table post rename id to x; alter table post rename other to id;"
    "alter table post rename x to other",
    "the table renamed": "alter table post rename to article",
    "the table moved": "create schema elsewhere; alter table post set schema elsewhere",
}


class Given:
    """Keeps what a callback is given."""

    def __init__(self) -> None:
        self.rows: dict[Any, list[Any]] = {}

    def __call__(self, rows: Any, _: Any) -> None:
        self.rows |= {row["locked_id"]: [row[name] for name in row.keys()[1:]] for row in rows}


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute(
            "create table post (id int primary key, other int, body text, spare text)"
        )
        connection.execute(
            "insert into post select n, n + 100, 'text' from generate_series(1, 9) n"
        )
        yield connection


@pytest.fixture
def vectorize(db: psycopg.Connection, vectorizer_url: str) -> Iterator[pgvectorizer.Vectorize]:
    del db
    with pgvectorizer.Vectorize(vectorizer_url, "post", work_queue_table_name="posts") as made:
        yield made


def state(db: psycopg.Connection) -> Any:
    return db.execute("select state, in_flight, retrying, reason from vectorizer.status").fetchone()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_form_is_followed(
    db: psycopg.Connection, vectorize: pgvectorizer.Vectorize, change: str
) -> None:
    given = Given()
    assert vectorize.process(given, 3) == 3
    for statement in CHANGES[change].split(";"):
        db.execute(statement.encode())
    assert vectorize.process(given, 3) == 3
    while vectorize.process(given, 3):
        pass
    assert sorted(given.rows) == list(range(1, 10))
    assert all({key, key + 100} <= set(values) for key, values in given.rows.items())
    assert state(db) == ("live", 0, 0, None)
    # To a callback each column matters, so that rows of before are not what they were.
    assert vectorize.verify().defects == ({"stale": 3} if "column" in change else {})


def test_what_cannot_be_followed_pauses(
    db: psycopg.Connection, vectorize: pgvectorizer.Vectorize
) -> None:
    given = Given()
    assert vectorize.process(given, 3) == 3
    db.execute("drop table post cascade")
    with pytest.raises(VectorizerPaused, match="its source table was dropped"):
        vectorize.process(given, 3)
    assert vectorize._worker is None


def test_a_lost_right_gives_the_batch_back(
    db: psycopg.Connection, vectorize: pgvectorizer.Vectorize
) -> None:
    given = Given()
    vectorize.register()
    db.execute(
        "create function refuse(post) returns boolean language plpgsql as $$begin "
        "raise exception using errcode = '42501', message = 'not for you'; end$$"
    )
    db.execute("alter table post enable row level security, force row level security")
    db.execute("create policy p on post using (refuse(post))")
    db.execute("create role worker_without_rights")
    try:
        db.execute("alter table post owner to worker_without_rights")
        db.execute("grant usage on schema vectorizer to worker_without_rights")
        db.execute("grant all on all tables in schema vectorizer to worker_without_rights")
        with (
            pgvectorizer.Vectorize(
                db.info.dsn + " options='-c role=worker_without_rights'",
                "post",
                work_queue_table_name="posts",
            ) as blind,
            pytest.raises((VectorizerPaused, DatabaseError)),
        ):
            blind.process(given, 3)
        assert given.rows == {}
        assert state(db)[1] == 0
    finally:
        db.execute("reassign owned by worker_without_rights to current_user")
        db.execute("drop owned by worker_without_rights")
        db.execute("drop role worker_without_rights")


def test_a_statement_of_the_callback_is_no_drift(
    db: psycopg.Connection, vectorize: pgvectorizer.Vectorize
) -> None:
    calls = []

    def wrong(rows: Any, v: pgvectorizer.Vectorize) -> None:
        calls.append(len(rows))
        v.connection.execute("select from nothing_of_that_name")

    with pytest.raises((psycopg.Error, DatabaseError), match="nothing_of_that_name"):
        vectorize.process(wrong, 3)
    assert calls == [3]
    assert state(db)[0] != "paused"


def test_an_interrupt_gives_the_batch_back(
    db: psycopg.Connection, vectorize: pgvectorizer.Vectorize
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectorize.process(interrupted, 3)
    assert state(db)[1:3] == (0, 3)
    assert db.execute("select max(losses), max(attempts) from vectorizer.posts_row").fetchone() == (
        0,
        0,
    )
    given = Given()
    while vectorize.process(given, 3):
        pass
    assert len(given.rows) == 9
