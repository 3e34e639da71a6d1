"""What timescale_vector documents of time partitioning, for native partitions and hypertables."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from vectorizer import client
from vectorizer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

JANUARY = datetime(2018, 1, 1, 12)  # noqa: DTZ001 - a naive datetime is local time
YEAR = timedelta(days=365)
DAY = timedelta(days=1)


def contents(found: Any) -> list[str]:
    return sorted(hit.contents for hit in found)


def filled(make: Callable[..., Any], **options: Any) -> Any:
    store = make("time_partitioned_table", 2, time_partition_interval=timedelta(hours=6), **options)
    store.create_tables()
    store.upsert(
        [
            (client.uuid_from_time(JANUARY), {"times": 1}, "2018", [1.0, 1.3]),
            (client.uuid_from_time(JANUARY + YEAR), {"times": 100}, "2019", [1.0, 10.8]),
        ]
    )
    return store


def time_filters(store: Any) -> None:
    """The same range in all four notations, with datetimes and with texts."""
    ranges = [
        (JANUARY, JANUARY + DAY, ["2018"]),
        (JANUARY, None, ["2018", "2019"]),
        (None, JANUARY + DAY, ["2018"]),
        (JANUARY - DAY, JANUARY, []),
        (JANUARY + DAY, JANUARY + YEAR, []),
        (JANUARY, JANUARY, []),
    ]
    for start, end, expected in ranges:
        for form in (lambda moment: moment, str):
            for vector in ([1.0, 9.0], None):
                assert found_in(store, vector, start, end, form) == [expected] * 4


def found_in(store: Any, vector: Any, start: Any, end: Any, form: Any) -> list[list[str]]:
    bounds = {
        "__start_date": None if start is None else form(start),
        "__end_date": None if end is None else form(end),
    }
    filter = {name: bound for name, bound in bounds.items() if bound is not None}  # noqa: A001
    first, last = bounds.values()
    predicates = [
        ("__uuid_timestamp", operator, bound)
        for operator, bound in ((">=", first), ("<", last))
        if bound is not None
    ]
    delta = {} if start is None or end is None else {"time_delta": end - start}
    return [
        contents(store.search(vector, limit=4, **how))
        for how in (
            {"uuid_time_filter": client.UUIDTimeRange(first, last)},
            {"filter": filter},
            {"predicates": client.Predicates(*predicates)},
            {"uuid_time_filter": client.UUIDTimeRange(first, None if delta else last, **delta)},
        )
    ]


def inclusive_bounds(store: Any) -> None:
    def between(*args: Any, **named: Any) -> list[str]:
        wanted = client.UUIDTimeRange(*args, **named)
        return contents(store.search([1.0, 9.0], limit=4, uuid_time_filter=wanted))

    assert between(start_date=JANUARY) == ["2018", "2019"]
    assert between(start_date=JANUARY, start_inclusive=False) == ["2019"]
    assert between(end_date=JANUARY) == []
    assert between(end_date=JANUARY, end_inclusive=True) == ["2018"]
    assert between(end_date=JANUARY + DAY, time_delta=2 * DAY) == ["2018"]
    assert between(JANUARY.astimezone(), JANUARY + DAY) == ["2018"]


def writing_and_deleting(store: Any) -> None:
    now, before = uuid.uuid1(), client.uuid_from_time(datetime(2018, 8, 10, 15, 30))  # noqa: DTZ001
    store.upsert([(now, {"n": 1}, "now", [1, 1]), (before, {"n": 2}, "before", [1, 2])])
    store.upsert([(now, {"n": 1}, "again", [1, 1])])
    assert contents(store.search([1, 1])) == ["2018", "2019", "again", "before"]
    assert contents(store.fetch([before, now, uuid.uuid4()])) == ["again", "before"]
    store.delete_by_ids([now, uuid.uuid1(), uuid.uuid4()])
    store.delete_by_metadata({"n": 2})
    assert contents(store.search()) == ["2018", "2019"]
    with pytest.raises(ConfigurationError, match=r"record 1: .*version 4"):
        store.upsert([(now, {}, "x", [1, 2]), (uuid.uuid4(), {}, "x", [1, 2])])
    assert contents(store.search()) == ["2018", "2019"]


def version_7(moment: datetime, tail: int = 1) -> uuid.UUID:
    milliseconds = int(moment.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | tail)


def ids_of_version_7(store: Any) -> None:
    identifier = version_7(JANUARY + 30 * DAY)
    store.upsert([(identifier, {}, "seven", [1, 1])])
    month = client.UUIDTimeRange(JANUARY + DAY, time_delta=60 * DAY)
    assert contents(store.search(uuid_time_filter=month)) == ["seven"]
    store.delete_by_ids([identifier])
    assert contents(store.search(uuid_time_filter=month)) == []


def retention(store: Any) -> None:
    assert store.drop_partitions(older_than=JANUARY - YEAR) == []
    assert len(store.drop_partitions(older_than=JANUARY + 2 * DAY)) == 1
    assert contents(store.search()) == ["2019"]
    assert len(store.drop_partitions(timedelta(days=30))) == 1
    assert store.table_is_empty()
    store.upsert([(client.uuid_from_time(JANUARY), {}, "back", [1, 1])])
    assert contents(store.search()) == ["back"]


def indexes(store: Any) -> None:
    for index in (client.HNSWIndex(), client.IvfflatIndex(num_lists=1), client.HNSWIndex(m=4)):
        store.create_embedding_index(index)
        assert contents(store.search([1.0, 9.0])) == ["2018", "2019"]
    later = client.uuid_from_time(JANUARY + 2 * YEAR)
    store.upsert([(later, {}, "2020", [1, 1])])
    assert contents(store.search([1.0, 9.0])) == ["2018", "2019", "2020"]
    store.delete_by_ids([later])
    store.drop_embedding_index()
    store.drop_embedding_index()


SCENARIOS = (
    time_filters, inclusive_bounds, writing_and_deleting, ids_of_version_7, indexes, retention,
)  # fmt: skip
