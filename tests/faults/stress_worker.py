"""A worker of the stress, in a process of its own so that it can be killed and stopped.

Run with one argument, a `WorkerPlan` as JSON. Writes to standard output 0 when it is ready,
then the number of rows of each batch, a line each. Ends by itself only because of an error
that nobody expects.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from signal import SIGSTOP
from typing import TYPE_CHECKING, Any

import mutants

from vectorizer import AsyncVectorizer, Vectorizer
from vectorizer.errors import DatabaseUnavailable, EmbedderUnavailable
from vectorizer.testing import FakeEmbedder

if TYPE_CHECKING:
    from vectorizer.types import FloatMatrix

__all__ = ["DIMENSIONS", "WorkerPlan"]

DIMENSIONS = 8
_IDLE_SECONDS = 0.01


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is told.

    slow, long, unavailable, stop: how likely a call of the model takes a little time, longer
    than a lease, fails, or finds the whole process stopped until somebody continues it.
    """

    url: str
    name: str
    seed: str
    batch_size: int
    lease_seconds: float
    slow: float = 0.5
    long: float = 0.02
    unavailable: float = 0.03
    stop: float = 0.0
    asynchronous: bool = False
    mutant: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class MoodyEmbedder:
    """The embedder of the tests with the moods of a provider."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._inner = FakeEmbedder(DIMENSIONS)
        self._plan = plan
        self._dice = random.Random(plan.seed)  # noqa: S311
        self.model = self._inner.model
        self.dimensions = DIMENSIONS

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        if self._dice.random() < self._plan.stop:
            os.kill(os.getpid(), SIGSTOP)
        fate = self._dice.random()
        if fate < self._plan.unavailable:
            raise EmbedderUnavailable("in a mood", self._dice.choice([None, 0.05]))
        if fate < self._plan.unavailable + self._plan.long:
            time.sleep(self._plan.lease_seconds * self._dice.uniform(1.0, 2.0))
        elif fate < self._plan.unavailable + self._plan.long + self._plan.slow:
            time.sleep(self._dice.uniform(0, 0.05))
        return self._inner.embed(texts)


def _options(plan: WorkerPlan) -> dict[str, Any]:
    return {
        "embedder": MoodyEmbedder(plan),
        "batch_size": plan.batch_size,
        "lease_seconds": plan.lease_seconds,
    }


def work(plan: WorkerPlan) -> None:
    """Process batches for ever."""
    while True:
        try:
            with Vectorizer.connect(plan.url, plan.name, **_options(plan)) as vectorizer:
                _loop(vectorizer)
        except DatabaseUnavailable:  # our connections are being terminated
            time.sleep(_IDLE_SECONDS)


def _loop(vectorizer: Vectorizer) -> None:
    while True:
        try:
            rows = vectorizer.process()
        except (DatabaseUnavailable, EmbedderUnavailable):
            rows = 0
        if rows:
            os.write(1, b"%d\n" % rows)
        else:
            time.sleep(_IDLE_SECONDS)


async def work_async(plan: WorkerPlan) -> None:
    """Process batches for ever, in an event loop."""
    while True:
        try:
            vectorizer = await AsyncVectorizer.connect(plan.url, plan.name, **_options(plan))
            async with vectorizer:
                await _loop_async(vectorizer)
        except DatabaseUnavailable:
            await asyncio.sleep(_IDLE_SECONDS)


async def _loop_async(vectorizer: AsyncVectorizer) -> None:
    while True:
        try:
            rows = await vectorizer.process()
        except (DatabaseUnavailable, EmbedderUnavailable):
            rows = 0
        if rows:
            os.write(1, b"%d\n" % rows)
        else:
            await asyncio.sleep(_IDLE_SECONDS)


def main() -> None:
    plan = WorkerPlan(**json.loads(sys.argv[1]))
    if plan.mutant is not None:
        mutants.apply(plan.mutant)
    os.write(1, b"0\n")  # ready
    if plan.asynchronous:
        asyncio.run(work_async(plan))
    else:
        work(plan)


if __name__ == "__main__":
    main()
