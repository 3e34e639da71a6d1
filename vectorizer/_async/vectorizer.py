"""A vectorizer as the user holds it: install, run, search."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from typing_extensions import Self, Unpack

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.generations import AsyncGenerations, check_embedder, reusable
from vectorizer._async.planner import AsyncPlanner
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.spending import RunBudget
from vectorizer._async.upkeep import AsyncUpkeep
from vectorizer._async.verify import AsyncVerifier
from vectorizer.batch import Counts
from vectorizer.concurrency import call_async, sleep_async
from vectorizer.database_errors import is_drift
from vectorizer.definition import Definition, Installation, Options
from vectorizer.embedders import create, describe
from vectorizer.errors import (
    ConfigurationError,
    DatabaseError,
    SourceError,
    SyncTimeout,
    VectorizerPaused,
)
from vectorizer.events import Observer
from vectorizer.keys import named_keys
from vectorizer.limits import batch_rows
from vectorizer.naming import default_name
from vectorizer.plan import Change, Plan, action_of, least_seconds, scaled
from vectorizer.prices import Terms, terms_of
from vectorizer.search import Filter, SearchResult
from vectorizer.types import JSON, Embedder
from vectorizer.verification import Verification

__all__ = ["AsyncVectorizer"]

log = logging.getLogger("vectorizer")

# How often a drain that waits for the batches of others looks whether they are finished: seconds.
_POLL_SECONDS = 0.2
# The same, while `sync` waits for single rows.
_HELD_SECONDS = 0.02


class AsyncVectorizer:
    """Keeps the embeddings of one table in step with it.

    url: libpq connection string; table_name, schema_name: the source table.
    name: of this vectorizer, by default made from the table's.
    embedder: turns texts into vectors; see `vectorizer.types.Embedder`.
    options: what is embedded and how, see `vectorizer.definition.Options`; `chunk_column` is
        required.
    batch_size: rows claimed at once, see `vectorizer.limits.batch_rows` for what they are by
        default; lease_seconds: how long a batch stays claimed after the
        last sign of life of its worker. schema: where our own tables live.
    observer: told what happens to each batch, see `vectorizer.events`.

    Nothing is done before a method is called. Methods raise errors of `vectorizer.errors`:
    ConfigurationError and its kin for what the user must mend, DatabaseUnavailable, and
    NotInstalled where `install` has to come first.
    """

    def __init__(
        self,
        url: str,
        table_name: str,
        *,
        schema_name: str = "public",
        name: str | None = None,
        embedder: Embedder,
        batch_size: int | None = None,
        lease_seconds: float = 30.0,
        schema: str = "vectorizer",
        observer: Observer | None = None,
        **options: Unpack[Options],
    ) -> None:
        if not isinstance(embedder, Embedder):
            raise ConfigurationError(
                f"embedder {embedder!r} lacks model, dimensions or embed: see vectorizer.Embedder"
            )
        definition = Definition.parse(
            {
                **options,
                "embedder": describe(embedder),
                "model": embedder.model,
                "dimensions": embedder.dimensions,
            }
        )
        if definition.chunk_column is None:
            raise ConfigurationError("chunk_column is missing: name the column that is embedded")
        self._set(
            AsyncDatabase(url, schema=schema, silence_seconds=lease_seconds),
            name or default_name(schema_name, table_name),
            embedder,
            batch_size=batch_size,
            lease_seconds=lease_seconds,
            observer=observer,
        )
        self._source = (schema_name, table_name)
        self._definition: Definition | None = definition

    def _set(
        self,
        database: AsyncDatabase,
        name: str,
        embedder: Embedder,
        *,
        batch_size: int | None,
        lease_seconds: float,
        observer: Observer | None,
        shared: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ConfigurationError(f"batch_size must be 1 or more, got {batch_size}")
        if lease_seconds <= 0:
            raise ConfigurationError(f"lease_seconds must be more than 0, got {lease_seconds}")
        self.name = name
        self.embedder = embedder
        self._database = database
        self._schema = AsyncSchema(database)
        self._upkeep = AsyncUpkeep(database)
        self.batch_size = batch_rows(embedder) if batch_size is None else batch_size
        self._lease_seconds = lease_seconds
        self._shared = shared
        self._generations = AsyncGenerations(
            database, self._schema, name, embedder, lease_seconds=lease_seconds, observer=observer
        )

    @classmethod
    async def connect(
        cls,
        url: str,
        name: str,
        *,
        embedder: Embedder | None = None,
        batch_size: int | None = None,
        lease_seconds: float = 30.0,
        schema: str = "vectorizer",
        database: AsyncDatabase | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Return the vectorizer that is installed under a name, with nothing but the database.

        The embedder is made from the configuration in the registry unless one is given.
        database: a pool to share with others instead of one for `url`; it is not closed by us.
        observer: told what happens to each batch, see `vectorizer.events`.
        Raises NotInstalled, or ConfigurationError if the embedder cannot be made.
        """
        shared = database is not None
        database = database or AsyncDatabase(url, schema=schema, silence_seconds=lease_seconds)
        try:
            found = AsyncSchema(database)
            await found.check()
            installation = await found.find(name)
            if embedder is None:
                embedder = await call_async(create, installation.definition.embedder)
        finally:
            if not shared:
                await database.close()
        self = cls.__new__(cls)
        self._set(
            database,
            name,
            embedder,
            batch_size=batch_size,
            lease_seconds=lease_seconds,
            observer=observer,
            shared=shared,
        )
        self._source = (installation.source.schema, installation.source.name)
        self._definition = None
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; they are opened again when needed."""
        if not self._shared:
            await self._database.close()

    async def install(self, *, change: bool = False) -> None:
        """Attach to the table: capture, queue, destination, and a backfill of what is there.

        Takes well under a second whatever the size of the table. Installing again, also from
        several processes at once, changes nothing.

        change: give a vectorizer that is installed with another definition this one. Metadata,
        time column, predicate, destination and the embedder's options change in place, without
        embedding any text again. A new model, template or chunking is embedded as a new
        generation beside the old one, which serves until the new one has caught up.

        Raises SourceError, ConfigurationError, AlreadyInstalled, DimensionMismatch or
        ExtensionMissing; nothing is changed then.
        """
        if self._definition is None:
            return
        if not change and await self._schema.installed(self.name):
            check_embedder(await self._schema.generations(self.name), self.embedder)
        await self._schema.install(self.name, *self._source, self._definition, change=change)
        self._generations.forget()

    async def plan(
        self,
        *,
        sample: int = 10_000,
        price: float | None = None,
        tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
    ) -> Plan:
        """Count what installing, changing or running this vectorizer would send to the model.

        Nothing is changed and nothing is sent. sample: of a larger source only about so many
        rows are read, and the numbers extrapolated. price: dollars a million tokens, and the
        provider's limits in a minute; for OpenAI's own models they are known, see
        `vectorizer.prices`.

        Raises what `install` raises.
        """
        wanted, before, changes = await self._wanted()
        terms = terms_of(wanted.definition.embedder)
        installed = any(one.id == wanted.id for one in before)
        known = wanted.storage if installed else reusable(wanted, before)
        wanted = wanted if installed else replace(wanted, joined_view=None)
        tally, read, total = await AsyncPlanner(
            self._database, wanted, await self._generations.embedder(wanted), known
        ).count(sample)
        tally = scaled(tally, read, total)
        terms = Terms(
            terms.price if price is None else price,
            tokens_per_minute or terms.tokens_per_minute,
            requests_per_minute or terms.requests_per_minute,
        )
        return Plan(
            name=self.name,
            source=str(wanted.source),
            model=str(wanted.definition.model),
            action=action_of(changes, installed=bool(before)),
            changes=tuple(changes),
            rows_total=total,
            rows_read=read,
            rows=tally.rows,
            chunks=tally.chunks,
            tokens=tally.tokens,
            texts_to_send=tally.texts_to_send,
            tokens_to_send=tally.tokens_to_send,
            requests=tally.requests,
            rows_failing=tally.too_long,
            price=terms.price,
            seconds=least_seconds(tally, terms),
        )

    async def _wanted(self) -> tuple[Installation, list[Installation], list[Change]]:
        if self._definition is not None:
            return await self._schema.preview(self.name, *self._source, self._definition)
        await self._schema.check()
        generations = await self._schema.generations(self.name)
        building = [one for one in generations if one.takes_over]
        return (building or generations)[0], generations, []

    async def install_script(self, *, change: bool = False) -> str:
        """Return the SQL by which `install` attaches to the table, for a migration tool.

        It does not hold what brings our own schema up to date: see `vectorizer sql migrate`.
        """
        if self._definition is None:
            raise ConfigurationError(f"vectorizer {self.name} is installed already")
        script: list[str] = []
        schema = AsyncSchema(self._database, script=script)
        await schema.install(self.name, *self._source, self._definition, change=change)
        return "\n".join(script)

    async def uninstall(self, *, drop_embeddings: bool = False) -> None:
        """Detach from the table. The embeddings stay unless `drop_embeddings` is true.

        Raises NotInstalled if it is not installed.
        """
        await self._schema.check()
        await self._schema.uninstall(self.name, drop_embeddings=drop_embeddings)
        self._generations.forget()

    async def process(self) -> int:
        """Process one batch; return its number of rows, 0 only if nothing was claimable."""
        counts = await self._process()
        return 0 if counts is None else counts.rows

    async def run(
        self,
        progress: Callable[[Counts], None] | None = None,
        *,
        max_tokens: int | None = None,
    ) -> Counts:
        """Drain the queue and the backfill, one batch after the other; return what was done.

        (`vectorizer run` and the worker have several in flight.) Waits for batches that other
        workers hold, and takes them over when such a worker has vanished. `progress` is called
        after each batch with the counts so far. With `max_tokens` no more than so many are sent
        to the model.

        Raises EmbedderUnavailable if the provider does not answer (the rows wait, no attempt
        is counted), EmbedderRefused if it will not (the vectorizer is paused with the reason),
        VectorizerPaused if it is paused, BudgetExhausted when `max_tokens` are sent and there
        is more to do.
        """
        self._generations.forget()  # somebody may have changed the installation since
        self._upkeep = AsyncUpkeep(self._database)
        total = Counts()
        budget = None if max_tokens is None else RunBudget(max_tokens)
        while (turn := await self.turn(budget)) is not None:
            if isinstance(turn, Counts):
                total.add(turn)
                if progress is not None:
                    progress(total)
            else:
                await sleep_async(turn)
        return total

    async def turn(self, budget: RunBudget | None = None) -> Counts | float | None:
        """Take one turn of a drain: one batch, and whatever upkeep is due.

        budget: what this drain may still send to the model.

        Returns what was done; the number of seconds after which another turn makes sense, while
        other workers hold all that is left; or None if nothing is left. Raises as `run` does.
        """
        if budget is not None:
            budget.check(self.name)
        await self._generations.check()
        await self._upkeep.look([self.name])
        counts = await self._process(budget)
        if counts is not None:
            return counts
        seconds = await self._generations.in_flight_seconds()
        if seconds is None:
            await self._upkeep.run_due([self.name])
            await self._generations.ensure_indexes()
            await self._schema.clear_unserved(self.name)
            return None
        return min(max(seconds, 0.0), _POLL_SECONDS)

    async def sync(self, keys: Iterable[Any], *, timeout: float = 60.0) -> Counts:
        """Bring these rows in step now, in this process, whether they changed or not.

        For ETL code that has just written them: no other worker has to run. keys: values of the
        key column; tuples, or mappings by column name, where the key has several. Rows another
        worker holds are waited for, at most `timeout` seconds. Text that did not change is not
        sent to the model. Rows that fail are counted, and tried again by whoever runs next.

        Raises ConfigurationError for keys of another form, SyncTimeout, BudgetExhausted if
        `max_tokens_per_day` was not enough for all of them, and what `run` raises.
        """
        await self._generations.check()
        installation = (await self._schema.generations(self.name))[0]
        named = named_keys(keys, [column.column for column in installation.key])
        deadline = time.monotonic() + timeout
        total = Counts()
        async for counts in self._generations.sync(named, self.batch_size):
            if counts is not None:
                total.add(counts)
            elif time.monotonic() > deadline:
                raise SyncTimeout(
                    f"vectorizer {self.name}: other workers held rows for more than {timeout} s; "
                    f"see: vectorizer status {self.name}"
                )
            else:
                await sleep_async(_HELD_SECONDS)
        return total

    async def search(
        self,
        query: str,
        *,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word timescale_vector's users know
    ) -> list[SearchResult]:
        """Return the chunks whose meaning is nearest to the query, nearest first.

        filter: metadata that must match, or a list of such mappings of which any may match.
        """
        return await self._generations.search(query, limit=limit, filter=filter)

    async def verify(self, *, repair: bool = False, rows: int = 10_000) -> Verification:
        """Compare every source row with what is embedded of it; `report.ok` tells the result.

        Works on the data itself, in ranges of `rows` keys, while writers and workers go on:
        what waits in the queue is counted as pending, not as a defect. With `repair`, exactly
        the defective keys are queued; `run` then mends them. Dead letters stay dead.
        """
        await self._schema.check()
        installation = await self._schema.find(self.name)
        return await AsyncVerifier(self._database, installation).verify(repair=repair, rows=rows)

    async def wait_for_sync(self, timeout: float = 60.0) -> None:
        """Wait, at most `timeout` seconds, until all that is committed now can be searched.

        Some worker has to be running. Raises SyncFailed at once, naming keys, for a new dead
        letter or a pause, and SyncTimeout after the time.
        """
        await self._schema.check()
        await self._schema.wait_for_sync(self.name, timeout)

    async def pause(self, reason: str = "paused by hand", *, discard: bool = False) -> None:
        """Stop embedding; changes go on being captured.

        With `discard` they are not, and the log is emptied: nothing grows on disk, and
        `resume` compares every row.
        """
        await self._schema.pause(self.name, reason, discard=discard)

    async def suspend(self) -> None:
        """Take the triggers off for a migration of the source table; `resume` puts them back."""
        await self._schema.suspend(self.name)

    async def resume(self) -> None:
        """Go on after `pause` or `suspend`; text that did not change is not embedded again."""
        await self._schema.resume(self.name)
        self._generations.forget()

    async def retry(self, keys: Sequence[Mapping[str, JSON]] | None = None) -> int:
        """Give dead letters another life: those with these keys, or all. Return how many."""
        return await self._schema.retry(self.name, keys)

    async def collapse(self) -> int:
        """Shrink a log that nobody drained to one entry a row; return how many entries went.

        Nothing is lost, and writers go on meanwhile.
        """
        await self._schema.check()
        return await self._schema.collapse(self.name)

    async def status(self) -> dict[str, JSON]:
        """Return the row of the view `vectorizer.status` for this vectorizer."""
        await self._schema.check()
        for status in await self._schema.status(self.name):
            return status
        await self._schema.find(self.name)
        raise AssertionError("unreachable: what is installed has a status")

    async def dead_letters(self) -> list[dict[str, JSON]]:
        """Return the rows that were given up, with key, attempts and error."""
        await self._schema.check()
        return await self._schema.dead_letters(self.name)

    async def switch(self, generation: int | None = None, *, force: bool = False) -> int:
        """Let readers see another generation, by default the newest; return its number.

        A new generation takes over by itself when it has caught up; this is the way back while
        the old one is kept. Raises NotCaughtUp unless it is in step with the table, or forced.
        """
        self._generations.forget()
        return await self._schema.switch(self.name, generation, force=force)

    async def drop_generation(self, generation: int) -> None:
        """Drop a generation that readers do not see: its storage, its queue, its capture."""
        self._generations.forget()
        await self._schema.drop_generation(self.name, generation)

    async def _process(self, budget: RunBudget | None = None) -> Counts | None:
        try:
            return await self._generations.process(self.batch_size, budget)
        except VectorizerPaused:
            self._generations.forget()  # it may be resumed by the next time
            raise
        except DatabaseError as error:
            if not is_drift(error):
                raise
        # The source was changed under us: look its names up again.
        self._generations.forget()
        try:
            return await self._generations.process(self.batch_size, budget)
        except (DatabaseError, SourceError) as error:
            if isinstance(error, DatabaseError) and not is_drift(error):
                raise
            await self._schema.pause(self.name, str(error))
            raise VectorizerPaused(f"vectorizer {self.name} is paused now: {error}") from error
