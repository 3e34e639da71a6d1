"""The pace of requests, against a clock of our own and a server that is a few lines."""

from __future__ import annotations

import gc
import heapq
import random
from collections.abc import Iterator, Mapping

import pytest

from vectorizer.embedders._limiter import Limiter, _seconds, shared_limiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock)


def test_nothing_is_held_back_before_anything_was_refused(limiter: Limiter) -> None:
    assert [limiter.reserve(1000) for _ in range(100)] == [0.0] * 100


def test_a_pause_holds_everybody_back(limiter: Limiter, clock: Clock) -> None:
    limiter.refused(1, {}, 7.0)
    assert limiter.reserve(1) == 7
    assert limiter.pauses == 1
    clock.now += 6
    assert limiter.reserve(1) == limiter.reserve_again() == 1
    clock.now += 1
    assert limiter.reserve(1) == 0


def test_a_shorter_pause_does_not_end_a_longer_one(limiter: Limiter) -> None:
    limiter.pause(10)
    limiter.pause(2)
    assert limiter.reserve(1) == 10
    assert limiter.pauses == 1


def test_the_pace_is_what_got_through(limiter: Limiter, clock: Clock) -> None:
    for _ in range(20):
        limiter.passed(1, {})
    clock.now += 0.05
    limiter.refused(1, {}, None)
    assert limiter.rate == 20
    assert [round(limiter.reserve(1), 3) for _ in range(3)] == [0.05, 0.1, 0.15]


def test_it_slows_down_once_a_second_at_most(limiter: Limiter, clock: Clock) -> None:
    for _ in range(10):
        limiter.passed(1, {})
    for _ in range(5):
        limiter.refused(1, {}, None)
    assert limiter.rate == 10
    clock.now += 1
    limiter.refused(1, {}, None)
    assert limiter.rate == pytest.approx(9.5)


def test_where_nothing_gets_through_the_rate_is_halved(limiter: Limiter, clock: Clock) -> None:
    for _ in range(10):
        limiter.passed(1, {})
    limiter.refused(1, {}, None)
    for _ in range(3):
        clock.now += 10
        limiter.refused(1, {}, None)
    assert limiter.rate == 1.25


def test_it_dares_more_again_and_is_free_in_the_end(limiter: Limiter, clock: Clock) -> None:
    limiter.passed(1, {})
    limiter.refused(1, {}, None)
    before = limiter.rate
    assert before is not None
    for _ in range(60):
        clock.now += 1
        limiter.passed(1, {})
    assert limiter.rate is not None
    assert limiter.rate > before * 1.1
    clock.now += 120
    limiter.passed(1, {})
    assert limiter.rate is None


def budget(kind: str, limit: int, remaining: int, reset: str) -> Mapping[str, str]:
    values = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in values.items()}


def test_an_empty_budget_is_waited_for(limiter: Limiter) -> None:
    limiter.reserve(1)
    limiter.passed(1, budget("requests", 60, 0, "1m0s"))
    assert limiter.reserve(1) == 1
    assert limiter.reserve(1) == 2


def test_tokens_are_waited_for_as_they_refill(limiter: Limiter, clock: Clock) -> None:
    limiter.reserve(400)
    limiter.passed(400, budget("tokens", 1000, 600, "4s"))
    assert limiter.reserve(600) == 0
    assert limiter.reserve(100) == 1
    clock.now += 100
    # What is more than there ever is goes when all is there.
    assert limiter.reserve(5000) == 0
    assert limiter.reserve(100) == 1


def test_what_is_under_way_counts_as_spent(limiter: Limiter) -> None:
    for _ in range(4):
        limiter.reserve(0)
    limiter.passed(0, budget("requests", 10, 3, "7s"))
    assert limiter.reserve(0) == 1
    limiter.failed(0)
    assert limiter._budgets["requests"].pending == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("17ms", 0.017),
        ("1.5s", 1.5),
        ("1h2m3s", 3723),
        ("20", 20),
        ("-1", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("999h", None),
    ],
)
def test_durations(text: str | None, seconds: float | None) -> None:
    assert _seconds(text) == seconds


def test_one_limiter_a_provider_as_long_as_one_is_used() -> None:
    one = shared_limiter("provider")
    assert shared_limiter("provider") is one
    assert shared_limiter("another") is not one
    one.pause(10)
    del one
    gc.collect()
    assert shared_limiter("provider").reserve(1) == 0


class Storm:
    """A provider that takes `limit` requests in any second, and workers that ask for ever."""

    def __init__(self, limit: int, retry_after: float | None, latency: float) -> None:
        self.clock = Clock()
        self.limiter = Limiter(self.clock)
        self.passed: list[float] = []
        self.refusals = 0
        self._limit = limit
        self._retry_after = retry_after
        self._latency = latency

    def run(self, workers: int, seconds: float) -> float:
        """Return how many got through a second."""
        end = self.clock.now + seconds
        chance = random.Random(workers)  # noqa: S311 - the same in every run
        work = [(self.clock.now, number, self._work(chance)) for number in range(workers)]
        while work[0][0] < end:
            self.clock.now, number, steps = heapq.heappop(work)
            heapq.heappush(work, (self.clock.now + next(steps), number, steps))
        return len(self.passed) / seconds

    def _work(self, chance: random.Random) -> Iterator[float]:
        """Yield how long a worker waits until its next step, as OpenAIEmbedder does."""
        while True:
            waiting = self.limiter.reserve(1)
            while waiting:
                pauses = self.limiter.pauses
                yield waiting
                waiting = 0 if self.limiter.pauses == pauses else self.limiter.reserve_again()
            good = self._takes()
            yield self._latency * chance.uniform(0.7, 1.3)
            if good:
                self.limiter.passed(1, {})
            else:
                self.refusals += 1
                self.limiter.refused(1, {}, self._retry_after)
                yield (self._retry_after or 0) + chance.uniform(0, 0.25)

    def _takes(self) -> bool:
        latest = self.passed[-self._limit :]
        if len(latest) == self._limit and self.clock.now - latest[0] < 1:
            return False
        self.passed.append(self.clock.now)
        return True


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("workers", [4, 16, 64])
@pytest.mark.parametrize("limit", [10, 100])
def test_a_storm_is_ridden_near_the_limit(
    limit: int, workers: int, retry_after: float | None
) -> None:
    storm = Storm(limit, retry_after, latency=0.03)
    rate = storm.run(workers, seconds=120)
    print(f"{rate / limit:.3f} of the limit, {storm.refusals} refusals")
    assert rate >= 0.9 * limit
    assert storm.refusals <= 0.1 * len(storm.passed)
