"""What has to be done to a row's stored chunks so that they become its new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from vectorizer.identifiers import chunk_id, content_hash, retimed
from vectorizer.numbering import numbers

__all__ = ["ChunkDiff", "KeptChunk", "NewChunk", "StoredChunk", "diff_chunks"]


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it stands in the destination. `id` is 16 bytes, `time` is in microseconds.

    chunk: its place among those of the row, see `vectorizer.numbering`.

    text: its contents, None where they are not needed or not to be trusted.
    """

    id: bytes
    time: int
    chunk: int
    content_hash: bytes
    same_metadata: bool
    text: str | None = None


class NewChunk(NamedTuple):
    """A chunk that has to be embedded and written."""

    id: bytes
    chunk: int
    content_hash: bytes
    text: str


@dataclass(frozen=True, slots=True)
class KeptChunk:
    """A chunk whose text is stored already: its vector stays, at most its place changes."""

    stored: StoredChunk
    id: bytes
    time: int
    chunk: int

    @property
    def changed(self) -> bool:
        """Whether anything of the stored chunk has to be written."""
        old = self.stored
        before = (old.id, old.time, old.chunk)
        return not old.same_metadata or before != (self.id, self.time, self.chunk)


@dataclass(frozen=True, slots=True)
class ChunkDiff:
    """New chunks to embed, kept ones, and stale ones to delete."""

    new: list[NewChunk] = field(default_factory=list)
    kept: list[KeptChunk] = field(default_factory=list)
    stale: list[StoredChunk] = field(default_factory=list)


def diff_chunks(
    key: bytes, time: int, texts: Sequence[str], stored: Sequence[StoredChunk]
) -> ChunkDiff:
    """Compare the texts a row should have, at its time, with its stored chunks.

    Chunks are told apart by content, not by position: a text that is stored is never new.
    Of equal texts as many are kept as are stored.
    """
    diff = ChunkDiff()
    by_content: dict[bytes, list[StoredChunk]] = {}
    for chunk in stored:
        by_content.setdefault(chunk.content_hash, []).append(chunk)
    occurrences: dict[bytes, int] = {}
    taken = {chunk.id for chunk in stored}
    contents = [content_hash(text) for text in texts]
    olds = [known.pop(0) if (known := by_content.get(content)) else None for content in contents]
    places = numbers([None if old is None else old.chunk for old in olds])
    for text, content, old, place in zip(texts, contents, olds, places, strict=True):
        if old is not None:
            identifier = retimed(old.id, time)
            taken.add(identifier)
            diff.kept.append(KeptChunk(old, identifier, time, place))
        else:
            identifier = _free_id(time, key, content, occurrences, taken)
            diff.new.append(NewChunk(identifier, place, content, text))
    diff.stale.extend(chunk for chunks in by_content.values() for chunk in chunks)
    return diff


def _free_id(
    time: int, key: bytes, content: bytes, occurrences: dict[bytes, int], taken: set[bytes]
) -> bytes:
    # Kept chunks of equal text hold ids of this series already.
    for occurrence in count(occurrences.get(content, 0)):
        identifier = chunk_id(time, key, content, occurrence)
        if identifier not in taken:
            break
    occurrences[content] = occurrence + 1
    taken.add(identifier)
    return identifier
