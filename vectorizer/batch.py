"""A claimed batch, the rows in it, and what became of each: data, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from vectorizer.diff import ChunkDiff

__all__ = [
    "Batch",
    "Counts",
    "Done",
    "Failed",
    "Gone",
    "LoadedRow",
    "Outcome",
    "Released",
    "Spent",
    "Unchanged",
    "count",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys held under one lease. They stay in the database; here they are numbers 1..size.

    oldest: when the first of the changes in it was made; None where it holds no new change.
    held_seconds: how long nothing is to be sent to the model; what needs it waits as long.
    """

    token: UUID
    size: int
    oldest: datetime | None = None
    held_seconds: float = 0.0


class LoadedRow(NamedTuple):
    """A source row as it was when the batch was loaded.

    key: each key column in binary form; present: False if the row is gone.
    time: the row's own time in microseconds since 2000-01-01, None if it has none.
    known_*: what the ledger says was made of the row before; known_chunks is None for a row
    that was never finished, below 0 for one under repair.
    metadata: JSON text; texts: the chunk column, then the template's.
    """

    number: int
    key: tuple[bytes, ...]
    present: bool
    known_time: int | None
    known_hash: bytes | None
    known_chunks: int | None
    attempts: int
    source_hash: bytes | None
    time: int | None
    metadata: str | None
    texts: Sequence[str | None]

    @property
    def unchanged(self) -> bool:
        """Whether the destination already holds what this row says."""
        return (
            self.present and self.known_chunks is not None and self.known_hash == self.source_hash
        )

    @property
    def has_chunks(self) -> bool:
        """Whether chunks are stored for this row, at its known time."""
        return self.known_chunks is not None and self.known_chunks > 0

    @property
    def under_repair(self) -> bool:
        """Whether a verification found the row's chunks wrong: they may be anywhere."""
        return self.known_chunks is not None and self.known_chunks < 0

    @property
    def key_bytes(self) -> bytes:
        """The key as one byte string, no two keys the same."""
        return b"".join([b"%d:%b" % (len(part), part) for part in self.key])


@dataclass(frozen=True, slots=True)
class Done:
    """The row is what its chunks now say.

    vectors: one for each new chunk; tokens: of all its texts, new and kept.
    """

    row: LoadedRow
    time: int | None
    diff: ChunkDiff = field(default_factory=ChunkDiff)
    vectors: Sequence[bytes] = ()
    tokens: int = 0

    @property
    def chunks(self) -> int:
        """How many chunks the row has from now on."""
        return len(self.diff.new) + len(self.diff.kept)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The row had changed and is back to what its chunks say, or never differed from it."""

    row: LoadedRow


@dataclass(frozen=True, slots=True)
class Gone:
    """The row is deleted: its chunks and its place in the ledger go."""

    row: LoadedRow
    diff: ChunkDiff = field(default_factory=ChunkDiff)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the texts of a batch cost.

    asked: in rows that were new or had changed; sent: to the model, answered or not.
    vectors: those that were made of them, by the hash of the text, as fields of COPY.
    """

    requests: int = 0
    texts_asked: int = 0
    texts_sent: int = 0
    tokens_asked: int = 0
    tokens_sent: int = 0
    vectors: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The row could not be processed, for a reason that lies in its data."""

    row: LoadedRow
    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """The row could not be processed now, for a reason outside it: it is given back untouched."""

    row: LoadedRow


Outcome: TypeAlias = Done | Unchanged | Gone | Failed | Released


@dataclass(slots=True)
class Counts:
    """What was done, in rows and chunks, and what went to the embedder for it."""

    rows: int = 0
    embedded: int = 0
    kept: int = 0
    deleted: int = 0
    failed: int = 0
    requests: int = 0
    texts: int = 0
    tokens: int = 0

    def add(self, other: Counts) -> None:
        """Add what another batch did."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((name, getattr(self, name)) for name in self.__slots__)


def count(outcomes: Sequence[Outcome], spent: Spent) -> Counts:
    """Count the outcomes of a batch, and what they cost."""
    counts = Counts(
        rows=len(outcomes),
        requests=spent.requests,
        texts=spent.texts_sent,
        tokens=spent.tokens_sent,
    )
    for outcome in outcomes:
        match outcome:
            case Done(diff=diff):
                counts.embedded += len(diff.new)
                counts.kept += len(diff.kept)
                counts.deleted += len(diff.stale)
            case Unchanged(row=row):
                counts.kept += row.known_chunks or 0
            case Gone(diff=diff):
                counts.deleted += len(diff.stale)
            case Failed():
                counts.failed += 1
    return counts
