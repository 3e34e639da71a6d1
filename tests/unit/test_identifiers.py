from __future__ import annotations

import hashlib
import random
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from vectorizer.identifiers import (
    MAX_TIME,
    MIN_TIME,
    chunk_id,
    content_hash,
    from_pg_time,
    retimed,
    time_of,
    to_pg_time,
    uuid_from_time,
)

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=timezone.utc)
EPOCH = datetime(1582, 10, 15, tzinfo=timezone.utc)
KEY, CONTENT = b"key", content_hash("text")


def moment_in(identifier: uuid.UUID) -> datetime:
    """Read the time as RFC 9562 defines it, without our own code."""
    return EPOCH + timedelta(microseconds=identifier.time // 10)


def test_a_uuid_holds_its_time() -> None:
    identifier = uuid_from_time(MOMENT)
    assert (identifier.version, identifier.variant) == (1, uuid.RFC_4122)
    assert moment_in(identifier) == MOMENT
    assert time_of(identifier) == MOMENT


def test_node_and_clock_sequence_are_taken() -> None:
    identifier = uuid_from_time(MOMENT, node=0x123456789ABC, clock_seq=0x1234)
    assert (identifier.node, identifier.clock_seq) == (0x123456789ABC, 0x1234)
    assert identifier == uuid_from_time(MOMENT, 0x123456789ABC, 0x1234)


def test_without_them_no_two_are_equal() -> None:
    assert len({uuid_from_time(MOMENT) for _ in range(1000)}) == 1000


def test_time_zones_and_numbers_mean_the_same_moment() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert uuid_from_time(elsewhere, 1, 1) == uuid_from_time(MOMENT, 1, 1)
    assert time_of(uuid_from_time(0)) == datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert moment_in(uuid_from_time(1.5)) == datetime(1970, 1, 1, 0, 0, 1, 500000, timezone.utc)


def test_a_naive_datetime_is_local_time() -> None:
    naive = MOMENT.replace(tzinfo=None)
    assert uuid_from_time(naive, 1, 1) == uuid_from_time(naive.astimezone(), 1, 1)


def test_without_a_time_it_is_now() -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    assert before < time_of(uuid_from_time()) < before + timedelta(minutes=1)


def test_the_limits_of_a_uuid() -> None:
    assert moment_in(uuid_from_time(EPOCH)) == EPOCH
    latest = datetime(5236, 3, 31, 21, 21, tzinfo=timezone.utc)
    assert moment_in(uuid_from_time(latest)) == latest
    for beyond in (EPOCH - timedelta(microseconds=1), datetime(5237, 1, 1, tzinfo=timezone.utc)):
        with pytest.raises(ValueError, match="1582 to 5236"):
            uuid_from_time(beyond)


@pytest.mark.parametrize(
    "wrong", [{"node": 1 << 48}, {"node": -1}, {"clock_seq": 1 << 14}, {"clock_seq": -1}]
)
def test_too_many_bits_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        uuid_from_time(MOMENT, **wrong)


def test_postgres_times_go_there_and_back() -> None:
    chance = random.Random(1)  # noqa: S311 - the same times in every run
    assert to_pg_time(datetime(2000, 1, 1, tzinfo=timezone.utc)) == 0
    assert to_pg_time(datetime(1999, 12, 31, 23, 59, 59, 999999, timezone.utc)) == -1
    for _ in range(200):
        time = chance.randint(MIN_TIME, MAX_TIME)
        assert to_pg_time(from_pg_time(time)) == time


@pytest.mark.parametrize("time", [MIN_TIME, MAX_TIME, 0, -1, 1, to_pg_time(MOMENT)])
def test_a_chunk_id_is_a_uuid_of_its_time(time: int) -> None:
    identifier = uuid.UUID(bytes=chunk_id(time, KEY, CONTENT, 0))
    assert (identifier.version, identifier.variant) == (1, uuid.RFC_4122)
    assert to_pg_time(time_of(identifier)) == time


def test_a_chunk_has_always_the_same_id() -> None:
    identifier = uuid.UUID(bytes=chunk_id(to_pg_time(MOMENT), b"4:key1", content_hash("text"), 0))
    # Stored ids outlive a release: this value must never change.
    seed = b"6:4:key1" + hashlib.sha256(b"text").digest() + b"0"
    tail = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big") % (1 << 62)
    assert identifier.int & ((1 << 62) - 1) == tail


def test_key_content_occurrence_and_time_all_count() -> None:
    ids = {
        chunk_id(time, key, content_hash(text), occurrence)
        for time in (0, 1)
        for key in (b"a", b"b")
        for text in ("x", "y")
        for occurrence in (0, 1, 10)
    }
    assert len(ids) == 24


def test_key_and_content_do_not_run_into_each_other() -> None:
    assert chunk_id(0, b"a", b"bc", 0) != chunk_id(0, b"ab", b"c", 0)


def test_a_retimed_id_is_that_of_the_chunk_at_the_new_time() -> None:
    assert retimed(chunk_id(0, KEY, CONTENT, 3), 99) == chunk_id(99, KEY, CONTENT, 3)


def test_a_content_hash_is_sha256_of_utf8() -> None:
    assert content_hash("naïve 猫") == hashlib.sha256("naïve 猫".encode()).digest()
