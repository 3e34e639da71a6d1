"""The generations of a vectorizer side by side: the one that serves, and others kept in step."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from vectorizer._async.database import AsyncDatabase
from vectorizer._async.generation import AsyncGeneration
from vectorizer._async.schema import AsyncSchema
from vectorizer._async.spending import ProviderHeld, RunBudget
from vectorizer._async.vector_index import ensure_index
from vectorizer.batch import Counts
from vectorizer.concurrency import call_async
from vectorizer.database_errors import is_conflict, is_drift
from vectorizer.definition import Definition, Installation, Relation
from vectorizer.embedders import create
from vectorizer.errors import (
    ConfigurationError,
    DatabaseError,
    DimensionMismatch,
    EmbedderError,
    VectorizerError,
    VectorizerPaused,
)
from vectorizer.events import Observer, recorded, stage
from vectorizer.search import Filter, SearchResult
from vectorizer.types import JSON, Embedder
from vectorizer.unwritten import UnwrittenVectors

__all__ = ["AsyncGenerations", "check_embedder", "reusable"]

log = logging.getLogger("vectorizer")

# Others may add, switch or drop generations: they are looked up again after so many seconds.
_LOOK_UP_SECONDS = 5.0
# A generation that catches up is asked so often whether it may serve: seconds.
_SWITCH_SECONDS = 1.0


class AsyncGenerations:
    """Gives the generations of one vectorizer turns at processing, and searches one of them.

    embedder: of the generation with its model; the others make theirs from the registry.
    observer: told what happens to each batch.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        schema: AsyncSchema,
        name: str,
        embedder: Embedder,
        *,
        lease_seconds: float,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._database = database
        self._schema = schema
        self._name = name
        self._embedders = [embedder]
        self._lease_seconds = lease_seconds
        # What is paid for and not written outlives the pipeline, which is often made anew.
        self._unwritten: dict[int, UnwrittenVectors] = {}
        self._known: list[AsyncGeneration] = []
        self._looked_up_at = float("-inf")
        self._switch_at = float("-inf")
        self._turn = 0

    def forget(self) -> None:
        """Look everything up again at the next use."""
        self._known = []
        self._looked_up_at = float("-inf")

    async def process(self, rows: int, budget: RunBudget | None = None) -> Counts | None:
        """Process one batch of up to `rows` rows; None only if nothing was claimable.

        Errors of the serving generation are raised. Another one that fails leaves its turn to
        the rest, and its error is raised when nothing else is left to do. So does the serving one
        in a pause of its provider: the others may have another.
        """
        failure: VectorizerError | None = None
        for generation in self._in_turn(await self._ready()):
            try:
                counts = await self._process(generation, rows, budget)
            except ProviderHeld as error:
                one = generation.installation
                failure = failure or (error if one.serving or one.takes_over else None)
                continue
            except (EmbedderError, VectorizerPaused) as error:
                if generation.installation.serving:
                    raise
                log.warning("%s: %s", generation.installation, error)
                failure = failure or (error if generation.installation.takes_over else None)
                continue
            if counts is not None:
                return counts
        # Where another one serves since a moment, it does not matter what became of the old one.
        if failure is not None and self._known:
            raise failure
        return None

    def _in_turn(self, generations: Sequence[AsyncGeneration]) -> list[AsyncGeneration]:
        self._turn += 1
        first = self._turn % len(generations)
        return [*generations[first:], *generations[:first]]

    async def _process(
        self, generation: AsyncGeneration, rows: int, budget: RunBudget | None
    ) -> Counts | None:
        counts = None
        with recorded(self._observer, self._name) as record:
            with stage("claim"):
                batch = await generation.claim(rows)
            if batch is not None:
                record.claimed(batch)
                counts = record.finished(await generation.process(batch, budget))
        if generation.installation.takes_over:
            await self._take_over(generation, at_once=batch is None)
        return counts

    async def _take_over(self, generation: AsyncGeneration, *, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now < self._switch_at:
            return
        self._switch_at = now + _SWITCH_SECONDS
        try:
            await ensure_index(self._database, generation.installation)
            switched = await self._schema.switch_when_caught_up(generation.installation.id)
        except DatabaseError as error:
            if not is_conflict(error):
                raise
            return  # a reader holds the view; next time, then
        if switched:
            log.info("%s serves now", generation.installation)
            self.forget()

    async def sync(
        self, keys: Sequence[Mapping[str, JSON]], rows: int
    ) -> AsyncIterator[Counts | None]:
        """Bring the rows of these keys in step with every generation, `rows` at once.

        Yields what was done, and None while others hold some of them.
        """
        for generation in await self._ready():
            for start in range(0, len(keys), rows):
                async for counts in generation.sync(keys[start : start + rows]):
                    yield counts

    async def in_flight_seconds(self) -> float | None:
        """Return for how many seconds others may hold work; None if they hold none."""
        found = [
            await generation.queue.in_flight_seconds()
            for generation in await self._ready()
            if generation.installation.paused_reason is None
        ]
        return min((seconds for seconds in found if seconds is not None), default=None)

    async def ensure_indexes(self) -> None:
        """Build what indexes are missing, now that nothing else is to be done."""
        for generation in await self._ready():
            await ensure_index(self._database, generation.installation)

    async def search(
        self,
        query: str,
        *,
        limit: int,
        filter: Filter | None,  # noqa: A002 - the public name
    ) -> list[SearchResult]:
        """Search the generation that serves now, with the vector its own model makes."""
        try:
            generation = await self._serving()
            return await generation.search.search(query, limit=limit, filter=filter)
        except DatabaseError as error:
            if not is_drift(error):
                raise
        # It was dropped after we had looked.
        self.forget()
        generation = await self._serving()
        return await generation.search.search(query, limit=limit, filter=filter)

    async def _serving(self) -> AsyncGeneration:
        known = await self._ready()
        if await self._schema.serving(self._name) != known[0].installation.id:
            self.forget()
            known = await self._ready()
        return known[0]

    async def check(self) -> None:
        """Raise SchemaVersionError or NotInstalled if this program cannot use the database.

        Looks only where nothing has been looked up yet.
        """
        if not self._known:
            await self._schema.check()

    async def _ready(self) -> list[AsyncGeneration]:
        now = time.monotonic()
        await self.check()
        if not self._known or now - self._looked_up_at > _LOOK_UP_SECONDS:
            installations = await self._schema.generations(self._name)
            check_embedder(installations, self._embedders[0])
            self._known = [
                self._kept(one) or await self._made(one, reusable(one, installations))
                for one in installations
            ]
            self._looked_up_at = now
        return self._known

    def _kept(self, installation: Installation) -> AsyncGeneration | None:
        known = (one for one in self._known if one.installation == installation)
        return next(known, None)

    async def _made(self, installation: Installation, reuse: Relation | None) -> AsyncGeneration:
        return AsyncGeneration(
            self._database,
            installation,
            await self.embedder(installation),
            self._unwritten.setdefault(installation.id, UnwrittenVectors()),
            reuse,
            self._lease_seconds,
        )

    async def embedder(self, installation: Installation) -> Embedder:
        """Return the embedder of a generation: ours if it fits, else one from the registry."""
        for embedder in self._embedders:
            if _fits(installation.definition, embedder):
                return embedder
        # Loading a model may take seconds.
        made = await call_async(create, installation.definition.embedder)
        self._embedders.append(made)
        return made


def _fits(definition: Definition, embedder: Embedder) -> bool:
    return (definition.model, definition.dimensions) == (embedder.model, embedder.dimensions)


def reusable(wanted: Installation, installations: Sequence[Installation]) -> Relation | None:
    """Return where vectors of the same model stand already, for a generation that is building."""
    if not wanted.takes_over:
        return None
    for one in installations:
        same = (one.definition.embedder, one.definition.model, one.definition.dimensions) == (
            wanted.definition.embedder,
            wanted.definition.model,
            wanted.definition.dimensions,
        )
        if one is not wanted and same:
            return one.storage
    return None


def check_embedder(installations: Sequence[Installation], embedder: Embedder) -> None:
    """Raise DimensionMismatch or ConfigurationError unless one generation is by this model."""
    if any(_fits(installation.definition, embedder) for installation in installations):
        return
    serving = installations[0]
    definition = serving.definition
    if definition.dimensions != embedder.dimensions:
        raise DimensionMismatch(
            f"vectorizer {serving.name}: {serving.destination} holds vectors of "
            f"{definition.dimensions} dimensions by {definition.model}, but {embedder.model} makes "
            f"{embedder.dimensions}; use that model, or change the vectorizer to this one: "
            f"install(change=True)"
        )
    raise ConfigurationError(
        f"vectorizer {serving.name}: {serving.destination} holds vectors by "
        f"{definition.model}, which cannot be mixed with those by {embedder.model}; use that "
        f"model, or change the vectorizer to this one: install(change=True)"
    )
