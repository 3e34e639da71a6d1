"""The rows of a batch and their chunks: read from the source, written to the destination."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.partitions import AsyncPartitions
from vectorizer._async.queue import AsyncQueue
from vectorizer.batch import Batch, Done, Failed, Gone, LoadedRow, Outcome, Released, Unchanged
from vectorizer.definition import Installation
from vectorizer.diff import KeptChunk, StoredChunk
from vectorizer.errors import LeaseLost
from vectorizer.identifiers import from_pg_time
from vectorizer.packing import field, int_field, jsonb_field, pack_rows, time_field
from vectorizer.statements import Statements

__all__ = ["AsyncStore"]

_TIME = struct.Struct(">q")


class AsyncStore:
    """Reads batches of one installed vectorizer and writes what became of them."""

    def __init__(
        self, database: AsyncDatabase, installation: Installation, queue: AsyncQueue
    ) -> None:
        self._database = database
        self._queue = queue
        self._statements = Statements(database.schema, installation)
        interval = installation.definition.partition_interval
        self._partitions = (
            AsyncPartitions(database, installation.storage, interval, installation.id)
            if interval is not None and installation.storage is not None
            else None
        )

    async def load(self, batch: Batch) -> tuple[list[LoadedRow], dict[int, list[StoredChunk]]]:
        """Return the batch's rows as they are now, and the stored chunks of those that differ.

        It runs in a transaction of its own after the claim has committed: its snapshot is
        later than every log entry the claim took, so it sees every change they stand for.

        Raises LeaseLost if the batch is not ours any more.
        """
        async with self._database.transaction(pinned_plans=True) as connection:
            found = await connection.execute(
                self._statements["load_rows"], {"token": batch.token}, binary=True
            )
            rows = [_loaded(record) for record in await found.fetchall()]
            if len(rows) < batch.size:
                raise LeaseLost(
                    f"the lease of a batch of {batch.size} rows was lost before it was read"
                )
            chunks = await self._load_chunks(connection, batch, rows)
        return rows, chunks

    async def _load_chunks(
        self,
        connection: psycopg.AsyncConnection[Any],
        batch: Batch,
        rows: Sequence[LoadedRow],
    ) -> dict[int, list[StoredChunk]]:
        chunks: dict[int, list[StoredChunk]] = {}
        for statement, wanted in (
            ("load_chunks", [row.has_chunks and not row.unchanged for row in rows]),
            ("load_chunks_everywhere", [row.under_repair for row in rows]),
        ):
            if any(wanted):
                metadata = [row.metadata for row in rows]
                found = await connection.execute(
                    self._statements[statement],
                    {"token": batch.token, "wanted": wanted, "metadata": metadata},
                    binary=True,
                )
                for number, identifier, time, *rest in await found.fetchall():
                    chunk, content, same, text = rest
                    stored = StoredChunk(
                        identifier.bytes, _time(time), chunk, content, bool(same), text
                    )
                    chunks.setdefault(number, []).append(stored)
        return chunks

    async def finish(
        self,
        batch: Batch,
        outcomes: Sequence[Outcome],
        *,
        release_seconds: float = 0.0,
        also: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]] | None = None,
    ) -> None:
        """Write what became of the batch and end its lease, all in one transaction.

        release_seconds: how long nobody is to claim the rows that are Released.
        also: what else belongs into that transaction, at its end.

        Raises LeaseLost, and writes nothing, if the batch is not ours any more.
        """
        if self._partitions is None:
            await self._finish(batch, outcomes, release_seconds, also)
        else:
            times = [
                outcome.time
                for outcome in outcomes
                if isinstance(outcome, Done) and outcome.time is not None and outcome.chunks
            ]
            await self._partitions.write(
                times, lambda: self._finish(batch, outcomes, release_seconds, also)
            )

    async def _finish(
        self,
        batch: Batch,
        outcomes: Sequence[Outcome],
        release_seconds: float,
        also: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]] | None,
    ) -> None:
        written = [outcome for outcome in outcomes if isinstance(outcome, (Done, Gone))]
        async with self._database.transaction(pinned_plans=True) as connection:
            await self._queue.hold(connection, batch)
            stale = [chunk for outcome in written for chunk in outcome.diff.stale]
            if stale:
                await self._delete(connection, stale)
            changed = [
                (kept, outcome.row.metadata)
                for outcome in written
                for kept in outcome.diff.kept
                if kept.changed
            ]
            if changed:
                await self._update(connection, changed)
            new = [outcome for outcome in written if outcome.diff.new and isinstance(outcome, Done)]
            if new:
                await self._copy(connection, new)
            await self._queue.finish(
                connection,
                batch,
                done=list(_finished(outcomes)),
                gone=[outcome.row for outcome in outcomes if isinstance(outcome, Gone)],
                failed=[outcome for outcome in outcomes if isinstance(outcome, Failed)],
                release_seconds=(
                    release_seconds
                    if any(isinstance(outcome, Released) for outcome in outcomes)
                    else None
                ),
            )
            if also is not None:
                await also(connection)

    async def _delete(
        self, connection: psycopg.AsyncConnection[Any], stale: Sequence[StoredChunk]
    ) -> None:
        await connection.execute(
            self._statements["delete_chunks"],
            {
                "times": [from_pg_time(chunk.time) for chunk in stale],
                "ids": [UUID(bytes=chunk.id) for chunk in stale],
            },
        )

    async def _update(
        self,
        connection: psycopg.AsyncConnection[Any],
        changed: Sequence[tuple[KeptChunk, str | None]],
    ) -> None:
        await connection.execute(
            self._statements["update_chunks"],
            {
                "times": [from_pg_time(kept.stored.time) for kept, _ in changed],
                "ids": [UUID(bytes=kept.stored.id) for kept, _ in changed],
                "new_times": [from_pg_time(kept.time) for kept, _ in changed],
                "new_ids": [UUID(bytes=kept.id) for kept, _ in changed],
                "chunks": [kept.chunk for kept, _ in changed],
                "metadata": [metadata for _, metadata in changed],
                "content_hashes": [kept.content_hash for kept, _ in changed],
                "contents": [kept.text for kept, _ in changed],
            },
        )

    async def _copy(self, connection: psycopg.AsyncConnection[Any], new: Sequence[Done]) -> None:
        data = pack_rows(fields for outcome in new for fields in _copy_rows(outcome))
        async with connection.cursor().copy(self._statements.bare("copy_chunks")) as copy:
            await copy.write(data)


def _loaded(record: Sequence[Any]) -> LoadedRow:
    number, key, present, known_time, known_hash, known_chunks, attempts, *rest = record
    source_hash, time, metadata, texts = rest
    return LoadedRow(
        number=number,
        key=tuple(key),
        present=bool(present),
        known_time=None if known_time is None else _time(known_time),
        known_hash=known_hash,
        known_chunks=known_chunks,
        attempts=attempts,
        source_hash=source_hash,
        time=None if time is None else _time(time),
        metadata=metadata,
        texts=texts or (),
    )


def _time(data: bytes) -> int:
    return int(_TIME.unpack(data)[0])


def _finished(outcomes: Sequence[Outcome]) -> Iterable[tuple[LoadedRow, Any, int | None]]:
    for outcome in outcomes:
        match outcome:
            case Done(row=row, time=time):
                yield row, None if time is None else from_pg_time(time), outcome.chunks
            case Unchanged(row=row):
                known = row.known_time
                yield row, None if known is None else from_pg_time(known), row.known_chunks


def _copy_rows(outcome: Done) -> Iterable[list[bytes]]:
    time = outcome.time or 0
    key = [field(part) for part in outcome.row.key]
    metadata = jsonb_field((outcome.row.metadata or "{}").encode())
    for chunk, vector in zip(outcome.diff.new, outcome.vectors, strict=True):
        yield [
            field(chunk.id),
            time_field(time),
            *key,
            int_field(chunk.chunk),
            field(chunk.content_hash),
            metadata,
            field(chunk.text.encode()),
            vector,
        ]
