"""Records of a vector collection, checked and packed; results, read by position and by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

from vectorizer.errors import ConfigurationError, InvalidEmbeddings
from vectorizer.identifiers import time_of, to_pg_time
from vectorizer.packing import field, jsonb_field, pack_vectors, time_field
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CheckedRecord", "CollectionResult", "Record", "checked_records", "record_fields"]

Record: TypeAlias = Sequence[Any]
"""(id, metadata as a mapping or JSON text, contents, embedding)"""

_RECORD_LENGTH = 4
_TIME_BASED = 1


class CollectionResult(NamedTuple):
    """A record found by a search; `distance` is None where no vector was asked for."""

    id: Any
    metadata: dict[str, Any]
    contents: str | None
    embedding: NDArray[Any]
    distance: float | None

    @classmethod
    def from_record(cls, record: Sequence[Any]) -> CollectionResult:
        """Return the result for a row whose vector came in binary form."""
        import numpy as np  # noqa: PLC0415 - heavy

        identifier, metadata, contents, vector, distance = record
        # pgvector's binary form: int16 dimensions, int16 zero, big-endian float32.
        embedding = np.frombuffer(vector, dtype=">f4", offset=4).astype(np.float32)
        return cls(identifier, metadata, contents, embedding, distance)


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """A record that can be written. `time` is in microseconds since 2000-01-01."""

    id: UUID | str
    time: int | None
    metadata: bytes | None
    contents: str | None
    vector: bytes


def checked_records(
    records: Iterable[Record], dimensions: int, *, timed: bool, uuids: bool
) -> list[CheckedRecord]:
    """Check records and pack their vectors; the last of several with one id stays.

    timed: ids must be UUIDs of version 1, whose time says in which partition they belong.
    Raises ConfigurationError naming the position of the first that is wrong.
    """
    latest: dict[UUID | str, CheckedRecord] = {}
    for position, record in enumerate(records):
        try:
            checked = _checked(record, dimensions, timed=timed, uuids=uuids)
        except (ValueError, TypeError, InvalidEmbeddings) as error:
            raise ConfigurationError(f"record {position}: {error}") from error
        latest[checked.id] = checked
    return list(latest.values())


def _checked(record: Record, dimensions: int, *, timed: bool, uuids: bool) -> CheckedRecord:

    if len(record) != _RECORD_LENGTH:
        raise ValueError(f"expected (id, metadata, contents, embedding), got {len(record)} values")
    identifier, metadata, contents, embedding = record
    checked_id = _uuid(identifier) if uuids else str(identifier)
    if hasattr(embedding, "to_numpy"):  # pgvector's own Vector
        embedding = embedding.to_numpy()
    return CheckedRecord(
        checked_id,
        _time(checked_id) if timed and isinstance(checked_id, UUID) else None,
        _json(metadata),
        _text(contents),
        pack_vectors(as_matrix([embedding], 1, dimensions))[0],
    )


def _uuid(identifier: Any) -> UUID:
    return identifier if isinstance(identifier, UUID) else UUID(str(identifier))


def _time(identifier: UUID) -> int:
    if identifier.version != _TIME_BASED:
        raise ValueError(
            f"id {identifier} is a UUID of version {identifier.version}; a time-partitioned "
            f"collection needs version 1, made by uuid_from_time"
        )
    return to_pg_time(time_of(identifier))


def _json(metadata: Mapping[str, Any] | str | None) -> bytes | None:
    if metadata is None:
        return None
    value = json.loads(metadata) if isinstance(metadata, str) else metadata
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata cannot be written as JSON: {error}") from error
    if "\\u0000" in text:
        raise ValueError("metadata holds a zero byte, which PostgreSQL cannot store")
    return text.encode()


def _text(contents: Any) -> str | None:
    if contents is not None and not isinstance(contents, str):
        raise ValueError(f"contents must be text or None, not {type(contents).__name__}")
    if contents is not None and "\0" in contents:
        raise ValueError("contents hold a zero byte, which PostgreSQL cannot store")
    return contents


_NULL = b"\xff\xff\xff\xff"


def record_fields(record: CheckedRecord) -> list[bytes]:
    """Return a record for COPY: id, time if it has one, metadata, contents, vector."""
    identifier = record.id
    return [
        field(identifier.bytes if isinstance(identifier, UUID) else identifier.encode()),
        *([] if record.time is None else [time_field(record.time)]),
        _NULL if record.metadata is None else jsonb_field(record.metadata),
        _NULL if record.contents is None else field(record.contents.encode()),
        record.vector,
    ]
