"""Writing and deleting the records of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import errors
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from vectorizer._async.collection_tables import AsyncCollectionTables, Connection
from vectorizer._async.partitions import AsyncPartitions
from vectorizer.collection_options import Shape
from vectorizer.collection_statements import Statement, Wanted
from vectorizer.conditions import Clock
from vectorizer.database_errors import is_conflict
from vectorizer.errors import InvalidArgument
from vectorizer.filters import Filter, refuse_empty
from vectorizer.identifiers import from_pg_time
from vectorizer.partitioning import partition_of
from vectorizer.records import Packer, Record, batches, checked_ids
from vectorizer.texts import DOCUMENT, text_locks

__all__ = ["AsyncCollectionWriter"]

# So many records are deleted and copied at once; more of them save nothing.
_BATCH: Final = 20_000
_ATTEMPTS: Final = 10
# Ids of a hypertable whose interval is not told are deleted in groups of this length.
_SPAN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records that are written together; first: position of the first in the whole upsert."""

    records: Sequence[Record]
    first: int
    ids: dict[UUID | str, int]
    times: list[int] | None


class AsyncCollectionWriter:
    """Upserts and deletes."""

    def __init__(self, tables: AsyncCollectionTables) -> None:
        self._tables = tables
        self._options = tables.options
        self._partitions: AsyncPartitions | None = None

    async def upsert(self, records: Iterable[Record], stale: Sequence[Statement] = ()) -> None:
        """Write records; all of them, or none. stale: deletions that belong to it."""
        shape = await self._tables.shape()
        self._check_writable(shape)
        packer = self.packer(shape)
        if shape.kind == "partitioned":
            await self._upsert_partitioned(records, packer, shape, stale)
        elif isinstance(records, Sequence):
            await self._retrying(lambda: _prepared(records, packer), packer, stale)
        else:
            await self._write_all(_prepared(records, packer), packer, stale)

    def packer(self, shape: Shape) -> Packer:
        """Return what packs records for this table."""
        options = self._options
        return Packer(
            dimensions=options.dimensions,
            column_type=shape.column_type,
            uuids=options.uuids,
            timed=shape.clock in (Clock.COLUMN, Clock.FUNCTION),
            has_time=shape.has_time,
            unix_times=shape.unix_times,
            normalize=options.normalize,
        )

    def _check_writable(self, shape: Shape) -> None:
        if shape.kind == "view":
            raise InvalidArgument(
                f"{shape.relation} is a view, to be searched; what is in it is written by its "
                f"vectorizer, or to the table under it"
            )
        if shape.kind == "partitioned" and self._options.interval is None:
            raise InvalidArgument(
                f"{shape.relation} is partitioned by time; give time_partition_interval to write"
            )

    async def _upsert_partitioned(
        self, records: Iterable[Record], packer: Packer, shape: Shape, stale: Sequence[Statement]
    ) -> None:
        # Partitions are made in transactions of their own, so their times are needed first.
        prepared = list(_prepared(records, packer))
        times = [time for batch in prepared for time in batch.times or ()]
        if self._partitions is None and self._options.interval is not None:
            database, interval = self._tables.database, self._options.interval
            self._partitions = AsyncPartitions(database, shape.relation, interval)
        if self._partitions is not None:
            await self._partitions.write(
                times, lambda: self._retrying(lambda: prepared, packer, stale)
            )

    async def _retrying(
        self, prepare: Callable[[], Iterable[_Batch]], packer: Packer, stale: Sequence[Statement]
    ) -> None:
        # Two that write the same records in another order stop each other: one begins again.
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_conflict),
            wait=wait_random_exponential(multiplier=0.02, max=1),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        ):
            with attempt:
                await self._write_all(prepare(), packer, stale)

    async def _write_all(
        self, prepared: Iterable[_Batch], packer: Packer, stale: Sequence[Statement]
    ) -> None:
        async with self._tables.transaction() as connection:
            for statement in stale:
                await self._tables.run(connection, statement)
            for batch in prepared:
                await self._write(connection, batch, packer)

    async def _write(self, connection: Connection, batch: _Batch, packer: Packer) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                async with connection.transaction():
                    await self._replace(connection, batch, packer)
            except errors.UniqueViolation:
                # Somebody wrote one of these ids since we looked: look again.
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    async def _replace(self, connection: Connection, batch: _Batch, packer: Packer) -> None:
        # For batches DELETE and COPY are quicker than any ON CONFLICT.
        await self._delete_ids(connection, list(batch.ids), batch.times)
        await self._copy(connection, batch, packer)

    async def _copy(self, connection: Connection, batch: _Batch, packer: Packer) -> None:
        statements = await self._tables.statements()
        times = batch.times if packer.has_time else None
        cursor = psycopg.AsyncRawCursor(connection)
        async with cursor.copy(statements.copy()) as copy:
            for chunk in packer.stream(batch.ids, batch.records, batch.first, times):
                await copy.write(chunk)

    async def _delete_ids(
        self, connection: Connection, ids: Sequence[Any], times: Sequence[int] | None
    ) -> None:
        statements = await self._tables.statements()
        if times is None:
            await self._tables.run(connection, statements.delete_ids(ids))
            return
        # By partition: each would be searched for each id.
        groups: dict[Any, tuple[list[Any], list[int]]] = {}
        interval = self._options.interval or _SPAN
        for identifier, time in zip(ids, times, strict=True):
            group = groups.setdefault(partition_of(time, interval).start, ([], []))
            group[0].append(identifier)
            group[1].append(time)
        for _, (members, moments) in sorted(groups.items()):
            # A hypertable's uuid_timestamp may cut to milliseconds.
            first, last = from_pg_time(min(moments) - 1000), from_pg_time(max(moments) + 1)
            await self._tables.run(connection, statements.delete_ids(members, (first, last)))

    async def delete_by_ids(self, ids: Iterable[Any], *, texts: bool = False) -> None:
        """Delete the records with these ids; texts: and every other chunk of these texts."""
        shape = await self._tables.shape()
        checked = checked_ids(ids, uuids=self._options.uuids)
        times = self._times(shape, checked)
        async with self._tables.transaction() as connection:
            if checked and texts:
                await self._tables.run(connection, await self._of_texts(checked))
            if checked:
                await self._delete_ids(connection, checked, times)

    async def _of_texts(self, ids: Sequence[Any]) -> Statement:
        chunks = Wanted(filter=[{DOCUMENT: str(identifier)} for identifier in ids])
        return (await self._tables.statements()).of_matching("delete_records", chunks)

    def _times(self, shape: Shape, ids: Sequence[Any]) -> list[int] | None:
        packer = self.packer(shape)
        if not packer.timed:
            return None
        try:
            return packer.times(ids, dict.fromkeys(ids, 0), 0)
        except InvalidArgument:
            return None  # ids without a time are in no partition, but may be asked for

    async def replace_texts(self, ids: Sequence[Any], records: Sequence[Record]) -> None:
        """Write the chunks of texts, and delete in the same transaction what was there of them."""
        if ids:
            statements = await self._tables.statements()
            # One at a time for a text: of two at once, each would miss the chunks of the other.
            lock = statements.lock_texts(text_locks(str(statements.shape.relation), ids))
            gone = [await self._of_texts(ids), statements.delete_ids(ids)]
            await self.upsert(records, [lock, *gone])

    async def delete_by_metadata(self, filter: Filter) -> None:  # noqa: A002 - the documented name
        """Delete the records that a filter matches."""
        refuse_empty(filter, "delete_by_metadata")
        statements = await self._tables.statements()
        statement = statements.of_matching("delete_records", Wanted(filter=filter))
        async with self._tables.transaction() as connection:
            await self._tables.run(connection, statement)


def _prepared(records: Iterable[Record], packer: Packer) -> Iterable[_Batch]:
    first = 0
    for batch in batches(records, _BATCH):
        ids = packer.positions(batch, first)
        times = packer.times(ids, ids, first) if packer.timed else None
        yield _Batch(batch, first, ids, times)
        first += len(batch)
