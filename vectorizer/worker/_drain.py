"""A drain of several vectorizers: batches of each in turn, some of them in flight at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from vectorizer._async.spending import RunBudget
from vectorizer._async.vectorizer import AsyncVectorizer
from vectorizer.batch import Counts
from vectorizer.errors import DatabaseError, VectorizerError
from vectorizer.events import BatchClaimed, Event
from vectorizer.worker._wake import rest

__all__ = ["Drain"]

_Turn: TypeAlias = "asyncio.Task[Counts | float | None]"

# After a batch is given back: how long its own statements may still take.
_GIVE_BACK_SECONDS = 2.0


@dataclass(slots=True)
class _Drained:
    """One vectorizer as the drain sees it.

    claiming: its turn that has not claimed its batch yet; one at a time. more: whether another
    claim is worth while before all its batches are done: not after one that found little.
    rests_until: others hold what is left until then, or longer.
    """

    vectorizer: AsyncVectorizer
    counts: Counts = field(default_factory=Counts)
    claiming: _Turn | None = None
    running: int = 0
    more: bool = False
    rests_until: float = float("-inf")

    def wants(self, now: float) -> bool:
        """Whether a turn may begin now."""
        return self.claiming is None and (self.more or not self.running) and now >= self.rests_until

    def note(self, done: Counts | float) -> None:
        """Take note of how a turn has ended."""
        if isinstance(done, Counts):
            self.counts.add(done)
            self.more, self.rests_until = True, float("-inf")  # what was held may be free now
        else:
            self.more, self.rests_until = False, time.monotonic() + done


class Drain:
    """Drains vectorizers in turns, so that a large backlog of one does not hold up the others.

    concurrency: batches in flight at once, over all. While the model works on a batch, the next
    one is claimed, read and cut, and the one before is written.

    counts: what was done so far, errors: what ended a drain early, both by name. A vectorizer is
    made with `observe` as its observer, and then added.
    """

    def __init__(self, *, concurrency: int) -> None:
        self.counts: dict[str, Counts] = {}
        self.errors: dict[str, VectorizerError] = {}
        self._concurrency = concurrency
        self._left: deque[_Drained] = deque()
        self._turns: dict[_Turn, _Drained] = {}
        self._budget: RunBudget | None = None
        self._wake = asyncio.Event()

    def add(self, vectorizer: AsyncVectorizer) -> None:
        """Take in one more to be drained."""
        drained = _Drained(vectorizer)
        self.counts[vectorizer.name] = drained.counts
        self._left.append(drained)

    def observe(self, event: Event) -> None:
        """Take note that a batch was claimed: the next turn may begin."""
        if isinstance(event, BatchClaimed):
            for drained in self._left:
                if drained.vectorizer.name == event.vectorizer:
                    drained.claiming = None
                    drained.more = event.rows >= drained.vectorizer.batch_size
            self._wake.set()

    async def run(
        self,
        progress: Callable[[str, Counts], None] | None = None,
        *,
        max_rows: int | None = None,
        max_seconds: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Drain them all; `progress` is called with name and counts after each batch.

        After `max_rows` rows in all, or `max_seconds` seconds, no further batch is begun; no more
        than `max_tokens` tokens are sent to models in all. What ends one drain early is noted in
        `errors`, and the others go on. Raises DatabaseError, which ends all of them. When it is
        cancelled what is in flight is given back.
        """
        self._budget = None if max_tokens is None else RunBudget(max_tokens)
        most = float("inf") if max_rows is None else max_rows
        ends_at = float("inf") if max_seconds is None else time.monotonic() + max_seconds
        try:
            while (seconds := self._begin(most, ends_at)) is not None:
                await self._rest(seconds)
                for turn in [turn for turn in self._turns if turn.done()]:
                    self._end(turn, progress)
        finally:
            await self._give_back()

    def _begin(self, most: float, ends_at: float) -> float | None:
        """Begin what turns there is room for.

        Returns after how many seconds another may begin, if none ends before; None if nothing is
        left to wait for.
        """
        now = time.monotonic()
        while now < ends_at and self._rows < most and len(self._turns) < self._concurrency:
            drained = next((one for one in self._left if one.wants(now)), None)
            if drained is None:
                rests = [one.rests_until - now for one in self._left if not one.running]
                return min(rests, default=float("inf")) if self._turns or rests else None
            self._left.remove(drained)
            self._left.append(drained)
            self._turn(drained)
        return float("inf") if self._turns else None

    @property
    def _rows(self) -> int:
        """How many rows are done, and will be if the batches in flight are full."""
        done = sum(counts.rows for counts in self.counts.values())
        return done + sum(drained.vectorizer.batch_size for drained in self._turns.values())

    def _turn(self, drained: _Drained) -> None:
        drained.claiming = turn = asyncio.create_task(drained.vectorizer.turn(self._budget))
        drained.running += 1
        self._turns[turn] = drained
        turn.add_done_callback(lambda _: self._wake.set())

    async def _rest(self, seconds: float) -> None:
        """Wait until a turn has claimed its batch or ended, or that time is over."""
        await rest(self._wake, seconds)
        self._wake.clear()

    def _end(self, turn: _Turn, progress: Callable[[str, Counts], None] | None) -> None:
        drained = self._turns.pop(turn)
        drained.running -= 1
        if drained.claiming is turn:
            drained.claiming = None
        try:
            done = turn.result()
        except DatabaseError:
            raise
        except VectorizerError as error:
            self.errors.setdefault(drained.vectorizer.name, error)
            done = None
        if done is not None:
            drained.note(done)
        elif drained in self._left:
            self._left.remove(drained)
        if isinstance(done, Counts) and progress is not None:
            progress(drained.vectorizer.name, drained.counts)

    async def _give_back(self) -> None:
        for turn in self._turns:
            turn.cancel()
        with suppress(asyncio.TimeoutError):
            ended = asyncio.gather(*self._turns, return_exceptions=True)
            await asyncio.wait_for(ended, _GIVE_BACK_SECONDS)
