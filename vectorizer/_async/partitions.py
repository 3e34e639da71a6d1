"""Partitions of a time-partitioned table, made when a row needs one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

import psycopg
from psycopg import sql
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from vectorizer._async.database import AsyncDatabase
from vectorizer.database_errors import is_conflict
from vectorizer.definition import Relation
from vectorizer.errors import DatabaseError
from vectorizer.partitioning import Partition, partition_of
from vectorizer.statements import compose_query, relation

__all__ = ["AsyncPartitions"]

_NO_PARTITION = "23514"  # check violation


class AsyncPartitions:
    """Makes and remembers the partitions of one table, each `interval` wide.

    vectorizer: id of the one whose storage the table is; its worker need not own it then.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        table: Relation,
        interval: timedelta,
        vectorizer: int | None = None,
    ) -> None:
        self._database = database
        self._table = table
        self._interval = interval
        self._vectorizer = vectorizer
        self._known: set[Partition] = set()

    async def write(self, times: Sequence[int], write: Callable[[], Awaitable[None]]) -> None:
        """Call `write` when the partitions for these times are there.

        Times are in microseconds since 2000-01-01. If `write` finds no partition all the same,
        somebody has dropped one that we knew: it is made, and `write` called again.
        """
        await self.ensure(times)
        try:
            await write()
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) != _NO_PARTITION:
                raise
            self._known.clear()
            await self.ensure(times)
            await write()

    async def ensure(self, times: Iterable[int]) -> int:
        """Make the partitions for these times (microseconds since 2000-01-01) where missing.

        Returns how many were made.
        """
        wanted = {partition_of(time, self._interval) for time in times} - self._known
        made = 0
        for partition in await self._missing(wanted):
            made += await self._make(partition)
        self._known |= wanted
        return made

    async def _missing(self, wanted: Iterable[Partition]) -> list[Partition]:
        """Return the partitions that are not there, in order: mostly none, found in one query."""
        if not wanted:
            return []
        async with self._database.transaction() as connection:
            taken = await self._taken(connection)
        return sorted((p for p in wanted if p.without(taken)), key=lambda p: p.start)

    async def _make(self, partition: Partition) -> bool:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_conflict),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(60),
            reraise=True,
        ):
            with attempt:
                async with self._database.transaction() as connection:
                    return await self._make_in(connection, partition)
        raise AssertionError("unreachable: the last attempt raises")

    async def _make_in(self, connection: psycopg.AsyncConnection, partition: Partition) -> bool:
        await connection.execute("set local lock_timeout = '2s'", prepare=False)
        # Two workers that need the same partition at once: the second finds it made.
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"vectorizer {self._table}"]
        )
        child = Relation(self._table.schema, partition.name(self._table.name))
        found = await connection.execute(
            compose_query("find_relation"), {"schema_name": child.schema, "name": child.name}
        )
        if await found.fetchone() != (None,):
            return False
        # Where others are in the way, made with another interval: only what they leave open.
        pieces = partition.without(await self._taken(connection))
        for piece in pieces:
            await self._attach(connection, piece)
        return bool(pieces)

    async def _taken(
        self, connection: psycopg.AsyncConnection
    ) -> list[tuple[datetime | None, datetime | None]]:
        names = {"schema": self._table.schema, "table": self._table.name}
        found = await connection.execute(compose_query("list_partitions"), names)
        return [(start, end) for _, _, start, end in await found.fetchall()]

    async def _attach(self, connection: psycopg.AsyncConnection, partition: Partition) -> None:
        child = Relation(self._table.schema, partition.name(self._table.name))
        if self._vectorizer is not None:
            await connection.execute(
                compose_query("add_partition", schema=sql.Identifier(self._database.schema)),
                {
                    "vectorizer": self._vectorizer,
                    "name": child.name,
                    "start": partition.start,
                    "end": partition.end,
                },
            )
            return
        parts = {"child": relation(child), "parent": relation(self._table)}
        # Made apart and attached: PARTITION OF would lock all users of the parent out.
        await connection.execute(compose_query("create_partition", **parts))
        bounds = {"start": sql.Literal(partition.start), "end": sql.Literal(partition.end)}
        await connection.execute(compose_query("attach_partition", **parts, **bounds))
