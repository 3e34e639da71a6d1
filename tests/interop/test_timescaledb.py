"""Hypertables of a real TimescaleDB as sources; the destination stays a native table.

Its Apache edition has no compression and no policies; what they do to rows that are there,
`drop_chunks` does, too: it takes them away without firing a trigger.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.errors import FeatureNotSupported, UndefinedFile
from subject import Subject

from vectorizer import pgvectorizer
from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subject import Attach

pytestmark = pytest.mark.needs_apt

HYPERTABLE = """
create table post (
  id int, at timestamptz, body text, views int default 0, primary key (id, at));
select create_hypertable('post', 'at', chunk_time_interval => interval '7 days');
insert into post select n, timestamptz '2024-01-01Z' + n * interval '1 day', 'text ' || n
from generate_series(1, 30) n
"""
KEY = ("id", "at")
_numbers = count(1)


@pytest.fixture(scope="module")
def timescaledb_url(postgres17_template: tuple[str, str]) -> Iterator[str]:
    """URL of a database with pgvector and TimescaleDB."""
    with database(*postgres17_template) as url:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("create extension timescaledb")
        except (FeatureNotSupported, UndefinedFile) as error:
            pytest.skip(f"the server has no TimescaleDB: {error}")
        yield url


@pytest.fixture
def attach(timescaledb_url: str) -> Iterator[Attach]:
    """Make tables by a script in a schema of the test's own, and attach a vectorizer."""
    schema = f"test_{next(_numbers)}"
    with psycopg.connect(timescaledb_url, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
    with ExitStack() as stack:

        def make(script: str, **options: Any) -> Subject:
            subject = Subject(timescaledb_url, **{"schema": schema, "id": KEY, **options})
            stack.enter_context(subject)
            subject.script(script)
            subject.vectorizer.install()
            subject.settle()
            return subject

        yield make


@pytest.fixture
def post(attach: Attach) -> Subject:
    """Thirty rows over five weeks, embedded."""
    subject = attach(HYPERTABLE)
    assert len(subject.embedded()) == 30
    assert chunks(subject) >= 5
    return subject


def chunks(subject: Subject) -> int:
    return int(subject.value("select count(*) from show_chunks('post')"))


def embedded(subject: Subject) -> dict[int, str]:
    return {key[0]: contents for key, contents in subject.embedded().items()}


def test_rows_of_chunks_made_later_are_followed(post: Subject) -> None:
    before = chunks(post)
    post.script(
        "insert into post values (100, '2024-06-01Z', 'summer'), (101, '2023-06-01Z', 'before');"
        "insert into post values (102, '2024-01-03Z', 'among them')"
    )
    assert chunks(post) == before + 2
    assert post.logged() == 3
    post.settle()
    found = embedded(post)
    assert (found[100], found[101], found[102]) == ("summer", "before", "among them")
    post.script(
        "update post set body = 'hot' where id = 100; delete from post where at < '2024-01-01Z'"
    )
    post.settle()
    assert embedded(post)[100] == "hot"
    assert 101 not in embedded(post)


def test_copy(post: Subject) -> None:
    with post.db.cursor().copy("copy post (id, at, body) from stdin") as copy:
        for number in range(200, 260):
            copy.write_row((number, f"2025-{number % 12 + 1}-{number % 28 + 1}", f"text {number}"))
    post.settle()
    assert len(post.embedded()) == 90


def test_update_and_delete(post: Subject) -> None:
    post.script("update post set body = body || '!' where id > 20; delete from post where id < 6")
    assert post.logged() == 15
    assert post.settle().rows == 15
    assert embedded(post) == {n: f"text {n}" + ("!" if n > 20 else "") for n in range(6, 31)}


def test_upsert(post: Subject) -> None:
    post.sql(
        "insert into post values (1, '2024-01-02Z', 'uno'), (31, '2024-05-01Z', 'thirty-one') "
        "on conflict (id, at) do update set body = excluded.body"
    )
    post.settle()
    assert embedded(post)[1] == "uno"
    assert embedded(post)[31] == "thirty-one"


def test_what_changes_nothing_is_not_logged(post: Subject) -> None:
    post.script(
        "update post set views = views + 1; update post set body = body;"
        "begin; delete from post where id < 9; rollback"
    )
    assert post.logged() == 0


def test_truncate(post: Subject) -> None:
    post.sql("truncate post")
    post.settle()
    assert post.embedded() == {}
    post.sql("insert into post values (1, '2024-01-02Z', 'again')")
    post.settle()
    assert embedded(post) == {1: "again"}


def test_moving_a_row_changes_its_key(post: Subject) -> None:
    # Within its chunk; TimescaleDB refuses to move a row to another one by UPDATE.
    post.sql("update post set at = at + interval '1 minute', body = 'later' where id = 1")
    post.settle()
    assert embedded(post)[1] == "later"
    assert len(post.embedded()) == 30


def test_dropped_chunks_are_found_and_mended(post: Subject) -> None:
    dropped = post.sql("select drop_chunks('post', older_than => timestamptz '2024-01-20Z')")
    assert dropped
    left = post.value("select count(*) from post")
    assert post.logged() == 0, "a trigger fires now: say so in the documentation"
    report = post.vectorizer.verify()
    assert not report.ok
    assert report.defects == {"orphaned": 30 - left}
    assert not post.vectorizer.verify(repair=True).ok
    post.settle()
    assert len(post.embedded()) == left
    assert post.embedder.texts == 30


def test_a_hypertable_that_was_a_filled_table(attach: Attach) -> None:
    post = attach(
        "create table post (id int, at timestamptz, body text, primary key (at, id));"
        "insert into post select n, timestamptz '2024-01-01Z' + n * interval '1 day', 'text ' || n "
        "from generate_series(1, 30) n;"
        "select create_hypertable('post', 'at', migrate_data => true)",
        id=("at", "id"),
    )
    assert len(post.embedded()) == 30
    post.sql("insert into post values (40, '2025-01-01Z', 'new'), (1, '2024-01-20Z', 'twice')")
    post.settle()
    assert len(post.embedded()) == 32


def test_time_column_and_partitioned_destination(attach: Attach) -> None:
    post = attach(HYPERTABLE, time_column="at", partition_interval=timedelta(days=7))
    assert len(post.embedded()) == 30
    post.sql("insert into post values (60, '2026-01-01Z', 'far')")
    post.settle()
    storage = post.storage.as_string(post.db)
    assert post.value("select relkind::text from pg_class where oid = %s::regclass", storage) == "p"
    # Native partitions: the destination is no hypertable.
    hypertables = post.sql(
        "select hypertable_name from timescaledb_information.hypertables "
        "where hypertable_schema = current_schema()"
    )
    assert hypertables == [("post",)]
    parts = post.value("select count(*) from pg_inherits where inhparent = %s::regclass", storage)
    assert parts >= 6


def test_suspend_and_resume(post: Subject) -> None:
    post.vectorizer.suspend()
    post.script("alter table post alter body type varchar; update post set body = 'x' where id = 1")
    post.vectorizer.resume()
    post.settle()
    assert embedded(post)[1] == "x"
    assert post.embedder.texts == 31
    post.sql("insert into post values (61, '2027-01-01Z', 'in a new chunk')")
    assert post.logged() == 1


def test_uninstall_leaves_no_trigger(post: Subject) -> None:
    post.vectorizer.uninstall(drop_embeddings=True)
    left = post.sql(
        "select tgrelid::regclass, tgname from pg_trigger where tgname like 'vectorizer%%' "
        "and tgrelid in (select 'post'::regclass union all select show_chunks('post'))"
    )
    assert left == []
    post.script("insert into post values (61, '2027-01-01Z', 'x'); delete from post")


def test_callback(timescaledb_url: str) -> None:
    schema = f"test_{next(_numbers)}"
    with psycopg.connect(timescaledb_url, autocommit=True) as db:
        db.execute(f"create schema {schema}")
        db.execute(f"set search_path = {schema}, public")
        for statement in HYPERTABLE.split(";"):
            db.execute(statement)
        written: dict[tuple, str] = {}

        def write(rows: list[dict], _: pgvectorizer.Vectorize) -> None:
            for row in rows:
                key = (row["id"], row["at"])
                written[key] = row["body"]

        with pgvectorizer.Vectorize(timescaledb_url, "post", schema_name=schema) as vectorizer:

            def drain() -> int:
                return sum(iter(lambda: vectorizer.process(write), 0))

            assert drain() == 30
            db.execute("insert into post values (70, '2028-01-01Z', 'new')")
            db.execute("update post set body = 'changed' where id = 3")
            assert drain() == 2
            assert written == {
                (identifier, at): body
                for identifier, at, body in db.execute("select id, at, body from post").fetchall()
            }
