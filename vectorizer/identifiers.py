"""Ids of embeddings: UUIDs of version 1 whose timestamp is the time of the row.

Layout and epoch of version 1 follow RFC 9562, section 5.1. Inside the worker a time is an
integer of microseconds since 2000-01-01 UTC, as PostgreSQL keeps it: no value of a
timestamptz, not even infinity, is then beyond Python's reach.
"""

from __future__ import annotations

import calendar
import random
import struct
import uuid
from datetime import datetime, timedelta, timezone
from hashlib import blake2b, sha256

__all__ = [
    "MAX_TIME",
    "MIN_TIME",
    "chunk_id",
    "content_hash",
    "from_pg_time",
    "retimed",
    "time_of",
    "to_pg_time",
    "uuid_from_time",
]

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
# 100 ns intervals between the epoch of UUIDs, 1582-10-15, and 1970-01-01 or 2000-01-01.
_UNIX_OFFSET = 0x01B21DD213814000
_PG_OFFSET = _UNIX_OFFSET + 946_684_800 * 10_000_000
_INTERVALS_PER_MICROSECOND = 10

MIN_TIME = -(_PG_OFFSET // _INTERVALS_PER_MICROSECOND)
"""The earliest time an id can hold, in 1582, in microseconds since 2000-01-01."""
MAX_TIME = ((1 << 60) - 1 - _PG_OFFSET) // _INTERVALS_PER_MICROSECOND
"""The latest time an id can hold, in 5236, in microseconds since 2000-01-01."""


def uuid_from_time(
    time_arg: datetime | float | None = None,
    node: int | None = None,
    clock_seq: int | None = None,
) -> uuid.UUID:
    """Return a UUID of version 1 for a time; clock sequence and node are random if not given.

    `time_arg` is a datetime (a naive one is local time), seconds since 1970, or None for
    now; `node` has up to 48 bits, `clock_seq` up to 14.

    Raises ValueError if the time or a number is beyond what the UUID can hold.
    """
    if time_arg is None:
        return uuid.uuid1(node, clock_seq)
    intervals = _unix_microseconds(time_arg) * _INTERVALS_PER_MICROSECOND + _UNIX_OFFSET
    if not 0 <= intervals < 1 << 60:
        raise ValueError(f"time {time_arg!r} is outside what a UUID can hold: 1582 to 5236")
    if clock_seq is None:
        clock_seq = random.getrandbits(14)
    if node is None:
        node = random.getrandbits(48)
    if not 0 <= clock_seq < 1 << 14:
        raise ValueError("clock_seq is out of range (need a 14-bit value)")
    if not 0 <= node < 1 << 48:
        raise ValueError("node is out of range (need a 48-bit value)")
    return uuid.UUID(bytes=_pack(intervals, clock_seq << 48 | node))


def _unix_microseconds(time_arg: datetime | float) -> int:
    if not isinstance(time_arg, datetime):
        return int(time_arg * 1_000_000)
    # A naive datetime is local time: so Postgres reads a timestamp without time zone too.
    aware = time_arg.astimezone(timezone.utc)
    return calendar.timegm(aware.utctimetuple()) * 1_000_000 + aware.microsecond


def _pack(intervals: int, tail: int) -> bytes:
    low, mid, high = intervals & 0xFFFFFFFF, intervals >> 32 & 0xFFFF, intervals >> 48 & 0x0FFF
    return struct.pack(">IHHQ", low, mid, 0x1000 | high, 1 << 63 | tail & ((1 << 62) - 1))


def chunk_id(time: int, key: bytes, content: bytes, occurrence: int) -> bytes:
    """Return the 16 bytes of a chunk's id.

    The timestamp is the row's time (microseconds since 2000-01-01); the other 62 bits are a
    hash of the key, the content hash and how many equal chunks of the row come before it.
    So the same chunk of the same row always has the same id, wherever it stands.
    """
    seed = b"%d:%b%b%d" % (len(key), key, content, occurrence)
    tail = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big")
    return _pack(time * _INTERVALS_PER_MICROSECOND + _PG_OFFSET, tail)


def retimed(identifier: bytes, time: int) -> bytes:
    """Return the id of the same chunk at another time: only the timestamp differs."""
    tail = int.from_bytes(identifier[8:], "big")
    return _pack(time * _INTERVALS_PER_MICROSECOND + _PG_OFFSET, tail)


def time_of(identifier: uuid.UUID) -> datetime:
    """Return the UTC time in a UUID of version 1, cut to microseconds."""
    intervals = identifier.time - _PG_OFFSET
    return from_pg_time(intervals // _INTERVALS_PER_MICROSECOND)


def content_hash(text: str) -> bytes:
    """Return the SHA-256 of a text in UTF-8: 32 bytes, as `sha256(convert_to(...))` in SQL."""
    return sha256(text.encode()).digest()


def to_pg_time(moment: datetime) -> int:
    """Return a moment in microseconds since 2000-01-01 UTC; a naive one is local time."""
    return (moment.astimezone(timezone.utc) - _PG_EPOCH) // _MICROSECOND


def from_pg_time(time: int) -> datetime:
    """Return the UTC datetime of microseconds since 2000-01-01; OverflowError beyond year 9999."""
    return _PG_EPOCH + timedelta(microseconds=time)
