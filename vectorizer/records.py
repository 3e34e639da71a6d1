"""Records of a vector collection, checked and packed; results, read by position and by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex, TypeAlias, overload
from uuid import UUID

from vectorizer.errors import InvalidArgument, InvalidEmbeddings
from vectorizer.measures import ColumnType
from vectorizer.packing import (
    COPY_HEADER,
    COPY_TRAILER,
    field,
    jsonb_field,
    pack_bits,
    pack_halfvecs,
    pack_vectors,
    time_field,
)
from vectorizer.times import id_time
from vectorizer.vectors import as_bits, as_matrix, normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectorizer.types import FloatMatrix

__all__ = [
    "CollectionInfo",
    "CollectionResult",
    "Packer",
    "RankedResult",
    "Record",
    "batches",
    "checked_id",
    "checked_ids",
]

Record: TypeAlias = Sequence[Any]
"""(id, metadata as a mapping or JSON text, contents, embedding)"""

_RECORD_LENGTH: Final = 4
_NULL: Final = b"\xff\xff\xff\xff"
# Made once: json.dumps with options makes an encoder for each call.
_JSON: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_ZERO_BYTE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
# Records that numpy handles at once: enough to spread its overhead, few enough to stay in cache.
_AT_ONCE: Final = 256


class _Fields(NamedTuple):
    id: Any
    metadata: Any
    contents: Any
    embedding: Any
    distance: Any


class CollectionResult(_Fields):
    """A record found: id, metadata, contents, embedding, distance.

    Read it by position, by attribute or by name: `hit[2]`, `hit.contents`, `hit["contents"]`.
    `id` is a UUID (or text), `metadata` a dict, `embedding` an array of float32 (of bool in a
    collection of bits), `distance` a float, -1.0 where no vector was asked for.
    """

    __slots__ = ()

    id: UUID | str | Any
    metadata: dict[str, Any]
    contents: str
    embedding: NDArray[Any]
    distance: float

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return super().__getitem__(key)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        return self._fields

    def values(self) -> tuple[Any, ...]:
        """Return the values of the fields."""
        return tuple(self)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over names and values."""
        return zip(self._fields, self, strict=True)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field by name, or the default."""
        return self[key] if key in self.keys() else default

    @classmethod
    def from_row(cls, row: Sequence[Any], column_type: ColumnType) -> CollectionResult:
        """Return the result for a row whose vector came in binary form."""
        identifier, metadata, contents, vector, distance, *_ = row
        return cls(identifier, metadata, contents, _unpacked(vector, column_type), distance)


class CollectionInfo(NamedTuple):
    """A collection that is there. records: by the server's statistics; None for a view."""

    schema_name: str
    table_name: str
    vector_type: str
    num_dimensions: int | None
    id_type: str
    records: int | None


class RankedResult(CollectionResult):
    """A record found by words or by both: `score` is its rank's, the higher the better."""

    score: float

    @classmethod
    def from_row(cls, row: Sequence[Any], column_type: ColumnType) -> RankedResult:
        """Return the result for a row that ends with a score."""
        *_, score = row
        result = super().from_row(row, column_type)
        assert isinstance(result, RankedResult)  # noqa: S101 - it is cls
        result.score = score
        return result


def _unpacked(vector: bytes | None, column_type: ColumnType) -> Any:
    import numpy as np  # noqa: PLC0415 - heavy

    if vector is None:
        return None
    if column_type == "bit":
        # int32 number of bits, then the bits, the first in the highest place.
        count = int.from_bytes(vector[:4], "big")
        return np.unpackbits(np.frombuffer(vector, "u1", offset=4), count=count).astype(bool)
    # pgvector's binary form: int16 dimensions, int16 zero, big-endian float32 or float16.
    form = ">f4" if column_type == "vector" else ">f2"
    return np.frombuffer(vector, form, offset=4).astype(np.float32)


def batches(records: Iterable[Record], size: int) -> Iterator[Sequence[Record]]:
    """Yield records in sequences of at most `size`."""
    if isinstance(records, (str, bytes, Mapping)):
        raise InvalidArgument("upsert needs a list of records: (id, metadata, contents, embedding)")
    if isinstance(records, Sequence) and len(records) <= size:
        if records:
            yield records
        return
    rest = iter(records)
    while batch := list(islice(rest, size)):
        yield batch


def checked_id(identifier: Any, *, uuids: bool) -> UUID | str:
    """Return an id as it is stored; raise ValueError for one of the wrong type."""
    if uuids:
        if isinstance(identifier, UUID):
            return identifier
        if isinstance(identifier, str):
            return UUID(identifier)
        raise ValueError(f"id {identifier!r} is no UUID")
    if not isinstance(identifier, (str, UUID)) or "\0" in str(identifier):
        raise ValueError(f"id {identifier!r} is no text that PostgreSQL can store")
    return str(identifier)


def checked_ids(ids: Iterable[Any], *, uuids: bool) -> list[UUID | str]:
    """Return ids as they are stored; raise InvalidArgument naming the first that is wrong."""
    if isinstance(ids, (str, bytes, UUID)):
        raise InvalidArgument(f"expected a list of ids, got {ids!r}")
    checked = []
    for position, identifier in enumerate(ids):
        try:
            checked.append(checked_id(identifier, uuids=uuids))
        except ValueError as error:
            raise InvalidArgument(f"id {position}: {error}") from error
    return checked


@dataclass(frozen=True, slots=True)
class Packer:
    """Turns records into rows for a binary COPY.

    timed: rows have a time, taken from the id; unix_times: ids may be of version 7, too.
    """

    dimensions: int
    column_type: ColumnType
    uuids: bool
    timed: bool = False
    has_time: bool = False
    unix_times: bool = True
    normalize: bool = False

    def positions(self, records: Sequence[Record], first: int) -> dict[UUID | str, int]:
        """Return the position of the last record of each id; `first` is that of record 0.

        In the order of the ids: whoever writes some of the same records meets them in the same
        order, and waits instead of ending in a deadlock.
        Raises InvalidArgument naming the position of a record whose id is wrong.
        """
        uuids = self.uuids
        known: dict[UUID | str, int] = {}
        for position, record in enumerate(records):
            try:
                identifier = record[0]
                if not (uuids and type(identifier) is UUID):
                    identifier = checked_id(identifier, uuids=uuids)
            except (ValueError, TypeError, LookupError) as error:
                raise _at(first + position, error) from error
            known[identifier] = position
        in_order = attrgetter("int") if uuids else str
        return {identifier: known[identifier] for identifier in sorted(known, key=in_order)}

    def times(
        self, ids: Iterable[UUID | str], positions: Mapping[Any, int], first: int
    ) -> list[int]:
        """Return the times of ids, in microseconds since 2000-01-01."""
        times = []
        for identifier in ids:
            try:
                times.append(self._time(identifier))
            except (ValueError, OverflowError) as error:
                raise _at(first + positions[identifier], error) from error
        return times

    def _time(self, identifier: Any) -> int:
        if not self.unix_times and identifier.version != 1:
            raise ValueError(
                f"id {identifier} is a UUID of version {identifier.version}; the function "
                f"uuid_timestamp of this hypertable needs version 1, made by uuid_from_time"
            )
        return id_time(identifier)

    def stream(
        self, ids: Mapping[UUID | str, int], records: Sequence[Record], first: int,
        times: Sequence[int] | None = None,
    ) -> Iterator[bytes]:  # fmt: skip
        """Yield the last record of each id as a binary COPY, in pieces.

        So the server stores the first rows while the next are being packed. Raises
        InvalidArgument naming the position of a record that cannot be written.
        """
        pairs = list(ids.items())
        yield COPY_HEADER
        for start in range(0, len(pairs), _AT_ONCE):
            chunk = pairs[start : start + _AT_ONCE]
            # Vectors first: they make sure that each record has four values.
            vectors = self._vectors([records[position] for _, position in chunk], chunk, first)
            stamps = None if times is None else times[start : start + _AT_ONCE]
            kind = isinstance(records[0][1], str)
            yield self._rows(chunk, records, vectors, stamps, first=first, as_text=kind)
        yield COPY_TRAILER

    def _rows(
        self, chunk: Sequence[tuple[UUID | str, int]], records: Sequence[Record],
        vectors: Sequence[bytes], times: Sequence[int] | None, *, first: int, as_text: bool,
    ) -> bytes:  # fmt: skip
        count = b"\x00\x04" if times is None else b"\x00\x05"
        parts: list[bytes] = []
        for number, (identifier, position) in enumerate(chunk):
            _, metadata, contents, _ = records[position]
            try:
                if metadata is not None and isinstance(metadata, str) != as_text:
                    raise _MIXED
                parts += (
                    count,
                    b"\x00\x00\x00\x10" + identifier.bytes
                    if isinstance(identifier, UUID)
                    else field(identifier.encode()),
                    b"" if times is None else time_field(times[number]),
                    _metadata_field(metadata),
                    _contents_field(contents),
                    vectors[number],
                )
            except (ValueError, TypeError, RecursionError) as error:
                raise _at(first + position, error) from error
        return b"".join(parts)

    def _vectors(
        self, records: Sequence[Record], chunk: Sequence[tuple[Any, int]], first: int
    ) -> list[bytes]:
        try:
            return self.pack([_embedding(record) for record in records])
        except (ValueError, TypeError, InvalidEmbeddings):
            # Which one? Asked one by one, slowly.
            for record, (_, position) in zip(records, chunk, strict=True):
                try:
                    self.pack([_embedding(record)])
                except (ValueError, TypeError, InvalidEmbeddings) as error:
                    raise _at(first + position, error) from error
            raise

    def pack(self, embeddings: list[Any]) -> list[bytes]:
        """Return embeddings as fields of the column; raise InvalidEmbeddings for wrong ones."""
        if self.column_type == "bit":
            return pack_bits(as_bits(embeddings, len(embeddings), self.dimensions))
        matrix = as_matrix(embeddings, len(embeddings), self.dimensions)
        if self.normalize:
            matrix = normalized(matrix)
        if self.column_type == "halfvec":
            return pack_halfvecs(matrix)
        return pack_vectors(matrix)

    def matrix(self, embeddings: list[Any]) -> FloatMatrix:
        """Return embeddings as a checked matrix."""
        return as_matrix(embeddings, len(embeddings), self.dimensions)


def _embedding(record: Record) -> Any:
    if len(record) != _RECORD_LENGTH:
        raise ValueError(f"expected (id, metadata, contents, embedding), got {len(record)} values")
    embedding = record[3]
    if hasattr(embedding, "to_numpy"):  # pgvector's Vector, HalfVector and Bit
        return embedding.to_numpy()
    if hasattr(embedding, "to_list"):  # the same of older versions
        return embedding.to_list()
    return embedding


def _at(position: int, error: Exception) -> InvalidArgument:
    reason = str(error) or type(error).__name__
    return InvalidArgument(f"record {position}: {reason}")


_MIXED: Final = ValueError("metadata is JSON text in some records and a mapping in others")


def _metadata_field(metadata: Mapping[str, Any] | str | None) -> bytes:
    if metadata is None:
        return _NULL
    value = json.loads(metadata) if isinstance(metadata, str) else metadata
    try:
        text = _JSON.encode(value)
        data = text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata cannot be written as JSON: {error}") from error
    if "\\u0000" in text and _ZERO_BYTE.search(text):
        raise ValueError("metadata holds a zero byte, which PostgreSQL cannot store")
    return jsonb_field(data)


def _contents_field(contents: Any) -> bytes:
    if contents is None:
        return _NULL
    if not isinstance(contents, str):
        raise ValueError(f"contents must be text or None, not {type(contents).__name__}")  # noqa: TRY004 - one kind of error a record
    if "\0" in contents:
        raise ValueError("contents hold a zero byte, which PostgreSQL cannot store")
    return field(contents.encode())
