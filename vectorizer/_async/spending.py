"""What a generation need not pay for, what it may pay for, and what it has paid for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from vectorizer._async.database import AsyncDatabase
from vectorizer.batch import Batch, Spent
from vectorizer.definition import Definition, Installation, Relation
from vectorizer.errors import BudgetExhausted, EmbedderUnavailable
from vectorizer.packing import field
from vectorizer.statements import Statements

__all__ = ["AsyncPurse", "AsyncSpending", "ProviderHeld", "Restraint", "RunBudget"]

# A provider may ask for any pause; nobody is held up longer than this many seconds at once.
_LONGEST_HOLD = 3600.0


class ProviderHeld(EmbedderUnavailable):
    """The provider asked for a pause before: it was not asked now."""


class RunBudget:
    """How many tokens a run may still send, and whose rows had to go without.

    Their drains end, when what there were tokens for is written.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._short: set[str] = set()

    def take(self, wanted: int) -> int:
        """Take tokens out, or put them back if negative; return how many of them there were."""
        granted = min(wanted, self._tokens)
        self._tokens -= granted
        return granted

    def fell_short(self, name: str) -> None:
        """Note that a batch of this vectorizer needed more than there was."""
        self._short.add(name)

    def check(self, name: str) -> None:
        """Raise BudgetExhausted if there was too little for this vectorizer."""
        if name in self._short:
            raise BudgetExhausted(
                "this run has sent as many tokens as it may; the rows that are left wait for the "
                "next one"
            )


@dataclass(frozen=True, slots=True)
class Restraint:
    """Why a model is not to be asked now.

    held: its provider asked for a pause, of which `seconds` are left; or the budget of the day is
    used up.
    """

    held: ProviderHeld | None = None
    seconds: float = 0.0


class AsyncSpending:
    """Looks up what was paid for before, keeps to the budget, and keeps accounts.

    reuse: storage of another generation with the same model, whose vectors will do.
    """

    def __init__(
        self, database: AsyncDatabase, installation: Installation, reuse: Relation | None
    ) -> None:
        self._database = database
        self._vectorizer = installation.id
        self.name = installation.name
        self._statements = Statements(database.schema, installation, reuse)
        self._reuses = reuse is not None
        definition = installation.definition
        self.limited = definition.max_tokens_per_day is not None
        self._space = _space(definition) if definition.cache else None

    async def known(self, batch: Batch, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return vectors of texts that were embedded before, as fields of COPY, by their hash."""
        if not hashes or not (self._reuses or self._space is not None):
            return {}
        found: dict[bytes, bytes] = {}
        async with self._database.transaction(pinned_plans=True) as connection:
            if self._reuses:
                found |= await self._vectors(connection, "reuse_vectors", hashes, token=batch.token)
            if self._space is not None:
                missing = [content for content in hashes if content not in found]
                found |= await self._vectors(
                    connection, "cached_vectors", missing, space=self._space
                )
        return found

    async def _vectors(
        self,
        connection: psycopg.AsyncConnection[Any],
        statement: str,
        hashes: Sequence[bytes],
        **parameters: Any,
    ) -> dict[bytes, bytes]:
        rows = await connection.execute(
            self._statements[statement], {"hashes": list(hashes), **parameters}, binary=True
        )
        return {content: field(vector) for content, vector in await rows.fetchall()}

    async def take(self, tokens: int) -> tuple[int, float]:
        """Take tokens out of today's budget; return how many there were, and the seconds left."""
        async with self._database.transaction() as connection:
            taken = await connection.execute(
                self._statements["take_tokens"],
                {"vectorizer": self._vectorizer, "tokens": tokens},
            )
            granted, seconds = await taken.fetchone() or (0, 0.0)
        return int(granted), float(seconds)

    async def record(self, connection: psycopg.AsyncConnection[Any], spent: Spent) -> None:
        """Note what a batch cost, and keep its vectors if that is wanted; in its transaction."""
        if self._space is not None and spent.vectors:
            await connection.execute(
                self._statements["cache_vectors"],
                {
                    "space": self._space,
                    "hashes": list(spent.vectors),
                    # Without the length that makes a field of it.
                    "vectors": [vector[4:] for vector in spent.vectors.values()],
                },
            )
        if spent.texts_asked:
            await connection.execute(
                self._statements["add_usage"],
                {
                    "vectorizer": self._vectorizer,
                    "requests": spent.requests,
                    "texts_asked": spent.texts_asked,
                    "texts_sent": spent.texts_sent,
                    "tokens_asked": spent.tokens_asked,
                    # A budget has booked them before they were sent.
                    "tokens_sent": 0 if self.limited else spent.tokens_sent,
                },
            )

    async def hold(self, error: EmbedderUnavailable) -> None:
        """Let no worker send anything to this provider for as long as it asked for."""
        if error.retry_after is None or error.retry_after <= 0:
            return
        async with self._database.transaction() as connection:
            await connection.execute(
                self._statements["hold_provider"],
                {
                    "vectorizer": self._vectorizer,
                    "seconds": min(error.retry_after, _LONGEST_HOLD),
                    "reason": str(error),
                },
            )

    async def restraint(self) -> Restraint | None:
        """Return why the model is not to be asked now; None if it may be."""
        async with self._database.transaction() as connection:
            found = await connection.execute(
                self._statements["find_restraint"], {"vectorizer": self._vectorizer}
            )
            seconds, until, reason, spent = await found.fetchone() or (None, "", "", False)
        if seconds is None:
            return Restraint() if spent else None
        held = ProviderHeld(
            f"vectorizer {self.name}: the provider asked for a pause until {until} UTC: {reason}",
            retry_after=seconds,
        )
        return Restraint(held, seconds)


class AsyncPurse:
    """What one batch may use of the spending of its generation, and of the budget of its run."""

    def __init__(
        self, spending: AsyncSpending, batch: Batch, budget: RunBudget | None = None
    ) -> None:
        self._spending = spending
        self._batch = batch
        self._budget = budget
        self._held = batch.held_seconds > 0
        self.limited = spending.limited or budget is not None or self._held
        self.release_seconds = 0.0
        """How long rows have to wait whose texts may not be sent now."""

    async def known(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return vectors of texts that were embedded before, as fields of COPY, by their hash."""
        return await self._spending.known(self._batch, hashes)

    async def take(self, tokens: int) -> int:
        """Take tokens out of the budgets; return how many of them may be sent."""
        if self._held:
            self.release_seconds = self._batch.held_seconds
            return 0
        of_run = tokens if self._budget is None else self._budget.take(tokens)
        granted = of_run
        if self._spending.limited:
            granted, seconds = await self._spending.take(of_run)
            if granted < of_run:
                self.release_seconds = seconds
                if self._budget is not None:
                    self._budget.take(granted - of_run)
        if self._budget is not None and granted == of_run < tokens:
            self._budget.fell_short(self._spending.name)
        return granted

    async def give_back(self, tokens: int) -> None:
        """Put back tokens that were taken and not sent."""
        if not tokens:
            return
        if self._budget is not None:
            self._budget.take(-tokens)
        if self._spending.limited:
            await self._spending.take(-tokens)


def _space(definition: Definition) -> int:
    """Return a number for all that decides which vector a text gets: model and parameters."""
    embedder = {
        name: value
        for name, value in definition.embedder.items()
        if name in {"provider", "model", "dimensions", "base_url"}
    }
    parts = [embedder, definition.model, definition.dimensions, definition.vectors]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
