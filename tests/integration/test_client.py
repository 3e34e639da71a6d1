"""timescale_vector's client: one collection of vectors, sync and async alike."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from vectorizer import client
from vectorizer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JANUARY = datetime(2024, 1, 10, 12, tzinfo=timezone.utc)
TABLE = "The \"items\" 'x' %s" + "é" * 20


class Blocking:
    """An Async whose coroutines are run to their end."""

    def __init__(self, store: client.Async, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        return lambda *args, **named: self._loop.run_until_complete(attribute(*args, **named))


@pytest.fixture(params=["Sync", "Async"])
def make(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    loop = asyncio.new_event_loop()
    opened: list[Any] = []

    def made(table: str = "items", **options: Any) -> Any:
        if request.param == "Sync":
            store: Any = client.Sync(vectorizer_url, table, 3, **options)
        else:
            store = Blocking(client.Async(vectorizer_url, table, 3, **options), loop)
        opened.append(store)
        return store

    yield made
    for store in opened:
        store.close()
    loop.close()


@pytest.fixture
def store(make: Callable[..., Any]) -> Any:
    store = make()
    store.create_tables()
    return store


@pytest.fixture
def timed(make: Callable[..., Any]) -> Any:
    store = make(time_partition_interval=timedelta(days=7))
    store.create_tables()
    return store


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:

        def run(query: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

        yield run


def record(number: int, *, at: datetime | None = None, **metadata: Any) -> tuple[Any, ...]:
    identifier = client.uuid_from_time(at, number, 0) if at else uuid.UUID(int=number)
    return (identifier, metadata, f"text {number}", [number, 1, 0])


def contents(store: Any, **options: Any) -> list[str]:
    return sorted(found.contents for found in store.search(limit=100, **options))


def test_creating_twice_changes_nothing(store: Any, make: Callable[..., Any], db: Any) -> None:
    store.upsert([record(1)])
    tables = db("select relname from pg_class where relname ~ 'items' order by 1")
    store.create_tables()
    make().create_tables()
    assert db("select relname from pg_class where relname ~ 'items' order by 1") == tables
    assert contents(store) == ["text 1"]


def test_creating_makes_the_extension(make: Callable[..., Any], db: Any) -> None:
    db("drop extension vector")
    store = make()
    store.create_tables()
    store.upsert([record(1)])
    assert contents(store) == ["text 1"]


def test_a_known_id_is_replaced(store: Any) -> None:
    store.upsert([record(1, a=1), record(2)])
    store.upsert([(uuid.UUID(int=1), {"a": 2}, "new", [0, 0, 1])])
    found = {hit.id: hit for hit in store.search()}
    assert len(found) == 2
    assert found[uuid.UUID(int=1)].contents == "new"
    assert found[uuid.UUID(int=1)].metadata == {"a": 2}
    assert found[uuid.UUID(int=1)].embedding.tolist() == [0, 0, 1]


def test_of_equal_ids_the_last_counts(store: Any) -> None:
    identifier = uuid.UUID(int=1)
    store.upsert([(identifier, {}, text, [1, 1, 1]) for text in ("first", "second", "third")])
    store.upsert([(str(identifier), {}, "as text", [1, 1, 1]), record(2)])
    assert contents(store) == ["as text", "text 2"]


def test_no_records(store: Any, timed: Any) -> None:
    for collection in (store, timed):
        collection.upsert([])
        collection.upsert(iter(()))
        assert contents(collection) == []


def test_any_iterable_of_records(store: Any) -> None:
    store.upsert(record(number) for number in range(3))
    store.upsert([(uuid.UUID(int=9), None, None, np.array([1, 2, 3], dtype="f8"))])
    (found,) = [hit for hit in store.search() if hit.id == uuid.UUID(int=9)]
    assert (found.metadata, found.contents) == (None, None)
    assert len(contents_or_none(store)) == 4


def contents_or_none(store: Any) -> list[Any]:
    return [found.contents for found in store.search(limit=100)]


def test_results_by_position_and_by_name(store: Any) -> None:
    store.upsert([record(3, kind="cat")])
    (found,) = store.search([3, 1, 0])
    identifier, metadata, text, embedding, distance = found
    assert found[client.SEARCH_RESULT_ID_IDX] == found.id == identifier == uuid.UUID(int=3)
    assert found[client.SEARCH_RESULT_METADATA_IDX] == found.metadata == metadata == {"kind": "cat"}
    assert found[client.SEARCH_RESULT_CONTENTS_IDX] == found.contents == text == "text 3"
    assert found[client.SEARCH_RESULT_EMBEDDING_IDX] is found.embedding is embedding
    assert embedding.dtype == np.float32
    assert embedding.tolist() == [3, 1, 0]
    assert found[client.SEARCH_RESULT_DISTANCE_IDX] == found.distance == distance
    assert distance == pytest.approx(0, abs=1e-6)


def test_the_nearest_come_first(store: Any) -> None:
    store.upsert([record(number) for number in range(20)])
    query = np.array([5, 1, 0])
    found = store.search(query, limit=4)
    assert found[0].contents == "text 5"
    assert {hit.contents for hit in found} == {"text 4", "text 5", "text 6", "text 7"}
    assert [hit.distance for hit in found] == sorted(hit.distance for hit in found)
    cosine = 1 - query @ [4, 1, 0] / np.linalg.norm(query) / np.linalg.norm([4, 1, 0])
    (four,) = [hit for hit in found if hit.contents == "text 4"]
    assert four.distance == pytest.approx(cosine, abs=1e-6)
    assert len(store.search(query)) == 10


def test_euclidean_distance(make: Callable[..., Any]) -> None:
    store = make(distance_type="euclidean")
    store.create_tables()
    store.upsert([record(1), record(4)])
    assert [hit.distance for hit in store.search([1, 1, 0])] == pytest.approx([0, 3])


def test_search_without_a_vector_has_the_distance_of_timescale_vector(store: Any) -> None:
    store.upsert([record(1)])
    assert [hit.distance for hit in store.search()] == [-1.0]


def test_filters(store: Any) -> None:
    store.upsert([
        record(1, kind="cat", age=1, tags=["a", "b"]),
        record(2, kind="cat", age=2),
        record(3, kind="dog", age=1, owner={"name": "Ann"}),
    ])  # fmt: skip
    for query in (None, [1, 1, 1]):

        def found(chosen: Any, query: Any = query) -> list[str]:
            hits = store.search(query, filter=chosen)
            return sorted(hit.contents.removeprefix("text ") for hit in hits)

        assert found({"kind": "cat"}) == ["1", "2"]
        assert found({"kind": "cat", "age": 1}) == ["1"]
        assert found([{"kind": "dog"}, {"age": 2}]) == ["2", "3"]
        assert found({"owner": {"name": "Ann"}}) == ["3"]
        assert found({"tags": ["b"]}) == ["1"]
        assert found({"age": "1"}) == []
        assert found({}) == found(None) == ["1", "2", "3"]


@pytest.mark.parametrize("wrong", ["kind = cat", [["kind", "cat"]], 5])
def test_a_filter_of_another_kind_is_refused(store: Any, wrong: Any) -> None:
    with pytest.raises((ConfigurationError, TypeError)):
        store.search(filter=wrong)


def test_deleting_by_metadata(store: Any) -> None:
    store.upsert([record(number, blog_id=number % 4, kind="x") for number in range(8)])
    store.delete_by_metadata({"blog_id": 1, "kind": "x"})
    assert len(store.search()) == 6
    store.delete_by_metadata([{"blog_id": 0}, {"blog_id": 2}, {"blog_id": 99}])
    assert contents(store) == ["text 3", "text 7"]
    store.delete_by_metadata({"blog_id": "3"})
    assert len(store.search()) == 2


@pytest.mark.parametrize("empty", [{}, [], [{}], [{"blog_id": 1}, {}], None])
def test_deleting_everything_by_accident_is_refused(store: Any, empty: Any) -> None:
    store.upsert([record(1, blog_id=1)])
    with pytest.raises(ConfigurationError, match="everything"):
        store.delete_by_metadata(empty)
    assert contents(store) == ["text 1"]


PARTITIONS = (
    "select count(*) from pg_inherits where inhparent = 'items'::regclass "
    "and (select relispartition from pg_class where oid = inhrelid)"
)


def test_partitions_are_made_on_demand(timed: Any, db: Any) -> None:
    assert db(PARTITIONS) == [(0,)]
    timed.upsert([record(n, at=JANUARY + timedelta(days=n)) for n in range(4)])
    assert db(PARTITIONS) == [(1,)]
    timed.upsert([record(n, at=JANUARY + timedelta(days=10 * n)) for n in range(1, 4)])
    assert db(PARTITIONS) == [(4,)]
    assert db("select time from items order by time limit 1") == [(JANUARY,)]
    assert db("select count(*) from items") == [(7,)]


def test_a_dropped_partition_is_made_again(timed: Any, db: Any) -> None:
    timed.upsert([record(1, at=JANUARY)])
    ((name,),) = db(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'items'::regclass"
    )
    db(f"drop table {name}")
    timed.upsert([record(2, at=JANUARY)])
    assert contents(timed) == ["text 2"]


def test_upserting_and_deleting_across_partitions(timed: Any) -> None:
    moments = [JANUARY, JANUARY + timedelta(days=100)]
    timed.upsert([record(n, at=at, n=n) for n, at in enumerate(moments)])
    timed.upsert([(client.uuid_from_time(moments[1], 1, 0), {"n": 1}, "new", [1, 1, 1])])
    assert contents(timed) == ["new", "text 0"]
    timed.delete_by_metadata({"n": 0})
    assert contents(timed) == ["new"]


WRONG = {
    "too few dimensions": ((uuid.UUID(int=1), {}, "x", [1, 2]), "3 dimensions, got 2"),
    "too many": ((uuid.UUID(int=1), {}, "x", [1, 2, 3, 4]), "3 dimensions, got 4"),
    "NaN": ((uuid.UUID(int=1), {}, "x", [1, float("nan"), 2]), "finite"),
    "infinity": ((uuid.UUID(int=1), {}, "x", [1, float("inf"), 2]), "finite"),
    "no vector": ((uuid.UUID(int=1), {}, "x", None), "vector"),
    "words for numbers": ((uuid.UUID(int=1), {}, "x", ["a", "b", "c"]), "numbers"),
    "no UUID": (("not a uuid", {}, "x", [1, 2, 3]), "UUID"),
    "three values": ((uuid.UUID(int=1), {}, [1, 2, 3]), "got 3 values"),
    "metadata of no JSON": ((uuid.UUID(int=1), {"x": {1, 2}}, "x", [1, 2, 3]), "JSON"),
    "broken JSON text": ((uuid.UUID(int=1), '{"a": ', "x", [1, 2, 3]), "record 2"),
    "NaN in the metadata": ((uuid.UUID(int=1), {"x": float("nan")}, "x", [1, 2, 3]), "record 2"),
    "contents are no text": ((uuid.UUID(int=1), {}, 5, [1, 2, 3]), "record 2"),
    "a zero byte in the contents": ((uuid.UUID(int=1), {}, "a\0b", [1, 2, 3]), "record 2"),
}


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_record_is_named_and_nothing_is_written(store: Any, which: str) -> None:
    wrong, message = WRONG[which]
    store.upsert([record(9)])
    with pytest.raises(ConfigurationError, match=message) as raised:
        store.upsert([record(7), record(8), wrong, record(9)])
    assert "record 2" in str(raised.value)
    assert contents(store) == ["text 9"]


def test_a_time_partitioned_collection_needs_uuids_of_version_1(timed: Any, db: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"record 1: .*version 4.*uuid_from_time"):
        timed.upsert([record(1, at=JANUARY), (uuid.uuid4(), {}, "x", [1, 2, 3])])
    assert db("select count(*) from items") == [(0,)]


@pytest.mark.parametrize("timed", [False, True])
def test_a_table_with_an_awkward_name(make: Callable[..., Any], timed: bool) -> None:
    store = make(TABLE, **({"time_partition_interval": timedelta(days=1)} if timed else {}))
    store.create_tables()
    store.upsert([record(1, at=JANUARY, a=1), record(2, at=JANUARY)])
    assert contents(store, filter={"a": 1}) == ["text 1"]
    store.delete_by_metadata({"a": 1})
    assert contents(store) == ["text 2"]


def test_metadata_is_data(store: Any) -> None:
    key = 'it\'s "quoted" %s %(x)s {x} \\ -- ; drop table items'
    store.upsert([record(1, **{key: key}), record(2)])
    assert store.search(filter={key: key})[0].metadata == {key: key}
    assert len(store.search(filter=[{key: key}])) == 1
    store.delete_by_metadata({key: key})
    assert contents(store) == ["text 2"]


def test_text_of_any_kind_survives(store: Any) -> None:
    text = "naïve 猫 🐈 \t\n \\N \\. 'q' \"q\" \x01"
    store.upsert([(uuid.UUID(int=1), {"t": text}, text, [1, 2, 3])])
    (found,) = store.search()
    assert (found.contents, found.metadata) == (text, {"t": text})


def test_another_schema(make: Callable[..., Any], db: Any) -> None:
    db('create schema "My Schema"')
    store = make(schema_name="My Schema", time_partition_interval=timedelta(days=1))
    store.create_tables()
    store.upsert([record(1, at=JANUARY)])
    assert db('select contents from "My Schema".items') == [("text 1",)]


def test_ids_of_type_text(make: Callable[..., Any]) -> None:
    store = make(id_type="TEXT")
    store.create_tables()
    store.upsert([("a", {}, "first", [1, 2, 3]), ("a", {}, "second", [1, 2, 3])])
    assert [(hit.id, hit.contents) for hit in store.search()] == [("a", "second")]


def test_wrong_options_are_refused(make: Callable[..., Any]) -> None:
    for options in (
        {"distance_type": "manhattan"},
        {"id_type": "integer"},
        {"id_type": "TEXT", "time_partition_interval": timedelta(days=1)},
    ):
        with pytest.raises(ConfigurationError):
            make(**options)
    with pytest.raises(ConfigurationError, match="limit"):
        make().search(limit=0)
