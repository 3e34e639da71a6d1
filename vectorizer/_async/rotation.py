"""Several vectorizers drained together: a batch of each, round and round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vectorizer._async.vectorizer import AsyncVectorizer
from vectorizer.batch import Counts
from vectorizer.concurrency import sleep_async
from vectorizer.errors import DatabaseError, VectorizerError

__all__ = ["AsyncRotation"]


class AsyncRotation:
    """Drains vectorizers in turns, so that a large backlog of one does not hold up the others.

    counts: what was done so far, errors: what ended a drain early, both by name.
    """

    def __init__(self, vectorizers: Sequence[AsyncVectorizer]) -> None:
        self.counts = {vectorizer.name: Counts() for vectorizer in vectorizers}
        self.errors: dict[str, VectorizerError] = {}
        self._left = list(vectorizers)
        # Whose work others hold sits turns out until then.
        self._rests: dict[str, float] = {}

    async def run(
        self,
        progress: Callable[[str, Counts], None] | None = None,
        *,
        max_rows: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        """Drain them all; `progress` is called with name and counts after each batch.

        After `max_rows` rows in all, or `max_seconds` seconds, no further batch is begun.
        What ends one drain early is noted in `errors`, and the others go on. Raises
        DatabaseError, which ends all of them.
        """
        ends_at = float("inf") if max_seconds is None else time.monotonic() + max_seconds
        while self._left:
            for vectorizer in list(self._left):
                if time.monotonic() >= ends_at or self._rows >= (max_rows or float("inf")):
                    return
                if self._rests.get(vectorizer.name, 0.0) <= time.monotonic():
                    await self._turn(vectorizer, progress)
            await self._rest()

    @property
    def _rows(self) -> int:
        return sum(counts.rows for counts in self.counts.values())

    async def _turn(
        self, vectorizer: AsyncVectorizer, progress: Callable[[str, Counts], None] | None
    ) -> None:
        name = vectorizer.name
        try:
            turn = await vectorizer.turn()
        except DatabaseError:
            raise
        except VectorizerError as error:
            self.errors[name] = error
            turn = None
        if turn is None:
            self._left.remove(vectorizer)
        elif isinstance(turn, Counts):
            self.counts[name].add(turn)
            if progress is not None:
                progress(name, self.counts[name])
        else:
            self._rests[name] = time.monotonic() + turn

    async def _rest(self) -> None:
        ends = [self._rests.get(vectorizer.name, 0.0) for vectorizer in self._left]
        if ends and (seconds := min(ends) - time.monotonic()) > 0:
            await sleep_async(seconds)
