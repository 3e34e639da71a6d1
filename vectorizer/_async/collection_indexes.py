"""Indexes over the embeddings and the words of a collection: built, replaced and dropped."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncRawCursor, sql

from vectorizer._async.collection_tables import AsyncCollectionTables, Connection
from vectorizer.collection_options import Shape
from vectorizer.collection_statements import CollectionStatements
from vectorizer.concurrency import AsyncHeartbeat
from vectorizer.definition import Relation
from vectorizer.errors import CollectionWarning, ExtensionMissing, InvalidArgument
from vectorizer.indexes import (
    BaseIndex,
    DiskAnnIndex,
    HNSWIndex,
    IndexProgress,
    IvfflatIndex,
    index_options,
)
from vectorizer.naming import fitted
from vectorizer.statements import compose, compose_query, relation

__all__ = ["AsyncCollectionIndexes"]

_BEATS = 0.5  # seconds between two reports of progress
_NAMES = {"embedding": "_embedding_idx", "text": "_text_idx"}


@dataclass(frozen=True, slots=True)
class _Plan:
    """An index to be built: its statement has the placeholders of the query file left open."""

    query: str
    suffix: str
    parts: dict[str, sql.Composable]

    def statement(self, table: Relation, name: str, *, concurrently: bool, only: bool) -> str:
        return compose_query(
            self.query,
            concurrently=sql.SQL("concurrently" if concurrently else ""),
            index=sql.Identifier(name),
            only=sql.SQL("only" if only else ""),
            table=relation(table),
            **self.parts,
        ).as_string(None)


class AsyncCollectionIndexes:
    """Builds indexes without keeping writers out where PostgreSQL can do so."""

    def __init__(self, tables: AsyncCollectionTables) -> None:
        self._tables = tables

    async def create(
        self,
        index: BaseIndex | None,
        *,
        strict: bool,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        """Build an index over the embeddings; one that is there is replaced when it is ready."""
        statements = await self._tables.statements()
        self._check_table(statements.shape)
        chosen = _chosen(index, statements, strict=strict)
        records = await self._count(statements) if isinstance(chosen, IvfflatIndex) else 0
        if isinstance(chosen, IvfflatIndex) and records == 0:
            _warn(
                f"{statements.shape.relation} is empty: ivfflat finds its clusters only when it is "
                f"built, and will find little; build it when the records are there"
            )
        options, shape = statements.options, statements.shape
        operator_class = chosen.operator_class(options.measure, shape.column_type)
        plan = _Plan("create_embedding_index", _NAMES["embedding"], {
            "method": sql.SQL(chosen.method),
            "operator_class": sql.SQL("")
            if operator_class is None
            else sql.Identifier(shape.vectors, operator_class),
            "options": index_options(chosen.options(lambda: records)),
        })  # fmt: skip
        await self._build_watched(plan, shape, progress)

    async def create_text(self, progress: Callable[[IndexProgress], object] | None) -> None:
        """Build the index for searches by words."""
        statements = await self._tables.statements()
        self._check_table(statements.shape)
        plan = _Plan("create_text_index", _NAMES["text"], {"words": statements.words()})
        await self._build_watched(plan, statements.shape, progress)

    async def drop(self, which: str = "embedding") -> None:
        """Drop the index if it is there."""
        shape = await self._tables.shape()
        name = fitted(shape.relation.name, _NAMES[which])
        async with self._tables.transaction() as connection:
            index = sql.Identifier(shape.relation.schema, name)
            await connection.execute(compose("drop index if exists {}", index))

    async def progress(self) -> IndexProgress | None:
        """Return how far a build on this table is; None while there is none."""
        table = (await self._tables.shape()).relation
        async with self._tables.database.connection() as connection:
            found = await connection.execute(
                compose_query("index_progress"), {"schema": table.schema, "table": table.name}
            )
            record = await found.fetchone()
        return None if record is None else IndexProgress(*record)

    @staticmethod
    def _check_table(shape: Shape) -> None:
        if shape.kind == "view":
            raise InvalidArgument(
                f"{shape.relation} is a view; an index belongs on the table under it"
            )

    async def _count(self, statements: CollectionStatements) -> int:
        query = compose("select count(*) from {}", statements.table)
        async with self._tables.database.connection() as connection:
            found = await (await connection.execute(query)).fetchone()
        return int((found or (0,))[0])

    async def _build_watched(
        self, plan: _Plan, shape: Shape, progress: Callable[[IndexProgress], object] | None
    ) -> None:
        if progress is None:
            await self._build(plan, shape)
            return

        async def beat() -> bool:
            now = await self.progress()
            if now is not None:
                progress(now)
            return True

        async with AsyncHeartbeat(beat, _BEATS):
            await self._build(plan, shape)

    async def _build(self, plan: _Plan, shape: Shape) -> None:
        table = shape.relation
        name = fitted(table.name, plan.suffix)
        # No transaction around: CONCURRENTLY wants none.
        async with self._tables.database.connection() as connection:
            valid = await self._valid(connection, table, name)
            # Built beside the one that is there, so that searches have one all the while.
            new = name if valid is None else fitted(table.name, f"_{secrets.token_hex(4)}_idx")
            try:
                await self._make(connection, plan, shape, new)
            except BaseException:
                await self._drop_leftover(connection, table, new)
                raise
            if valid is not None:
                await self._swap(connection, table, name, new)

    async def _make(self, connection: Connection, plan: _Plan, shape: Shape, name: str) -> None:
        table = shape.relation
        if shape.kind != "partitioned":
            concurrently = shape.kind == "table"
            statement = plan.statement(table, name, concurrently=concurrently, only=False)
            await self._run(connection, statement)
            return
        # The parent's index is valid once each partition's is attached. A partition made
        # meanwhile comes with its own.
        await self._run(connection, plan.statement(table, name, concurrently=False, only=True))
        names = {"schema": table.schema, "table": table.name}
        found = await connection.execute(compose_query("list_partitions"), names)
        for schema, partition, *_ in await found.fetchall():
            await self._make_partition(connection, plan, table, name, Relation(schema, partition))

    async def _make_partition(
        self, connection: Connection, plan: _Plan, table: Relation, parent: str, partition: Relation
    ) -> None:
        name = fitted(partition.name, f"_{secrets.token_hex(4)}_idx")
        await self._run(connection, plan.statement(partition, name, concurrently=True, only=False))
        attach = compose(
            "alter index {} attach partition {}",
            sql.Identifier(table.schema, parent),
            sql.Identifier(partition.schema, name),
        )
        await connection.execute(attach)

    async def _run(self, connection: Connection, statement: str) -> None:
        # Like a search's: a percent sign in a name means itself.
        await AsyncRawCursor(connection).execute(statement, prepare=False)

    async def _valid(self, connection: Connection, table: Relation, name: str) -> bool | None:
        names = {"schema": table.schema, "index": name}
        found = await (await connection.execute(compose_query("find_index"), names)).fetchone()
        return None if found is None else bool(found[0])

    async def _drop_leftover(self, connection: Connection, table: Relation, name: str) -> None:
        if connection.closed:
            return
        leftover = sql.Identifier(table.schema, name)
        await connection.execute(compose("drop index if exists {}", leftover))

    async def _swap(self, connection: Connection, table: Relation, name: str, new: str) -> None:
        async with connection.transaction():
            old = sql.Identifier(table.schema, name)
            await connection.execute(compose("drop index {}", old))
            await connection.execute(
                compose(
                    "alter index {} rename to {}",
                    sql.Identifier(table.schema, new),
                    sql.Identifier(name),
                )
            )


def _chosen(index: Any, statements: CollectionStatements, *, strict: bool) -> BaseIndex:
    options, shape = statements.options, statements.shape
    if index is None:
        fits = shape.vectorscale and (options.measure.name, shape.column_type) == (
            "cosine",
            "vector",
        )
        index = DiskAnnIndex() if fits else HNSWIndex()
    if not isinstance(index, BaseIndex):
        raise InvalidArgument(f"expected an index like HNSWIndex(), got {index!r}")
    index.check(options.measure, shape.column_type, options.dimensions)
    if not isinstance(index, DiskAnnIndex) or shape.vectorscale:
        return index
    if strict or index.strict:
        raise ExtensionMissing(
            f'{type(index).__name__} needs the extension "vectorscale", which is missing in this '
            f"database; run CREATE EXTENSION vectorscale, or choose HNSWIndex()"
        )
    _warn(
        f'the extension "vectorscale" is missing: HNSWIndex() is built instead of {index!r}; '
        f"tune its searches with HNSWIndexParams"
    )
    fallback = HNSWIndex()
    fallback.check(options.measure, shape.column_type, options.dimensions)
    return fallback


def _warn(message: str) -> None:
    warnings.warn(message, CollectionWarning, stacklevel=2)
