"""Rows in PostgreSQL's binary COPY format, with vectors packed straight from numpy.

Formats: "Binary Format" in PostgreSQL's documentation of COPY; a pgvector `vector` is
int16 dimensions, int16 zero, then big-endian float32 components (pgvector, `vector_send`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vectorizer.errors import InvalidEmbeddings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectorizer.types import FloatMatrix

__all__ = [
    "COPY_HEADER",
    "COPY_TRAILER",
    "field",
    "int_field",
    "jsonb_field",
    "pack_bits",
    "pack_halfvecs",
    "pack_rows",
    "pack_vectors",
    "time_field",
]

COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER = b"\xff\xff"
_INT = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_INT_FIELD = struct.Struct(">ii")
_TIME_FIELD = struct.Struct(">iq")


def field(value: bytes) -> bytes:
    """Return a field of a row: its length, then its bytes."""
    return _INT.pack(len(value)) + value


def int_field(value: int) -> bytes:
    """Return an `integer` field."""
    return _INT_FIELD.pack(4, value)


def time_field(value: int) -> bytes:
    """Return a `timestamptz` field from microseconds since 2000-01-01."""
    return _TIME_FIELD.pack(8, value)


def jsonb_field(text: bytes) -> bytes:
    """Return a `jsonb` field from JSON text in UTF-8; version byte 1 comes first."""
    return _INT.pack(len(text) + 1) + b"\x01" + text


def pack_vectors(matrix: FloatMatrix) -> list[bytes]:
    """Return each row of a float32 matrix, shape (n, dimensions), as a `vector` field."""
    rows, dimensions = matrix.shape
    head = struct.pack(">ihh", 4 + 4 * dimensions, dimensions, 0)
    data = matrix.astype(">f4").ravel().view("B").data
    size = 4 * dimensions
    return [head + data[n * size : n * size + size] for n in range(rows)]


def pack_halfvecs(matrix: FloatMatrix) -> list[bytes]:
    """Return each row of a float32 matrix as a `halfvec` field: as `pack_vectors`, with float16.

    Raises InvalidEmbeddings for a component beyond what float16 holds.
    """
    import numpy as np  # noqa: PLC0415 - most of this module needs none

    rows, dimensions = matrix.shape
    with np.errstate(over="ignore"):
        halves = matrix.astype(">f2")
    if not np.isfinite(halves).all():
        raise InvalidEmbeddings("a component is beyond 65504, the most that a halfvec holds")
    head = struct.pack(">ihh", 4 + 2 * dimensions, dimensions, 0)
    data = halves.ravel().view("B").data
    size = 2 * dimensions
    return [head + data[n * size : n * size + size] for n in range(rows)]


def pack_rows(rows: Iterable[Sequence[bytes]]) -> bytes:
    """Return rows, each a sequence of fields, as one binary COPY stream."""
    parts = [COPY_HEADER]
    for row in rows:
        parts.append(_SHORT.pack(len(row)))
        parts.extend(row)
    parts.append(COPY_TRAILER)
    return b"".join(parts)


def pack_bits(matrix: NDArray[np.bool_]) -> list[bytes]:
    """Return each row of a bool matrix, shape (n, bits), as a `bit` field.

    The first bit is the highest of the first byte (PostgreSQL, `bit_send`).
    """
    import numpy as np  # noqa: PLC0415 - heavy

    rows, count = matrix.shape
    data = np.packbits(matrix, axis=1).tobytes()
    size = (count + 7) // 8
    head = struct.pack(">ii", 4 + size, count)
    return [head + data[n * size : n * size + size] for n in range(rows)]
