"""What a worker does by the clock: drains on schedule, upkeep, verification."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.upkeep import AsyncUpkeep
from vectorizer._async.verify import AsyncVerifier
from vectorizer.errors import VectorizerError
from vectorizer.worker._cron import cron_trigger, zone
from vectorizer.worker._options import WorkerOptions

__all__ = ["Schedule"]

log = logging.getLogger("vectorizer.worker")

# A job whose time came while the machine slept or the loop was held up is still done.
_GRACE_SECONDS = 3600
_VERIFY_ROWS = 10_000
# Between two looks for chores that are due; the most urgent is due every 30 seconds.
_UPKEEP_SECONDS, _UPKEEP_JITTER = 30, 5


class Schedule:
    """The jobs of one worker; `open_drain` is called with a name when its time has come.

    Raises ConfigurationError at once for a cron expression or a time zone that cannot be read.
    """

    def __init__(self, options: WorkerOptions, open_drain: Callable[[str], None]) -> None:
        self._options = options
        self._open_drain = open_drain
        timezone = zone(options.timezone)
        self._drains = {n: cron_trigger(text, timezone) for n, text in options.schedules.items()}
        verify = options.verify_schedule
        self._verify = None if verify is None else cron_trigger(verify, timezone)
        self._timezone = timezone
        self._busy = False

    @asynccontextmanager
    async def running(
        self, database: AsyncDatabase, names: frozenset[str] | None
    ) -> AsyncIterator[None]:
        """Do the jobs while the block runs."""
        scheduler = AsyncIOScheduler(
            timezone=self._timezone,
            job_defaults={"misfire_grace_time": _GRACE_SECONDS, "coalesce": True},
        )
        for name, trigger in self._drains.items():
            scheduler.add_job(self._drain, trigger, [name])
        if self._verify is not None:
            scheduler.add_job(self._verify_all, self._verify, [database, names])
        if self._options.upkeep:
            upkeep = AsyncUpkeep(database)
            wanted = None if names is None else sorted(names)
            scheduler.add_job(
                self._chores,
                IntervalTrigger(seconds=_UPKEEP_SECONDS, jitter=_UPKEEP_JITTER),
                [upkeep, wanted],
                max_instances=2,  # the second turns round at once, without a word
            )
        scheduler.start()
        try:
            yield
        finally:
            scheduler.shutdown(wait=False)

    async def _drain(self, name: str) -> None:
        # A coroutine, for APScheduler would run a function in a thread.
        self._open_drain(name)

    async def _chores(self, upkeep: AsyncUpkeep, names: list[str] | None) -> None:
        if self._busy:
            return  # a VACUUM may take longer than the time between two looks
        self._busy = True
        try:
            await upkeep.run_due(names)
        except VectorizerError as error:
            log.info("upkeep: %s", error)  # a lost connection is told of by the probe
        finally:
            self._busy = False

    async def _verify_all(self, database: AsyncDatabase, names: frozenset[str] | None) -> None:
        schema = AsyncSchema(database)
        for name in await schema.names():
            if names is None or name in names:
                try:
                    await self._verify_one(schema, name)
                except VectorizerError as error:
                    log.warning("verify %s: %s", name, error, extra={"vectorizer": name})

    async def _verify_one(self, schema: AsyncSchema, name: str) -> None:
        verifier = AsyncVerifier(schema.database, await schema.find(name))
        found = await verifier.verify(repair=self._options.verify_repair, rows=_VERIFY_ROWS)
        level = logging.INFO if found.ok else logging.ERROR
        log.log(
            level,
            "verify %s: %d rows checked, %d defects, %d pending, %d dead, %d queued for repair",
            name,
            found.checked,
            sum(found.defects.values()),
            found.pending,
            found.dead,
            found.repaired,
            extra={"vectorizer": name, "keys": found.checked},
        )
