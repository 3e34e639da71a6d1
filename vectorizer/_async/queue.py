"""The work queue of one vectorizer: claim a batch, hold it, and give it up again."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from vectorizer._async.database import AsyncDatabase
from vectorizer.batch import Batch, Failed, LoadedRow
from vectorizer.database_errors import is_conflict
from vectorizer.definition import Installation
from vectorizer.errors import DatabaseError, LeaseLost, VectorizerPaused
from vectorizer.statements import Statements

__all__ = ["AsyncQueue"]

# A scan goes past entries of keys it cannot take; this many for each row wanted.
_SCAN_FACTOR = 4
# Every so many claims the backfill comes first, so that it moves however busy the table is.
_BACKFILL_TURN = 4
# What goes through a table by its keys, and where it is said that it does.
_CURSORS = (("sweep", "sweeping"), ("backfill", "backfilling"))
# Where the log's heap begins, as PostgreSQL writes a tid.
_START = "(0,0)"
# Every so many seconds a claim begins at the start of the log.
_LOOK_BACK_SECONDS = 1.0
# ... and spends at most one part in so many of its time on that.
_LOOK_BACK_SHARE = 20


class _TruncateFoundError(Exception):
    """A claim met the marker of a TRUNCATE, which goes before everything else."""

    def __init__(self, entries: list[str]) -> None:
        self.entries = entries


class _Claim:
    """The keys won so far under one token: as JSON, the way they came from the database."""

    def __init__(
        self, token: UUID, rows: int, *, backfill: bool = True, retries: bool = True
    ) -> None:
        self.token = token
        self.backfill = backfill
        self.retries = retries
        self.keys: list[str] = []
        self.size = 0
        self.oldest: datetime | None = None
        self._rows = rows

    @property
    def wanted(self) -> int:
        """How many more keys the batch has room for."""
        return self._rows - self.size

    def add(self, found: dict[str, Any]) -> bool:
        """Take over what a statement won; return whether it was anything."""
        if found.get("count"):
            self.keys.append(found["keys"])
            self.size += found["count"]
            self.oldest = self.oldest or found.get("oldest")
        return bool(found.get("count"))


class AsyncQueue:
    """Claims, leases and acks for one installed vectorizer.

    lease_seconds: how long a batch stays ours without a heartbeat.
    max_attempts: failures after which a row becomes a dead letter.
    max_losses: how often a row may be alone in the lease of a vanished worker.
    retry_seconds: back-off after the first failure; it doubles with each further one.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        installation: Installation,
        *,
        lease_seconds: float = 30.0,
        max_attempts: int = 5,
        max_losses: int = 3,
        retry_seconds: float = 10.0,
    ) -> None:
        self._database = database
        self._statements = Statements(database.schema, installation)
        self._vectorizer = installation.id
        self._fans_out = installation.parents_table is not None
        self._name = installation.name
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self.lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._max_losses = max_losses
        self._retry_seconds = retry_seconds
        self._from_place = _START
        self._look_back_at = float("-inf")
        self._claims = 0

    async def claim(
        self, rows: int, *, backfill: bool = True, retries: bool = True
    ) -> Batch | None:
        """Take up to `rows` keys under one new lease; None only if nothing was claimable.

        Without `backfill`, rows that nobody has looked at yet are left alone, and without
        `retries` those that were given back and are due.
        """
        if self._fans_out:
            await self._fan_out(rows)
        while True:
            try:
                claim = _Claim(uuid4(), rows, backfill=backfill, retries=retries)
                batch, more = await self._claim_once(claim)
            except _TruncateFoundError as found:
                await self._truncated(found.entries)
                continue
            except DatabaseError as error:
                # Two claims met over each other's rows; the server undid this one.
                if not is_conflict(error):
                    raise
                continue
            if batch is not None or not more:
                return batch

    async def claim_keys(self, keys: str) -> tuple[Batch | None, str | None]:
        """Take these keys, as JSON, under one new lease; return it and the keys others hold."""
        token = uuid4()
        async with self._database.transaction(pinned_plans=True) as connection:
            claim = _Claim(token, 0)
            found = await self._fetch(connection, "claim_keys", token=token, keys=keys)
            if claim.add(found):
                await self._open_lease(connection, claim)
        return (Batch(token, claim.size) if claim.size else None), found["held"]

    async def _fan_out(self, rows: int) -> None:
        """Queue the rows that a changed parent concerns; as many at once as a claim takes."""
        async with self._database.transaction(pinned_plans=True) as connection:
            await self._execute(connection, "fan_out", rows=rows)

    async def _claim_once(self, claim: _Claim) -> tuple[Batch | None, bool]:
        async with self._database.transaction(pinned_plans=True) as connection:
            await self._execute(connection, "reap_leases", max_losses=self._max_losses)
            claim.add(
                await self._fetch(connection, "claim_lost", token=claim.token, rows=claim.wanted)
            )
            more = not claim.size and await self._claim_regular(connection, claim)
            if claim.size:
                await self._open_lease(connection, claim)
        return (Batch(claim.token, claim.size, claim.oldest) if claim.size else None), more

    async def _open_lease(self, connection: psycopg.AsyncConnection[Any], claim: _Claim) -> None:
        opened = await self._execute(
            connection,
            "open_lease",
            token=claim.token,
            worker=self._worker,
            keys=claim.keys,
            seconds=self.lease_seconds,
        )
        if await opened.fetchone() is None:
            raise VectorizerPaused(
                f"vectorizer {self._name} was paused or uninstalled; "
                f"see: vectorizer status {self._name}"
            )

    async def _claim_regular(self, connection: psycopg.AsyncConnection[Any], claim: _Claim) -> bool:
        """Claim what is due, then what changed, then what is left behind the cursors.

        Returns whether there may be more behind the cursors, even if nothing was found.
        """
        self._claims += 1
        more = False
        if claim.retries:
            claim.add(
                await self._fetch(connection, "claim_retries", token=claim.token, rows=claim.wanted)
            )
        if self._claims % _BACKFILL_TURN == 0 and claim.wanted:
            more = await self._claim_behind_cursors(connection, claim)
        if claim.wanted:
            await self._claim_changes(connection, claim)
        if claim.wanted:
            more = await self._claim_behind_cursors(connection, claim) or more
        return more

    async def _claim_changes(self, connection: psycopg.AsyncConnection[Any], claim: _Claim) -> None:
        """Go through the log in a circle: on from where the last claim ended, then from its start.

        Space that becomes free is used again, so new entries may stand before older ones; a
        circle passes every entry in time. Now and then the start comes first all the same, for
        those who committed behind us.
        """
        began = time.monotonic()
        before = claim.size
        if began >= self._look_back_at:
            await self._claim_changes_from(connection, claim, _START)
            # Passing over dead entries takes time while an old snapshot keeps them: seldom, then.
            took = time.monotonic() - began
            self._look_back_at = began + max(_LOOK_BACK_SECONDS, took * _LOOK_BACK_SHARE)
        if claim.size == before:
            self._from_place = await self._claim_changes_from(connection, claim, self._from_place)
        if claim.size == before and self._from_place != _START:
            self._from_place = await self._claim_changes_from(connection, claim, _START)

    async def _claim_changes_from(
        self, connection: psycopg.AsyncConnection[Any], claim: _Claim, place: str
    ) -> str:
        """Claim changed keys from a place of the log on; return where to go on."""
        rows = claim.wanted
        scan = rows * _SCAN_FACTOR
        while True:
            found = await self._fetch(
                connection,
                "claim_changes",
                token=claim.token,
                rows=rows,
                scan=scan,
                from_place=place,
            )
            if found["truncates"]:
                raise _TruncateFoundError(found["truncates"])
            if found["last_place"] is not None:
                place = found["first_unwanted"] or _after(found["last_place"])
            # Where all that was seen belongs to keys in flight, look further.
            if claim.add(found) or found["scanned"] < scan:
                return place

    async def _claim_behind_cursors(
        self, connection: psycopg.AsyncConnection[Any], claim: _Claim
    ) -> bool:
        """Claim from the sweep and the backfill; return whether there may be more to find."""
        # Where nothing else was found, only there may be work: to return while another claim
        # holds the cursors would look as if nothing were left.
        found = await connection.cursor(row_factory=dict_row).execute(
            self._statements.lock_progress(wait=not claim.size), {"vectorizer": self._vectorizer}
        )
        progress = await found.fetchone()
        if progress is None:
            return False
        more = False
        for kind, active in _CURSORS if claim.backfill else _CURSORS[:1]:
            if progress[active] and claim.wanted:
                more = True
                cursor = progress[f"{kind}_cursor"]
                claimed = await connection.cursor(row_factory=dict_row).execute(
                    self._statements.after_cursor(f"claim_{kind}", started=cursor is not None),
                    {
                        "vectorizer": self._vectorizer,
                        "token": claim.token,
                        "rows": claim.wanted,
                        "cursor": cursor or "{}",
                        "resync": progress["backfill_resync"],
                    },
                )
                claim.add(await claimed.fetchone() or {})
        return more

    async def _truncated(self, entries: list[str]) -> None:
        """Fence what was read before a TRUNCATE, then look up every known key again."""
        async with self._database.transaction(pinned_plans=True) as connection:
            taken = await self._execute(connection, "take_truncate", truncates=entries)
            if await taken.fetchone() is not None:
                await self._execute(connection, "fence_all")
                await self._execute(connection, "start_sweep")

    async def extend(self, batch: Batch) -> bool:
        """Prolong the lease by `lease_seconds` from now; False if it was lost."""
        async with self._database.transaction() as connection:
            extended = await self._execute(
                connection, "extend_lease", token=batch.token, seconds=self.lease_seconds
            )
            return await extended.fetchone() is not None

    async def hold(self, connection: psycopg.AsyncConnection[Any], batch: Batch) -> None:
        """Lock the lease until the end of the transaction; raise LeaseLost if it is gone."""
        held = await self._execute(connection, "hold_lease", token=batch.token)
        if await held.fetchone() is None:
            raise LeaseLost(
                f"vectorizer {self._name}: the lease of a batch of {batch.size} rows was lost; "
                f"nothing of it was written, another worker has it"
            )

    async def finish(
        self,
        connection: psycopg.AsyncConnection[Any],
        batch: Batch,
        *,
        done: Sequence[tuple[LoadedRow, Any, int | None]],
        gone: Sequence[LoadedRow],
        failed: Sequence[Failed],
        release_seconds: float | None = None,
    ) -> None:
        """Note what became of each row and end the lease; `hold` comes before in the transaction.

        done: row, its time as a datetime or None, its number of chunks (None if unknown).
        release_seconds: give all other rows back untouched; nobody claims them before.
        """
        if done:
            noted = {
                row.number: (True, moment, row.source_hash, chunks) for row, moment, chunks in done
            }
            columns = zip(*_spread(batch, noted, (False, None, None, None)), strict=True)
            names = ("done", "times", "hashes", "chunks")
            await self._execute(
                connection,
                "finish_rows",
                token=batch.token,
                **{name: list(column) for name, column in zip(names, columns, strict=True)},
            )
        if gone:
            await self._execute(
                connection,
                "forget_rows",
                token=batch.token,
                gone=_spread(batch, {row.number: True for row in gone}),
            )
        if failed:
            errors = {failure.row.number: failure.error for failure in failed}
            hashes = {failure.row.number: failure.row.source_hash for failure in failed}
            await self._fail(connection, batch, errors, hashes)
        if release_seconds is not None:
            await self._execute(
                connection, "release_rows", token=batch.token, delay_seconds=release_seconds
            )
        await self._execute(connection, "close_lease", token=batch.token)

    async def _fail(
        self,
        connection: psycopg.AsyncConnection[Any],
        batch: Batch,
        errors: dict[int, Any],
        hashes: dict[int, Any],
    ) -> None:
        await self._execute(
            connection,
            "fail_rows",
            token=batch.token,
            errors=_spread(batch, errors),
            hashes=_spread(batch, hashes),
            max_attempts=self._max_attempts,
            base_seconds=self._retry_seconds,
        )

    async def fail_batch(self, batch: Batch, error: str, *, at_once: bool = False) -> None:
        """Give back a batch of which some row failed, nobody knows which.

        Its rows come back in smaller batches, until the culprit is alone and fails by itself;
        `at_once`, or after a moment for a cause that may pass.
        """
        async with self._database.transaction(pinned_plans=True) as connection:
            await self.hold(connection, batch)
            if batch.size == 1:
                await self._fail(connection, batch, {1: error}, {})
            else:
                await self._execute(
                    connection,
                    "fail_batch",
                    token=batch.token,
                    error=error,
                    delay_seconds=0.0 if at_once else self._retry_seconds / 10,
                )
            await self._execute(connection, "close_lease", token=batch.token)

    async def release(self, batch: Batch, *, delay_seconds: float = 0.0) -> None:
        """Give a batch back untouched; nobody claims it before `delay_seconds` have passed."""
        async with self._database.transaction(pinned_plans=True) as connection:
            held = await self._execute(connection, "hold_lease", token=batch.token)
            if await held.fetchone() is not None:
                await self._execute(
                    connection, "release_rows", token=batch.token, delay_seconds=delay_seconds
                )
                await self._execute(connection, "close_lease", token=batch.token)

    async def reap(self) -> int:
        """Free the rows of expired leases, as every claim does; return how many leases."""
        async with self._database.transaction(pinned_plans=True) as connection:
            reaped = await self._execute(connection, "reap_leases", max_losses=self._max_losses)
            return len(await reaped.fetchall())

    async def pause(self, reason: str) -> None:
        """Stop this vectorizer until somebody resumes it; changes go on being captured."""
        async with self._database.transaction() as connection:
            await self._execute(connection, "pause_vectorizer", reason=reason)

    async def in_flight_seconds(self) -> float | None:
        """Return for how many seconds others may hold work; None if they hold none."""
        async with self._database.transaction() as connection:
            found = await self._execute(connection, "in_flight")
            record = await found.fetchone()
        seconds = None if record is None else record["seconds"]
        return None if seconds is None else float(seconds)

    async def _fetch(
        self, connection: psycopg.AsyncConnection[Any], name: str, **parameters: Any
    ) -> dict[str, Any]:
        found = await self._execute(connection, name, **parameters)
        return await found.fetchone() or {}

    async def _execute(
        self, connection: psycopg.AsyncConnection[Any], name: str, **parameters: Any
    ) -> psycopg.AsyncCursor[dict[str, Any]]:
        cursor = connection.cursor(row_factory=dict_row)
        return await cursor.execute(
            self._statements[name], {"vectorizer": self._vectorizer, **parameters}
        )


def _after(place: str) -> str:
    """Return the place after a tuple's, both as PostgreSQL writes a tid: (block,number)."""
    block, number = place.strip("()").split(",")
    return f"({block},{int(number) + 1})"


def _spread(batch: Batch, values: dict[int, Any], default: Any = None) -> list[Any]:
    # One entry a key of the lease, in its order: the statements zip them with the keys.
    return [values.get(number, default) for number in range(1, batch.size + 1)]
