"""Columns of other tables in what is embedded, and the changes of those tables."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import Vectorizer
from vectorizer.errors import ConfigurationError, SourceError, VectorizerPaused
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = """
create table author (id int primary key, name text, email text);
create table category (shop int, code text, title text, primary key (shop, code));
create table post (
  id int primary key, author_id int references author, shop int default 1, code text, body text);
insert into author select n, 'author ' || n, 'a@b.c' from generate_series(1, 3) n;
insert into category values (1, 'a', 'Animals'), (1, 'b', 'Books');
insert into post select n, n % 3 + 1, 1, case when n % 2 = 0 then 'a' else 'b' end, 'body ' || n
  from generate_series(1, 12) n
"""
QUERY = """
select p.id, a.name as author, c.title as category, p.author_id, p.shop, p.code
from post p left join author a on a.id = p.author_id
left join category c on (c.shop, c.code) = (p.shop, p.code);
"""
JOINED = {"query": QUERY, "parents": {"author": ["author_id"], "category": ["shop", "code"]}}
OPTIONS: dict[str, Any] = {
    "chunk_column": "body",
    "template": "{category} by {author}: {chunk}",
    "metadata": ["author", "code"],
    "joined": JOINED,
}
EXPECTED = """
select p.id, concat_ws('', coalesce(c.title, ''), ' by ', coalesce(a.name, ''), ': ', p.body),
       jsonb_build_object('author', a.name, 'code', p.code)
from post p left join author a on a.id = p.author_id
left join category c on (c.shop, c.code) = (p.shop, p.code) where p.body > ''
"""


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        for statement in TABLES.split(";"):
            connection.execute(statement)
        yield connection


@pytest.fixture
def posts(vectorizer_url: str, db: psycopg.Connection) -> Iterator[Vectorizer]:
    del db
    with Vectorizer(vectorizer_url, "post", embedder=FakeEmbedder(), **OPTIONS) as vectorizer:
        vectorizer.install()
        yield vectorizer


def settle(db: psycopg.Connection, posts: Vectorizer) -> int:
    """Drain, find everything as it should be, and return how many texts were sent."""
    texts = posts.run().texts
    report = posts.verify()
    assert report.ok, report
    assert report.pending == 0
    found = db.execute("select source_id, contents, metadata from post_embedding")
    assert sorted(found, key=str) == sorted(db.execute(EXPECTED), key=str)
    return texts


def test_joined_columns_are_embedded(db: psycopg.Connection, posts: Vectorizer) -> None:
    assert settle(db, posts) == 12


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ("update author set name = 'renamed' where id = 1", 4),
        ("update category set title = 'Beasts' where code = 'a'", 6),
        ("update author set email = 'x'", 0),
        ("update category set title = title", 0),
        ("delete from category where code = 'b'", 6),
        (
            "insert into category values (1, 'c', 'Cats'); update post set code = 'c' where id = 1",
            1,
        ),
        ("update post set code = 'c' where id = 1; insert into category values (1, 'c', 'C')", 1),
        ("update category set code = 'x' where code = 'a'", 6),
        ("truncate category", 12),
        ("update post set author_id = 2 where id = 3", 1),
        ("update author set name = 'x' where id = 1; update author set name = 'author 1'", 8),
        ("delete from post where id < 5; update author set name = 'y'", 8),
    ],
)
def test_changes_of_parents_reach_the_rows(
    db: psycopg.Connection, posts: Vectorizer, change: str, texts: int
) -> None:
    settle(db, posts)
    for statement in change.split(";"):
        db.execute(statement)
    assert settle(db, posts) == texts


def test_a_parent_of_many_rows_is_gone_through_in_ranges(
    vectorizer_url: str, db: psycopg.Connection
) -> None:
    db.execute(
        "insert into post select n, 1, 1, 'a', 'more ' || n from generate_series(100, 400) n"
    )
    with Vectorizer(
        vectorizer_url, "post", embedder=FakeEmbedder(), batch_size=10, **OPTIONS
    ) as posts:
        posts.install()
        settle(db, posts)
        for name in ("one", "two", "three"):
            db.execute("update author set name = %s where id = 1", [name])
        posts.process()
        (queued,) = db.execute("select count(*) from vectorizer.post_log").fetchone() or (0,)
        assert queued < 20
        (left,) = db.execute("select count(*) from vectorizer.post_parents").fetchone() or (0,)
        assert left == 1, "three changes of one parent are one piece of work"
        assert posts.status()["waiting"] >= 1
        # Another change of a parent that is being gone through starts from its beginning.
        db.execute("update author set name = 'four' where id = 1")
        settle(db, posts)


def test_wait_for_sync_knows_parents(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    db.execute("update author set name = 'waited for' where id = 1")
    worker = threading.Thread(target=posts.run)
    with Vectorizer.connect(posts._database.url, "post") as waiting:
        worker.start()
        waiting.wait_for_sync(30)
    worker.join()
    (count,) = db.execute(
        "select count(*) from post_embedding where contents like '%waited for%'"
    ).fetchone() or (0,)
    assert count == 4


def test_writers_need_nothing_of_ours(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    db.execute("create role writer_of_authors")
    try:
        db.execute("grant all on author, category to writer_of_authors")
        db.execute("set role writer_of_authors")
        db.execute("set search_path = ''")
        db.execute("update public.author set name = 'by another role' where id = 2")
        db.execute("insert into public.category values (2, 'z', 'Zoo')")
        db.execute("delete from public.category where code = 'z'")
        db.execute("reset role")
        db.execute("reset search_path")
        assert settle(db, posts) == 4
    finally:
        db.execute("drop owned by writer_of_authors")
        db.execute("drop role writer_of_authors")


def test_renames_are_followed(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    db.execute("update author set name = 'before' where id = 2")
    for statement in (
        "alter table author rename id to number",
        "alter table author rename name to full_name",
        "alter table author rename to writer",
        "alter table post rename author_id to writer_id",
        "update writer set full_name = 'after' where number = 1",
    ):
        db.execute(statement)
    expected = EXPECTED.replace("author a", "writer a").replace(
        "a.id = p.author_id", "a.number = p.writer_id"
    )
    assert posts.run().texts == 8
    found = db.execute("select source_id, contents, metadata from post_embedding")
    assert sorted(found, key=str) == sorted(
        db.execute(expected.replace("a.name", "a.full_name")), key=str
    )
    assert posts.verify().ok


def test_a_migration_of_a_parent(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("alter table author drop column name")
    posts.suspend()
    db.execute("alter table author alter name type varchar(80)")
    db.execute("alter table author rename email to mail")
    db.execute("update author set name = 'meanwhile' where id = 1")
    posts.resume()
    assert settle(db, posts) == 4
    db.execute("update author set name = 'later' where id = 1")
    assert settle(db, posts) == 4


def test_a_parent_that_is_dropped_pauses(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    db.execute("drop table category cascade")
    db.execute("update post set body = 'x' where id = 1")
    with pytest.raises((VectorizerPaused, SourceError)):
        posts.run()
    assert posts.status()["state"] == "paused"


def test_nothing_is_left_behind(db: psycopg.Connection, posts: Vectorizer) -> None:
    settle(db, posts)
    posts.uninstall(drop_embeddings=True)
    left = db.execute(
        "select relname from pg_class where relnamespace = 'vectorizer'::regnamespace"
        " and relname like 'post%' union all select tgname from pg_trigger where not tgisinternal"
        " union all select proname from pg_proc where pronamespace = 'vectorizer'::regnamespace"
        " and proname like 'post%'"
    ).fetchall()
    assert left == []


def test_it_can_be_added_and_taken_away(db: psycopg.Connection, vectorizer_url: str) -> None:
    with Vectorizer(vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body") as plain:
        plain.install()
        assert plain.run().texts == 12
    with Vectorizer(
        vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body", joined=JOINED,
        metadata=["author"],
    ) as more:  # fmt: skip
        more.install(change=True)
        assert more.run().texts == 0
        db.execute("update author set name = 'seen' where id = 3")
        assert more.run().texts == 0
        assert more.verify().ok
        assert more.search("body 2", filter={"author": "seen"}, limit=9)
    with Vectorizer(vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body") as plain:
        plain.install(change=True)
        assert plain.run().texts == 0
        assert plain.verify().ok
        db.execute("drop table category cascade")
        assert plain.run().rows == 0


def test_a_plan_sees_joined_columns(vectorizer_url: str, db: psycopg.Connection) -> None:
    del db
    with Vectorizer(vectorizer_url, "post", embedder=FakeEmbedder(), **OPTIONS) as posts:
        assert posts.plan().texts_to_send == 12


@pytest.mark.parametrize(
    ("joined", "words"),
    [
        ({"query": "selec 1"}, "does not work: syntax error"),
        ({"query": "select 1 as one"}, "lacks the key column id"),
        ({"query": QUERY, "parents": {"nobody": ["x"]}}, "there is no such table"),
        ({"query": QUERY, "parents": {"author": ["nothing"]}}, "which rows a row of author"),
        ({"query": QUERY, "parents": {"category": ["code"]}}, r"primary key \(shop, code\)"),
        ({"quary": QUERY}, "query"),
        ("select", "joined"),
    ],
)
def test_what_does_not_work_says_so(
    vectorizer_url: str, db: psycopg.Connection, joined: Any, words: str
) -> None:
    options = {**OPTIONS, "joined": joined}
    with pytest.raises(ConfigurationError, match=words):
        Vectorizer(vectorizer_url, "post", embedder=FakeEmbedder(), **options).install()
    assert db.execute("select to_regclass('post_embedding')").fetchone() == (None,)


def test_two_rows_of_a_query_for_one_of_the_table(
    db: psycopg.Connection, vectorizer_url: str
) -> None:
    query = "select p.id, c.title as category from post p join category c using (shop)"
    with Vectorizer(
        vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body",
        template="{category} {chunk}", joined={"query": query},
    ) as posts:  # fmt: skip
        posts.install()
        posts.run()
        assert posts.verify().ok
        assert db.execute("select contents from post_embedding where source_id = 1").fetchall() == [
            ("Animals body 1",)
        ]
