"""A callback that writes through `vectorizer.connection`: with the ack, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from vectorizer import errors, pgvectorizer


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        connection.execute("create table post (id bigint primary key, body text)")
        connection.execute("insert into post values (1, 'one'), (2, 'two')")
        connection.execute("create table written (id bigint primary key, body text)")
        yield connection


@pytest.fixture
def vectorizer(vectorizer_url: str) -> Iterator[pgvectorizer.Vectorize]:
    with pgvectorizer.Vectorize(vectorizer_url, "post") as made:
        yield made


def write(rows: list, vectorizer: pgvectorizer.Vectorize) -> None:
    # Plain INSERT: a row that is written twice is an error.
    vectorizer.connection.cursor().executemany(
        "insert into written values (%s, %s)", [(row["locked_id"], row["body"]) for row in rows]
    )


def written(db: psycopg.Connection) -> list[tuple]:
    return db.execute("select id, body from written order by id").fetchall()


def queue(db: psycopg.Connection) -> tuple | None:
    return db.execute(
        "select (select count(*) from vectorizer.lease), "
        "(select count(*) from vectorizer.post_embedding_work_queue_row where source_hash is null)"
    ).fetchone()


def test_it_commits_with_the_ack(
    db: psycopg.Connection, vectorizer: pgvectorizer.Vectorize
) -> None:
    def callback(rows: list, vectorizer: pgvectorizer.Vectorize) -> None:
        write(rows, vectorizer)
        assert written(db) == []

    assert vectorizer.process(callback) == 2
    assert written(db) == [(1, "one"), (2, "two")]
    assert queue(db) == (0, 0)
    assert vectorizer.process(callback) == 0


def test_it_is_undone_when_the_callback_raises(
    db: psycopg.Connection, vectorizer: pgvectorizer.Vectorize
) -> None:
    def callback(rows: list, vectorizer: pgvectorizer.Vectorize) -> None:
        write(rows, vectorizer)
        raise RuntimeError("after the write")

    with pytest.raises(RuntimeError, match="after the write"):
        vectorizer.process(callback)
    assert written(db) == []
    db.execute("update vectorizer.post_embedding_work_queue_row set available_at = now()")
    assert sum(iter(lambda: vectorizer.process(write), 0)) == 2
    assert written(db) == [(1, "one"), (2, "two")]


def test_it_writes_nothing_for_a_batch_that_was_lost(
    db: psycopg.Connection, vectorizer: pgvectorizer.Vectorize
) -> None:
    def callback(rows: list, vectorizer: pgvectorizer.Vectorize) -> None:
        # What another worker does when the lease has run out.
        db.execute("delete from vectorizer.lease")
        db.execute(
            "update vectorizer.post_embedding_work_queue_row set lease = null, available_at = now()"
        )
        write(rows, vectorizer)

    with pytest.raises(errors.LeaseLost):
        vectorizer.process(callback)
    assert written(db) == []
    assert vectorizer.process(write) == 2
    assert written(db) == [(1, "one"), (2, "two")]


def test_nobody_can_take_the_batch_once_the_connection_is_taken(
    db: psycopg.Connection, vectorizer: pgvectorizer.Vectorize
) -> None:
    def callback(rows: list, vectorizer: pgvectorizer.Vectorize) -> None:
        write(rows, vectorizer)
        taken = db.execute("select from vectorizer.lease for update skip locked").fetchall()
        assert taken == []

    assert vectorizer.process(callback) == 2


def test_outside_of_a_callback_there_is_none(vectorizer: pgvectorizer.Vectorize) -> None:
    with pytest.raises(errors.ConfigurationError, match="while a callback runs"):
        _ = vectorizer.connection
