"""The built-in pipeline on a real server.

`in_step` is the oracle of most tests: it makes from the source alone what the destination has
to hold, and compares all of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from vectorizer import AsyncVectorizer, Vectorizer
from vectorizer.chunking import Chunker
from vectorizer.errors import (
    ConfigurationError,
    DimensionMismatch,
    EmbedderRefused,
    EmbedderUnavailable,
    NotInstalled,
    VectorizerPaused,
)
from vectorizer.template import Template
from vectorizer.testing import FakeEmbedder
from vectorizer.times import parsed_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TEMPLATE = "Author {author}, title: {title}, contents: {chunk}"
SIZE = (40, 90)
OPTIONS: dict[str, Any] = {
    "chunk_column": "contents",
    "template": TEMPLATE,
    "metadata": ["author", "category", "published_time"],
    "time_column": "published_time",
    "partition_interval": timedelta(days=30),
    "destination": "blog_embedding",
    "chunk_size": SIZE,
}
# Seven columns, of which `id` and `views` are not mentioned in OPTIONS.
TABLE = """
create table blog (
  id serial primary key, title text, author text, contents text, category text,
  published_time timestamptz null, views integer not null default 0);
insert into blog (title, author, contents, category, published_time) values
  ('Purring', 'Ann', 'Cats purr when they are content.', 'cats', '2024-01-05 10:00+00'),
  ('Vacuum', 'Bob', 'Autovacuum removes dead rows.', 'databases', '2024-02-05 10:00+00'),
  ('Draft', 'Ann', 'Nobody has published this yet.', 'cats', null)
"""
both = pytest.mark.parametrize("kind", ["sync", "async"])


def long_post(name: str, paragraphs: int = 12) -> str:
    """Return a text of which each paragraph becomes one chunk under SIZE."""
    return "\n\n".join(
        f"In {name} the paragraph numbered {number} speaks about matter {number * 37}."
        for number in range(paragraphs)
    )


class Broken(BaseException):
    """A failed assertion inside an embedder; as an Exception it would only fail its rows."""


class Recorder(FakeEmbedder):
    """Remembers what it was given, and calls `during(texts)` while a batch is in flight."""

    def __init__(self, during: Callable[[list[str]], object] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.during = during
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.seen.extend(texts)
        if self.during is not None:
            try:
                self.during(list(texts))
            except AssertionError as error:
                raise Broken from error
        return super().embed(texts)


class AsyncRecorder(Recorder):
    async def embed(self, texts: Sequence[str]) -> Any:
        await asyncio.sleep(0)
        return super().embed(texts)


class Once:
    """Does something at the first call only."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.done = False

    def __call__(self, _: list[str]) -> None:
        if not self.done:
            self.done = True
            self.act()


class Blocking:
    """An AsyncVectorizer whose coroutines are run to their end."""

    def __init__(self, vectorizer: AsyncVectorizer, loop: asyncio.AbstractEventLoop) -> None:
        self._vectorizer = vectorizer
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._vectorizer, name)
        if not asyncio.iscoroutinefunction(attribute):
            return attribute
        return lambda *args, **named: self._loop.run_until_complete(attribute(*args, **named))


class Database:
    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)

    def __call__(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: Any) -> Any:
        return self(query, *parameters)[0][0]

    def together(self, *statements: str) -> None:
        with self.connection.transaction():
            for statement in statements:
                self.connection.execute(statement)

    def contents(self, destination: str = "blog_embedding", key: str = "source_id") -> Any:
        """Return the sorted contents stored for each key."""
        query = sql.SQL("select {}, array_agg(contents order by contents) from {} group by 1")
        found = self.connection.execute(
            query.format(sql.Identifier(key), sql.Identifier(*destination.split(".")))
        )
        return dict(found.fetchall())

    def queued(self, name: str = "blog") -> int:
        query = sql.SQL("select count(*) from {}")
        table = sql.Identifier("vectorizer", f"{name}_log")
        return self.connection.execute(query.format(table)).fetchone()[0]


@pytest.fixture
def kind() -> str:
    return "sync"


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[Database]:
    database = Database(vectorizer_url)
    database(TABLE)
    yield database
    database.connection.close()


@pytest.fixture
def make(kind: str, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    loop = asyncio.new_event_loop()
    opened: list[Any] = []

    def made(table: str = "blog", **options: Any) -> Any:
        wanted = options.pop("kind", kind)
        arguments = {"embedder": Recorder(), **OPTIONS, **options}
        if wanted == "sync":
            vectorizer: Any = Vectorizer(vectorizer_url, table, **arguments)
        else:
            vectorizer = Blocking(AsyncVectorizer(vectorizer_url, table, **arguments), loop)
        opened.append(vectorizer)
        return vectorizer

    yield made
    for vectorizer in opened:
        vectorizer.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def blog(db: Database, make: Callable[..., Any]) -> Any:
    """Return the vectorizer of `blog`, installed and run once, its embedder's count at zero."""
    vectorizer = make()
    vectorizer.install()
    vectorizer.run()
    in_step(db)
    forget(vectorizer)
    return vectorizer


def forget(vectorizer: Any) -> None:
    vectorizer.embedder.seen.clear()
    vectorizer.embedder.texts = vectorizer.embedder.calls = 0


def in_step(db: Database, name: str = "blog") -> None:
    """Assert that blog_embedding holds what blog says, exactly once, and that nothing waits."""
    expected = []
    for identifier, title, author, contents, category, time in db(
        "select id, title, author, contents, category, published_time from blog "
        "where published_time is not null"
    ):
        texts = [
            Template(TEMPLATE).render({"author": author, "title": title}, chunk)
            for chunk in Chunker(*SIZE).split(contents or "")
        ]
        metadata = {"author": author, "category": category, "published_time": time}
        expected += [(identifier, n, text, time, metadata) for n, text in enumerate(texts)]
    stored = db(
        "select source_id, row_number() over (partition by source_id order by chunk) - 1, "
        "contents, time, metadata, id, embedding::text from blog_embedding"
    )
    found = []
    for identifier, chunk, text, time, metadata, _, _ in stored:
        parsed = {**metadata, "published_time": parsed_moment(metadata["published_time"])}
        found.append((identifier, chunk, text, time, parsed))
    assert counted(found) == counted(expected)
    if stored:
        vectors = np.array([json.loads(row[-1]) for row in stored])
        assert np.allclose(vectors, FakeEmbedder().embed([row[2] for row in stored]), atol=1e-5)
    assert len({row[5] for row in stored}) == len(stored)
    assert db.queued(name) == 0
    assert db("select * from vectorizer.lease") == []


def counted(rows: list[tuple[Any, ...]]) -> Counter[Any]:
    return Counter(
        (
            *key_chunk_text,
            time,
            metadata["author"],
            metadata["category"],
            metadata["published_time"],
        )
        for *key_chunk_text, time, metadata in rows
    )


# Installing


@both
def test_installing_twice_changes_nothing(db: Database, make: Callable[..., Any]) -> None:
    first, second = make(), make()
    first.install()
    first.run()
    before = db("select * from vectorizer.vectorizer"), db("select tgname, tgrelid from pg_trigger")
    first.install()
    second.install()
    after = db("select * from vectorizer.vectorizer"), db("select tgname, tgrelid from pg_trigger")
    assert after == before
    assert second.run().embedded == 0
    in_step(db)


@both
def test_ten_installs_at_once(db: Database, make: Callable[..., Any], kind: str) -> None:
    barrier = threading.Barrier(10)

    def install(vectorizer: Any) -> None:
        barrier.wait()
        if kind == "sync":
            vectorizer.install()
        else:
            asyncio.run(installed_and_closed(vectorizer._vectorizer))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(install, [make() for _ in range(10)]))
    assert db.value("select count(*) from vectorizer.vectorizer") == 1
    counts = make().run()
    assert (counts.rows, counts.embedded) == (3, 2)
    in_step(db)


async def installed_and_closed(vectorizer: AsyncVectorizer) -> None:
    async with vectorizer:
        await vectorizer.install()


@both
def test_the_first_run_embeds_what_is_there(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make()
    vectorizer.install()
    counts = vectorizer.run()
    assert (counts.rows, counts.embedded, counts.kept) == (3, 2, 0)
    assert (counts.deleted, counts.failed, counts.requests, counts.texts) == (0, 0, 1, 2)
    assert counts.tokens > 0
    assert vectorizer.embedder.texts == 2
    in_step(db)


@both
def test_process_does_one_batch_and_returns_its_rows(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(batch_size=2)
    vectorizer.install()
    assert vectorizer.process() == 2
    assert vectorizer.embedder.calls <= 1
    assert vectorizer.process() == 1
    assert vectorizer.process() == 0
    in_step(db)


@both
def test_run_reports_its_progress_batch_by_batch(db: Database, make: Callable[..., Any]) -> None:
    db(
        "insert into blog (contents, published_time) "
        "select 'text ' || n, now() from generate_series(1, 7) n"
    )
    vectorizer = make(batch_size=4)
    vectorizer.install()
    seen: list[int] = []
    counts = vectorizer.run(progress=lambda so_far: seen.append(so_far.rows))
    assert seen == [4, 8, 10]
    assert (counts.rows, counts.embedded) == (10, 9)


def test_using_before_installing_says_so(make: Callable[..., Any]) -> None:
    for method in ("process", "run", "status", "uninstall"):
        with pytest.raises(NotInstalled, match="install"):
            getattr(make(), method)()


# Changes


CHANGES = {
    "insert": (
        ["insert into blog (title, contents, published_time) values ('New', 'Text.', now())"],
        1,
    ),
    "insert of a draft": (["insert into blog (title, contents) values ('New', 'Text.')"], 0),
    "insert of a blank text": (
        ["insert into blog (contents, published_time) values (E' \\n', now()), (null, now())"],
        0,
    ),
    "update of the text": (["update blog set contents = 'Dogs bark.' where id = 1"], 1),
    "update of a column in the template": (["update blog set title = 'Meow' where id = 1"], 1),
    "text becomes null": (["update blog set contents = null where id = 1"], 0),
    "delete": (["delete from blog where id = 1"], 0),
    "delete of all": (["delete from blog"], 0),
    "un-publish": (["update blog set published_time = null where id = 1"], 0),
    "publish": (["update blog set published_time = '2024-03-01' where id = 3"], 1),
    "key change": (["update blog set id = 100 where id = 1"], 1),
    "key swap": (
        [
            "update blog set id = -1 where id = 1",
            "update blog set id = 1 where id = 2",
            "update blog set id = 2 where id = -1",
        ],
        2,
    ),
    "key taken over by another row": (
        ["delete from blog where id = 1", "update blog set id = 1 where id = 2"],
        1,
    ),
    "delete and insert of the same": (
        [
            "create temporary table saved as select * from blog",
            "delete from blog",
            "insert into blog select * from saved",
        ],
        0,
    ),
    "changed and changed back": (
        [
            "update blog set contents = 'x' || contents",
            "update blog set contents = substr(contents, 2)",
        ],
        0,
    ),
    "truncate": (["truncate blog"], 0),
    "truncate and insert": (
        [
            "truncate blog",
            "insert into blog (id, contents, published_time) values (2, 'Other.', now())",
        ],
        1,
    ),
    "truncate and reload": (
        [
            "create temporary table saved as select * from blog",
            "truncate blog",
            "insert into blog select * from saved",
        ],
        0,
    ),
    "upsert": (
        [
            """insert into blog (id, contents, published_time)
            values (1, 'Upserted.', now()), (50, 'Inserted.', now())
            on conflict (id) do update set contents = excluded.contents"""
        ],
        2,
    ),
}


@both
@pytest.mark.parametrize(
    ("change", "transactions"),
    [
        (name, transactions)
        for name, (statements, _) in CHANGES.items()
        for transactions in ("one", "many")[: len(statements)]
    ],
)
def test_a_change_is_followed(db: Database, blog: Any, change: str, transactions: str) -> None:
    statements, texts = CHANGES[change]
    if transactions == "one":
        db.together(*statements)
    else:
        for statement in statements:
            db(statement)
    counts = blog.run()
    assert (blog.embedder.texts, counts.embedded, counts.failed) == (texts, texts, 0)
    in_step(db)


@pytest.mark.parametrize(
    "statement",
    [
        "update blog set contents = contents, title = title",
        "update blog set views = views + 1",
        "update blog set contents = 'never' where false",
        "delete from blog where false",
        "insert into blog (contents) select 'never' where false",
    ],
)
def test_nothing_is_queued(db: Database, blog: Any, statement: str) -> None:
    db(statement)
    assert db.queued() == 0
    assert blog.process() == 0


def test_a_rolled_back_change_is_not_queued(db: Database, blog: Any) -> None:
    with suppress(ZeroDivisionError), db.connection.transaction():
        db("update blog set contents = 'never'")
        db("delete from blog where id = 1")
        db("insert into blog (contents, published_time) values ('never', now())")
        raise ZeroDivisionError
    assert db.queued() == 0
    assert blog.process() == 0
    in_step(db)


def test_a_rolled_back_savepoint_leaves_the_rest(db: Database, blog: Any) -> None:
    with db.connection.transaction():
        db("update blog set contents = 'kept' where id = 1")
        with suppress(ZeroDivisionError), db.connection.transaction():
            db("update blog set contents = 'never' where id = 2")
            raise ZeroDivisionError
    assert blog.run().embedded == 1
    in_step(db)


def test_many_changes_of_a_row_are_one_piece_of_work(db: Database, blog: Any) -> None:
    for number in range(20):
        db("update blog set contents = %s where id = 1", f"version {number}")
    counts = blog.run()
    assert (counts.rows, blog.embedder.texts) == (1, 1)
    in_step(db)


def test_an_entry_committed_late_is_not_overlooked(db: Database, blog: Any) -> None:
    with psycopg.connect(db.url) as late:
        late.execute("update blog set contents = 'late' where id = 1")
        db("update blog set contents = 'early' where id = 2")
        assert blog.run().embedded == 1
        late.commit()
    assert blog.run().embedded == 1
    in_step(db)


# What is not paid for again


@both
def test_a_metadata_change_embeds_nothing_and_is_written(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(template="{chunk}")
    vectorizer.install()
    vectorizer.run()
    forget(vectorizer)
    vectors = db("select id, embedding::text from blog_embedding order by id")
    db("update blog set category = 'animals', author = '\"Q\" {x} %s' where id = 1")
    counts = vectorizer.run()
    assert (vectorizer.embedder.texts, counts.kept) == (0, 1)
    metadata = db.value("select metadata from blog_embedding where source_id = 1")
    assert (metadata["category"], metadata["author"]) == ("animals", '"Q" {x} %s')
    assert db("select id, embedding::text from blog_embedding order by id") == vectors


@both
def test_a_time_change_moves_the_chunks_without_embedding(db: Database, blog: Any) -> None:
    db("update blog set contents = %s where id = 1", long_post("moved"))
    blog.run()
    forget(blog)
    query = "select distinct tableoid::regclass::text from blog_embedding_g1 where source_id = 1"
    vectors = "select chunk, embedding::text from blog_embedding where source_id = 1 order by 1"
    before, stored = db(query), db(vectors)
    db("update blog set published_time = '2025-06-07 08:09:10.123456+00' where id = 1")
    counts = blog.run()
    assert blog.embedder.texts == 0
    assert (counts.kept, counts.embedded, counts.deleted) == (12, 0, 0)
    assert len(db(query)) == 1
    assert db(query) != before
    assert db(vectors) == stored
    in_step(db)


def test_an_id_holds_the_time_of_its_row(db: Database, blog: Any) -> None:
    db("update blog set published_time = '2025-06-07 08:09:10.123456+00' where id = 1")
    blog.run()
    for identifier, time in db("select id, time from blog_embedding"):
        assert identifier.version == 1
        epoch = datetime(1582, 10, 15, tzinfo=timezone.utc)
        assert epoch + timedelta(microseconds=identifier.time / 10) == time


@both
def test_an_edited_paragraph_is_all_that_is_embedded(db: Database, blog: Any) -> None:
    text = long_post("edited")
    db("update blog set contents = %s where id = 1", text)
    assert blog.run().embedded == 12
    forget(blog)
    kept = {row[0] for row in db("select id from blog_embedding where source_id = 1")}
    db("update blog set contents = %s where id = 1", text.replace("matter 185", "nothing"))
    counts = blog.run()
    assert (counts.embedded, counts.kept, counts.deleted) == (1, 11, 1)
    assert len(blog.embedder.seen) == 1
    assert "nothing" in blog.embedder.seen[0]
    now = {row[0] for row in db("select id from blog_embedding where source_id = 1")}
    assert len(now & kept) == 11
    in_step(db)


def test_paragraphs_that_change_places_are_not_embedded(db: Database, blog: Any) -> None:
    paragraphs = long_post("moved").split("\n\n")
    db("update blog set contents = %s where id = 1", "\n\n".join(paragraphs))
    blog.run()
    forget(blog)
    db("update blog set contents = %s where id = 1", "\n\n".join(reversed(paragraphs)))
    counts = blog.run()
    assert (counts.kept, blog.embedder.texts) == (12, 0)
    in_step(db)


@both
def test_equal_texts_are_embedded_once(db: Database, make: Callable[..., Any]) -> None:
    db("truncate blog")
    db(
        "insert into blog (title, author, contents, published_time) "
        "select 'Same', 'Ann', 'The same text.', now() from generate_series(1, 20)"
    )
    vectorizer = make()
    vectorizer.install()
    assert vectorizer.run().embedded == 20
    assert vectorizer.embedder.texts == 1
    in_step(db)


def test_equal_paragraphs_of_one_row_are_all_stored(db: Database, blog: Any) -> None:
    paragraph = "This paragraph is said over and over again, word for word, as a refrain."
    for times in (3, 5, 2, 4):
        forget(blog)
        db("update blog set contents = %s where id = 1", "\n\n".join([paragraph] * times))
        blog.run()
        assert blog.embedder.texts <= 1
        assert db.value("select count(*) from blog_embedding where source_id = 1") == times
        in_step(db)


# Shapes of sources and destinations


@both
def test_without_time_column(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make(time_column=None, partition_interval=None, metadata=[])
    vectorizer.install()
    assert vectorizer.run().embedded == 3
    before = db("select id, time from blog_embedding where source_id = 2")
    db("update blog set contents = %s where id = 1", long_post("timeless"))
    db("delete from blog where id = 3")
    assert vectorizer.run().embedded == 12
    stored = db.contents()
    assert {key: len(texts) for key, texts in stored.items()} == {1: 12, 2: 1}
    assert db("select id, time from blog_embedding where source_id = 2") == before
    assert len(db("select distinct time from blog_embedding where source_id = 1")) == 1


def test_without_time_column_but_partitioned(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make(time_column=None)
    vectorizer.install()
    assert vectorizer.run().embedded == 3
    db("update blog set contents = 'Edited.' where id = 1")
    assert vectorizer.run().embedded == 1
    assert len(db.contents()) == 3


def test_without_partition_interval(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make(partition_interval=None)
    vectorizer.install()
    vectorizer.run()
    db("update blog set published_time = '1999-12-31' where id = 1")
    db("update blog set contents = 'Edited.' where id = 2")
    vectorizer.run()
    assert db.value("select relkind::text from pg_class where relname = 'blog_embedding_g1'") == "r"
    in_step(db)


def test_the_template_defaults_to_the_chunk(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make(template=None)
    vectorizer.install()
    vectorizer.run()
    assert db.contents()[1] == ["Cats purr when they are content."]


def test_a_named_schema(db: Database, make: Callable[..., Any]) -> None:
    db("create schema app; create table app.blog (like public.blog including all)")
    db(
        "insert into app.blog (id, title, contents, published_time) "
        "values (7, 'App', 'In app.', now())"
    )
    inside = make(schema_name="app")
    public = make()
    for vectorizer in (inside, public):
        vectorizer.install()
        vectorizer.run()
    assert db.contents("app.blog_embedding") == {7: ["Author , title: App, contents: In app."]}
    assert (inside.name, public.name) == ("app_blog", "blog")
    in_step(db)
    db("delete from app.blog")
    inside.run()
    assert db.contents("app.blog_embedding") == {}
    in_step(db)


def test_a_destination_in_another_schema(db: Database, make: Callable[..., Any]) -> None:
    db("create schema vectors")
    vectorizer = make(destination='vectors."Blog Vectors"')
    vectorizer.install()
    vectorizer.run()
    assert set(db.contents("vectors.Blog Vectors")) == {1, 2}


def test_two_vectorizers_on_one_table(db: Database, blog: Any, make: Callable[..., Any]) -> None:
    other = make(name="titles", chunk_column="title", template=None, destination="title_embedding")
    other.install()
    other.run()
    db("update blog set title = 'Renamed', contents = 'Rewritten.' where id = 1")
    assert (blog.run().embedded, other.run().embedded) == (1, 1)
    assert db.contents("title_embedding")[1] == ["Renamed"]
    in_step(db)


KEYS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "text": ("k text primary key", [('q"uo\\te %s {x} \n ü',), ("",), ("plain",)]),
    "uuid": ("k uuid primary key", [(uuid.UUID(int=n),) for n in (0, 1, 2**128 - 1)]),
    "bigint": ("k bigint primary key", [(2**63 - 1,), (-(2**63),), (0,)]),
    "smallint": ("k smallint primary key", [(1,), (-2,), (3,)]),
    "numeric": ("k numeric(60, 30) primary key", [(f"{n}.{'3' * 30}",) for n in (1, 2, 3)]),
    "double precision": ("k float8 primary key", [(0.1,), (1e-300,), (float("inf"),)]),
    "timestamptz": (
        "k timestamptz primary key",
        [("2024-01-01 00:00:00.000001+02",), ("infinity",), ("0044-03-15 BC",)],
    ),
    "timestamp": ("k timestamp primary key", [("2024-01-01",), ("2024-01-02",), ("-infinity",)]),
    "date": ("k date primary key", [("2024-01-01",), ("0001-01-01",), ("infinity",)]),
    "bytea": ("k bytea primary key", [(b"\x00\xff",), (b"",), (b"\\x",)]),
    "boolean": ("k boolean primary key", [(True,), (False,)]),
    "char(10)": ("k char(10) primary key", [("abc",), ("abcdefghij",), ("x",)]),
    "varchar(5)": ("k varchar(5) primary key", [("abcde",), ("a",), ("b ",)]),
    "bit(4)": ("k bit(4) primary key", [("0101",), ("1111",), ("0000",)]),
    "inet": ("k inet primary key", [("10.0.0.1/8",), ("::1",), ("1.2.3.4",)]),
    "interval": ("k interval primary key", [("1 mon -2 days",), ("00:00:00.5",), ("-1 year",)]),
    "integer[]": ("k integer[] primary key", [([1, 2],), ([],), ([3],)]),
    "enum": ("k app.mood primary key", [("happy",), ("so so",), ("sad",)]),
    "domain": ("k app.short primary key", [("abc",), ("def",), ("ghi",)]),
    "C collation": ('k text collate "C" primary key', [("a",), ("B",), ("ä",)]),
    "composite": (
        "k integer, l text, m timestamptz, primary key (l, k, m)",
        [(1, "a", "2024-01-01"), (1, "b", "2024-01-01"), (2, "a", "2024-01-01 12:00+05")],
    ),
}


@pytest.mark.parametrize("which", KEYS)
def test_keys_of_every_type(db: Database, make: Callable[..., Any], which: str) -> None:
    columns, keys = KEYS[which]
    db("create schema app; create type app.mood as enum ('happy', 'so so', 'sad')")
    db("create domain app.short as varchar(3) check (value <> '')")
    db(f"create table things ({columns}, body text)")
    names = ["k", "l", "m"][: len(keys[0])]
    insert = sql.SQL("insert into things values ({})").format(
        sql.SQL(", ").join(sql.Placeholder() * (len(names) + 1))
    )
    # The first two are found by the backfill, the last comes through the log.
    for key in keys[:-1]:
        db.connection.execute(insert, [*key, "first"])
    vectorizer = make(
        "things", chunk_column="body", template=None, metadata=names, time_column=None,
        partition_interval=None, destination=None, batch_size=2,
    )  # fmt: skip
    vectorizer.install()
    db.connection.execute(insert, [*keys[-1], "last"])
    vectorizer.run()
    match = sql.SQL("select s.body, d.contents from things s full join things_embedding d on {}")
    on = sql.SQL(" and ").join(
        sql.SQL("s.{} = d.{}").format(sql.Identifier(name), sql.Identifier(f"source_{name}"))
        for name in names
    )
    expected = [("first", "first")] * (len(keys) - 1) + [("last", "last")]
    assert sorted(db.connection.execute(match.format(on))) == expected
    db("update things set body = 'edited' where body = 'last'")
    db("delete from things where ctid = (select min(ctid) from things where body = 'first')")
    assert vectorizer.run().failed == 0
    expected = [("edited", "edited")] + [("first", "first")] * (len(keys) - 2)
    assert sorted(db.connection.execute(match.format(on))) == expected
    assert db.queued("things") == 0


AWKWARD = [
    "Mixed Case",
    'do"uble',
    "sin'gle",
    "per%cent",
    "%s",
    "back\\slash",
    "select",
    "ünïcödé",
    "semi;colon--",
    "dollar$$body$body$",
    "a" * 63,
    "é" * 31,
    "lease",
    "seq",
    "kind",
    "found",
    "tg_op",
    "old",
    "new",
    "changed",
    "s",
    "k",
    "r",
    "l",
    "chunk",
    "id",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names(db: Database, make: Callable[..., Any], name: str) -> None:
    """The name is that of the table, of its key and of a column at once."""
    other = "text of " + name[:50] if len(name.encode()) <= 50 else name[:20]
    names = {"t": sql.Identifier(name), "k": sql.Identifier(name), "c": sql.Identifier(other)}
    run = db.connection.execute
    run(sql.SQL("create table {t} ({k} integer primary key, {c} text, body text)").format(**names))
    run(sql.SQL("insert into {t} values (1, 'one', 'body'), (2, 'two', 'body')").format(**names))
    vectorizer = make(
        name, chunk_column="body", template="{" + other + "}: {chunk}", metadata=[name, other],
        time_column=None, destination=None,
    )  # fmt: skip
    vectorizer.install()
    run(sql.SQL("insert into {t} values (3, 'three', 'body')").format(**names))
    assert vectorizer.run().embedded == 3
    run(sql.SQL("update {t} set {c} = 'drei' where {k} = 3").format(**names))
    run(sql.SQL("update {t} set {k} = 22 where {k} = 2").format(**names))
    run(sql.SQL("delete from {t} where {k} = 1").format(**names))
    vectorizer.run()
    found = vectorizer.search("body", filter=[{name: 3}, {other: "two"}])
    assert sorted((*hit.key.items(), hit.contents) for hit in found) == [
        ((name, 3), "drei: body"),
        ((name, 22), "two: body"),
    ]
    assert vectorizer.status()["waiting"] == 0
    vectorizer.uninstall(drop_embeddings=True)
    assert run("select count(*) from pg_class where relname like '%embedding%'").fetchone() == (0,)


def test_long_names_that_begin_alike(db: Database, make: Callable[..., Any]) -> None:
    """Cut at 63 bytes their objects must not meet: tables, partitions, triggers, functions."""
    tables = ["t" * 61 + "_1", "t" * 61 + "_2"]
    for number, table in enumerate(tables):
        name = sql.Identifier(table)
        db.connection.execute(sql.SQL("create table {} (like blog including all)").format(name))
        db.connection.execute(sql.SQL("insert into {} select * from blog").format(name))
        vectorizer = make(table, destination=None)
        vectorizer.install()
        assert vectorizer.run().embedded == 2, f"table {number + 1}"


# Searching


@both
def test_search_finds_the_nearest_first(db: Database, blog: Any) -> None:
    db(
        "insert into blog (title, author, contents, category, published_time) "
        "select 'Filler', 'Bob', "
        "'Something else, number ' || n, 'filler', '2024-02-01' from generate_series(1, 30) n"
    )
    blog.run()
    hits = blog.search("Author Ann, title: Purring, contents: Cats purr when they are content.")
    assert len(hits) == 10
    assert hits[0].key == {"id": 1}
    assert hits[0].distance == pytest.approx(0, abs=1e-6)
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    assert (hits[0].chunk, hits[0].metadata["category"]) == (0, "cats")
    assert hits[0].time == datetime(2024, 1, 5, 10, tzinfo=timezone.utc)
    assert len(blog.search("cats", limit=3)) == 3


@both
def test_search_with_filters(db: Database, blog: Any) -> None:
    db("update blog set published_time = '2024-05-01', author = %s where id = 3", 'O\'Neil "%s"')
    blog.run()

    def found(**options: Any) -> set[int]:
        return {hit.key["id"] for hit in blog.search("anything", **options)}

    assert found() == {1, 2, 3}
    assert found(filter={"category": "cats"}) == {1, 3}
    assert found(filter={"category": "cats", "author": "Ann"}) == {1}
    assert found(filter={"author": 'O\'Neil "%s"'}) == {3}
    assert found(filter=[{"category": "databases"}, {"author": "Ann"}]) == {1, 2}
    assert found(filter={"category": "nothing"}) == set()
    assert found(filter={}) == {1, 2, 3}
    with pytest.raises(ConfigurationError, match="filter"):
        found(filter="cats")
    with pytest.raises(ConfigurationError, match="limit"):
        found(limit=0)


# Uninstalling


@both
def test_uninstalling_keeps_the_embeddings(db: Database, blog: Any) -> None:
    before = db.contents()
    blog.uninstall()
    assert db.contents() == before
    db("update blog set contents = 'Not captured.'; delete from blog; truncate blog")
    assert db.contents() == before
    with pytest.raises(NotInstalled):
        blog.run()


@both
def test_reinstalling_pays_only_for_what_changed_meanwhile(db: Database, blog: Any) -> None:
    db(
        "insert into blog (id, title, contents, published_time) "
        "select n, 'Post', 'Contents of post ' || n, "
        "'2024-01-01'::timestamptz + n * interval '1 day' "
        "from generate_series(10, 60) n"
    )
    blog.run()
    forget(blog)
    blog.uninstall()
    db("update blog set contents = 'Changed meanwhile.' where id = 1")
    db("update blog set published_time = null where id = 10")
    db("update blog set published_time = '2025-01-01' where id = 11")
    db("update blog set id = 12000 where id = 12")
    db("delete from blog where id in (2, 20, 60)")
    db("insert into blog (title, contents, published_time) values ('New', 'New.', now())")
    blog.install()
    counts = blog.run()
    assert blog.embedder.texts == counts.embedded == 3
    assert counts.failed == 0
    in_step(db)


def test_reinstalling_after_a_truncate_meanwhile(db: Database, blog: Any) -> None:
    blog.uninstall()
    db("truncate blog")
    blog.install()
    blog.run()
    in_step(db)


@both
def test_uninstalling_with_the_embeddings_leaves_nothing(db: Database, blog: Any) -> None:
    blog.uninstall(drop_embeddings=True)
    left = db(
        "select relname from pg_class where relname like 'blog\\_%' "
        "and relname not in ('blog_id_seq', 'blog_pkey')"
    )
    assert left == []
    assert db("select tgname from pg_trigger where tgname like 'vectorizer%'") == []
    assert db("select * from vectorizer.vectorizer") == []
    blog.install()
    assert blog.run().embedded == 2
    in_step(db)


def test_uninstalling_stops_a_batch_in_flight(db: Database, blog: Any) -> None:
    db("update blog set contents = 'In flight.' where id = 1")
    before = db.contents()
    blog.embedder.during = Once(lambda: db("select vectorizer.uninstall('blog')"))
    with suppress(NotInstalled):
        blog.process()
    assert blog.embedder.during.done
    assert db.contents() == before


# Batches in flight


@both
def test_no_transaction_is_open_while_embedding(db: Database, make: Callable[..., Any]) -> None:
    looked: list[list[tuple[Any, ...]]] = []

    def look(_: list[str]) -> None:
        looked.append(
            db(
                "select state, query from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend' "
                "and (xact_start is not null or backend_xid is not null)"
            )
        )
        assert db.value("select count(*) from vectorizer.lease") == 1

    vectorizer = make(embedder=Recorder(look), batch_size=2)
    vectorizer.install()
    vectorizer.run()
    db("update blog set contents = 'Edited.'")
    vectorizer.run()
    assert len(looked) >= 2
    assert not any(looked)


@both
def test_a_change_in_flight_is_embedded_again(db: Database, blog: Any) -> None:
    blog.embedder.during = Once(lambda: db("update blog set contents = 'The latest.' where id = 1"))
    db("update blog set contents = 'An older one.' where id = 1")
    counts = blog.run()
    assert counts.embedded == 2
    assert ["latest" in text for text in blog.embedder.seen] == [False, True]
    in_step(db)


@both
def test_a_delete_in_flight_leaves_no_orphan(db: Database, blog: Any) -> None:
    blog.embedder.during = Once(lambda: db("delete from blog where id = 1"))
    db("update blog set contents = 'Soon gone.' where id = 1")
    blog.run()
    assert 1 not in db.contents()
    in_step(db)


@both
@pytest.mark.parametrize("reload", [False, True])
def test_a_truncate_in_flight_leaves_no_orphan(db: Database, blog: Any, reload: bool) -> None:
    db("create table saved as select * from blog")
    statements = ["truncate blog", *(["insert into blog select * from saved"] * reload)]
    blog.embedder.during = Once(lambda: db.together(*statements))
    db("update blog set contents = 'Soon gone.' where id = 1")
    blog.run()
    in_step(db)


def test_a_partition_dropped_in_flight_is_made_again(db: Database, blog: Any) -> None:
    drop = "select relid::regclass::text from pg_partition_tree('blog_embedding_g1') where isleaf"

    def drop_all() -> None:
        for (name,) in db(drop):
            db(f"drop table {name}")

    db("update blog set contents = 'Edited.', title = 'x'")
    blog.embedder.during = Once(drop_all)
    # Not run(), which would look the partitions up again: this worker believes to know them.
    assert blog.process() == 3
    assert blog.process() == 0
    in_step(db)


@both
def test_a_lease_taken_over_while_embedding_is_fenced(
    db: Database, blog: Any, make: Callable[..., Any]
) -> None:
    other = make(kind="sync")

    def take_over() -> None:
        db("update blog set contents = 'The latest.' where id = 1")
        db("update vectorizer.lease set expires_at = now() - interval '1 second'")
        other.run()
        in_step(db)

    blog.embedder.during = Once(take_over)
    db("update blog set contents = 'An older one.' where id = 1")
    query = "select id, xmin::text, contents from blog_embedding_g1 order by id"
    assert blog.process() == 1
    assert other.embedder.texts == 1
    stored = db(query)
    assert blog.run().embedded == 0
    assert db(query) == stored
    in_step(db)


@both
def test_a_lease_deleted_while_embedding_writes_nothing(db: Database, blog: Any) -> None:
    before = db.contents()
    blog.embedder.during = Once(lambda: db("delete from vectorizer.lease"))
    db("update blog set contents = 'Embedded in vain, then again.' where id = 1")
    blog.process()
    assert blog.embedder.texts == 1
    assert db.contents() == before
    # Nobody holds the row now, and the ledger does not know: that is for verify to find.
    assert blog.verify(repair=True).defects == {"stale": 1}
    blog.run()
    in_step(db)


def test_a_long_embedding_keeps_its_lease(
    db: Database, make: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    """The heartbeat prolongs it, so a slow model is no vanished worker."""
    ends = "select max(expires_at) from vectorizer.lease"

    def wait() -> None:
        first = db.value(ends)
        eventually(lambda: db.value(ends) > first + timedelta(seconds=0.4))
        assert other.process() == 0

    vectorizer, other = make(embedder=Recorder(Once(wait)), lease_seconds=0.6), make()
    vectorizer.install()
    assert vectorizer.run().embedded == 2
    assert other.embedder.texts == 0
    in_step(db)


def test_run_waits_for_the_batches_of_others(db: Database, blog: Any, make: Any) -> None:
    db("update blog set contents = 'Edited.' where id = 1")
    started, go = threading.Event(), threading.Event()
    blog.embedder.during = Once(lambda: (started.set(), go.wait(20)))
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(blog.run)
        assert started.wait(20)
        waiting = pool.submit(make().run)
        assert not wait([waiting], timeout=0.5).done
        go.set()
        assert slow.result(20).embedded == 1
        assert waiting.result(20).rows == 0
    in_step(db)


def test_several_workers_share_the_work_and_embed_nothing_twice(
    db: Database, make: Callable[..., Any]
) -> None:
    db(
        "insert into blog (title, contents, published_time) select 'T', 'Post number ' || n, now() "
        "from generate_series(1, 300) n"
    )
    workers = [make(batch_size=7) for _ in range(4)]
    workers[0].install()
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda worker: worker.run(), workers))
    assert sum(count.embedded for count in counts) == 302
    assert sum(worker.embedder.texts for worker in workers) == 302
    in_step(db)


# Embedders


def test_an_async_embedder_serves_the_sync_vectorizer(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(kind="sync", embedder=AsyncRecorder())
    vectorizer.install()
    assert vectorizer.run().embedded == 2
    assert vectorizer.search("cats")
    in_step(db)


async def test_an_async_embedder_serves_the_sync_vectorizer_inside_a_running_loop(
    vectorizer_url: str, db: Database
) -> None:
    with Vectorizer(vectorizer_url, "blog", embedder=AsyncRecorder(), **OPTIONS) as vectorizer:
        vectorizer.install()
        assert vectorizer.run().embedded == 2
    in_step(db)


@pytest.mark.parametrize("embedder", [Recorder, AsyncRecorder])
async def test_any_embedder_serves_the_async_vectorizer(
    vectorizer_url: str, db: Database, embedder: type[Recorder]
) -> None:
    async with AsyncVectorizer(vectorizer_url, "blog", embedder=embedder(), **OPTIONS) as blog:
        await blog.install()
        assert (await blog.run()).embedded == 2
        assert [hit.key["id"] for hit in await blog.search("cats purr", limit=1)] == [1]
    in_step(db)


async def test_a_blocking_embedder_does_not_hold_up_the_event_loop(
    vectorizer_url: str, db: Database
) -> None:
    called, ticked = threading.Event(), threading.Event()

    def wait(_: list[str]) -> None:
        called.set()
        assert ticked.wait(20), "the event loop stood still"

    async def tick() -> None:
        while not called.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        ticked.set()

    async with AsyncVectorizer(
        vectorizer_url, "blog", embedder=Recorder(wait), **OPTIONS
    ) as vectorizer:
        await vectorizer.install()
        await asyncio.gather(vectorizer.run(), tick())
    in_step(db)


def poisonous(texts: list[str]) -> None:
    if any("POISON" in text for text in texts):
        raise ValueError("the model choked")


@both
def test_one_poison_row_does_not_stop_the_others(db: Database, make: Callable[..., Any]) -> None:
    db("truncate blog")
    db(
        "insert into blog (id, title, contents, published_time) select n, 'T', 'Post number ' || n "
        "|| case when n = 23 then ' POISON' else '' end, now() from generate_series(1, 50) n"
    )
    vectorizer = make(embedder=Recorder(poisonous))
    vectorizer.install()
    counts = vectorizer.run()
    assert (counts.rows, counts.embedded, counts.failed) == (50, 49, 1)
    assert vectorizer.embedder.texts < 50 * 3
    assert set(db.contents()) == set(range(1, 51)) - {23}
    status = vectorizer.status()
    assert (status["retrying"], status["dead_letters"], status["in_flight"]) == (1, 0, 0)
    assert "the model choked" in db.value(
        "select error from vectorizer.blog_row where source_id = 23"
    )
    db("update blog set contents = 'An antidote.' where id = 23")
    counts = vectorizer.run()
    assert (counts.rows, counts.embedded, counts.failed) == (1, 1, 0)
    assert vectorizer.status()["retrying"] == 0
    in_step(db)


def test_a_poison_row_becomes_a_dead_letter_and_an_edit_revives_it(db: Database, make: Any) -> None:
    db("update blog set contents = 'POISON' where id = 1")
    vectorizer = make(embedder=Recorder(poisonous))
    vectorizer.install()
    failed = 0
    for _ in range(10):
        failed += vectorizer.run().failed
        db("update vectorizer.blog_row set available_at = now() where available_at is not null")
    assert failed == 5
    (letter,) = vectorizer.dead_letters()
    assert letter["key"] == {"id": 1}
    assert "the model choked" in letter["error"]
    assert vectorizer.status()["dead_letters"] == 1
    db("update blog set contents = 'An antidote.' where id = 1")
    assert vectorizer.run().embedded == 1
    assert vectorizer.dead_letters() == []
    in_step(db)


def test_a_poison_edit_keeps_the_old_embeddings(db: Database, blog: Any) -> None:
    before = db.contents()
    blog.embedder.during = poisonous
    db("update blog set contents = 'POISON' where id = 1")
    assert blog.run().failed == 1
    assert db.contents() == before


def test_a_poison_row_whose_worker_vanished_is_mended_by_an_edit(db: Database, blog: Any) -> None:
    db("update blog set contents = 'POISON' where id = 1")
    assert lose(db, blog) == 1
    blog.embedder.during = poisonous
    assert blog.run().failed == 1
    db("update blog set contents = 'An antidote.' where id = 1")
    assert blog.run().embedded == 1
    in_step(db)


class Killed(BaseException):
    pass


def vanish(db: Database) -> None:
    """Raise Killed from inside the embedder, and let the batch expire as if by SIGKILL."""
    # Under another token, for a release on the way out must find nothing.
    token = uuid.uuid4()
    db("update vectorizer.blog_row set lease = %s where lease is not null", token)
    db("update vectorizer.lease set expires_at = now() - interval '1 second', token = %s", token)
    raise Killed


def lose(db: Database, vectorizer: Any) -> int:
    """Process a batch whose worker vanishes while embedding; return the size of the batch."""
    vectorizer.embedder.during = lambda _: vanish(db)
    with pytest.raises(Killed):
        vectorizer.process()
    vectorizer.embedder.during = None
    return db.value("select sum(jsonb_array_length(keys))::int from vectorizer.lease")


def test_rows_of_vanished_workers_come_back_in_smaller_batches(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(batch_size=16)
    vectorizer.install()
    vectorizer.run()
    db(
        "insert into blog (contents, published_time) "
        "select 'Post ' || n, now() from generate_series(1, 16) n"
    )
    assert [lose(db, vectorizer) for _ in range(2)] == [16, 4]
    vectorizer.run()
    assert vectorizer.embedder.texts == 2 + 16
    assert vectorizer.dead_letters() == []
    in_step(db)


def test_a_row_that_was_alone_when_its_worker_vanished_just_once_is_not_given_up(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(batch_size=16)
    vectorizer.install()
    vectorizer.run()
    db(
        "insert into blog (contents, published_time) "
        "select 'Post ' || n, now() from generate_series(1, 16) n"
    )
    assert [lose(db, vectorizer) for _ in range(3)] == [16, 4, 1]
    vectorizer.run()
    assert vectorizer.dead_letters() == []
    in_step(db)


def test_a_row_that_kills_its_worker_is_found_and_its_neighbours_are_done(
    db: Database, make: Callable[..., Any]
) -> None:
    vectorizer = make(batch_size=16)
    vectorizer.install()
    vectorizer.run()
    db(
        "insert into blog (id, contents, published_time) select n, 'Post number ' || n "
        "|| case when n = 20 then ' KILLS' else '' end, now() from generate_series(10, 25) n"
    )

    def kill(texts: list[str]) -> None:
        if any("KILLS" in text for text in texts):
            vanish(db)

    for _ in range(20):
        vectorizer.embedder.during = kill
        with suppress(Killed):
            vectorizer.run()
            break
    assert [letter["key"] for letter in vectorizer.dead_letters()] == [{"id": 20}]
    assert set(db.contents()) == {1, 2, *range(10, 26)} - {20}


@both
@pytest.mark.parametrize(
    "error",
    [EmbedderUnavailable("429: too many requests"), TimeoutError("slow"), ConnectionError("reset")],
    ids=lambda error: type(error).__name__,
)
def test_an_unavailable_embedder_burns_no_attempts(
    db: Database, blog: Any, error: Exception
) -> None:
    def fail(_: list[str]) -> None:
        raise error

    db("update blog set contents = 'Edited.', published_time = '2024-01-01'")
    before = db.contents()
    blog.embedder.during = fail
    for _ in range(7):
        with pytest.raises(EmbedderUnavailable, match=str(error).split()[-1]):
            blog.run()
    assert blog.embedder.calls == 0
    assert len(blog.embedder.seen) == 7 * 3
    assert db.contents() == before
    assert db.value("select max(attempts + losses) from vectorizer.blog_row") == 0
    status = blog.status()
    assert (status["in_flight"], status["dead_letters"], status["state"]) == (0, 0, "live")
    blog.embedder.during = None
    assert blog.run().embedded == 3
    in_step(db)


def test_retry_after_is_honoured(db: Database, blog: Any) -> None:
    def fail() -> None:
        raise EmbedderUnavailable("429", retry_after=3600)

    db("update blog set contents = 'Edited.' where id = 1")
    blog.embedder.during = Once(fail)
    with pytest.raises(EmbedderUnavailable):
        blog.run()
    with pytest.raises(EmbedderUnavailable, match="asked for a pause") as caught:
        blog.process()
    assert caught.value.retry_after > 3500
    (warning,) = blog.status()["warnings"]
    assert "asked for a pause until" in warning
    row = "select available_at - now() from vectorizer.blog_row where source_id = 1"
    assert db.value(row) > timedelta(minutes=59)


@both
def test_a_refusing_embedder_pauses_with_its_reason(db: Database, blog: Any) -> None:
    def fail() -> None:
        raise EmbedderRefused("401: the API key is wrong")

    db("update blog set contents = 'Edited.' where id = 1")
    blog.embedder.during = Once(fail)
    with pytest.raises(EmbedderRefused, match="401"):
        blog.run()
    status = blog.status()
    assert status["state"] == "paused"
    assert "the API key is wrong" in status["reason"]
    assert (status["in_flight"], status["dead_letters"]) == (0, 0)
    with pytest.raises(VectorizerPaused, match="the API key is wrong"):
        blog.run()
    db("update blog set contents = 'Captured while paused.' where id = 2")
    assert db.value("select max(attempts) from vectorizer.blog_row") == 0
    db("update vectorizer.vectorizer set paused_at = null, paused_reason = null")
    assert blog.run().embedded == 2
    in_step(db)


class Wrong(FakeEmbedder):
    """Promises 16 dimensions and answers something else."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__()
        self.answer = answer

    def embed(self, texts: Sequence[str]) -> Any:
        return self.answer(super().embed(texts))


@both
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda vectors: vectors[:, :15], "16 dimensions, got 15"),
        (lambda vectors: np.hstack([vectors, vectors]), "16 dimensions, got 32"),
        (lambda vectors: vectors[:-1], "expected 1 vectors, one a text, got 0"),
        (lambda vectors: vectors * np.nan, "finite"),
        (lambda vectors: vectors.tolist()[0][0], "got something else"),
        (lambda _: None, "got something else"),
    ],
    ids=["too few dimensions", "too many", "n - 1 vectors", "NaN", "a number", "None"],
)
def test_a_wrong_answer_fails_its_rows_and_writes_nothing(
    db: Database, make: Callable[..., Any], answer: Callable[[Any], Any], message: str
) -> None:
    vectorizer = make(embedder=Wrong(answer))
    vectorizer.install()
    counts = vectorizer.run()
    assert (counts.rows, counts.embedded, counts.failed) == (3, 0, 2)
    assert db.contents() == {}
    errors = [error for (error,) in db("select error from vectorizer.blog_row where attempts = 1")]
    assert len(errors) == 2
    assert all(message in error for error in errors)
    assert vectorizer.status()["in_flight"] == 0


def test_a_time_that_no_id_can_hold_fails_its_row_alone(db: Database, blog: Any) -> None:
    db("update blog set published_time = 'infinity' where id = 1")
    db("update blog set published_time = '294276-01-01' where id = 2")
    db("update blog set published_time = '4713-01-01 BC' where id = 3")
    db("insert into blog (id, contents, published_time) values (4, 'Fine.', now())")
    counts = blog.run()
    assert (counts.rows, counts.embedded, counts.failed) == (4, 1, 3)
    db("update blog set published_time = '2024-01-01' where id <> 4")
    blog.run()
    in_step(db)


def test_another_embedder_is_refused(blog: Any, make: Callable[..., Any], db: Database) -> None:
    for method in ("install", "run", "process"):
        with pytest.raises(DimensionMismatch, match="16 dimensions"):
            getattr(make(embedder=Recorder(dimensions=8)), method)()
        with pytest.raises(ConfigurationError, match="cannot be mixed"):
            getattr(make(embedder=Recorder(model="other")), method)()
    db("update blog set contents = 'Edited.' where id = 1")
    assert blog.run().embedded == 1
    in_step(db)


# Status


@both
def test_status_counts_what_there_is(db: Database, make: Callable[..., Any]) -> None:
    vectorizer = make(batch_size=2)
    vectorizer.install()
    assert vectorizer.status()["state"] == "backfilling"
    assert vectorizer.status()["embeddings"] == 0
    vectorizer.run()
    db("update blog set contents = 'Edited.' where id < 3")
    status = vectorizer.status()
    assert (status["name"], status["state"], status["waiting"]) == ("blog", "live", 2)
    assert (status["embeddings"], status["backfill_claimed"]) == (2, 3)
    assert status["backfill_done"] is True
    assert datetime.now(timezone.utc) - status["oldest_change"] < timedelta(minutes=1)
