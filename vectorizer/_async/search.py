"""Nearest neighbours over a destination."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from vectorizer._async.database import AsyncDatabase
from vectorizer.concurrency import call_async
from vectorizer.definition import Installation
from vectorizer.indexes import QueryParams, implied_params
from vectorizer.search import Filter, SearchResult, checked_filter, checked_limit
from vectorizer.statements import Statements
from vectorizer.types import Embedder
from vectorizer.vectors import as_matrix

__all__ = ["AsyncSearch"]


class AsyncSearch:
    """Searches the destination of one installed vectorizer with its own model."""

    def __init__(
        self, database: AsyncDatabase, installation: Installation, embedder: Embedder
    ) -> None:
        self._database = database
        self._installation = installation
        self._embedder = embedder
        self._statement = Statements(database.schema, installation)["search"]

    async def search(
        self,
        query: str,
        *,
        limit: int,
        filter: Filter | None,  # noqa: A002 - the public name
    ) -> list[SearchResult]:
        """Return the chunks nearest to the query's meaning, nearest first."""
        parameters = {
            "limit": checked_limit(limit),
            "filter": _jsonb(checked_filter(filter)),
            "query": await self._vector(query),
        }
        settings = QueryParams(
            implied_params(
                limit,
                restricted=filter is not None,
                vector_version=self._installation.vector_version,
            )
        ).get_statements()
        async with self._database.transaction() as connection:
            if settings:
                await connection.execute("; ".join(settings), prepare=False)
            found = await connection.execute(self._statement, parameters)
            return [self._result(record) for record in await found.fetchall()]

    async def _vector(self, query: str) -> str:
        embedder = self._embedder
        answer = await call_async(embedder.embed, [query])
        components = as_matrix(answer, 1, embedder.dimensions)[0].tolist()
        return f"[{','.join(map(str, components))}]"  # the text form of a vector

    def _result(self, record: tuple[Any, ...]) -> SearchResult:
        identifier, time, *key, chunk, metadata, contents, distance = record
        columns = [column.column for column in self._installation.key]
        named = dict(zip(columns, key, strict=True))
        return SearchResult(identifier, time, named, chunk, metadata, contents, distance)


def _jsonb(alternatives: list[dict[str, Any]] | None) -> list[Jsonb] | None:
    return None if alternatives is None else [Jsonb(alternative) for alternative in alternatives]
