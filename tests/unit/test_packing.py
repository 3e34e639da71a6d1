"""Packed rows, read back by a parser written from PostgreSQL's documentation of COPY."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest

from vectorizer.packing import (
    field,
    int_field,
    jsonb_field,
    pack_rows,
    pack_vectors,
    time_field,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def parsed(data: bytes) -> list[list[bytes]]:
    assert data[:11] == b"PGCOPY\n\xff\r\n\0"
    assert data[11:19] == bytes(8)
    rows, at = [], 19
    while (count := struct.unpack_from(">h", data, at)[0]) != -1:
        at += 2
        row = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            row.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        rows.append(row)
    assert len(data) == at + 2
    return rows


def value(packed: bytes) -> bytes:
    assert struct.unpack(">i", packed[:4]) == (len(packed) - 4,)
    return packed[4:]


def test_fields() -> None:
    assert value(field(b"abc")) == b"abc"
    assert value(field(b"")) == b""
    assert value(int_field(-2)) == b"\xff\xff\xff\xfe"
    assert value(time_field(-(2**63))) == b"\x80" + bytes(7)
    assert value(jsonb_field("{é}".encode())) == b"\x01{\xc3\xa9}"


def test_rows() -> None:
    rows: list[Sequence[bytes]] = [[b"a", b""], [b"\xff\xff", bytes(300)]]
    assert parsed(pack_rows([field(part) for part in row] for row in rows)) == rows
    assert parsed(pack_rows([])) == []


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_vectors_are_big_endian(order: str) -> None:
    matrix = np.array([[1, -2.5, 3e38], [0.1, 0, -0.0]], dtype=order)
    for packed, row in zip(pack_vectors(matrix), matrix, strict=True):
        dimensions, unused, *numbers = struct.unpack(">hh3f", value(packed))
        assert (dimensions, unused) == (3, 0)
        assert numbers == [float(number) for number in row]


def test_vectors_of_a_view_and_of_nothing() -> None:
    matrix = np.arange(12, dtype="f4").reshape(3, 4)
    assert pack_vectors(matrix.T[::2]) == pack_vectors(np.ascontiguousarray(matrix.T[::2]))
    assert pack_vectors(np.empty((0, 3), dtype="f4")) == []


def test_postgres_reads_what_is_packed(vectorizer_url: str) -> None:
    metadata = {"é": [1, None, "x"]}
    matrix = np.array([[0.1, 1e-30], [-3, 4]], dtype="f4")
    rows = [
        [int_field(number), time_field(-number), jsonb_field(json.dumps(metadata).encode()), vector]
        for number, vector in enumerate(pack_vectors(matrix))
    ]
    with psycopg.connect(vectorizer_url) as connection:
        connection.execute("create table t (n integer, at timestamptz, m jsonb, v vector(2))")
        with connection.cursor().copy("copy t from stdin (format binary)") as copy:
            copy.write(pack_rows(rows))
        found = connection.execute(
            "select n, extract(epoch from at - '2000-01-01 UTC')::float8 * 1e6, m, v::real[] from t"
        ).fetchall()
    assert [row[:3] for row in found] == [(0, 0, metadata), (1, -1, metadata)]
    assert np.array_equal(np.array([row[3] for row in found], dtype="f4"), matrix)
