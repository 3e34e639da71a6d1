"""A NOTIFY that the user sends himself wakes the worker: at no cost to writers who do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql

from vectorizer._async.database import AsyncDatabase
from vectorizer.database_errors import unreachable

__all__ = ["listening"]

log = logging.getLogger("vectorizer.worker")


@asynccontextmanager
async def listening(
    database: AsyncDatabase, channel: str, wake: Callable[[], None]
) -> AsyncIterator[None]:
    """Call `wake` at every notification on a channel while the block runs.

    Without it changes are only found later, so nothing of it is fatal: a lost connection is
    the probe's to notice, and a pooler that does not pass notifications is told of.
    """
    if database.through_pooler:
        log.warning("listen: a pooler does not pass notifications on; polling goes on")
        yield
        return
    connection = await database.dedicated()
    try:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        task = asyncio.create_task(_wait(connection, wake))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    except psycopg.Error as error:
        raise unreachable(database.url, error) from None
    finally:
        await connection.close()


async def _wait(connection: psycopg.AsyncConnection[object], wake: Callable[[], None]) -> None:
    try:
        async for _ in connection.notifies():
            wake()
    except psycopg.Error as error:
        log.warning("listen: the connection was lost: %s", " ".join(str(error).split()))
