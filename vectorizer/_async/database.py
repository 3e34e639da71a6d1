"""Connections to the user's database, and the one kind of transaction we run there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from typing_extensions import Self

from vectorizer.concurrency import AsyncLock
from vectorizer.database_errors import place, translated, unreachable
from vectorizer.errors import DatabaseError
from vectorizer.queries import query
from vectorizer.statements import compose

__all__ = ["AsyncDatabase"]

# Role and database defaults may differ, and a pooler may hand over any session: each
# transaction says itself what it relies on. The first part keeps text forms of values stable,
# for they are hashed; the second keeps plans on indexes whatever the statistics say (12 µs a key
# against 89 µs when an unanalyzed table is hashed). row_security = off turns a policy that would
# hide rows from us into an error: hidden rows would look deleted.
_BEGIN: Final = """
begin isolation level read committed;
set local row_security = off;
set local timezone = 'UTC';
set local datestyle = 'ISO, MDY';
set local intervalstyle = 'postgres';
set local extra_float_digits = 1;
set local bytea_output = 'hex';
set local jit = off;
"""
# A worker's transaction waits for nothing but the database (I5). When its network or its process
# stops in the middle, its locks would stop the others until the server's TCP keepalive finds out,
# two hours later by default: no other worker could reap the lease or claim those keys.
_WORKER: Final = """
set local idle_in_transaction_session_timeout = {silence};
set local statement_timeout = {statement};
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
"""


# A peer that vanished without a word is noticed within half a minute; the URL may say otherwise.
_NETWORK: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
_OURS: Final = {"autocommit": True, "application_name": "vectorizer"}
# COPY waits for the client inside a statement; honest statements take much less than that.
_STATEMENT_FACTOR: Final = 5


_OLDEST_SERVER: Final = 150_000


class AsyncReturned:
    """When each connection came back to the pool.

    Apart from the database: the pool calls it, and a pool that knew its database would keep it
    alive after its last user.
    """

    def __init__(self, unchecked_seconds: float) -> None:
        self._unchecked_seconds = unchecked_seconds
        self._at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def note(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        self._at[connection] = time.monotonic()

    async def check(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        at = self._at.get(connection)
        if at is None or time.monotonic() - at >= self._unchecked_seconds:
            await AsyncConnectionPool.check_connection(connection)

    def clear(self) -> None:
        self._at.clear()


class AsyncDatabase:
    """A pool of connections to one database, opened at first use.

    url: libpq connection string or URL; max_connections: most connections held at once;
    connect_timeout: seconds to wait for a connection; schema: where our own objects live.
    silence_seconds: how long a worker's transaction may hear nothing from its client.
    unchecked_seconds: a connection that came back so lately is lent without asking whether it
    still lives, which takes a round trip.

    Methods raise DatabaseUnavailable if the server cannot be reached or the connection is
    lost, another DatabaseError or ConfigurationError for what the server refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "vectorizer",
        max_connections: int = 4,
        connect_timeout: float = 10.0,
        silence_seconds: float = 30.0,
        unchecked_seconds: float = 0.0,
    ) -> None:
        self.url = url
        self.schema = schema
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        milliseconds = max(1000, round(silence_seconds * 1000))
        self._begin_worker = compose(
            _BEGIN + _WORKER,
            silence=sql.Literal(milliseconds),
            statement=sql.Literal(milliseconds * _STATEMENT_FACTOR),
        )
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]] | None = None
        self._returned = AsyncReturned(unchecked_seconds)
        self._opening = AsyncLock()
        self._in_recovery = False
        self._through_pooler = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the pool if it is not open yet."""
        async with self._opening:
            if self._pool is None:
                self._pool = await self._opened()

    async def _opened(self) -> AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]:
        self._through_pooler = await self._probe()
        pool: AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]] = AsyncConnectionPool(
            "",
            min_size=0,
            max_size=self._max_connections,
            timeout=self._connect_timeout,
            max_idle=30,
            kwargs=self._options(),
            open=False,
            check=self._returned.check,
        )
        await pool.open()
        return pool

    def _options(self) -> dict[str, Any]:
        # A pooler hands each transaction to any session: what was prepared in one is missing, or
        # there twice, in another.
        prepared = {"prepare_threshold": None} if self._through_pooler else {}
        return {**_NETWORK, **conninfo_to_dict(self.url), **_OURS, **prepared}

    async def dedicated(self) -> psycopg.AsyncConnection[TupleRow]:
        """Return a new connection in autocommit mode outside the pool; the caller closes it.

        For what keeps a session to itself, such as LISTEN, or asks many times a second.
        """
        await self.open()
        try:
            return await psycopg.AsyncConnection.connect(
                "", **{"connect_timeout": max(2, int(self._connect_timeout)), **self._options()}
            )
        except psycopg.Error as error:
            raise unreachable(self.url, error) from None

    @property
    def through_pooler(self) -> bool:
        """Whether a pooler gives each transaction another session; known once it is open."""
        return self._through_pooler

    async def require_primary(self) -> None:
        """Raise DatabaseError where nothing can be written: on a replica."""
        await self.open()
        if self._in_recovery:
            raise DatabaseError(
                f"{place(self.url)} is a read-only replica; this needs the primary server"
            )

    async def _probe(self) -> bool:
        """Look at the server; return whether a pooler stands between it and us.

        Raises DatabaseUnavailable, or DatabaseError for a server that is too old.
        """
        # A pool would retry a wrong password in the background and then only say it timed out.
        try:
            connection = await psycopg.AsyncConnection.connect(
                self.url, connect_timeout=max(2, int(self._connect_timeout))
            )
        except psycopg.Error as error:
            # Not "from error": libpq's own words may hold the password.
            raise unreachable(self.url, error) from None
        try:
            async with connection:
                found = await connection.execute(query("probe"), prepare=False)
                process, self._in_recovery, version = await found.fetchone() or (0, False, 0)
                announced = connection.info.backend_pid
        except psycopg.Error as error:
            raise translated(self.url, error) from error
        if version < _OLDEST_SERVER:
            raise DatabaseError(
                f"{place(self.url)} runs PostgreSQL {version // 10_000}; 15 or newer is needed"
            )
        return bool(process != announced)

    async def close(self) -> None:
        """Close all connections. The database can be opened again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def transaction(
        self, *, pinned_plans: bool = False
    ) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Run a READ COMMITTED transaction; commit at the end, roll back on any exception.

        pinned_plans: keep the statements of the queue on their indexes.
        """
        begin = self._begin_worker if pinned_plans else sql.SQL(_BEGIN)
        async with self.connection() as connection:
            # One round trip; several statements at once cannot be prepared.
            await connection.execute(begin, prepare=False)
            try:
                yield connection
            except BaseException:
                await self._roll_back(connection)
                raise
            await connection.execute("commit")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend a connection in autocommit mode, with its errors translated to ours."""
        await self.open()
        assert self._pool is not None  # noqa: S101 - open() has just set it
        try:
            async with self._pool.connection() as connection:
                try:
                    yield connection
                finally:
                    # Not as the pool's reset, which would run in a thread of the pool: there a
                    # connection outlives a database that nobody uses any more.
                    self._returned.note(connection)
        except (psycopg.Error, TimeoutError) as error:
            if isinstance(error, psycopg.OperationalError):
                self._returned.clear()  # the others may be lost, too
            raise translated(self.url, error) from error

    async def _roll_back(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if not connection.closed:
            await connection.rollback()
