"""Texts as records: cut into chunks, each with an id of its own and the mark of its text.

A text given under an id is stored as one record a chunk. The first keeps the id; the others
have ids made from it and their content, at the same time. Each says in its metadata which text
it is of, so that a text that is given again replaces all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol
from uuid import UUID
from zlib import crc32

from vectorizer.errors import InvalidArgument
from vectorizer.identifiers import MIN_TIME, chunk_id, content_hash
from vectorizer.records import Record, checked_id
from vectorizer.times import id_time

__all__ = [
    "CHUNK",
    "DOCUMENT",
    "Splitter",
    "Text",
    "checked_texts",
    "chunk_records",
    "is_text",
    "text_locks",
]

DOCUMENT: Final = "__document"
"""Key in the metadata: id of the text that a record is a chunk of."""
CHUNK: Final = "__chunk"
"""Key in the metadata: position of the chunk in its text, from 0."""
_LOCKS: Final = 64


class Splitter(Protocol):
    """Anything that cuts a text into chunks, like `vectorizer.chunking.Chunker`."""

    def split(self, text: str) -> list[str]:
        """Return the chunks of a text in order."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be stored; position: where it stood among the records."""

    position: int
    id: UUID | str
    metadata: Mapping[str, Any]
    contents: str


def is_text(record: Record) -> bool:
    """Whether a record has contents and no embedding."""
    return len(record) == 3 or (len(record) == 4 and record[3] is None)  # noqa: PLR2004


def checked_texts(records: Iterable[Record], *, uuids: bool) -> list[Text]:
    """Return records (id, metadata, contents) as texts; the last of several with one id stays.

    Raises InvalidArgument naming the position of the first that is wrong.
    """
    latest: dict[UUID | str, Text] = {}
    for position, record in enumerate(records):
        try:
            text = _text(position, record, uuids=uuids)
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"record {position}: {error}") from error
        latest[text.id] = text
    return list(latest.values())


def _text(position: int, record: Record, *, uuids: bool) -> Text:
    if not is_text(record):
        raise ValueError("either all records of an upsert have an embedding, or none of them")
    identifier, metadata, contents, *_ = record
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if not isinstance(metadata, (Mapping, type(None))):
        raise ValueError(f"metadata must be a mapping or JSON text, not {metadata!r}")  # noqa: TRY004 - one kind of error a record
    if not isinstance(contents, str):
        raise ValueError(f"contents must be text, not {type(contents).__name__}")  # noqa: TRY004 - likewise
    return Text(position, checked_id(identifier, uuids=uuids), metadata or {}, contents)


def chunk_records(text: Text, chunks: Sequence[str]) -> list[tuple[Any, dict[str, Any], str]]:
    """Return (id, metadata, contents) of each chunk."""
    seen: dict[str, int] = {}
    records = []
    for number, chunk in enumerate(chunks):
        occurrence = seen[chunk] = seen.get(chunk, -1) + 1
        identifier = text.id if number == 0 else _chunk_id(text.id, chunk, occurrence)
        metadata = {**text.metadata, DOCUMENT: str(text.id), CHUNK: number}
        records.append((identifier, metadata, chunk))
    return records


def text_locks(table: str, ids: Iterable[Any]) -> list[int]:
    """Return keys of advisory locks for texts of a table, in the order to take them.

    Texts share 64 of them: a server has room for thousands, and an upsert may have more texts.
    """
    buckets = {crc32(str(identifier).encode()) % _LOCKS for identifier in ids}
    names = (f"vectorizer {table} {bucket}".encode() for bucket in buckets)
    return sorted(
        int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True) for name in names
    )


def _chunk_id(identifier: UUID | str, chunk: str, occurrence: int) -> UUID | str:
    content = content_hash(chunk)
    if isinstance(identifier, UUID):
        try:
            time = id_time(identifier)
        except ValueError:
            time = MIN_TIME  # an id without a time: the beginning of all
        return UUID(bytes=chunk_id(time, identifier.bytes, content, occurrence))
    digest = blake2b(b"%d:%b" % (occurrence, content), digest_size=8).hexdigest()
    return f"{identifier}#{digest}"
