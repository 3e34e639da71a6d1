"""One installed generation of a vectorizer, with all that a batch of it passes through."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from json import dumps

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.pipeline import AsyncPipeline, Processed
from vectorizer._async.queue import AsyncQueue
from vectorizer._async.search import AsyncSearch
from vectorizer._async.spending import AsyncPurse, AsyncSpending, RunBudget
from vectorizer._async.store import AsyncStore
from vectorizer.batch import Batch, Counts, count
from vectorizer.concurrency import AsyncHeartbeat
from vectorizer.database_errors import is_data_error
from vectorizer.definition import Installation, Relation
from vectorizer.errors import (
    BudgetExhausted,
    DatabaseError,
    EmbedderRefused,
    EmbedderUnavailable,
    LeaseLost,
    VectorizerPaused,
)
from vectorizer.events import note_lost_lease, stage
from vectorizer.types import JSON, Embedder
from vectorizer.unwritten import UnwrittenVectors

__all__ = ["AsyncGeneration"]

log = logging.getLogger("vectorizer")

# So long a pause of the provider is just waited for. In a longer one, what needs no model is done.
_SHORT_HOLD_SECONDS = 10.0


class AsyncGeneration:
    """Claims batches of one installed generation and carries them through its pipeline."""

    def __init__(
        self,
        database: AsyncDatabase,
        installation: Installation,
        embedder: Embedder,
        unwritten: UnwrittenVectors,
        reuse: Relation | None,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self.installation = installation
        self.queue = AsyncQueue(database, installation, lease_seconds=lease_seconds)
        self.search = AsyncSearch(database, installation, embedder)
        self._spending = AsyncSpending(database, installation, reuse)
        self._store = AsyncStore(database, installation, self.queue)
        self._pipeline = AsyncPipeline(installation.definition, embedder, unwritten)

    async def claim(self, rows: int) -> Batch | None:
        """Take up to `rows` keys; None only if nothing was claimable.

        While the model is not to be asked, changes are claimed all the same, for what needs no
        model (deletions, above all), but the backfill rests. So do, in a pause of the provider,
        rows that were given back: they would be looked at in each pause anew.

        Raises VectorizerPaused if this generation is paused, EmbedderUnavailable if nothing was
        claimable and its provider has asked for a pause.
        """
        await self._database.require_primary()
        if self.installation.paused_reason is not None:
            raise VectorizerPaused(
                f"vectorizer {self.installation.name} is paused: {self.installation.paused_reason}"
            )
        restraint = await self._spending.restraint()
        if restraint is None:
            return await self.queue.claim(rows)
        batch = None
        held = restraint.held is not None
        if not held or restraint.seconds > _SHORT_HOLD_SECONDS:
            batch = await self.queue.claim(rows, backfill=False, retries=not held)
        if batch is not None:
            return replace(batch, held_seconds=restraint.seconds)
        if restraint.held is not None:
            raise restraint.held
        return None

    async def sync(self, keys: Sequence[Mapping[str, JSON]]) -> AsyncIterator[Counts | None]:
        """Bring the rows of these keys in step; yield what was done, None while others hold some.

        keys: by the names of the key columns in the source. Raises BudgetExhausted in the end if
        the budget of the day was not enough.
        """
        names = {column.column: column.name for column in self.installation.key}
        left: str | None = dumps(
            [{names[column]: value for column, value in key.items()} for key in keys], default=str
        )
        short = False
        while left is not None:
            restraint = await self._spending.restraint()
            if restraint is not None and restraint.held is not None:
                raise restraint.held
            batch, left = await self.queue.claim_keys(left)
            if batch is None:
                yield None
            else:
                purse = AsyncPurse(self._spending, batch)
                yield await self._process(batch, purse)
                short = short or purse.release_seconds > 0
        if short:
            raise BudgetExhausted(
                f"vectorizer {self.installation.name}: the budget of the day is used up; the rows "
                f"that are left wait until midnight UTC, or for a larger max_tokens_per_day"
            )

    async def process(self, batch: Batch, budget: RunBudget | None = None) -> Counts:
        """Load a batch, embed what is new of it, write and ack it; return what was done.

        Raises EmbedderUnavailable, EmbedderRefused or DatabaseError; what could be embedded has
        been written then, and the rest of the batch given back.
        """
        return await self._process(batch, AsyncPurse(self._spending, batch, budget))

    async def _process(self, batch: Batch, purse: AsyncPurse) -> Counts:
        try:
            async with AsyncHeartbeat(
                lambda: self.queue.extend(batch), self.queue.lease_seconds / 3
            ):
                with stage("load"):
                    rows, stored = await self._store.load(batch)
                done = await self._pipeline.process(rows, stored, purse)
                with stage("finish"):
                    await self._finish(batch, done)
        except LeaseLost as lost:
            note_lost_lease()
            log.warning("%s", lost)
            return Counts(rows=batch.size)
        except EmbedderUnavailable as error:
            await self._give_back(batch, error.retry_after or 0.0)
            await self._spending.hold(error)
            raise
        except EmbedderRefused as error:
            await self._give_back(batch)
            await self.queue.pause(str(error))
            raise
        except DatabaseError as error:
            if not is_data_error(error):
                await self._give_back(batch)
                raise
            # A value that cannot be read or written: some row's own fault.
            log.warning("vectorizer %s: %s", self.installation.name, error)
            await self.queue.fail_batch(batch, str(error), at_once=True)
            return Counts(rows=batch.size, failed=1 if batch.size == 1 else 0)
        except BaseException:
            await self._give_back(batch)
            raise
        return count(done.outcomes, done.spent)

    async def _finish(self, batch: Batch, done: Processed) -> None:
        """Write what there is, and only then raise what kept the rest away."""
        await self._store.finish(
            batch,
            done.outcomes,
            release_seconds=done.release_seconds,
            also=lambda connection: self._spending.record(connection, done.spent),
        )
        self._pipeline.written(done.outcomes)
        if done.interruption is not None:
            raise done.interruption

    async def _give_back(self, batch: Batch, delay_seconds: float = 0.0) -> None:
        # Without a database there is nothing to give back to: the lease will expire.
        with suppress(DatabaseError):
            await self.queue.release(batch, delay_seconds=delay_seconds)
