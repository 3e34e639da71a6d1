"""Batches handed to a function of the user, which embeds and writes them itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.fence import AsyncFence
from vectorizer._async.queue import AsyncQueue
from vectorizer.batch import Batch, LoadedRow
from vectorizer.concurrency import AsyncHeartbeat, call_async
from vectorizer.database_errors import is_drift
from vectorizer.definition import Installation
from vectorizer.errors import DatabaseError, LeaseLost
from vectorizer.rows import Row, row_class
from vectorizer.statements import Statements

__all__ = ["AsyncCallbackWorker", "EmbedAndWrite", "SourceChanged"]

EmbedAndWrite: TypeAlias = Callable[[Sequence[Row], Any], Awaitable[None] | None]


class SourceChanged(DatabaseError):
    """The source table was renamed or altered: its vectorizer has to be looked up again."""


@contextmanager
def _drift_noticed() -> Iterator[None]:
    # Apart from the callback, whose own statements may fail in the same way.
    try:
        yield
    except DatabaseError as error:
        if is_drift(error):
            raise SourceChanged(str(error)) from error
        raise


class AsyncCallbackWorker:
    """Claims batches of one installed vectorizer and hands them to a callback."""

    def __init__(
        self, database: AsyncDatabase, installation: Installation, queue: AsyncQueue
    ) -> None:
        self._database = database
        self._queue = queue
        self._key_length = len(installation.key)
        self.fence: AsyncFence | None = None
        """That of the batch which the callback is working on; None outside of it."""
        self._statements = Statements(database.schema, installation)

    async def process(self, callback: EmbedAndWrite, argument: Any, rows: int) -> int:
        """Claim one batch, call `callback(rows, argument)`, and ack it.

        Returns the number of rows handed over; 0 only if nothing was claimable. When the
        callback raises, the batch is tried again later, and the exception goes to the caller.
        Raises SourceChanged if the source is not what it was when this worker was made.
        """
        await self._database.require_primary()
        with _drift_noticed():
            batch = await self._queue.claim(rows)
        if batch is None:
            return 0
        try:
            with _drift_noticed():
                loaded, instances = await self._load(batch)
        except BaseException:
            await self._give_back(batch)
            raise
        heartbeat = AsyncHeartbeat(lambda: self._queue.extend(batch), self._queue.lease_seconds / 3)
        try:
            # The fence ends first: its lock holds up the heartbeat.
            async with heartbeat, AsyncFence(self._database, self._queue, batch) as self.fence:
                await call_async(callback, instances, argument)
                await self._finish(batch, loaded, self.fence)
        except Exception as error:
            # Without the lease or the database the batch comes back by itself.
            with suppress(LeaseLost, DatabaseError):
                await self._queue.fail_batch(batch, f"{type(error).__name__}: {error}")
            raise
        except BaseException:  # an interrupt is no row's fault
            await self._give_back(batch)
            raise
        finally:
            self.fence = None
        return batch.size

    async def _give_back(self, batch: Batch) -> None:
        with suppress(DatabaseError):
            await self._queue.release(batch)

    async def _load(self, batch: Batch) -> tuple[list[LoadedRow], list[Row]]:
        async with self._database.transaction(pinned_plans=True) as connection:
            found = await connection.execute(
                self._statements["load_source_rows"], {"token": batch.token}, prepare=False
            )
            records = await found.fetchall()
            names = [column.name for column in found.description or ()]
        if len(records) < batch.size:
            raise LeaseLost(
                f"the lease of a batch of {batch.size} rows was lost before it was read"
            )
        # Number, key, hash, and then the source's columns.
        first = 1 + self._key_length + 1
        kind = row_class(names[first:])
        loaded = [_loaded(record[0], record[first - 1]) for record in records]
        return loaded, [kind((self._locked_id(record), *record[first:])) for record in records]

    def _locked_id(self, record: tuple[Any, ...]) -> Any:
        key = record[1 : 1 + self._key_length]
        return key[0] if self._key_length == 1 else key

    async def _finish(self, batch: Batch, rows: Sequence[LoadedRow], fence: AsyncFence) -> None:
        await self._queue.finish(
            await fence.connection(pinned_plans=True),
            batch,
            done=[(row, None, None) for row in rows if row.present],
            gone=[row for row in rows if not row.present],
            failed=[],
        )


def _loaded(number: int, source_hash: bytes | None) -> LoadedRow:
    return LoadedRow(
        number=number,
        key=(),
        present=source_hash is not None,
        known_time=None,
        known_hash=None,
        known_chunks=None,
        attempts=0,
        source_hash=source_hash,
        time=None,
        metadata=None,
        texts=(),
    )
