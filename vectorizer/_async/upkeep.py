"""Chores that keep a vectorizer in shape, done by whichever worker finds them due."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from psycopg import sql
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.partitions import AsyncPartitions
from vectorizer._async.queue import AsyncQueue
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.vector_index import ensure_index
from vectorizer.database_errors import is_conflict
from vectorizer.definition import Installation
from vectorizer.errors import DatabaseUnavailable, VectorizerError
from vectorizer.identifiers import to_pg_time
from vectorizer.partitioning import partition_of
from vectorizer.statements import Statements, compose_query

__all__ = ["CHORES", "AsyncUpkeep", "Chore"]

log = logging.getLogger("vectorizer")

CHORES: Final[Mapping[str, float]] = {
    "reap": 30,
    "follow": 60,
    "view": 60,
    "vacuum": 300,
    "collapse": 3600,
    "partitions": 3600,
    "retention": 3600,
    "cache": 3600,
    "index": 60,
}
"""How often each chore is due, in seconds."""
_LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Chore:
    """A chore that had something to do: of which vectorizer, which of CHORES, what was done."""

    vectorizer: str
    task: str
    done: str


class AsyncUpkeep:
    """Does the chores of CHORES when they are due, for the vectorizers of one database.

    When each is due stands in the database: any number of workers may call `run_due` as often as
    they like, each chore is done by one of them. No leader is needed.
    """

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._schema = AsyncSchema(database)
        self._look_at = float("-inf")
        self._tasks: dict[str, Callable[[Installation], Awaitable[str | None]]] = {
            "reap": self._reap,
            "follow": self._follow,
            "view": self._view,
            "vacuum": self._vacuum,
            "collapse": self._collapse,
            "partitions": self._partitions,
            "retention": self._retention,
            "cache": self._cache,
            "index": self._index,
        }

    async def look(self, names: Sequence[str] | None = None) -> None:
        """Do what is due, but look only every ten seconds: for a loop that turns all the time."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            await self.run_due(names)

    async def run_due(self, names: Sequence[str] | None = None) -> list[Chore]:
        """Do what is due, of these vectorizers or of all; return what there was to do.

        With nothing due it costs one short statement. A chore that fails is logged and due again
        later. Raises DatabaseUnavailable if the database is.
        """
        done = []
        for name, vectorizer, task in await self._worth(await self._take(names)):
            try:
                result = await self._do(name, vectorizer, task)
            except DatabaseUnavailable:
                raise
            except VectorizerError as error:
                # What is locked now is free later, when the chore is due again.
                level = logging.INFO if is_conflict(error) else logging.WARNING
                log.log(level, "vectorizer %s: upkeep (%s) failed: %s", name, task, error)
                continue
            if result is not None:
                log.info("vectorizer %s: upkeep (%s): %s", name, task, result)
                done.append(Chore(name, task, result))
        return done

    async def _do(self, name: str, vectorizer: int, task: str) -> str | None:
        for generation in await self._schema.generations(name):
            if generation.id == vectorizer:
                return await self._tasks[task](generation)
        return None  # dropped meanwhile

    async def _take(self, names: Sequence[str] | None) -> list[tuple[str, int, str]]:
        await self._database.require_primary()
        async with self._database.transaction() as connection:
            taken = await connection.execute(
                compose_query("take_chores", schema=sql.Identifier(self._database.schema)),
                {
                    "names": None if names is None else list(names),
                    "tasks": list(CHORES),
                    "seconds": list(CHORES.values()),
                },
            )
            return [(name, number, task) for name, number, task in await taken.fetchall()]

    async def _worth(self, taken: Sequence[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
        """Return those of the chores that may have something to do, by one statement for all."""
        if not taken:
            return []
        async with self._database.transaction() as connection:
            worth = await connection.execute(
                compose_query("worth_chores", schema=sql.Identifier(self._database.schema)),
                {
                    "vectorizers": [vectorizer for _, vectorizer, _ in taken],
                    "tasks": [task for _, _, task in taken],
                },
            )
            return [(name, number, task) for name, number, task in await worth.fetchall()]

    async def _reap(self, installation: Installation) -> str | None:
        """Free the rows of workers that vanished, also where nobody claims: while it is paused."""
        reaped = await AsyncQueue(self._database, installation).reap()
        return f"{reaped} batches of vanished workers are free again" if reaped else None

    async def _follow(self, installation: Installation) -> str | None:
        """Take notice of partitions and children that came or went."""
        noticed = False
        while await self._value(installation, "follow_parts"):
            noticed = True
        return "tables came under the source, or left it" if noticed else None

    async def _view(self, installation: Installation) -> str | None:
        """Make the view that readers search again, if somebody dropped it."""
        made = await self._value(installation, "mend_view")
        return "the view of the embeddings was dropped, and is there again" if made else None

    async def _vacuum(self, installation: Installation) -> str | None:
        """Vacuum the log, where that is permitted and would remove anything."""
        truncate = await self._value(installation, "log_vacuum")
        if truncate is None:
            return None
        statements = Statements(self._database.schema, installation)
        async with self._database.connection() as connection:
            await connection.execute(statements.vacuum_log(truncate=truncate), prepare=False)
        return "vacuumed the change log"

    async def _collapse(self, installation: Installation) -> str | None:
        """Shrink a log that grew for long because nobody drains it."""
        removed = await self._value(installation, "collapse_if_large")
        return f"collapsed the change log, {removed} entries went" if removed else None

    async def _partitions(self, installation: Installation) -> str | None:
        """Make the next partition of the destination before it is needed, if rows come in now."""
        storage, interval = installation.storage, installation.definition.partition_interval
        if storage is None or interval is None:
            return None
        now = to_pg_time(datetime.now(timezone.utc))
        current = partition_of(now, interval)
        bounds = {"start": current.start, "end": current.end}
        if not await self._value(installation, "has_rows_between", **bounds):
            return None
        partitions = AsyncPartitions(self._database, storage, interval, installation.id)
        made = await partitions.ensure([to_pg_time(current.end)])
        return "made the next partition" if made else None

    async def _index(self, installation: Installation) -> str | None:
        """Build the index over the vectors when everything that was there is embedded."""
        built = await ensure_index(self._database, installation)
        return "built the index over the vectors" if built else None

    async def _retention(self, installation: Installation) -> str | None:
        """Drop partitions that hold nothing but rows older than the retention."""
        if installation.definition.retention is None:
            return None
        dropped: list[str] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_conflict),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(30),
            reraise=True,
        ):
            with attempt:
                while (name := await self._value(installation, "drop_expired")) is not None:
                    dropped.append(name)
        return f"dropped {', '.join(dropped)}: older than the retention" if dropped else None

    async def _cache(self, installation: Installation) -> str | None:
        """Keep the cache of vectors within its bounds."""
        if not installation.definition.cache:
            return None
        removed = await self._value(installation, "trim_cache")
        return f"{removed} vectors went from the cache" if removed else None

    async def _value(self, installation: Installation, query: str, **parameters: Any) -> Any:
        statements = Statements(self._database.schema, installation)
        async with self._database.transaction() as connection:
            found = await connection.execute(
                statements[query], {"vectorizer": installation.id, **parameters}
            )
            return (await found.fetchone() or (None,))[0]
