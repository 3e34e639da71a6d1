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
    """A chunk whose text is stored already: its vector stays.

    At most its place changes, and the white space in its text, which is given then.
    """

    stored: StoredChunk
    id: bytes
    time: int
    chunk: int
    content_hash: bytes | None = None
    text: str | None = None

    @property
    def changed(self) -> bool:
        """Whether anything of the stored chunk has to be written."""
        old = self.stored
        before = (old.id, old.time, old.chunk)
        after = (self.id, self.time, self.chunk)
        return not old.same_metadata or before != after or self.text is not None


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
    Of equal texts as many are kept as are stored. Nor is a text new that is stored with other
    white space, as after a line was wrapped: what it says is the same.
    """
    contents = [content_hash(text) for text in texts]
    olds, left = _matched(contents, [chunk.content_hash for chunk in stored], stored)
    if left and None in olds:
        # Where the stored text is not known, nothing else is equal to it.
        words = [
            _words(text) if old is None else None for text, old in zip(texts, olds, strict=True)
        ]
        left_words = [chunk.id if chunk.text is None else _words(chunk.text) for chunk in left]
        others, left = _matched(words, left_words, left)
        olds = [old or other for old, other in zip(olds, others, strict=True)]
    diff = ChunkDiff(stale=left)
    occurrences: dict[bytes, int] = {}
    taken = {chunk.id for chunk in stored} | {retimed(old.id, time) for old in olds if old}
    places = numbers([None if old is None else old.chunk for old in olds])
    for text, content, old, place in zip(texts, contents, olds, places, strict=True):
        if old is None:
            identifier = _free_id(time, key, content, occurrences, taken)
            diff.new.append(NewChunk(identifier, place, content, text))
        elif old.content_hash == content:
            diff.kept.append(KeptChunk(old, retimed(old.id, time), time, place))
        else:
            diff.kept.append(KeptChunk(old, retimed(old.id, time), time, place, content, text))
    return diff


def _matched(
    wanted: Sequence[object], known: Sequence[object], stored: Sequence[StoredChunk]
) -> tuple[list[StoredChunk | None], list[StoredChunk]]:
    """Return a stored chunk for each wanted one, None if there is no equal, and those left."""
    by_what: dict[object, list[StoredChunk]] = {}
    for what, chunk in zip(known, stored, strict=True):
        by_what.setdefault(what, []).append(chunk)
    found = [equal.pop(0) if (equal := by_what.get(what)) else None for what in wanted]
    return found, [chunk for chunks in by_what.values() for chunk in chunks]


def _words(text: str) -> str:
    return " ".join(text.split())


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
