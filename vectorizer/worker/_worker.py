"""The loop that looks for work and hands it out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.vectorizer import AsyncVectorizer
from vectorizer.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    EmbedderRefused,
    EmbedderUnavailable,
    NotInstalled,
    VectorizerPaused,
)
from vectorizer.events import BatchClaimed, Event, Observer
from vectorizer.types import JSON
from vectorizer.worker._complaints import Complaints
from vectorizer.worker._embedders import Embedders
from vectorizer.worker._listen import listening
from vectorizer.worker._options import WorkerOptions
from vectorizer.worker._probe import Probe
from vectorizer.worker._schedule import Schedule
from vectorizer.worker._served import Entry, Served
from vectorizer.worker._wake import rest

__all__ = ["Worker"]

log = logging.getLogger("vectorizer.worker")

# Between two looks at the registry and at the retries.
_SURVEY_SECONDS = 1.0
# Changes that come every now and then are still met at the quick pace.
_LINGER_SECONDS = 2.0
# Looking takes at most one part in so many of the time, however many tables there are.
_LOOK_SHARE = 5
# After a batch is given back: how long its own statements may still take.
_GIVE_BACK_SECONDS = 2.0
# A session that ends sooner has failed; the longest wait until the next.
_SHORT_SECONDS, _LONGEST_REST = 10.0, 5.0
_DATABASE = "database"
_NO_SUCH_SCHEDULE = "has a schedule, but is not served here: is that its name?"
# Causes that lie in this process and its machine: another worker may be able to.
_CANNOT = (ConfigurationError, ImportError)


class Worker:
    """Serves vectorizers of one database until it is told to stop.

    url: libpq connection string; names: of the vectorizers, by default all, also those that are
    installed while it runs. options: see `WorkerOptions`; observer: told of every batch, see
    `vectorizer.events`; schema: where our own tables live.

    One worker belongs to one event loop. Any number of them, in any number of processes, may
    serve one database.
    """

    def __init__(
        self,
        url: str,
        names: Sequence[str] | None = None,
        *,
        options: WorkerOptions | None = None,
        observer: Observer | None = None,
        schema: str = "vectorizer",
    ) -> None:
        self.options = options or WorkerOptions()
        self._names = None if names is None else frozenset(names)
        self._observer = observer
        self._database = AsyncDatabase(
            url,
            schema=schema,
            # One a batch, some for heartbeats and upkeep.
            max_connections=self.options.concurrency + 3,
            silence_seconds=self.options.lease_seconds,
        )
        self._schedule = Schedule(self.options, self._open_schedule)
        self._embedders = Embedders()
        self._complaints = Complaints()
        self._served: dict[str, Served] = {}
        self._turns: deque[Served] = deque()
        self._batches: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._wake = asyncio.Event()
        self._survey_at = self._retries_at = self._look_at = float("-inf")
        self._found_at = float("-inf")
        self._alive_at = float("-inf")
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the worker is connected and serves."""
        return self._ready

    @property
    def alive_seconds(self) -> float:
        """How many seconds ago the loop last went round, connected or not."""
        return time.monotonic() - self._alive_at

    @property
    def in_flight(self) -> int:
        """How many batches are in flight."""
        return len(self._batches)

    async def status(self) -> list[dict[str, JSON]]:
        """Return what the view `status` says of all that this worker serves.

        Each row has what metrics show besides: partitions, and what was asked for today.
        """
        schema = AsyncSchema(self._database)
        extras = await schema.extras()
        return [
            {**row, **extras.get((row["name"], row["generation"]), {})}
            for row in await schema.status()
            if row["name"] in self._served
        ]

    def stop(self) -> None:
        """Claim nothing more; `run` returns when the batches in flight are done or given back.

        To be called in the worker's event loop.
        """
        self._stopping = True
        self._wake.set()

    async def run(self) -> int:
        """Serve until `stop` is called; then finish, or give back what takes too long.

        Returns how many batches were given back: what they asked of a model may still go on in
        threads, which Python waits for when it exits.

        Lost connections, restarts and failovers of the server are waited for. Raises
        ConfigurationError for what cannot work at all.
        """
        failures = 0
        try:
            while not self._stopping:
                began = self._alive_at = time.monotonic()
                await self._session()
                # Connecting has a back-off of its own; this one is for what fails right after.
                failures = failures + 1 if time.monotonic() - began < _SHORT_SECONDS else 0
                await self._rest(min(_LONGEST_REST, 0.1 * 2**failures) if failures else 0.0)
            log.info("stopping; %d batches in flight", len(self._batches))
        finally:
            self._ready = False
            given_back = await self._finish_batches()
            await self._database.close()
        return given_back

    async def _session(self) -> None:
        """Serve over one connection, until it is lost or the worker stops."""
        try:
            async with AsyncExitStack() as stack:
                probe = await self._connected(stack)
                if probe is None:
                    return
                if self.options.listen is not None:
                    await stack.enter_async_context(
                        listening(self._database, self.options.listen, self._look_now)
                    )
                await stack.enter_async_context(self._schedule.running(self._database, self._names))
                await self._serve(probe)
        except (DatabaseError, NotInstalled) as error:
            self._complaints.say(_DATABASE, str(error))
        finally:
            self._ready = False
            if not self._stopping:
                await self._database.close()

    async def _connected(self, stack: AsyncExitStack) -> Probe | None:
        """Connect, however long that takes; None if the worker is to stop meanwhile."""
        with suppress(_StoppedError):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((DatabaseError, NotInstalled)),
                wait=wait_random_exponential(multiplier=0.1, max=5),
                before_sleep=self._complain,
                sleep=self._sleep,
                reraise=True,
            ):
                with attempt:
                    await self._check()
                    return await stack.enter_async_context(Probe(self._database))
        return None

    async def _check(self) -> None:
        self._alive_at = time.monotonic()
        try:
            await self._database.require_primary()
            await AsyncSchema(self._database).check()
        except (DatabaseError, NotInstalled):
            await self._database.close()  # the next host of the URL may be the right one
            raise

    def _complain(self, state: RetryCallState) -> None:
        if state.outcome is not None:
            self._complaints.say(_DATABASE, str(state.outcome.exception()))

    async def _sleep(self, seconds: float) -> None:
        await self._rest(seconds)
        if self._stopping:
            raise _StoppedError

    async def _rest(self, seconds: float) -> None:
        await rest(self._wake, seconds)
        if not self._stopping:
            self._wake.clear()

    async def _serve(self, probe: Probe) -> None:
        self._survey_at = self._retries_at = self._look_at = float("-inf")
        while not self._stopping:
            now = self._alive_at = time.monotonic()
            if now >= self._survey_at:
                self._renew(await probe.survey())
                await self._clear_unserved()
                self._survey_at = now + _SURVEY_SECONDS
            if now >= self._look_at and len(self._batches) < self.options.concurrency:
                await self._look(probe, now)
            if not self._ready:
                self._ready = True
                self._complaints.over(_DATABASE)
            self._hand_out()
            await self._rest(self._next_at() - time.monotonic())

    def _next_at(self) -> float:
        now = time.monotonic()
        if len(self._batches) >= self.options.concurrency:
            return self._survey_at  # the end of a batch wakes us
        waiting = [s.not_before for s in self._turns if s.has_work and s.not_before > now]
        return min([self._survey_at, self._look_at, *waiting])

    async def _look(self, probe: Probe, now: float) -> None:
        retries = now >= self._retries_at
        if retries:
            self._retries_at = now + _SURVEY_SECONDS
        asked = [served for served in self._turns if served.entry.paused is None]
        seen = await probe.look([served.entry for served in asked], retries=retries)
        for served in asked:
            due = None if seen.due is None else served.entry.name in seen.due
            served.seen(logged=served.entry.name in seen.logged, due=due, asked_at=now)
        ended = time.monotonic()
        if any(served.wants(ended) for served in asked):
            self._found_at = ended
        busy = ended - self._found_at < _LINGER_SECONDS
        pace = self.options.poll_seconds if busy else self.options.idle_seconds
        self._look_at = now + max(pace, (ended - now) * _LOOK_SHARE)

    def _look_now(self) -> None:
        self._look_at = float("-inf")
        self._wake.set()

    def _renew(self, entries: Sequence[Entry]) -> None:
        wanted = {e.name: e for e in entries if self._names is None or e.name in self._names}
        for served in [s for name, s in self._served.items() if name not in wanted]:
            del self._served[served.entry.name]
            self._turns.remove(served)
            self._complaints.forget(served.entry.name)
            log.info("%s: uninstalled", served.entry.name, extra={"vectorizer": served.entry.name})
        for entry in wanted.values():
            if not entry.embeds:
                if self._names is not None:
                    self._complaints.say(
                        entry.name, "hands its rows to a callback: not for a worker"
                    )
            elif entry.name in self._served:
                self._known(self._served[entry.name], entry)
            else:
                self._new(entry)
        for name in (self._names or frozenset()) - wanted.keys():
            self._complaints.say(name, "is not installed; waiting for it")
        for name in self.options.schedules.keys() - wanted.keys() - (self._names or set()):
            self._complaints.say(name, _NO_SUCH_SCHEDULE)
        self._embedders.keep_only(served.entry.embedder for served in self._turns)

    def _known(self, served: Served, entry: Entry) -> None:
        if entry.paused is None and served.entry.paused is not None:
            self._complaints.forget(entry.name)
            log.info("%s: resumed", entry.name, extra={"vectorizer": entry.name})
        elif entry.paused is not None and served.entry.paused is None:
            log.warning(
                "%s: paused: %s", entry.name, entry.paused, extra={"vectorizer": entry.name}
            )
        served.renew(entry)

    def _new(self, entry: Entry) -> None:
        self._complaints.over(entry.name)
        scheduled = entry.name in self.options.schedules
        served = Served(entry, scheduled=scheduled, waits=scheduled)
        served.renew(entry)
        self._served[entry.name] = served
        self._turns.append(served)
        log.info("%s: serving", entry.name, extra={"vectorizer": entry.name})
        if entry.paused is not None:
            log.warning(
                "%s: paused: %s", entry.name, entry.paused, extra={"vectorizer": entry.name}
            )

    def _open_schedule(self, name: str) -> None:
        if name not in self._served:
            self._complaints.say(name, _NO_SUCH_SCHEDULE)
            return
        self._served[name].waits = False
        self._retries_at = float("-inf")
        self._look_now()

    def _hand_out(self) -> None:
        """Begin batches while there is room: those of different vectorizers in turn."""
        now = time.monotonic()
        while (free := self.options.concurrency - len(self._batches)) > 0:
            served = next((s for s in self._turns if s.wants(now) and self._fair(s, free)), None)
            if served is None:
                return
            self._turns.remove(served)
            self._turns.append(served)
            served.running += 1
            served.claiming = batch = asyncio.create_task(self._batch(served))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    def _fair(self, served: Served, free: int) -> bool:
        # The last free place is for a vectorizer that has none, so that a slow one stops nobody.
        return free > 1 or not served.running or len(self._turns) == 1

    async def _batch(self, served: Served) -> None:
        name, this = served.entry.name, asyncio.current_task()
        try:
            rows = await (await self._vectorizer(served)).process()
        except Exception as error:  # noqa: BLE001 - the others are served all the same
            if self._failed(served, error) and isinstance(error, _CANNOT):
                await self._note_unserved(name, str(error))
        else:
            if rows:
                served.finished()
                if time.monotonic() >= served.held_until:
                    self._complaints.over(name)
            elif served.claiming is this:
                served.missed(
                    time.monotonic(), self.options.poll_seconds, self.options.idle_seconds
                )
        finally:
            if served.claiming is this:
                served.claiming = None
            served.running -= 1
            self._wake.set()

    async def _vectorizer(self, served: Served) -> AsyncVectorizer:
        if served.vectorizer is None:
            served.vectorizer = await AsyncVectorizer.connect(
                self._database.url,
                served.entry.name,
                embedder=await self._embedders.get(served.entry.embedder),
                batch_size=self.options.batch_size,
                lease_seconds=self.options.lease_seconds,
                schema=self._database.schema,
                database=self._database,
                observer=partial(self._observe, served),
            )
            served.batch_size = served.vectorizer.batch_size
        return served.vectorizer

    def _observe(self, served: Served, event: Event) -> None:
        if isinstance(event, BatchClaimed):
            served.claimed(event.rows, time.monotonic())
            self._found_at = time.monotonic()
            self._wake.set()
        if self._observer is not None:
            self._observer(event)

    async def _note_unserved(self, name: str, reason: str) -> None:
        with suppress(DatabaseError):  # it is in the log, too
            await AsyncSchema(self._database).note_unserved(name, reason)

    async def _clear_unserved(self) -> None:
        for served in self._turns:
            if served.entry.unserved and served.works:
                await AsyncSchema(self._database).clear_unserved(served.entry.name)

    def _failed(self, served: Served, error: Exception) -> bool:
        """Decide how it goes on after a failure; return whether it was worth a line."""
        name = served.entry.name
        held = error.retry_after if isinstance(error, EmbedderUnavailable) else None
        match error:
            case VectorizerPaused() | NotInstalled() | EmbedderRefused():
                served.vectorizer = None
                self._survey_at = float("-inf")  # it tells the rest
            case EmbedderUnavailable() | DatabaseUnavailable():
                pass
            case ConfigurationError() | ImportError() | DatabaseError():
                served.vectorizer = None
            case _:
                log.error("%s: unexpected error", name, exc_info=error, extra={"vectorizer": name})
        seconds = served.failed(time.monotonic(), held)
        log.debug("%s: next try in %.1f s", name, seconds)
        if isinstance(error, VectorizerPaused):
            return False
        return self._complaints.say(name, f"{error}", logging.WARNING)

    async def _finish_batches(self) -> int:
        """Let what is in flight end, within the grace period; give the rest back."""
        if self._batches:
            await asyncio.wait(self._batches, timeout=self.options.grace_seconds)
        late = set(self._batches)
        if late:
            log.warning("giving back %d batches", len(late))
            for batch in late:
                batch.cancel()
            await asyncio.wait(late, timeout=_GIVE_BACK_SECONDS)
        return len(late)


class _StoppedError(Exception):
    """The worker was stopped while it waited for the database."""
