"""Searching and reading a collection."""

from __future__ import annotations

import math
import warnings
from collections.abc import AsyncIterator, Collection, Iterable
from operator import index
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from psycopg import AsyncRawCursor
from psycopg.rows import TupleRow

from vectorizer._async.collection_tables import AsyncCollectionTables
from vectorizer.binary_values import BinaryValue
from vectorizer.collection_options import Shape
from vectorizer.collection_statements import FIELDS, CollectionStatements, Statement, Wanted
from vectorizer.database_errors import is_lost_connection
from vectorizer.errors import (
    CollectionWarning,
    DatabaseUnavailable,
    InvalidArgument,
    InvalidEmbeddings,
)
from vectorizer.filters import Filter
from vectorizer.indexes import QueryParams, implied_params
from vectorizer.records import CollectionResult, Packer, RankedResult, checked_ids
from vectorizer.statements import compose_query

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AsyncCollectionSearch", "Mode"]

Mode: TypeAlias = Literal["vector", "text", "hybrid"]
# hnsw looks at 40 candidates unless told otherwise, and so finds no more than that.
# Comparing with every vector takes less than that of a search's other costs below so many.
_FEW: Final = 1000


class AsyncCollectionSearch:
    """Finds records. A search is one statement; settings, if any, hold for it alone."""

    def __init__(self, tables: AsyncCollectionTables) -> None:
        self._tables = tables
        self._options = tables.options
        self._looked_for_index: set[str] = set()

    async def search(
        self,
        query: Any,
        limit: int,
        wanted: Wanted,
        *,
        text: str | None = None,
        mode: Mode | None = None,
        params: QueryParams | None = None,
        include: Collection[str] = FIELDS,
        measure: str | None = None,
        max_distance: float | None = None,
    ) -> list[CollectionResult]:
        """Return the records found, best first."""
        limit = checked_limit(limit)
        _check_include(include)
        _check_distance(max_distance)
        mode = _checked_mode(mode, text, max_distance)
        statements = await self._measured(measure)
        vector = None if query is None else self._vector(query, statements.shape)
        if vector is not None and mode != "text":
            await self._look_for_index(statements)
        settings = self._settings(statements.shape, limit, wanted, params, vector)
        if mode == "vector" or text is None:
            statement = statements.search(
                vector, limit, wanted, include=include, max_distance=max_distance
            )
            rows = await self._run(statement, settings)
            return [CollectionResult.from_row(row, statements.shape.column_type) for row in rows]
        if mode == "hybrid":
            if vector is None:
                raise InvalidArgument("mode 'hybrid' needs a query_embedding, or an embedder")
            statement = statements.hybrid(vector, text, limit, wanted, include=include)
        else:
            statement = statements.words_alone(text, limit, wanted, vector=vector, include=include)
        rows = await self._run(statement, settings)
        return [RankedResult.from_row(row, statements.shape.column_type) for row in rows]

    async def _measured(self, measure: str | None) -> CollectionStatements:
        statements = await self._tables.statements()
        if measure is None:
            return statements
        return CollectionStatements(self._options.with_measure(measure), statements.shape)

    def _vector(self, query: Any, shape: Shape) -> BinaryValue:
        packer = Packer(
            dimensions=self._options.dimensions,
            column_type=shape.column_type,
            uuids=self._options.uuids,
            normalize=self._options.normalize,
        )
        try:
            # The field of a COPY, without its length.
            return BinaryValue(packer.pack([_plain(query)])[0][4:])
        except (InvalidEmbeddings, TypeError, ValueError) as error:
            raise InvalidArgument(f"query_embedding: {error}") from error

    def _settings(
        self,
        shape: Shape,
        limit: int,
        wanted: Wanted,
        params: QueryParams | None,
        vector: Any,
    ) -> QueryParams | None:
        if params is not None and not isinstance(params, QueryParams):
            raise InvalidArgument(
                f"query_params must be one of HNSWIndexParams, IvfflatIndexParams, "
                f"DiskAnnIndexParams or QueryParams, got {params!r}"
            )
        given = {} if params is None else params.params
        if vector is None:
            return params
        implied = implied_params(
            limit, restricted=wanted.restricts, vector_version=shape.vector_version
        )
        return QueryParams({**implied, **given}) if implied else params

    async def _run(self, statement: Statement, settings: QueryParams | None) -> list[TupleRow]:
        try:
            return await self._run_once(statement, settings)
        except DatabaseUnavailable as error:
            # Lost since it was used last: reading again does no harm.
            if not is_lost_connection(error):
                raise
            return await self._run_once(statement, settings)

    async def _run_once(self, statement: Statement, settings: QueryParams | None) -> list[TupleRow]:
        async with self._tables.database.connection() as connection:
            if settings is None or not settings.params:
                return await self._tables.run(connection, statement)
            cursor = AsyncRawCursor(connection)
            # All of it in one round trip.
            async with connection.pipeline(), connection.transaction():
                await connection.execute(*settings.statement())
                await cursor.execute(statement.text, statement.values, binary=True)
            return await cursor.fetchall()

    async def _look_for_index(self, statements: CollectionStatements) -> None:
        measure = statements.options.measure
        if measure.name in self._looked_for_index:
            return
        self._looked_for_index.add(measure.name)
        shape = statements.shape
        if shape.kind == "view" or await self._indexed(statements):
            return
        if (await self._run(statements.few(_FEW), None))[0][0] < _FEW:
            return
        warnings.warn(
            f"{shape.relation} has no index for {measure.name} distance: each search compares "
            f"every vector; call create_embedding_index()",
            CollectionWarning,
            stacklevel=2,
        )

    async def _indexed(self, statements: CollectionStatements) -> bool:
        names = statements.shape.relation
        async with self._tables.database.connection() as connection:
            found = await connection.execute(
                compose_query("find_embedding_indexes"),
                {"schema": names.schema, "table": names.name},
            )
            classes = {name for (name,) in await found.fetchall()}
        wanted = statements.options.measure.class_for(statements.shape.column_type)
        return wanted in classes

    async def fetch(self, ids: Iterable[Any], include: Collection[str]) -> list[CollectionResult]:
        """Return the records with these ids that there are, in the order of the ids."""
        _check_include(include)
        checked = checked_ids(ids, uuids=self._options.uuids)
        statements = await self._tables.statements()
        if not checked:
            return []
        found = {hit.id: hit for hit in await self._hits(statements.fetch(checked, include))}
        return [found[identifier] for identifier in dict.fromkeys(checked) if identifier in found]

    async def _hits(self, statement: Statement) -> list[CollectionResult]:
        column_type = (await self._tables.shape()).column_type
        rows = await self._run(statement, None)
        return [CollectionResult.from_row(row, column_type) for row in rows]

    async def vectors_of(self, filter: Filter) -> dict[str, Any]:  # noqa: A002 - as everywhere
        """Return the stored vectors of the records a filter matches, by their contents."""
        statements = await self._tables.statements()
        statement = statements.search(None, 2**31 - 1, Wanted(filter=filter))
        return {hit.contents: hit.embedding for hit in await self._hits(statement)}

    async def stream(
        self, wanted: Wanted, include: Collection[str], page: int
    ) -> AsyncIterator[CollectionResult]:
        """Iterate over all records wanted, in the order of their ids.

        Each page is a query of its own: no transaction is open between them.
        """
        _check_include(include)
        page = checked_limit(page)
        statements = await self._tables.statements()
        last: Any = None
        while True:
            found = await self._hits(statements.page(last, page, wanted, include))
            for hit in found:
                yield hit
            if len(found) < page:
                return
            last = found[-1].id

    async def count(self, wanted: Wanted) -> int:
        """Return how many records are wanted."""
        statements = await self._tables.statements()
        rows = await self._run(statements.of_matching("count_records", wanted), None)
        return int(rows[0][0])

    async def centroid(self, wanted: Wanted) -> NDArray[Any] | None:
        """Return the average of the embeddings wanted; None where there are none."""
        import numpy as np  # noqa: PLC0415 - heavy

        statements = await self._tables.statements()
        if statements.shape.column_type == "bit":
            raise InvalidArgument("a collection of bits has no centroid")
        rows = await self._run(statements.of_matching("centroid", wanted), None)
        average: bytes | None = rows[0][0]
        return None if average is None else np.frombuffer(average, ">f4", offset=4).astype("f4")


def checked_limit(limit: Any) -> int:
    """Return a limit; raise InvalidArgument unless it is a whole number, 1 or more."""
    try:
        value = 0 if isinstance(limit, bool) else index(limit)
    except TypeError:
        value = 0
    if not 1 <= value < 2**31:
        raise InvalidArgument(f"limit must be a whole number, 1 or more, got {limit!r}")
    return value


def _check_include(include: Collection[str]) -> None:
    unknown = [name for name in include if name not in FIELDS]
    if isinstance(include, str) or unknown:
        raise InvalidArgument(f"include takes a list of {', '.join(FIELDS)}; got {include!r}")


def _check_distance(distance: Any) -> None:
    if distance is None:
        return
    if isinstance(distance, bool) or not isinstance(distance, (int, float)) or math.isnan(distance):
        raise InvalidArgument(f"max_distance must be a number, got {distance!r}")


def _checked_mode(mode: Any, text: str | None, distance: float | None) -> Mode:
    if mode is None:
        mode = "vector" if text is None else "hybrid"
    if mode not in get_args(Mode):
        raise InvalidArgument(f"mode {mode!r} is unknown; choose {', '.join(get_args(Mode))}")
    if mode != "vector" and (not isinstance(text, str) or "\0" in text):
        raise InvalidArgument(f"mode {mode!r} needs a text to look for, got {text!r}")
    if mode != "vector" and distance is not None:
        raise InvalidArgument(f"max_distance does not go with mode {mode!r}")
    return mode  # type: ignore[no-any-return]


def _plain(query: Any) -> Any:
    if hasattr(query, "to_numpy"):
        return query.to_numpy()
    return query.to_list() if hasattr(query, "to_list") else query
