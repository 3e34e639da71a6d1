"""Parameters that are in PostgreSQL's binary form already: vectors, and long arrays of ids."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

__all__ = ["BinaryValue", "uuid_array"]

_UUID_OID: Final = 2950
_ARRAY_HEAD: Final = struct.Struct(">iiiii")


class BinaryValue:
    """A parameter as the server's own receive function takes it; the statement casts it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _BinaryDumper(Dumper):
    format = Format.BINARY
    oid = 0  # what the statement casts it to

    def dump(self, obj: BinaryValue) -> Buffer | None:
        return obj.data


psycopg.adapters.register_dumper(BinaryValue, _BinaryDumper)


def uuid_array(ids: Sequence[Any]) -> Any:
    """Return ids for a `uuid[]`: many UUIDs in one piece, texts as they are.

    Form: dimensions, flag for nulls, element type, length, lower bound; then each element with
    its length (PostgreSQL, `array_send`).
    """
    if not ids or not all(type(identifier) is UUID for identifier in ids):
        return list(ids)
    head = _ARRAY_HEAD.pack(1, 0, _UUID_OID, len(ids), 1)
    return BinaryValue(head + b"".join(b"\x00\x00\x00\x10" + each.bytes for each in ids))
