"""A collection of vectors with metadata and contents: create, upsert, delete, search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from typing_extensions import Self

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.partitions import AsyncPartitions
from vectorizer.definition import Relation
from vectorizer.errors import ConfigurationError, ExtensionMissing
from vectorizer.naming import fitted
from vectorizer.packing import pack_rows
from vectorizer.records import (
    CheckedRecord,
    CollectionResult,
    Record,
    checked_records,
    record_fields,
)
from vectorizer.search import Filter, checked_filter, checked_limit
from vectorizer.statements import compose, compose_query, relation, without_placeholders
from vectorizer.vectors import as_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["AsyncCollection"]

_OPERATORS = {"cosine": "<=>", "euclidean": "<->", "l2": "<->"}


class AsyncCollection:
    """A table of vectors, with timescale_vector's API.

    num_dimensions: components of each vector; distance_type: cosine or euclidean;
    time_partition_interval: partition the table by the time in its ids (UUIDs of version 1).

    Methods raise ConfigurationError for wrong arguments and DatabaseError for what the
    server refuses; nothing of a refused call is written.
    """

    def __init__(
        self,
        service_url: str,
        table_name: str,
        num_dimensions: int,
        distance_type: str = "cosine",
        id_type: str = "UUID",
        time_partition_interval: timedelta | None = None,
        max_db_connections: int | None = None,
        infer_filters: bool = True,
        schema_name: str | None = None,
    ) -> None:
        if distance_type not in _OPERATORS:
            raise ConfigurationError(
                f"distance_type {distance_type!r} is unknown; choose one of {', '.join(_OPERATORS)}"
            )
        if id_type.upper() not in ("UUID", "TEXT"):
            raise ConfigurationError(f"id_type {id_type!r} is unknown; choose UUID or TEXT")
        if time_partition_interval is not None and id_type.upper() != "UUID":
            raise ConfigurationError("time_partition_interval needs ids of type UUID")
        self.infer_filters = infer_filters
        self._dimensions = num_dimensions
        self._operator = _OPERATORS[distance_type]
        self._uuids = id_type.upper() == "UUID"
        self._id_sql = sql.SQL("uuid") if self._uuids else sql.SQL("text")
        self._table = Relation(schema_name or "public", table_name)
        self._database = AsyncDatabase(service_url, max_connections=max_db_connections or 4)
        self._partitions = (
            AsyncPartitions(self._database, self._table, time_partition_interval)
            if time_partition_interval is not None
            else None
        )
        # For statements with parameters.
        self._table_name = without_placeholders(relation(self._table))
        self._vector_schema: sql.Identifier | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the connections; otherwise the first call does."""
        await self._database.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def create_tables(self) -> None:
        """Create the table and its index on metadata where they are missing.

        The extension `vector` is created if it is missing and the role may do so; else
        ExtensionMissing says what an administrator has to run.
        """
        async with self._database.transaction() as connection:
            # Two processes that create at once: the second finds it made.
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
                [f"vectorizer {self._table}"],
            )
            await _ensure_vector(connection)
            await connection.execute(self._create_table(await self._vectors(connection)))
            await connection.execute(
                compose_query(
                    "create_collection_index",
                    index=sql.Identifier(fitted(self._table.name, "_meta_idx")),
                    table=relation(self._table),
                )
            )

    def _create_table(self, vectors: sql.Identifier) -> sql.Composed:
        partitioned = self._partitions is not None
        return compose_query(
            "create_collection",
            table=relation(self._table),
            id_type=self._id_sql,
            time_column=sql.SQL("time timestamptz not null," if partitioned else ""),
            vectors=vectors,
            dimensions=sql.Literal(self._dimensions),
            key=sql.SQL("id, time" if partitioned else "id"),
            partitioning=sql.SQL("partition by range (time)" if partitioned else ""),
        )

    async def upsert(self, records: Iterable[Record]) -> None:
        """Write records (id, metadata, contents, embedding); a known id is replaced.

        Of several records with one id the last counts. Raises ConfigurationError naming the
        position of the first record that cannot be written; nothing is written then.
        """
        checked = checked_records(
            records,
            self._dimensions,
            timed=self._partitions is not None,
            uuids=self._uuids,
        )
        if not checked:
            return
        if self._partitions is None:
            await self._write(checked)
        else:
            times = [record.time for record in checked if record.time is not None]
            await self._partitions.write(times, lambda: self._write(checked))

    async def _write(self, records: Sequence[CheckedRecord]) -> None:
        data = pack_rows(record_fields(record) for record in records)
        async with self._database.transaction() as connection:
            # For batches DELETE and COPY are quicker than any upsert.
            await self._delete_ids(connection, [record.id for record in records])
            copy_records = compose_query(
                "copy_records",
                table=relation(self._table),
                time=sql.SQL("time," if self._partitions is not None else ""),
            )
            async with connection.cursor().copy(copy_records) as copy:
                await copy.write(data)

    async def _delete_ids(
        self, connection: psycopg.AsyncConnection[Any], ids: Sequence[Any]
    ) -> None:
        await connection.execute(
            compose_query("delete_records", table=self._table_name, id_type=self._id_sql),
            {"ids": list(ids)},
        )

    async def delete_by_metadata(self, filter: Filter) -> None:  # noqa: A002 - the documented name
        """Delete the records whose metadata holds a mapping, or any of a list of mappings.

        An empty mapping would match everything, and is refused with ConfigurationError.
        """
        alternatives = checked_filter(filter) or []
        if not alternatives or not all(alternatives):
            raise ConfigurationError(
                "delete_by_metadata needs at least one key and value; "
                "an empty filter would delete everything"
            )
        async with self._database.transaction() as connection:
            await connection.execute(
                compose_query("delete_by_metadata", table=self._table_name),
                {"filter": [Jsonb(alternative) for alternative in alternatives]},
            )

    async def search(
        self,
        query_embedding: ArrayLike | None = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the documented name
    ) -> list[CollectionResult]:
        """Return the records nearest to a vector, nearest first; without one, any that match.

        filter: metadata that must match, or a list of mappings of which any may match.
        """
        alternatives = checked_filter(filter)
        parameters: dict[str, Any] = {
            "limit": checked_limit(limit),
            "filter": None if alternatives is None else [Jsonb(a) for a in alternatives],
            "query": None if query_embedding is None else self._vector_text(query_embedding),
        }
        async with self._database.transaction() as connection:
            vectors = await self._vectors(connection)
            distance = compose(
                "embedding operator({vectors}.{operator}) %(query)s::{vectors}.vector",
                vectors=vectors,
                operator=sql.SQL("<=>" if self._operator == "<=>" else "<->"),
            )
            found = await connection.execute(
                compose_query(
                    "search_collection",
                    vectors=vectors,
                    distance=sql.SQL("null::float8") if query_embedding is None else distance,
                    table=self._table_name,
                    order=sql.SQL("" if query_embedding is None else "order by distance"),
                ),
                parameters,
                binary=True,
            )
            return [CollectionResult.from_record(record) for record in await found.fetchall()]

    def _vector_text(self, query_embedding: ArrayLike) -> str:
        from pgvector import Vector  # noqa: PLC0415 - needs numpy

        return str(Vector(as_matrix([query_embedding], 1, self._dimensions)[0]).to_text())

    async def _vectors(self, connection: psycopg.AsyncConnection[Any]) -> sql.Identifier:
        """Return the schema in which the extension `vector` lives."""
        if self._vector_schema is None:
            found = await connection.execute(compose_query("find_vector_schema"))
            record = await found.fetchone()
            if record is None:
                raise ExtensionMissing(_NO_VECTOR)
            self._vector_schema = sql.Identifier(record[0])
        return self._vector_schema


_NO_VECTOR = (
    'the extension "vector" (pgvector) is missing in this database; install pgvector on the '
    "server, then let an administrator run: CREATE EXTENSION vector"
)


async def _ensure_vector(connection: psycopg.AsyncConnection[Any]) -> None:
    found = await connection.execute(compose_query("find_vector_schema"))
    if await found.fetchone() is None:
        try:
            async with connection.transaction():
                await connection.execute("create extension vector")
        except psycopg.Error as error:
            raise ExtensionMissing(_NO_VECTOR) from error
