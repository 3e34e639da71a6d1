"""The table of a collection: what it looks like, made and dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncRawCursor, sql
from psycopg.rows import TupleRow

from vectorizer._async.database import AsyncDatabase
from vectorizer.collection_options import NO_VECTOR, Options, Shape
from vectorizer.collection_statements import CollectionStatements, Statement
from vectorizer.errors import DatabaseError, ExtensionMissing
from vectorizer.naming import fitted
from vectorizer.records import CollectionInfo
from vectorizer.statements import compose, compose_query

__all__ = ["AsyncCollectionTables"]

Connection = psycopg.AsyncConnection[TupleRow]


class AsyncCollectionTables:
    """Knows the table of one collection, and runs statements about it."""

    def __init__(self, database: AsyncDatabase, options: Options) -> None:
        self.database = database
        self.options = options
        self._statements: CollectionStatements | None = None

    async def statements(self) -> CollectionStatements:
        """Return the statements for the table as it is; looked up once.

        Raises InvalidArgument or DimensionMismatch if there is no such collection.
        """
        if self._statements is None:
            async with self.database.connection() as connection:
                record = await self._look(connection)
                shape = await self._shape(connection, record)
            self._statements = CollectionStatements(self.options, shape)
        return self._statements

    async def shape(self) -> Shape:
        """Return what the table looks like."""
        return (await self.statements()).shape

    def forget(self) -> None:
        """Look at the table again before it is used again."""
        self._statements = None

    async def _look(self, connection: Connection) -> Sequence[Any]:
        names = {"schema": self.options.schema, "table": self.options.table}
        found = await connection.execute(compose_query("find_collection"), names)
        return await found.fetchone() or ()

    async def _shape(self, connection: Connection, record: Sequence[Any]) -> Shape:
        schema, name, *_, timescaledb, _, _ = record
        hypertable = False
        if timescaledb and name is not None:
            names = {"schema": schema, "table": name}
            found = await connection.execute(compose_query("is_hypertable"), names)
            hypertable = (await found.fetchone() or (False,))[0]
        return Shape.found(record, self.options, hypertable=hypertable)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Run a READ COMMITTED transaction, whatever the role's default is."""
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute("set transaction isolation level read committed")
            yield connection

    async def run(self, connection: Connection, statement: Statement) -> list[TupleRow]:
        """Run a statement; return its rows, read from their binary form."""
        cursor = AsyncRawCursor(connection)
        await cursor.execute(statement.text, statement.values, binary=True)
        return await cursor.fetchall() if cursor.description is not None else []

    async def create(self) -> None:
        """Make the table and its index on metadata where they are missing."""
        self.forget()
        async with self.transaction() as connection:
            record = await self._look(connection)
            if not await self._is_complete(connection, record):
                await self._create(connection)
        await self.statements()

    async def _is_complete(self, connection: Connection, record: Sequence[Any]) -> bool:
        schema, name, kind, *_ = record
        if name is None or kind in "vm":
            return name is not None
        return await self._has_index(connection, schema, name)

    async def _has_index(self, connection: Connection, schema: str, table: str) -> bool:
        # CREATE INDEX IF NOT EXISTS would wait for all writers only to find that there is one.
        names = {"schema": schema, "index": fitted(table, "_meta_idx")}
        found = await connection.execute(compose_query("find_index"), names)
        return await found.fetchone() is not None

    async def _create(self, connection: Connection) -> None:
        # Two processes that create at once: the second finds it made.
        name = f"vectorizer {self.options.schema}.{self.options.table}"
        await connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        await _ensure_vector(connection)
        record = await self._look(connection)
        if record[1] is None:
            await self._create_table(connection, record)
            record = await self._look(connection)
        shape = await self._shape(connection, record)
        if not await self._has_index(connection, shape.relation.schema, shape.relation.name):
            statements = CollectionStatements(self.options, shape)
            await connection.execute(statements.create_metadata_index())

    async def _create_table(self, connection: Connection, record: Sequence[Any]) -> None:
        *_, vectors, _, schema, timescaledb, _, _ = record
        if schema is None:
            raise DatabaseError(
                "no schema of the search_path exists; give schema_name, or create the schema"
            )
        options = self.options
        timed = options.interval is not None
        hypertable = timed and (
            options.partitioning == "timescaledb"
            or (options.partitioning == "auto" and timescaledb)
        )
        statements = CollectionStatements(
            options, Shape.created(options, schema, vectors, hypertable=hypertable)
        )
        await connection.execute(statements.create_table(partitioned=timed and not hypertable))
        if hypertable:
            await self._make_hypertable(connection, statements)

    async def _make_hypertable(
        self, connection: Connection, statements: CollectionStatements
    ) -> None:
        found = await (await connection.execute(compose_query("find_timescaledb"))).fetchone()
        if found is None:
            await _create_extension(connection, "timescaledb", _NO_TIMESCALEDB)
            found = await (await connection.execute(compose_query("find_timescaledb"))).fetchone()
        known = await (await connection.execute(compose_query("has_uuid_timestamp"))).fetchone()
        if known != (True,):
            await connection.execute(compose_query("create_uuid_timestamp"))
        extension = sql.Identifier((found or ("public",))[0])
        table = compose("{}::regclass", sql.Literal(statements.table.as_string(None)))
        interval = sql.Literal(self.options.interval)
        await connection.execute(
            compose_query("create_hypertable", extension=extension, table=table, interval=interval)
        )

    async def drop(self) -> None:
        """Drop the table if it is there."""
        parts = [part for part in (self.options.schema, self.options.table) if part is not None]
        async with self.transaction() as connection:
            await connection.execute(compose("drop table if exists {}", sql.Identifier(*parts)))
        self.forget()

    async def is_empty(self) -> bool:
        """Whether there is no record."""
        statements = await self.statements()
        query = compose("select not exists (select from {})", statements.table)
        async with self.database.connection() as connection:
            found = await self.run(connection, Statement(query.as_string(None), []))
        return bool(found[0][0])

    async def list_all(self) -> list[CollectionInfo]:
        """Return the collections of the schema, or without one of the database."""
        async with self.database.connection() as connection:
            found = await connection.execute(
                compose_query("list_collections"), {"schema": self.options.schema}
            )
            return [
                CollectionInfo(schema, table, kind, size, "UUID" if uuids else "TEXT", records)
                for schema, table, kind, size, uuids, records in await found.fetchall()
            ]

    async def truncate(self) -> None:
        """Delete all records."""
        statements = await self.statements()
        query = compose("truncate {}", statements.table)
        async with self.transaction() as connection:
            await self.run(connection, Statement(query.as_string(None), []))


_NO_TIMESCALEDB = (
    "partitioning='timescaledb' needs the extension \"timescaledb\", which this server does not "
    "let us create; choose partitioning='native', which works everywhere"
)


async def _ensure_vector(connection: Connection) -> None:
    found = await connection.execute(compose_query("find_vector_schema"))
    if await found.fetchone() is None:
        await _create_extension(connection, "vector", NO_VECTOR)


async def _create_extension(connection: Connection, name: str, remedy: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(compose("create extension {}", sql.Identifier(name)))
    except psycopg.Error as error:
        raise ExtensionMissing(remedy) from error
