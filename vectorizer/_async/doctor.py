"""Asks a database what a diagnosis needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.schema import AsyncSchema
from vectorizer.diagnosis import Finding, Level, of_schema, of_server, of_status, of_vectorizer
from vectorizer.errors import NotInstalled, SchemaVersionError
from vectorizer.statements import compose_query, without_placeholders

__all__ = ["AsyncDoctor"]


class AsyncDoctor:
    """Examines one database; nothing is changed."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._schema = AsyncSchema(database)

    async def examine(self, names: Sequence[str] | None = None) -> list[Finding]:
        """Return what was found of the server, of our schema, and of these vectorizers or all.

        Raises DatabaseUnavailable if there is no connection to be had.
        """
        await self._database.open()
        (server,) = await self._ask("doctor_server")
        found = list(of_server(server, through_pooler=self._database.through_pooler))
        try:
            await self._schema.check()
        except (NotInstalled, SchemaVersionError) as error:
            what, _, remedy = str(error).partition("; ")
            return [*found, Finding("schema", Level.fail, what, remedy or None)]
        version = await self._schema.version()
        found.append(Finding("schema", Level.ok, f"version {version}, as this program"))
        (schema,) = await self._ask("doctor_schema")
        found += of_schema(schema)
        for facts in await self._ask("doctor_vectorizers"):
            if names is None or facts["name"] in names:
                found += of_vectorizer(facts)
        status = await self._schema.status()
        found += of_status(row for row in status if names is None or row["name"] in names)
        return found

    async def embedders(self, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the configuration of the serving generation's embedder by vectorizer."""
        return {
            facts["name"]: facts["embedder"] or {}
            for facts in await self._ask("doctor_vectorizers")
            if facts["serving"] and facts["embeds"] and (names is None or facts["name"] in names)
        }

    async def _ask(self, name: str) -> list[dict[str, Any]]:
        schema = self._database.schema
        names = {
            "schema": without_placeholders(sql.Identifier(schema)),
            "schema_name": without_placeholders(sql.Literal(schema)),
        }
        async with self._database.transaction() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(compose_query(name, **names), {})
            return await cursor.fetchall()
