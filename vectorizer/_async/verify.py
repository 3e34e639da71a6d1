"""Comparing source and destination from the data, not from the queue's opinion of it."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from vectorizer._async.database import AsyncDatabase
from vectorizer.definition import Installation
from vectorizer.statements import Statements
from vectorizer.verification import Verification

__all__ = ["AsyncVerifier"]

_NOTHING_EMBEDDED_KNOWN = (
    "what the callback wrote: only that it was called for every row as it is now"
)


class AsyncVerifier:
    """Verifies one installed vectorizer in ranges of keys, while writers and workers go on."""

    def __init__(self, database: AsyncDatabase, installation: Installation) -> None:
        self._database = database
        self._vectorizer = installation.id
        self._callback = installation.storage is None
        self._dimensions = installation.definition.dimensions
        self._statements = Statements(database.schema, installation)

    async def verify(self, *, repair: bool, rows: int) -> Verification:
        """Compare all keys, `rows` of a table at a time; queue defective ones if asked to."""
        found = Verification(unknown=_NOTHING_EMBEDDED_KNOWN if self._callback else None)
        cursor: str | None = None
        while True:
            last = await self._end(cursor, rows)
            findings = await self._range(cursor, last)
            found.checked += findings[0]["checked"]
            defective = found.add(finding for finding in findings if finding["key"] is not None)
            if repair and defective:
                await self._repair(defective)
                found.repaired += len(defective)
            if last is None:
                return found
            cursor = last

    async def _end(self, cursor: str | None, rows: int) -> str | None:
        async with self._database.transaction(pinned_plans=True) as connection:
            ends = await connection.execute(
                self._statements.verify_end(started=cursor is not None),
                {"cursor": cursor or "{}", "rows": rows},
            )
            end = await ends.fetchone()
        return None if end is None else end[0]

    async def _range(self, cursor: str | None, last: str | None) -> list[dict[str, Any]]:
        async with self._database.transaction() as connection:
            findings = await connection.cursor(row_factory=dict_row).execute(
                self._statements.verify_range(started=cursor is not None, ended=last is not None),
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
