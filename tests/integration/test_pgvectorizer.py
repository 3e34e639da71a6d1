"""timescale_vector's pgvectorizer: its documented code, and what its users may rely on."""

from __future__ import annotations

import asyncio
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from vectorizer import client, pgvectorizer
from vectorizer.errors import ConfigurationError, SourceError
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOG = """
create table blog (
  id serial primary key not null, title text not null, author text not null,
  contents text not null, category text not null, published_time timestamptz null);
insert into blog (title, author, contents, category, published_time) values
  ('First', 'Ann', E'Cats purr.\\n\\nDogs bark.', 'AI', '2024-01-05'),
  ('Second', 'Bob', 'Birds sing.', 'AI', '2024-03-05'),
  ('Draft', 'Ann', 'Not yet.', 'AI', null)
"""


class Database:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def __call__(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[Database]:
    database = Database(vectorizer_url)
    database(BLOG)
    yield database
    database.connection.close()


@pytest.fixture
def make(vectorizer_url: str, db: Database) -> Iterator[Callable[..., pgvectorizer.Vectorize]]:  # noqa: ARG001
    made: list[pgvectorizer.Vectorize] = []

    def vectorize(*args: Any, **options: Any) -> pgvectorizer.Vectorize:
        made.append(pgvectorizer.Vectorize(vectorizer_url, *(args or ("blog",)), **options))
        return made[-1]

    yield vectorize
    for vectorizer in made:
        vectorizer.close()


class Collector:
    """A callback that remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def __call__(self, rows: Any, vectorizer: pgvectorizer.Vectorize) -> None:
        self.vectorizer = vectorizer
        self.batches.append(list(rows))

    @property
    def rows(self) -> dict[Any, Any]:
        return {row["locked_id"]: row for batch in self.batches for row in batch}


def drain(vectorizer: pgvectorizer.Vectorize, **options: Any) -> dict[Any, Any]:
    """Process everything; return the latest row handed over for each key."""
    collector = Collector()
    while vectorizer.process(collector, **options) > 0:
        pass
    return collector.rows


# The documented code


def get_document(blog: Any) -> list[str]:
    return [f"Author {blog['author']}, title: {blog['title']}, contents: {text}"
            for text in blog["contents"].split("\n\n")]  # fmt: skip


def test_the_documented_code(vectorizer_url: str, db: Database) -> None:
    service_url = vectorizer_url
    embedder = FakeEmbedder(384)

    def embed_and_write(blog_instances: Any, vectorizer: Any) -> None:  # noqa: ARG001
        store = client.Sync(
            service_url, "blog_embedding", 384, time_partition_interval=timedelta(days=30)
        )
        store.create_tables()
        # locked_id is set to the primary key for every row; for deleted rows it is the only key set
        store.delete_by_metadata([{"blog_id": blog["locked_id"]} for blog in blog_instances])
        records: list[Any] = []
        for blog in blog_instances:
            if blog["published_time"] is not None:
                texts = get_document(blog)
                records.extend(
                    (
                        client.uuid_from_time(blog["published_time"]),
                        {"blog_id": blog["id"], "author": blog["author"]},
                        text,
                        vector,
                    )
                    for text, vector in zip(texts, embedder.embed(texts), strict=True)
                )
        if records:
            store.upsert(records)

    def sync() -> dict[int, list[str]]:
        # this job should be run on a schedule
        vectorizer = pgvectorizer.Vectorize(service_url, "blog")
        while vectorizer.process(embed_and_write) > 0:
            pass
        found: dict[int, list[str]] = {}
        for blog_id, text in db(
            "select (metadata ->> 'blog_id')::int, contents from blog_embedding order by contents"
        ):
            found.setdefault(blog_id, []).append(text)
        return found

    first = [
        "Author Ann, title: First, contents: Cats purr.",
        "Author Ann, title: First, contents: Dogs bark.",
    ]
    second = ["Author Bob, title: Second, contents: Birds sing."]
    assert sync() == {1: first, 2: second}
    assert sync() == {1: first, 2: second}

    db("update blog set contents = 'Cats sleep.' where id = 1")
    db("delete from blog where id = 2")
    db("update blog set published_time = now() where id = 3")
    db("insert into blog (title, author, contents, category) values ('New', 'Eve', 'x', 'AI')")
    assert sync() == {
        1: ["Author Ann, title: First, contents: Cats sleep."],
        3: ["Author Ann, title: Draft, contents: Not yet."],
    }
    db("update blog set published_time = null where id = 3")
    db("update blog set id = 10 where id = 1")
    assert sync() == {10: ["Author Ann, title: First, contents: Cats sleep."]}

    with client.Sync(service_url, "blog_embedding", 384) as store:
        query = embedder.embed(["Author Ann, title: First, contents: Cats sleep."])[0]
        (hit,) = store.search(query, limit=3, filter={"author": "Ann"})
    assert hit.metadata["blog_id"] == 10
    assert hit.distance == pytest.approx(0, abs=1e-6)


def test_a_store_made_in_every_callback_does_not_pile_up_connections(
    vectorizer_url: str, db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    """The documented code makes one in each call and never closes it."""
    db("insert into blog (title, author, contents, category) select n, '', '', '' "
       "from generate_series(1, 27) n")  # fmt: skip
    open_connections: list[int] = []

    def callback(rows: Any, _: Any) -> None:
        store = client.Sync(vectorizer_url, "blog_embedding", 3)
        store.create_tables()
        store.delete_by_metadata([{"blog_id": row["locked_id"]} for row in rows])
        ((number,),) = db(
            "select count(*) from pg_stat_activity where datname = current_database()"
        )
        open_connections.append(number)

    vectorizer = make()
    while vectorizer.process(callback, batch_size=3) > 0:
        pass
    assert len(open_connections) == 10
    assert max(open_connections) <= open_connections[0] + 2


# Rows


def test_every_row_is_handed_over_once(make: Callable[..., pgvectorizer.Vectorize]) -> None:
    collector, vectorizer = Collector(), make()
    assert vectorizer.process(collector) == 3
    assert vectorizer.process(collector) == 0
    assert [row["locked_id"] for row in collector.batches[0]] == [1, 2, 3]
    assert len(collector.batches) == 1
    assert collector.vectorizer is vectorizer


def test_batch_size(db: Database, make: Callable[..., pgvectorizer.Vectorize]) -> None:
    db("insert into blog (title, author, contents, category) select n, '', '', '' "
       "from generate_series(1, 20) n")  # fmt: skip
    vectorizer = make()
    assert vectorizer.process(Collector()) == 10
    assert vectorizer.process(Collector(), batch_size=2) == 2
    assert vectorizer.process(Collector(), batch_size=100) == 11
    with pytest.raises(ConfigurationError, match="batch_size"):
        vectorizer.process(Collector(), batch_size=0)


def test_changes_are_handed_over_by_the_next_run(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    vectorizer = make()
    drain(vectorizer)
    db("insert into blog (title, author, contents, category) values ('New', '', '', '')")
    db("update blog set title = 'Renamed' where id = 1")
    db("delete from blog where id = 2")
    rows = drain(vectorizer)
    assert {key: row["title"] for key, row in rows.items()} == {1: "Renamed", 2: None, 4: "New"}
    db("update blog set id = 11 where id = 1")
    assert {key: row["id"] for key, row in drain(vectorizer).items()} == {1: None, 11: 11}
    db("update blog set title = title")
    assert drain(vectorizer) == {}
    db("truncate blog")
    assert {key: row["title"] for key, row in drain(vectorizer).items()} == {
        3: None, 4: None, 11: None,
    }  # fmt: skip


def test_any_column_counts(db: Database, make: Callable[..., pgvectorizer.Vectorize]) -> None:
    vectorizer = make()
    drain(vectorizer)
    for column in ("title", "author", "contents", "category"):
        db(f"update blog set {column} = {column} || '!' where id = 1")
        assert set(drain(vectorizer)) == {1}


def test_a_row_by_name_and_by_position(make: Callable[..., pgvectorizer.Vectorize]) -> None:
    row = drain(make())[1]
    names = ["locked_id", "id", "title", "author", "contents", "category", "published_time"]
    values = [1, 1, "First", "Ann", "Cats purr.\n\nDogs bark.", "AI"]
    assert list(row.keys()) == names
    assert list(row)[:6] == values
    assert [row[name] for name in names] == [row[n] for n in range(7)] == list(row.values())
    assert dict(row)["title"] == row.get("title") == "First"
    assert (row[-1], len(row)) == (row["published_time"], 7)
    assert row.get("nothing", "default") == "default"
    for missing in ("nothing", 7):
        with pytest.raises(LookupError):
            row[missing]


def test_values_have_their_python_types(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db("create table kinds (id uuid primary key, a integer, b numeric, c timestamptz, d date, "
       "e text[], f jsonb, g boolean, h float8, i bytea, j interval, "
       "k json, l timestamp)")  # fmt: skip
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc)
    values = (
        uuid.UUID(int=7), 1, Decimal("1.50"), moment, date(2024, 1, 2), ["a", None, 'q"'],
        {"x": [1, 2.5, None]}, True, 0.1, b"\x00\xff", timedelta(days=1, seconds=2), [1],
        datetime(2024, 5, 6),  # noqa: DTZ001 - a timestamp without time zone
    )  # fmt: skip
    adapted = [
        psycopg.types.json.Json(value) if isinstance(value, dict) else value for value in values
    ]
    adapted[11] = psycopg.types.json.Json([1])
    db(f"insert into kinds values ({', '.join(['%s'] * 13)})", *adapted)
    (row,) = drain(make("kinds")).values()
    assert tuple(row[1:]) == values
    assert [type(value) for value in row[1:]] == [type(value) for value in values]
    assert row["locked_id"] == values[0]


def test_of_a_deleted_row_only_locked_id_is_set(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    vectorizer = make()
    drain(vectorizer)
    db("delete from blog where id = 1")
    (row,) = drain(vectorizer).values()
    assert list(row) == [1, None, None, None, None, None, None]


def test_a_row_of_nulls_is_not_taken_for_a_deleted_one(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db("create table thing (id integer primary key, a text); insert into thing values (1, null)")
    assert [list(row) for row in drain(make("thing")).values()] == [[1, 1, None]]


def test_the_key_of_several_columns_is_a_tuple(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db("create table pairs (b text, a integer, body text, primary key (a, b))")
    db("insert into pairs values ('x', 1, 'one'), ('y', 1, 'two')")
    vectorizer = make("pairs")
    rows = drain(vectorizer)
    assert {key: row["body"] for key, row in rows.items()} == {(1, "x"): "one", (1, "y"): "two"}
    db("delete from pairs where b = 'x'")
    assert [list(row) for row in drain(vectorizer).values()] == [[(1, "x"), None, None, None]]


AWKWARD = ["locked_id", "n", "s", "k", "x", "source_row", "source_hash", "source_id", "a%b", 'q"q']


@pytest.mark.parametrize("name", AWKWARD)
def test_columns_with_awkward_names(
    db: Database, make: Callable[..., pgvectorizer.Vectorize], name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    db(f"create table thing (id integer primary key, {quoted} text)")
    db("insert into thing values (1, 'value')")
    vectorizer = make("thing")
    assert [list(row) for row in drain(vectorizer).values()] == [[1, 1, "value"]]
    db("update thing set id = 2")
    assert {key: row[2] for key, row in drain(vectorizer).items()} == {1: None, 2: "value"}


def test_a_table_with_awkward_names(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db('create schema "My Schema"')
    db('create table "My Schema"."My ""Table""" ("The Key%" text unique not null, body text)')
    db('insert into "My Schema"."My ""Table""" values (%s, %s)', "k", "b")
    vectorizer = make('My "Table"', schema_name="My Schema", id_column_name="The Key%")
    assert [list(row) for row in drain(vectorizer).values()] == [["k", "k", "b"]]


def test_another_unique_column_as_the_id(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db("alter table blog add unique (title)")
    rows = drain(make("blog", id_column_name="title"))
    assert set(rows) == {"First", "Second", "Draft"}


# The callback


def test_what_the_callback_raises_reaches_the_caller_and_is_tried_again(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    def broken(_: Any, __: Any) -> None:
        raise ZeroDivisionError("in the callback")

    vectorizer = make()
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        vectorizer.process(broken)
    ((status,),) = db("select in_flight from vectorizer.status")
    assert status == 0
    due(db)
    assert set(drain(vectorizer)) == {1, 2, 3}
    due(db)
    assert drain(vectorizer) == {}


def due(db: Database) -> None:
    """Let all back-offs be over."""
    ((table,),) = db("select row_table from vectorizer.vectorizer")
    db(f"update vectorizer.{table} set available_at = now() where available_at is not null")


def test_an_edit_after_a_failure_is_handed_over(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    def broken(_: Any, __: Any) -> None:
        raise ZeroDivisionError

    vectorizer = make()
    with pytest.raises(ZeroDivisionError):
        vectorizer.process(broken)
    db("update blog set title = 'Edited' where id = 1")
    due(db)
    assert drain(vectorizer)[1]["title"] == "Edited"
    assert drain(vectorizer) == {}


def test_one_bad_row_does_not_bury_its_neighbours(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    seen: set[int] = set()

    def poisoned(rows: Any, _: Any) -> None:
        if any(row["locked_id"] == 2 for row in rows):
            raise ZeroDivisionError
        seen.update(row["locked_id"] for row in rows)

    vectorizer = make()
    for _ in range(10):
        try:
            while vectorizer.process(poisoned) > 0:
                pass
        except ZeroDivisionError:
            due(db)
    assert seen == {1, 3}
    assert db("select key from vectorizer.dead_letters") == [({"id": 2},)]


def test_an_async_callback(make: Callable[..., pgvectorizer.Vectorize]) -> None:
    seen = []

    async def callback(rows: Any, _: Any) -> None:
        await asyncio.sleep(0)
        seen.extend(row["locked_id"] for row in rows)

    assert make().process(callback) == 3
    assert seen == [1, 2, 3]


def test_no_transaction_is_open_during_the_callback(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    found: list[Any] = []

    def look(_: Any, __: Any) -> None:
        found.append(
            db(
                "select state, query from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend' "
                "and (xact_start is not null or backend_xid is not null)"
            )
        )

    assert make().process(look) == 3
    assert found == [[]]


def test_a_change_during_the_callback_is_handed_over_again(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    titles = []

    def callback(rows: Any, _: Any) -> None:
        titles.extend(row["title"] for row in rows if row["locked_id"] == 1)
        if titles == ["First"]:
            db("update blog set title = 'Changed' where id = 1")

    vectorizer = make()
    while vectorizer.process(callback) > 0:
        pass
    assert titles == ["First", "Changed"]


# Registering


def test_registering_again_changes_nothing(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    first, second = make(), make()
    first.register()
    first.register()
    triggers = db("select tgname from pg_trigger where not tgisinternal")
    second.register()
    assert db("select tgname from pg_trigger where not tgisinternal") == triggers
    assert set(drain(first)) == {1, 2, 3}
    second.register()
    assert drain(second) == {}


def test_without_autoregister_nothing_is_registered(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    with pytest.raises(Exception, match="install"):
        make().process(Collector(), autoregister=False)
    assert db("select tgname from pg_trigger where not tgisinternal") == []
    vectorizer = make()
    vectorizer.register()
    assert vectorizer.process(Collector(), autoregister=False) == 3


def test_a_second_vectorizer_on_the_same_table(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    first, second = make(), make("blog", work_queue_table_name="blog_second_queue")
    assert set(drain(first)) == set(drain(second)) == {1, 2, 3}
    db("update blog set title = 'x' where id = 1")
    assert set(drain(first)) == {1}
    assert set(drain(second)) == {1}
    assert drain(first) == {}


def test_an_unsuitable_table_is_refused(
    db: Database, make: Callable[..., pgvectorizer.Vectorize]
) -> None:
    db("create table keyless (a integer)")
    with pytest.raises(SourceError, match="no primary key"):
        make("keyless").register()
    with pytest.raises(SourceError, match="nothing does not exist"):
        make("nothing").process(Collector())
    with pytest.raises(SourceError, match="nokey"):
        make("blog", id_column_name="nokey").register()


def test_attributes(make: Callable[..., pgvectorizer.Vectorize], vectorizer_url: str) -> None:
    vectorizer = make('my "blog"', schema_name="app", id_column_name="Id")
    assert vectorizer.service_url == vectorizer_url
    assert vectorizer.table_name_unquoted == 'my "blog"'
    assert vectorizer.schema_name_unquoted == "app"
    assert vectorizer.table_name == '"my ""blog"""'
    assert (vectorizer.schema_name, vectorizer.id_column_name) == ('"app"', '"Id"')
    assert vectorizer.work_queue_table_name == '"app_my__blog__embedding_work_queue"'
    assert vectorizer.trigger_name == '"track_changes_for_embedding"'
    assert vectorizer.trigger_name_fn == '"my__blog__wq_for_embedding"'
