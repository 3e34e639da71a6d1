"""The transaction that ends a batch, which a callback may use for its own writes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType

import psycopg
from psycopg.rows import TupleRow
from typing_extensions import Self

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.queue import AsyncQueue
from vectorizer.batch import Batch

__all__ = ["AsyncFence"]


class AsyncFence:
    """Opens the transaction when it is first asked for, commits or rolls back at the end.

    It begins by locking the lease: from then on nobody can take the batch away, and what is
    written commits together with the ack or not at all.
    """

    def __init__(self, database: AsyncDatabase, queue: AsyncQueue, batch: Batch) -> None:
        self._database = database
        self._queue = queue
        self._batch = batch
        self._stack = AsyncExitStack()
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def connection(self, *, pinned_plans: bool = False) -> psycopg.AsyncConnection[TupleRow]:
        """Return the connection of the transaction; raise LeaseLost if the batch is gone."""
        if self._connection is None:
            connection = await self._stack.enter_async_context(
                self._database.transaction(pinned_plans=pinned_plans)
            )
            await self._queue.hold(connection, self._batch)
            self._connection = connection
        return self._connection
