"""One connection that asks for all vectorizers at once whether there is work."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql
from typing_extensions import Self

from vectorizer._async.database import AsyncDatabase
from vectorizer.database_errors import is_conflict, is_drift, translated
from vectorizer.errors import DatabaseError, DatabaseUnavailable, SchemaVersionError
from vectorizer.queries import migrations
from vectorizer.statements import compose_query
from vectorizer.worker._served import Entry

__all__ = ["Probe", "Seen"]

# A log that somebody has locked, say to drop it in a long transaction, must not blind us for the
# others: it is left out for a while.
_LOCK_MILLISECONDS = 250
_QUARANTINE_SECONDS = 5.0
# Whatever the statistics say, no ledger is read as a whole; and a statement over a hundred tables
# looks dear enough to be compiled, which would take longer than it does.
_SETTINGS = (f"lock_timeout = {_LOCK_MILLISECONDS}", "enable_seqscan = off", "jit = off")
# Dead entries that an old snapshot keeps make the whole of a log slow to read. New entries stand
# behind them: then only the end is looked at, and the whole in one part of so many of the time.
_SLOW_SECONDS = 0.02
_WHOLE_SHARE = 20
_START = "(0,0)"


@dataclass(frozen=True, slots=True)
class Seen:
    """The names of the vectorizers that have entries in a log, or retries that are due.

    due is None where the retries were not asked for.
    """

    logged: frozenset[str]
    due: frozenset[str] | None


class Probe:
    """Asks over a connection of its own, prepared, in autocommit mode: one statement a look.

    Methods raise DatabaseUnavailable when the connection is lost or the server has become a
    replica, SchemaVersionError when somebody brought the schema beyond this program.
    """

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._survey = _text(compose_query("survey", schema=sql.Identifier(database.schema)))
        self._log_ends = _text(compose_query("log_ends"))
        self._said = ""
        self._entries: list[Entry] = []
        self._locked: dict[str, float] = {}
        self._ends: dict[str, str] = {}
        self._whole_at = 0.0

    async def __aenter__(self) -> Self:
        self._connection = await self._database.dedicated()
        if not self._database.through_pooler:
            for setting in _SETTINGS:
                await self._run(f"set {setting}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def survey(self) -> list[Entry]:
        """Return what the registry says of all vectorizers."""
        [(in_recovery, version, text)] = await self._run(self._survey)
        if in_recovery:
            raise DatabaseUnavailable("the server has become a read-only replica")
        if version > migrations()[-1].number:
            raise SchemaVersionError(
                f"schema {self._database.schema!r} is at version {version} now, newer than the "
                f"{migrations()[-1].number} this program knows; upgrade pg-vectorizer"
            )
        if text != self._said:
            self._entries = [Entry.from_json(entry) for entry in json.loads(text)]
            self._said = text
        return self._entries

    async def look(self, entries: Sequence[Entry], *, retries: bool) -> Seen:
        """Return which of these have entries in their logs and, if asked, retries that are due."""
        now = time.monotonic()
        self._locked = {name: until for name, until in self._locked.items() if until > now}
        asked = [entry for entry in entries if entry.name not in self._locked]
        if now >= self._whole_at:
            self._ends = {}
        whole = not self._ends
        found = await self._look(asked, retries=retries, whole=whole)
        if whole and not self._locked:  # else it was waiting for a lock that took long
            await self._note_speed(asked, time.monotonic() - now)
        due = frozenset(name for kind, name in found if kind == "due") if retries else None
        return Seen(frozenset(name for kind, name in found if kind == "log"), due)

    async def _note_speed(self, entries: Sequence[Entry], took: float) -> None:
        if took < _SLOW_SECONDS:
            return
        self._whole_at = time.monotonic() + took * _WHOLE_SHARE
        logs = [log for entry in entries for log in entry.logs]
        ends = await self._run(self._log_ends, [logs, self._database.schema])
        self._ends = {log: f"({max(blocks - 1, 0)},0)" for log, blocks in ends}

    async def _look(
        self, entries: Sequence[Entry], *, retries: bool, whole: bool
    ) -> list[tuple[str, str]]:
        if not entries:
            return []
        logs = tuple((entry.name, log) for entry in entries for log in entry.logs)
        ledgers = tuple((e.name, ledger) for e in entries for ledger in e.ledgers if retries)
        places = [_START if whole else self._ends.get(log, _START) for _, log in logs]
        statement = _look_statement(self._database.schema, logs, ledgers)
        try:
            return await self._run(statement, [places])
        except DatabaseError as error:
            # Locked by somebody, or dropped since the survey: find out which, and leave it out.
            if not (is_conflict(error) or is_drift(error)):
                raise
            if len(entries) == 1:
                self._locked[entries[0].name] = time.monotonic() + _QUARANTINE_SECONDS
                return []
        middle = len(entries) // 2
        return [
            *await self._look(entries[:middle], retries=retries, whole=whole),
            *await self._look(entries[middle:], retries=retries, whole=whole),
        ]

    async def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        assert self._connection is not None  # noqa: S101 - we are inside of the block
        prepare = None if self._database.through_pooler else True
        # Raw: a statement over a hundred tables is not searched for placeholders each time.
        cursor = psycopg.AsyncRawCursor(self._connection)
        try:
            await cursor.execute(statement.encode(), parameters or None, prepare=prepare)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise translated(self._database.url, error) from error


@lru_cache(maxsize=8)
def _look_statement(
    schema: str, logs: tuple[tuple[str, str], ...], ledgers: tuple[tuple[str, str], ...]
) -> str:
    parts = [_part(schema, "log", "look_log", logs)]
    if ledgers:
        parts.append(_part(schema, "due", "look_due", ledgers))
    return _text(sql.SQL(" union all ").join(parts))


def _part(
    schema: str, kind: str, condition: str, tables: tuple[tuple[str, str], ...]
) -> sql.Composed:
    return compose_query(
        "look",
        kind=sql.Literal(kind),
        vectorizers=sql.Literal([name for name, _ in tables]),
        conditions=sql.SQL(", ").join(
            compose_query(
                condition,
                table=sql.Identifier(schema, table),
                number=sql.Literal(number),
            )
            for number, (_, table) in enumerate(tables, 1)
        ),
    )


def _text(statement: sql.Composable) -> str:
    return statement.as_string(None)
