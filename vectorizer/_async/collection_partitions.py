"""Partitions of a collection: listed, and dropped when they are old."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from vectorizer._async.collection_tables import AsyncCollectionTables, Connection
from vectorizer.collection_options import Shape
from vectorizer.database_errors import is_conflict
from vectorizer.errors import InvalidArgument
from vectorizer.statements import compose, compose_query, relation
from vectorizer.times import parsed_moment

__all__ = ["AsyncCollectionPartitions"]


class AsyncCollectionPartitions:
    """Drops whole partitions: quick, and leaves nothing for VACUUM."""

    def __init__(self, tables: AsyncCollectionTables) -> None:
        self._tables = tables

    async def drop(self, older_than: datetime | timedelta | str) -> list[str]:
        """Drop the partitions that hold nothing but older records; return their names."""
        shape = await self._tables.shape()
        if shape.kind not in ("partitioned", "hypertable"):
            raise InvalidArgument(
                f"{shape.relation} is not partitioned by time; create it with a "
                f"time_partition_interval, or delete by a filter with __end_date"
            )
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_conflict),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(60),
            reraise=True,
        ):
            with attempt:
                dropped = await self._drop(shape, older_than)
        return dropped

    async def _drop(self, shape: Shape, older_than: datetime | timedelta | str) -> list[str]:
        async with self._tables.transaction() as connection:
            # An application never queues up behind us for long: we step back and try again.
            await connection.execute("set local lock_timeout = '2s'")
            cutoff = await self._cutoff(connection, older_than)
            if shape.kind == "hypertable":
                return await self._drop_chunks(connection, shape, cutoff)
            names = {"schema": shape.relation.schema, "table": shape.relation.name}
            found = await connection.execute(compose_query("list_partitions"), names)
            old = [
                sql.Identifier(schema, name)
                for schema, name, _, end in await found.fetchall()
                if end is not None and end <= cutoff
            ]
            for partition in old:
                await connection.execute(compose("drop table {}", partition))
            return [partition.as_string(None) for partition in old]

    async def _cutoff(self, connection: Connection, older_than: Any) -> datetime:
        if isinstance(older_than, timedelta):
            found = await connection.execute("select now() - %s::interval", [older_than])
            back: tuple[datetime] | None = await found.fetchone()
            older_than = None if back is None else back[0]
        moment = parsed_moment(older_than)
        if moment is None:
            raise InvalidArgument("older_than must be a time, or a timedelta back from now")
        return moment

    async def _drop_chunks(
        self, connection: Connection, shape: Shape, cutoff: datetime
    ) -> list[str]:
        extension = await (await connection.execute(compose_query("find_timescaledb"))).fetchone()
        statement = compose_query(
            "drop_chunks",
            extension=sql.Identifier((extension or ("public",))[0]),
            table=compose("{}::regclass", sql.Literal(relation(shape.relation).as_string(None))),
            cutoff=sql.Literal(cutoff),
        )
        return [name for (name,) in await (await connection.execute(statement)).fetchall()]
