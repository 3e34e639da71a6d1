"""Comparing source and destination from the data, not from the queue's opinion of it."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from vectorizer._async.database import AsyncDatabase
from vectorizer.database_errors import is_data_error, is_drift
from vectorizer.definition import Installation
from vectorizer.errors import ConfigurationError, DatabaseError
from vectorizer.statements import Statements
from vectorizer.verification import Verification

__all__ = ["AsyncVerifier"]

_NOTHING_EMBEDDED_KNOWN = (
    "what the callback wrote: only that it was called for every row as it is now"
)
_ONLY_KEYS_KNOWN = (
    "whether what the callback wrote is right: only that it was called for every row as it is "
    "now, and that there is something for the same keys"
)


class AsyncVerifier:
    """Verifies one installed vectorizer in ranges of keys, while writers and workers go on."""

    def __init__(self, database: AsyncDatabase, installation: Installation) -> None:
        self._database = database
        self._vectorizer = installation.id
        self._name = installation.name
        self._key = [column.column for column in installation.key]
        self._callback = installation.storage is None
        self._dimensions = installation.definition.dimensions
        self._statements = Statements(database.schema, installation)

    async def verify(self, *, repair: bool, rows: int, embedded: str | None = None) -> Verification:
        """Compare all keys, `rows` of a table at a time; queue defective ones if asked to.

        embedded: where a callback writes, a query whose first columns are the keys of what is
        embedded. Raises ConfigurationError if it cannot be used.
        """
        if embedded is None:
            return await self._verify(repair, rows, None)
        if not self._callback:
            raise ConfigurationError(
                f"vectorizer {self._name}: what it has embedded is in its own destination; a "
                f"query that tells is for vectorizers whose callback writes elsewhere"
            )
        try:
            return await self._verify(repair, rows, embedded)
        except DatabaseError as error:
            if not (is_drift(error) or is_data_error(error)):
                raise
            raise ConfigurationError(
                f"the query for what is embedded does not work: {error}; give a SELECT whose "
                f"first columns are the key, in its order: {', '.join(self._key)}"
            ) from error

    async def _verify(self, repair: bool, rows: int, embedded: str | None) -> Verification:
        found = Verification(unknown=self._unknown(embedded))
        cursor: str | None = None
        while True:
            last = await self._end(cursor, rows, embedded)
            findings = await self._range(cursor, last, embedded)
            found.checked += findings[0]["checked"]
            defective = found.add(finding for finding in findings if finding["key"] is not None)
            if repair and defective:
                await self._repair(defective)
                found.repaired += len(defective)
            if last is None:
                return found
            cursor = last

    def _unknown(self, embedded: str | None) -> str | None:
        if not self._callback:
            return None
        return _NOTHING_EMBEDDED_KNOWN if embedded is None else _ONLY_KEYS_KNOWN

    async def _end(self, cursor: str | None, rows: int, embedded: str | None) -> str | None:
        async with self._database.transaction(pinned_plans=True) as connection:
            ends = await connection.execute(
                self._statements.verify_end(started=cursor is not None, embedded=embedded),
                {"cursor": cursor or "{}", "rows": rows},
            )
            end = await ends.fetchone()
        return None if end is None else end[0]

    async def _range(
        self, cursor: str | None, last: str | None, embedded: str | None
    ) -> list[dict[str, Any]]:
        async with self._database.transaction() as connection:
            findings = await connection.cursor(row_factory=dict_row).execute(
                self._statements.verify_range(
                    started=cursor is not None, ended=last is not None, embedded=embedded
                ),
                {
                    "cursor": cursor or "{}",
                    "last": last or "{}",
                    "vectorizer": self._vectorizer,
                    "dimensions": self._dimensions,
                },
            )
            return await findings.fetchall()

    async def _repair(self, keys: list[str]) -> None:
        async with self._database.transaction(pinned_plans=True) as connection:
            await connection.execute(self._statements["repair_keys"], {"keys": keys})
