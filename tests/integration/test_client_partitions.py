"""Collections partitioned by the time in their ids, natively."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from collections_of import KINDS, clients
from time_partitioned import DAY, JANUARY, SCENARIOS, contents, filled

from vectorizer import client
from vectorizer.errors import ConfigurationError, ExtensionMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INDEXES = "select relname, indisvalid from pg_class join pg_index on indexrelid = oid where "


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[Callable[..., Any]]:
    with clients(request.param, vectorizer_url) as make:
        yield make


@pytest.fixture
def db(vectorizer_url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    with psycopg.connect(vectorizer_url, autocommit=True) as connection:

        def run(query: str, *values: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_documented(make: Callable[..., Any], scenario: Callable[[Any], None]) -> None:
    scenario(filled(make))


def test_a_time_filter_prunes_partitions(make: Callable[..., Any], db: Any) -> None:
    store = make("items", 2, time_partition_interval=DAY)
    store.create_tables()
    store.upsert((client.uuid_from_time(JANUARY + n * DAY), {}, str(n), [1, n]) for n in range(10))
    wanted = client.UUIDTimeRange(JANUARY + 3 * DAY, time_delta=DAY)
    text, values = store.builder.search_query([1, 2], 5, uuid_time_filter=wanted)
    with psycopg.connect(store.service_url) as connection:
        plan = psycopg.RawCursor(connection).execute(f"explain {text}", ["[1,2]", *values[1:]])
        scanned = set(re.findall(r"on (items_\w+)", " ".join(row[0] for row in plan)))
    assert len(db("select 1 from pg_inherits where inhparent = 'items'::regclass")) == 10
    assert 1 <= len(scanned) <= 2
    assert contents(store.search([1, 2], uuid_time_filter=wanted)) == ["3"]


def test_each_partition_has_the_index_also_later_ones(make: Callable[..., Any], db: Any) -> None:
    store = filled(make)
    store.create_embedding_index(client.HNSWIndex())
    store.upsert([(client.uuid_from_time(JANUARY + 10 * DAY), {}, "later", [1, 1])])
    hnsw = (
        "indexrelid in (select c.oid from pg_class c"
        " join pg_am a on a.oid = relam and amname = 'hnsw')"
    )
    found = db(INDEXES + hnsw)
    assert len(found) == 4  # the parent's and three partitions'
    assert all(valid for _, valid in found)
    store.create_embedding_index(client.HNSWIndex(m=5))
    assert len(db(INDEXES + hnsw)) == 4
    assert ("time_partitioned_table_embedding_idx", True) in db(INDEXES + hnsw)
    store.delete_all()
    assert db(INDEXES + hnsw) == []
    assert store.table_is_empty()


def test_partitions_shorter_than_a_minute(make: Callable[..., Any]) -> None:
    store = make("items", 2, time_partition_interval=timedelta(seconds=10))
    store.create_tables()
    seconds = [JANUARY + timedelta(seconds=n) for n in range(0, 60, 5)]
    store.upsert([(client.uuid_from_time(at), {}, str(at), [1, 2]) for at in seconds])
    assert store.count() == 12
    assert len(store.drop_partitions(seconds[4])) == 2
    assert store.count() == 8


def test_another_interval_than_before(make: Callable[..., Any]) -> None:
    weekly = make("items", 2, time_partition_interval=7 * DAY)
    weekly.create_tables()
    weekly.upsert([(client.uuid_from_time(JANUARY), {}, "weekly", [1, 2])])
    daily = make("items", 2, time_partition_interval=DAY)
    daily.create_tables()
    daily.upsert([(client.uuid_from_time(JANUARY + DAY), {}, "same week", [1, 2])])
    daily.upsert([(client.uuid_from_time(JANUARY + 90 * DAY), {}, "later", [1, 2])])
    assert contents(daily.search()) == ["later", "same week", "weekly"]
    unknowing = make("items", 2)
    assert contents(unknowing.search()) == ["later", "same week", "weekly"]
    unknowing.delete_by_ids([unknowing.search(limit=1)[0].id])
    with pytest.raises(ConfigurationError, match="time_partition_interval"):
        unknowing.upsert([(client.uuid_from_time(JANUARY), {}, "weekly", [1, 2])])


@pytest.mark.parametrize(
    "identifier",
    [
        uuid.UUID(int=(2**48 - 1) << 80 | 7 << 76 | 2 << 62),
        uuid.uuid4(),
        uuid.UUID(int=0),
        uuid.uuid3(uuid.NAMESPACE_DNS, "x"),
    ],
    ids=["version 7 in the year 10889", "version 4", "nil", "version 3"],
)
def test_an_id_without_a_fitting_time_is_refused(
    make: Callable[..., Any], identifier: uuid.UUID
) -> None:
    store = filled(make)
    with pytest.raises(ConfigurationError, match=r"record 1: .*(version|partition)"):
        store.upsert([(uuid.uuid1(), {}, "x", [1, 2]), (identifier, {}, "x", [1, 2])])
    assert store.count() == 2


def test_the_farthest_times_an_id_can_hold(make: Callable[..., Any]) -> None:
    store = make("items", 2, time_partition_interval=30 * DAY)
    store.create_tables()
    first, last = (
        uuid.UUID("00000000-0000-1000-8000-000000000001"),
        uuid.UUID("ffffffff-ffff-1fff-8000-000000000001"),
    )
    store.upsert([(first, {}, "first", [1, 2]), (last, {}, "last", [1, 2])])
    assert contents(store.search()) == ["first", "last"]
    late = client.UUIDTimeRange(datetime(5236, 1, 1, tzinfo=timezone.utc))
    assert contents(store.search(uuid_time_filter=late)) == ["last"]


def test_intervals_that_cannot_be(make: Callable[..., Any]) -> None:
    for interval in (timedelta(0), -DAY, timedelta.max, timedelta(microseconds=5), 7):
        with pytest.raises(ConfigurationError, match="time_partition_interval"):
            make("items", 2, time_partition_interval=interval)
    with pytest.raises(ConfigurationError, match="partitioning"):
        make("items", 2, partitioning="hourly")


def test_hypertables_need_the_extension(make: Callable[..., Any], db: Any) -> None:
    if db("select 1 from pg_available_extensions where name = 'timescaledb'"):
        pytest.skip("this server has TimescaleDB")
    store = make("items", 2, time_partition_interval=DAY, partitioning="timescaledb")
    with pytest.raises(ExtensionMissing, match="partitioning='native'"):
        store.create_tables()
    assert db("select to_regclass('items')") == [(None,)]


def test_retention_needs_partitions(make: Callable[..., Any]) -> None:
    store = make("items", 2)
    store.create_tables()
    with pytest.raises(ConfigurationError, match="not partitioned"):
        store.drop_partitions(DAY)
    with pytest.raises(ConfigurationError, match="older_than"):
        filled(make).drop_partitions(None)


def test_times_in_a_table_without_partitions(make: Callable[..., Any]) -> None:
    store = make("items", 2)
    store.create_tables()
    store.upsert(
        [
            (client.uuid_from_time(JANUARY), {}, "one", [1, 2]),
            (
                uuid.UUID(int=int(JANUARY.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62),
                {},
                "seven",
                [1, 2],
            ),
            (uuid.uuid4(), {}, "four", [1, 2]),
        ]
    )
    wanted = client.UUIDTimeRange(JANUARY, time_delta=DAY)
    assert contents(store.search(uuid_time_filter=wanted)) == ["one", "seven"]
    exclusive = client.UUIDTimeRange(JANUARY, start_inclusive=False)
    assert contents(store.search(uuid_time_filter=exclusive)) == []
    assert contents(store.search(filter={"__end_date": str(JANUARY + DAY)})) == ["one", "seven"]
    texts = make("texts", 2, id_type="TEXT")
    texts.create_tables()
    with pytest.raises(ConfigurationError, match="no times"):
        texts.search(uuid_time_filter=wanted)
