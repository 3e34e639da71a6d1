from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pytest

from vectorizer.identifiers import MAX_TIME, MIN_TIME, from_pg_time, to_pg_time
from vectorizer.partitioning import partition_of

WEEK = timedelta(days=7)
INTERVALS = [timedelta(hours=1), timedelta(hours=36), timedelta(days=1), WEEK, timedelta(days=30)]


def at(*parts: int) -> int:
    return to_pg_time(datetime(*parts, tzinfo=timezone.utc))  # type: ignore[misc,arg-type]


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_time_lies_in_its_partition(interval: timedelta) -> None:
    chance = random.Random(2)  # noqa: S311 - the same times in every run
    for time in [chance.randint(MIN_TIME, MAX_TIME) for _ in range(200)] + [MIN_TIME, MAX_TIME, 0]:
        partition = partition_of(time, interval)
        assert partition.start <= from_pg_time(time) < partition.end
        assert partition.end - partition.start == interval


@pytest.mark.parametrize("interval", INTERVALS)
def test_partitions_meet_and_do_not_overlap(interval: timedelta) -> None:
    partition = partition_of(at(1999, 12, 1), interval)
    for _ in range(100):
        following = partition_of(to_pg_time(partition.end), interval)
        assert following.start == partition.end
        before = partition_of(to_pg_time(partition.end) - 1, interval)
        assert before == partition
        partition = following


def test_weeks_begin_on_mondays() -> None:
    assert partition_of(at(2024, 1, 10, 12), WEEK).start == datetime(
        2024, 1, 8, tzinfo=timezone.utc
    )
    assert partition_of(at(1999, 6, 1), WEEK).start.weekday() == 0


def test_names_say_the_start() -> None:
    time = at(2024, 1, 10, 12, 34)
    assert partition_of(time, WEEK).name("blog_g1") == "blog_g1_20240108"
    assert partition_of(time, timedelta(hours=1)).name("blog_g1") == "blog_g1_20240110_1200"


@pytest.mark.parametrize("interval", INTERVALS)
def test_partitions_of_one_table_have_different_names(interval: timedelta) -> None:
    time, names = at(2024, 1, 1), set()
    for _ in range(300):
        partition = partition_of(time, interval)
        names.add(partition.name("x" * 63))
        time = to_pg_time(partition.end)
    assert len(names) == 300


@pytest.mark.parametrize("parent", ["x" * 63, "é" * 31, "猫" * 21, "a" + "🐈" * 15])
def test_names_stay_within_63_bytes(parent: str) -> None:
    for interval in INTERVALS:
        assert len(partition_of(MAX_TIME, interval).name(parent).encode()) <= 63


def test_long_parents_that_begin_alike_have_partitions_of_different_names() -> None:
    partition = partition_of(at(2024, 1, 1), WEEK)
    assert partition.name("x" * 60 + "_g1") != partition.name("x" * 59 + "y_g1")


def test_the_first_partition_of_all_does_not_overflow() -> None:
    assert partition_of(MIN_TIME, timedelta(days=3650)).start.year > 1570
