"""Collections under hostile text, wrong input, many threads and tasks, and tables of others."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from collections_of import KINDS, clients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from vectorizer import Vectorizer, client
from vectorizer.errors import ConfigurationError, DatabaseError, DimensionMismatch
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = (uuid.UUID(int=1), {"a": 1}, "text", [1.0, 2.0, 3.0])


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    with clients(request.param, vectorizer_url) as make:
        yield make


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:
        yield connection


# Hostile text

PIECES = [
    "'", "''", '"', "\\", "%", "%s", "%(a)s", "$1", "$2", "$$", "{", "}", "{0}", ";", "--", "/*",
    "*/", "drop table canary", "\n", " ", "\t", "E'", "::text", ")", "(", "é", "🐈", "\x01", "a",
    "0", "\ufffd", "?", "@>", "$.a", "U&'", "null", "select", "\u2019",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
names = hostile.filter(lambda name: len(name.encode()) <= 63)
patient = settings(
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def canary(db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    db.execute("create table canary as select 'alive' as state")
    yield db
    assert db.execute("select state from canary").fetchall() == [("alive",)]


@pytest.fixture
def items(canary: psycopg.Connection, vectorizer_url: str) -> Iterator[client.Sync]:
    del canary
    with client.Sync(vectorizer_url, "items", 3, id_type="TEXT") as store:
        store.create_tables()
        yield store


@patient
@given(key=hostile, value=hostile, identifier=hostile, other=hostile)
def test_texts_are_data(
    items: client.Sync, key: str, value: str, identifier: str, other: str
) -> None:
    metadata = {key: value, "list": [value, key], "nested": {key: {"x": value}}}
    items.upsert([(identifier, metadata, value, [1, 2, 3])])
    is_operator = key in ("$and", "$or", "$not")
    equal = client.Predicates(key, "=", value)
    for found in (
        items.search([1, 2, 3], predicates=equal),
        items.search(predicates=client.Predicates((key, value), (key, "!=", value + "x"))),
        items.search(predicates=client.Predicates("list", "@>", [key, value])),
        items.search(filter={"nested": {key: {"x": value}}}),
        items.search(filter=[{key: value}, {other: other}]) if not is_operator else [],
        items.search(filter={key: {"$eq": value}}),
        items.search(filter={key: {"$in": [value, other]}}),
        items.search(filter={"list": {"$contains": value}}),
        items.fetch([identifier]),
    ):
        if not is_operator or found:
            assert [(hit.id, hit.contents, hit.metadata) for hit in found] == [
                (identifier, value, metadata)
            ]
    assert items.search(predicates=~equal) == []
    items.search(text=value, mode="text")
    items.search([1, 2, 3], text=other, predicates=client.Predicates(other, ">", 5))
    items.search(predicates=client.Predicates(key, "<", datetime.now(timezone.utc)))
    items.delete_by_metadata({key: {"$eq": value}})
    items.upsert([(identifier, {}, value, [1, 2, 3])])
    items.delete_by_ids([identifier, other])
    assert items.count() == 0


@patient
@given(text=hostile, operator=hostile)
def test_operators_and_times_are_no_sql(items: client.Sync, text: str, operator: str) -> None:
    if operator not in client.Predicates.operators_mapping:
        with pytest.raises(ConfigurationError):
            items.search(predicates=client.Predicates("a", operator, text))
    for call in (
        lambda: items.search(filter={"__start_date": text}),
        lambda: client.UUIDTimeRange(text),
        lambda: items.search([1, 2, 3], measure=text),
        lambda: items.search([1, 2, 3], include=[text]),
        lambda: items.search(text="a", mode=text),  # type: ignore[arg-type]
        lambda: items.search([1, 2, 3], query_params=client.QueryParams({text: 1})),
        lambda: items.search(predicates=client.Predicates("__uuid_timestamp", ">", text)),
        lambda: client.DiskAnnIndex(storage_layout=text),
        lambda: client.HNSWIndexParams(40, iterative_scan=text),
        lambda: client.Sync(items.service_url, "t", 3, distance_type=text),
        lambda: client.Sync(items.service_url, "t", 3, vector_type=text),
        lambda: client.Sync(items.service_url, "t", 3, partitioning=text),
    ):
        with pytest.raises((ConfigurationError, DatabaseError)):
            call()


@settings(patient, max_examples=15)
@given(table=names, schema=names, config=names, value=hostile)
def test_names_are_identifiers(
    canary: psycopg.Connection,
    vectorizer_url: str,
    table: str,
    schema: str,
    config: str,
    value: str,
) -> None:
    canary.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    options: dict[str, Any] = {"schema_name": schema, "time_partition_interval": timedelta(days=9)}
    for extra in ({}, options):
        with client.Sync(vectorizer_url, table, 3, **extra) as store:
            if table == "canary":
                continue
            store.create_tables()
            identifier = uuid.uuid1()
            store.upsert([(identifier, {value: 1}, value, [1, 2, 3])])
            store.upsert([(identifier, {value: 2}, value, [1, 2, 3])])
            store.create_embedding_index()
            store.create_embedding_index(client.HNSWIndex(m=5))
            store.create_text_index()
            (hit,) = store.search([1, 2, 3], predicates=client.Predicates(value, "=", 2))
            assert hit.contents == value
            store.search([1, 2, 3], text=value)
            store.drop_partitions(timedelta(days=900)) if extra else None
            store.delete_all()
            assert store.table_is_empty()
            store.drop_table()
    with client.Sync(vectorizer_url, "plain", 3, text_config=config) as store:
        store.create_tables()
        if config.strip() not in ("simple", "english"):
            with pytest.raises(DatabaseError):
                store.search(text="a", mode="text")
    canary.execute(sql.SQL("drop schema {}").format(sql.Identifier(schema)))


@settings(patient, max_examples=25)
@given(value=hostile | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_predicates_never_break_on_what_is_stored(items: client.Sync, value: Any) -> None:
    items.upsert(
        [
            (name, {"k": stored}, "", [1, 2, 3])
            for name, stored in {
                "value": value, "text": str(value), "list": [value], "object": {"k": value},
                "date": "2024-02-30", "time": "2024-01-01T25:00:00", "number": "1e99999999",
            }.items()
            if not (isinstance(stored, float) and math.isinf(stored))
            and "inf" not in str(stored)
        ]
    )  # fmt: skip
    for compared in (5, 2.5, True, "x", datetime.now(timezone.utc), [1]):
        for operator in client.Predicates.operators_mapping:
            if operator in ("<", "<=", ">", ">=") and isinstance(compared, list):
                continue
            if operator == "@>" and isinstance(compared, datetime):
                continue
            items.search(predicates=client.Predicates("k", operator, compared))
    for operator in ("$ne", "$lt", "$lte", "$gt", "$gte"):
        for limit in (5, "x", False):
            items.search(filter={"k": {operator: limit}})


# Wrong input


@pytest.fixture
def store(make: Callable[..., Any]) -> Any:
    store = make("items", 3)
    store.create_tables()
    store.upsert([RECORD])
    return store


NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]

WRONG_RECORDS: dict[str, tuple[Any, str]] = {
    "no sequence": (5, "record 1"),
    "nothing in it": ((), "record 1"),
    "an id alone": ((uuid.uuid4(),), "got 1 values"),
    "a number for an id": ((5, {}, "x", [1, 2, 3]), "no UUID"),
    "bytes for an id": ((b"x" * 16, {}, "x", [1, 2, 3]), "no UUID"),
    "no id": ((None, {}, "x", [1, 2, 3]), "no UUID"),
    "a matrix": ((uuid.uuid4(), {}, "x", [[1, 2, 3]]), "3 dimensions"),
    "a number for a vector": ((uuid.uuid4(), {}, "x", 5), "record 1"),
    "text for a vector": ((uuid.uuid4(), {}, "x", "[1,2,3]"), "record 1"),
    "beyond float32": ((uuid.uuid4(), {}, "x", [1e39, 2, 3]), "finite"),
    "complex": ((uuid.uuid4(), {}, "x", [1j, 2, 3]), "numbers"),
    "too deep": ((uuid.uuid4(), {"a": NESTED}, "x", [1, 2, 3]), "record 1"),
    "half a surrogate": ((uuid.uuid4(), {}, "\ud800", [1, 2, 3]), "record 1"),
    "half a surrogate in the metadata": ((uuid.uuid4(), {"\udc00": 1}, "x", [1, 2, 3]), "record 1"),
    "a zero byte in the metadata": ((uuid.uuid4(), {"a": "\0"}, "x", [1, 2, 3]), "zero byte"),
    "a set in the metadata": ((uuid.uuid4(), {"a": {1}}, "x", [1, 2, 3]), "JSON"),
    "bytes for contents": ((uuid.uuid4(), {}, b"x", [1, 2, 3]), "contents must be text"),
}


@pytest.mark.parametrize("which", WRONG_RECORDS)
def test_wrong_records(store: Any, which: str) -> None:
    wrong, message = WRONG_RECORDS[which]
    fine = (uuid.UUID(int=7), {}, "x", [1, 2, 3])
    for records in ([fine, wrong], iter([fine, wrong]), [fine, wrong, *[fine] * 30]):
        with pytest.raises(ConfigurationError, match=message) as raised:
            store.upsert(records)
        assert "record 1" in str(raised.value)
    assert store.count() == 1


def test_the_position_counts_over_batches(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("_sync", "_async"):
        monkeypatch.setattr(f"vectorizer.{package}.collection_writer._BATCH", 10)
    records = [(uuid.UUID(int=n + 5), {}, str(n), [1, 2, 3]) for n in range(35)]
    records[27] = (uuid.UUID(int=1), {}, "x", [1, 2])
    for given_as in (list, iter):
        with pytest.raises(ConfigurationError, match="record 27"):
            store.upsert(given_as(records))
    assert store.count() == 1
    del records[27]
    store.upsert(iter([*records, (records[0][0], {}, "last", [1, 2, 3])]))
    assert store.count() == 35
    assert store.fetch([records[0][0]])[0].contents == "last"


@pytest.mark.parametrize("metadata", ['"text \\\\u0000 and \\\\\\\\"', '{"a": "\\\\u0000"}'])
def test_a_written_backslash_is_no_zero_byte(store: Any, metadata: str) -> None:
    store.upsert([(RECORD[0], metadata, "x", [1, 2, 3])])
    assert store.count() == 1


def test_wrong_calls(store: Any, make: Callable[..., Any]) -> None:
    for limit in (0, -1, 1.5, "10", None, True, 2**40):
        with pytest.raises(ConfigurationError, match="limit"):
            store.search([1, 2, 3], limit=limit)
    for query in ([1, 2], [1, 2, float("nan")], [[1, 2, 3]], {"a": 1}, 5, ["a", "b", "c"]):
        with pytest.raises(ConfigurationError, match="query_embedding"):
            store.search(query)
    for records in ("text", {"id": 1}, b"x"):
        with pytest.raises(ConfigurationError, match="list of records"):
            store.upsert(records)
    for ids in ("text", [5], [None], uuid.uuid4()):
        with pytest.raises(ConfigurationError, match="id"):
            store.delete_by_ids(ids)
    store.delete_by_ids([])
    for empty in ({}, [], [{}], None, [{"a": 1}, {}]):
        with pytest.raises(ConfigurationError, match="everything"):
            store.delete_by_metadata(empty)
    with pytest.raises(ConfigurationError, match="UUIDTimeRange"):
        store.search(uuid_time_filter="2024")
    with pytest.raises(ConfigurationError, match="HNSWIndex"):
        store.create_embedding_index("hnsw")
    assert store.count() == 1
    for options in (
        {"dimensions": 0},
        {"dimensions": "3"},
        {"dimensions": 16_001},
        {"table": ""},
        {"table": "x" * 64},
        {"table": "a\0"},
        {"table": "\ud800"},
        {"table": None},
        {"id_type": 5},
        {"max_db_connections": 0},
        {"vector_type": "sparsevec"},
        {"normalize": True, "vector_type": "bit"},
    ):
        with pytest.raises(ConfigurationError):
            make(**{"table": "items", "dimensions": 3, **options})


@pytest.mark.parametrize(
    "range_",
    [
        {},
        {"start_date": "2024-01-02", "end_date": "2024-01-01"},
        {"start_date": "2024-01-02", "time_delta": timedelta(days=-1)},
        {"start_date": "2024-01-01", "end_date": "2024-01-02", "time_delta": timedelta(1)},
        {"time_delta": timedelta(1)},
        {"start_date": "tomorrow"},
        {"start_date": 5},
        {"start_date": datetime.max, "time_delta": timedelta(days=1)},  # noqa: DTZ901
        {"start_date": datetime(2024, 1, 2), "end_date": "2024-01-01T00:00:00+00:00"},  # noqa: DTZ001
    ],
    ids=str,
)
def test_wrong_time_ranges(range_: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        client.UUIDTimeRange(**range_)
    assert isinstance(raised.value, ValueError)


# Tables of another shape, views, other schemas

SHAPES = {
    "(id int, metadata jsonb, contents text, embedding vector(3))": "id should be uuid",
    "(id uuid, metadata json, contents text, embedding vector(3))": "metadata should be jsonb",
    "(id uuid, metadata jsonb, embedding vector(3))": "contents should be text, and is missing",
    "(id uuid, metadata jsonb, contents text, embedding bit(3))": "vector_type",
    "(id uuid, metadata jsonb, contents text, embedding float4[])": "embedding should be vector",
}


@pytest.mark.parametrize("columns", SHAPES)
def test_a_table_of_another_shape(
    make: Callable[..., Any], db: psycopg.Connection, columns: str
) -> None:
    db.execute(f"create table items {columns}")
    store = make("items", 3)
    for call in (store.create_tables, store.search, lambda: store.upsert([RECORD])):
        with pytest.raises(ConfigurationError, match=SHAPES[columns]):
            call()


def test_other_dimensions_than_the_table_has(store: Any, make: Callable[..., Any]) -> None:
    del store
    other = make("items", 4)
    with pytest.raises(DimensionMismatch, match=r"holds vectors of 3 dimensions.*give 3"):
        other.create_tables()


def test_a_table_that_is_there_is_opened(make: Callable[..., Any], db: psycopg.Connection) -> None:
    """As timescale_vector made it without time partitioning, or anybody with more columns."""
    db.execute(
        "create table items (extra int default 5, id uuid primary key, embedding vector(3),"
        " contents text, metadata jsonb)"
    )
    store = make("items", 3)
    store.upsert([RECORD])
    store.create_tables()
    assert [hit.contents for hit in store.search([1, 2, 3])] == ["text"]
    assert db.execute("select extra from items").fetchall() == [(5,)]


def test_vectors_of_half_precision_are_opened_as_they_are(
    make: Callable[..., Any], db: psycopg.Connection
) -> None:
    db.execute("create table items (id uuid, metadata jsonb, contents text, embedding halfvec(3))")
    store = make("items", 3)
    store.upsert([RECORD])
    store.create_embedding_index()
    assert store.search([1, 2, 3])[0].embedding.tolist() == [1, 2, 3]


def test_what_a_worker_wrote_is_searched(
    make: Callable[..., Any], db: psycopg.Connection, vectorizer_url: str
) -> None:
    db.execute("create table post (id int primary key, body text, kind text, at timestamptz)")
    db.execute(
        "insert into post values (1, 'the cat sleeps', 'pet', '2024-01-01Z'),"
        " (2, 'a dog barks', 'pet', '2024-02-01Z'), (3, 'a wolf howls', 'wild', '2024-03-01Z')"
    )
    with Vectorizer(
        vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body", metadata=["kind"],
        time_column="at", partition_interval=timedelta(days=7), destination="post_embedding",
    ) as vectorizer:  # fmt: skip
        vectorizer.install()
        vectorizer.run()
    store = make("post_embedding", 16, embedder=FakeEmbedder())
    assert store.search("dog barks")[0].contents == "a dog barks"
    assert store.search("dog", filter={"kind": "wild"})[0].contents == "a wolf howls"
    january = client.UUIDTimeRange("2024-01-01T00:00:00Z", time_delta=timedelta(days=15))
    assert [h.contents for h in store.search("dog", uuid_time_filter=january)] == ["the cat sleeps"]
    assert store.count(predicates=client.Predicates("kind", "=", "pet")) == 2
    assert len(list(store.stream())) == 3
    store.create_tables()
    for call in (
        lambda: store.upsert([(uuid.uuid1(), {}, "x", [1] * 16)]),
        store.create_embedding_index,
        store.create_text_index,
    ):
        with pytest.raises(ConfigurationError, match="is a view"):
            call()


def test_row_security_is_kept(make: Callable[..., Any], db: psycopg.Connection) -> None:
    """A search sees what its role may see; our own transactions elsewhere refuse policies."""
    store = make("items", 3)
    store.create_tables()
    store.upsert([RECORD, (uuid.UUID(int=2), {"a": 2}, "hidden", [1, 2, 3])])
    role = f"reader_{secrets.token_hex(4)}"
    db.execute("alter table items enable row level security")
    db.execute("create policy few on items using (metadata @> '{\"a\": 1}')")
    db.execute(f"create role {role} login")
    try:
        db.execute(f"grant select on items to {role}")
        info = psycopg.conninfo.make_conninfo(store.service_url, user=role)
        try:
            psycopg.connect(info).close()
        except psycopg.OperationalError:
            pytest.skip("the server lets no other role in")
        with client.Sync(info, "items", 3) as reader:
            assert [hit.contents for hit in reader.search([1, 2, 3])] == ["text"]
    finally:
        db.execute(f"drop owned by {role}")
        db.execute(f"drop role {role}")


def test_a_connection_that_was_ended_is_replaced(store: Any, db: psycopg.Connection) -> None:
    for _ in range(3):
        assert len(store.search([1, 2, 3])) == 1
        assert store.count({"a": 1}) == 1
        ended = db.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        ).fetchall()
        assert (True,) in ended
        assert len(store.search([1, 2, 3], query_params=client.HNSWIndexParams(50))) == 1


def test_a_search_that_takes_too_long_is_not_run_again(
    make: Callable[..., Any], db: psycopg.Connection
) -> None:
    db.execute("create sequence runs")
    db.execute(
        "create function slow() returns jsonb language plpgsql as $$ begin"
        " perform nextval('public.runs'); perform pg_sleep(20); return null; end $$"
    )
    db.execute(
        "create view items as select gen_random_uuid() as id, public.slow() as metadata,"
        " ''::text as contents, '[1,2,3]'::vector(3) as embedding"
    )
    store = make("items", 3)
    limit = client.QueryParams({"statement_timeout": 100})
    with pytest.raises(DatabaseError, match="timeout"):
        store.search([1, 2, 3], query_params=limit)
    assert db.execute("select last_value from runs").fetchall() == [(1,)]


# Many at once


def test_many_threads(vectorizer_url: str) -> None:
    with client.Sync(vectorizer_url, "items", 3, max_db_connections=4) as store:
        store.create_tables()
        vectors = np.random.default_rng(3).standard_normal((200, 3))
        store.upsert([(uuid.UUID(int=n), {"n": n}, str(n), v) for n, v in enumerate(vectors)])
        store.create_embedding_index(client.HNSWIndex())
        fresh = client.Sync(vectorizer_url, "items", 3, max_db_connections=4)

        def search(n: int) -> bool:
            params = client.HNSWIndexParams(ef_search=40 + n % 50) if n % 3 else None
            (one,) = fresh.search(vectors[n % 200], 1, query_params=params)
            (two,) = fresh.search(filter={"n": n % 200}, limit=1)
            return one.contents == two.contents == str(n % 200)

        with fresh, ThreadPoolExecutor(16) as threads:
            assert all(threads.map(search, range(600)))


async def test_many_tasks(vectorizer_url: str) -> None:
    async with client.Async(vectorizer_url, "items", 3, max_db_connections=4) as store:
        await store.create_tables()

        async def write_and_search(n: int) -> None:
            await store.upsert([(uuid.UUID(int=n), {"n": n}, str(n), [1, n, 0])])
            (hit,) = await store.search([1, n, 0], 1, filter={"n": n})
            assert hit.contents == str(n)

        await asyncio.gather(*(write_and_search(n) for n in range(200)))
        assert await store.count() == 200


@pytest.mark.parametrize("options", [{}, {"time_partition_interval": timedelta(days=1)}], ids=str)
def test_upserts_of_the_same_records_at_once(vectorizer_url: str, options: dict[str, Any]) -> None:
    ids = [client.uuid_from_time(1.7e9 + n * 9000, n, 0) for n in range(60)]
    # Three who write the same records may still end in a deadlock, which is found sooner so.
    url = f"{vectorizer_url}&options=-cdeadlock_timeout%3D50ms"
    seed = secrets.randbits(32)
    print(f"seed {seed}")

    def write(worker: int) -> None:
        order = random.Random(seed + worker)  # noqa: S311 - to be repeated with its seed
        for turn in range(4):
            chosen = order.sample(ids, 30)
            with client.Sync(url, "items", 3, **options) as store:
                store.create_tables()
                store.upsert([(i, {"w": worker}, f"{worker} {turn}", [1, 2, 3]) for i in chosen])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    with client.Sync(vectorizer_url, "items", 3, **options) as store:
        assert store.count() == len({hit.id for hit in store.stream()})
        assert store.count() <= 60
        assert {hit.contents for hit in store.stream()} <= {
            f"{worker} {turn}" for worker in range(4) for turn in range(4)
        }
