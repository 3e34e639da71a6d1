"""Several vectorizers drained together take turns, with several batches in flight."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from vectorizer import AsyncVectorizer
from vectorizer.errors import BudgetExhausted, DatabaseError, EmbedderUnavailable, VectorizerPaused
from vectorizer.testing import FakeEmbedder
from vectorizer.worker import Drain

ROWS = {"large": 50, "small": 10, "empty": 0}
BATCH = 5


_DISK_FULL = """
create function no_space() returns trigger language plpgsql as
    $$ begin raise 'no space left' using errcode = 'disk_full'; end $$;
create trigger no_space before update on vectorizer.small_row
    for each statement execute function no_space()
"""


class Away(FakeEmbedder):
    def embed(self, texts: object) -> object:  # type: ignore[override]
        raise EmbedderUnavailable(f"nobody answers for {texts}")


class Meeting(FakeEmbedder):
    """Answers only when so many calls are under way at once; notes the most there ever were."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.concurrency = calls
        self.most = self._now = 0
        self._counting = threading.Lock()
        self._barrier = threading.Barrier(calls)

    def embed(self, texts: Sequence[str]) -> Any:
        with self._counting:
            self._now += 1
            self.most = max(self.most, self._now)
        self._barrier.wait(timeout=20)
        with self._counting:
            self._now -= 1
        return super().embed(texts)


class Waiting(FakeEmbedder):
    """Answers its first calls, and none after that; `full` is set when so many calls wait."""

    def __init__(self, answers: int, calls: int) -> None:
        super().__init__()
        self.concurrency = calls
        self._answers = answers
        self._calls = calls
        self.full = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Any:  # type: ignore[override]
        self._answers -= 1
        if self._answers < 0:
            if self._answers == -self._calls:
                self.full.set()
            await asyncio.Event().wait()
        return super().embed(texts)


Make = Callable[..., Awaitable[tuple[Drain, list[AsyncVectorizer]]]]


@pytest.fixture
async def make(vectorizer_url: str) -> AsyncIterator[Make]:
    """Make a drain of vectorizers on tables of 50, 10 and no rows, whose batches hold five."""
    async with AsyncExitStack() as stack:

        async def made(
            concurrency: int,
            names: Sequence[str] = tuple(ROWS),
            *,
            lease_seconds: float = 30.0,
            **embedders: FakeEmbedder,
        ) -> tuple[Drain, list[AsyncVectorizer]]:
            drain = Drain(concurrency=concurrency)
            vectorizers = []
            for name in names:
                _fill(vectorizer_url, name)
                vectorizer = AsyncVectorizer(
                    vectorizer_url,
                    name,
                    embedder=embedders.get(name, FakeEmbedder()),
                    chunk_column="body",
                    batch_size=BATCH,
                    lease_seconds=lease_seconds,
                    observer=drain.observe,
                )
                vectorizers.append(await stack.enter_async_context(vectorizer))
                await vectorizer.install()
                drain.add(vectorizer)
            return drain, vectorizers

        yield made


def _fill(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"create table {name} (id int primary key, body text)".encode())
        insert = (
            f"insert into {name} select n, 'text ' || n from generate_series(1, {ROWS[name]}) n"
        )
        db.execute(insert.encode())


async def test_a_small_one_does_not_wait_for_a_large_one(make: Make) -> None:
    drain, vectorizers = await make(1)
    turns: list[str] = []
    await drain.run(lambda name, _: turns.append(name))
    assert turns == ["large", "small"] * 2 + ["large"] * 8
    assert {name: counts.rows for name, counts in drain.counts.items()} == ROWS
    assert drain.errors == {}
    for vectorizer in vectorizers:
        assert (await vectorizer.verify()).ok


async def test_batches_are_at_the_model_at_once_but_not_more_than_allowed(make: Make) -> None:
    model = Meeting(3)
    drain, (vectorizer,) = await make(3, ["large"], large=model)
    await asyncio.wait_for(drain.run(max_rows=45), 60)
    assert drain.counts["large"].rows == 45
    assert model.most == 3
    assert (await vectorizer.verify()).pending == 5


class Single(FakeEmbedder):
    """Is not made for several calls at once, as it says by not saying `concurrency`."""

    def __init__(self) -> None:
        super().__init__()
        self._alone = threading.Lock()
        self.second = threading.Event()

    def embed(self, texts: Sequence[str]) -> Any:
        if not self._alone.acquire(blocking=False):
            self.second.set()
            return super().embed(texts)
        try:
            self.second.wait(0.3)  # long enough for the other batch to come here, if it does
            return super().embed(texts)
        finally:
            self._alone.release()


async def test_a_model_that_takes_one_call_at_once_gets_one(make: Make) -> None:
    model = Single()
    drain, _ = await make(4, ["small"], small=model)
    await drain.run()
    assert drain.counts["small"].rows == 10
    assert not model.second.is_set()


async def test_all_of_them_together(make: Make) -> None:
    drain, vectorizers = await make(4)
    await drain.run()
    assert {name: counts.rows for name, counts in drain.counts.items()} == ROWS
    for vectorizer in vectorizers:
        assert (await vectorizer.verify()).ok
        assert (await vectorizer.status())["in_flight"] == 0


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_one_that_fails_stops_none_of_the_others(make: Make, concurrency: int) -> None:
    drain, vectorizers = await make(concurrency, large=Away())
    await vectorizers[2].pause("for a while")
    await drain.run()
    assert isinstance(drain.errors["large"], EmbedderUnavailable)
    assert isinstance(drain.errors["empty"], VectorizerPaused)
    assert drain.counts["small"].rows == 10
    assert (await vectorizers[0].status())["in_flight"] == 0


async def test_what_others_hold_is_waited_for_without_holding_up_anybody(make: Make) -> None:
    drain, vectorizers = await make(2, lease_seconds=2.0)
    generation = (await vectorizers[1]._generations._ready())[0]
    assert await generation.claim(BATCH) is not None  # by somebody who never finishes
    turns: list[str] = []
    await drain.run(lambda name, _: turns.append(name))
    assert turns.count("large") == 10
    assert turns.count("small") >= 2
    assert (await vectorizers[1].verify()).ok
    assert (await vectorizers[1].status())["in_flight"] == 0


@pytest.mark.parametrize("rows", [1, 5, 12, 30])
async def test_no_batch_is_begun_that_may_be_one_too_many(make: Make, rows: int) -> None:
    drain, _ = await make(4, ["large"])
    await drain.run(max_rows=rows)
    assert drain.counts["large"].rows == -(-rows // BATCH) * BATCH


async def test_no_more_tokens_are_sent_than_allowed_in_all(make: Make) -> None:
    drain, (large, *_) = await make(3)
    text = 3  # tokens of 'text 10' by the estimate, as of most
    await drain.run(max_tokens=20 * text)
    assert isinstance(drain.errors["large"], BudgetExhausted)
    tokens = sum(counts.tokens for counts in drain.counts.values())
    assert 15 * text < tokens <= 20 * text
    assert drain.counts["large"].embedded == (await large.status())["embeddings"] > 0


async def test_a_cancelled_drain_gives_everything_back(make: Make, vectorizer_url: str) -> None:
    model = Waiting(answers=2, calls=3)
    drain, (vectorizer,) = await make(3, ["large"], large=model)
    running = asyncio.create_task(drain.run())
    await asyncio.wait_for(model.full.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with psycopg.connect(vectorizer_url) as db:
        assert db.execute("select count(*) from vectorizer.lease").fetchone() == (0,)
        attempts = "select max(attempts), max(losses) from vectorizer.large_row"
        assert db.execute(attempts).fetchone() == (0, 0)
    assert drain.counts["large"].rows == 10
    assert (await vectorizer.verify()).pending == 40


async def test_the_database_ends_all_of_them(make: Make, vectorizer_url: str) -> None:
    drain, _ = await make(4)
    with psycopg.connect(vectorizer_url, autocommit=True) as db:
        db.execute(_DISK_FULL)
    with pytest.raises(DatabaseError, match="no space left"):
        await drain.run()
    with psycopg.connect(vectorizer_url) as db:
        held = "select count(*) from vectorizer.large_row where lease is not null"
        assert db.execute(held).fetchone() == (0,)
