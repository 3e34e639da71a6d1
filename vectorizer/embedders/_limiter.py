"""The pace of requests to one provider, found out from its answers and shared by a process.

Three things hold a request back, whichever says the longest wait:

- a pause: the provider asked everybody to come back later (Retry-After);
- budgets: what the provider says is left, `x-ratelimit-remaining-*` and `-reset-*`;
- a rate, where requests are refused with 429: taken from what got through in the last seconds,
  a twentieth less after each refusal, growing again between them (slowly at first).

Nothing here sleeps: `reserve` says how long to wait, and the caller does.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from weakref import WeakValueDictionary

__all__ = ["Limiter", "shared_limiter"]

_WINDOW = 2.0  # seconds over which the rate of success is measured
_LEAST_WINDOW = 1.0  # a first burst says nothing about less than this
_BURST = 0.1  # seconds of the rate that may be sent at once after a silence
_SLOWER = 0.95  # at most once in _PATIENCE seconds
_PATIENCE = 1.0
_FAR = 0.5
_MUCH_SLOWER = 0.5  # where nothing at all gets through
# A refusal can cost a second of everybody's time (Retry-After counts in seconds): with these two
# one comes every 23 seconds if the limit is where it was.
_FASTER = 0.001  # a second, and more the longer nothing was refused: doubled after
_ENCOURAGED_AFTER = 10.0
_LOWEST = 1 / 60  # a request a minute
_FREE_AFTER = 120.0  # seconds without a refusal after which there is no rate any more

# As OpenAI writes durations: "6m0s", "1h2m", "17ms", "1.5s"; others write plain seconds.
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|)")


class Limiter:
    """Says when the next request may go. Threads may share one; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._paused_until = clock()
        self._paused = 0.0  # seconds of pauses up to `_paused_until`
        self._rate: float | None = None
        self._next = float("-inf")
        self._grown_at = self._refused_at = self._slowed_at = float("-inf")
        self._settled_at = float("-inf")
        self._passed: deque[float] = deque(maxlen=10_000)
        self._budgets = {"requests": _Budget(), "tokens": _Budget()}
        self.successes = 0
        """Requests that got through; a caller whose own was refused sees whether others are."""
        self.pauses = 0
        """How often places became void: a caller that slept looks whether it must again."""

    @property
    def rate(self) -> float | None:
        """Requests a second at most; None where nothing has been refused lately."""
        return self._rate

    def reserve(self, tokens: int) -> float:
        """Take the next place for a request of so many tokens; return the seconds until then.

        Who has waited and finds `pauses` changed has lost the place, and asks `reserve_again`.
        """
        with self._lock:
            now = self._clock()
            start = self._place(now)
            for budget, amount in self._costs(tokens):
                start = max(start, now + budget.take(amount, now))
            return start - now

    def reserve_again(self) -> float:
        """Take another place for a request that has one already, lost to a pause."""
        with self._lock:
            now = self._clock()
            return self._place(now) - now

    def _place(self, now: float) -> float:
        start = max(now, self._paused_until)
        if self._rate is not None:
            self._next = max(self._next, start - _BURST) + 1 / self._rate
            start = max(start, self._next)
        return start

    def passed(self, tokens: int, headers: Mapping[str, str]) -> None:
        """Note that a request was answered, by 200 or a refusal that is not about the pace."""
        with self._lock:
            now = self._clock()
            self.successes += 1
            self._passed.append(self._active(now))
            self._speed_up(now)
            self._observe(tokens, headers, now)

    def refused(self, tokens: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        """Note that a request was refused for the pace: 429."""
        with self._lock:
            now = self._clock()
            self._observe(tokens, headers, now)
            self._refused_at = now
            if now - self._slowed_at >= _PATIENCE:
                self._slow_down(now)
            if retry_after:
                self._pause(now + retry_after)

    def pause(self, seconds: float) -> None:
        """Let nobody send anything for so long."""
        with self._lock:
            self._pause(self._clock() + seconds)

    def failed(self, tokens: int) -> None:
        """Note that a request ended without an answer."""
        with self._lock:
            for budget, amount in self._costs(tokens):
                budget.pending -= amount

    def _pause(self, until: float) -> None:
        if until > self._paused_until:
            self._paused += until - max(self._clock(), self._paused_until)
            self._paused_until = self._next = until
            self.pauses += 1

    def _active(self, now: float) -> float:
        """Return the time without pauses: what passes between them is what a rate counts."""
        return now - self._paused + max(0.0, self._paused_until - now)

    def _slow_down(self, now: float) -> None:
        measured = self._measured(now)
        if self._rate is None and not measured:
            return  # nothing is known of the pace: each request waits by itself
        if self._rate is None:
            self._rate = max(measured, _LOWEST)
            self._settled_at = now + _PATIENCE
        elif measured:
            # What was measured may only be what was asked for, unless it is far less.
            far = measured < _FAR * self._rate
            self._rate = max(measured if far else self._rate * _SLOWER, _LOWEST)
        else:
            self._rate = max(self._rate * _MUCH_SLOWER, _LOWEST)
        # Places given away at the old rate are void: whoever waits for one takes another.
        self._next = max(now, self._paused_until)
        self.pauses += 1
        self._slowed_at = self._grown_at = now

    def _measured(self, now: float) -> float:
        """Return how many requests passed a second, lately."""
        active = self._active(now)
        while self._passed and self._passed[0] < active - _WINDOW:
            self._passed.popleft()
        if not self._passed:
            return 0.0
        return len(self._passed) / max(active - self._passed[0], _LEAST_WINDOW)

    def _speed_up(self, now: float) -> None:
        if self._rate is None:
            return
        calm = now - self._refused_at
        if calm > _FREE_AFTER:
            self._rate = None
        elif now < self._settled_at:
            # Answers to what was sent before the first refusal are still coming in.
            self._rate = max(self._rate, self._measured(now))
        else:
            seconds = now - self._grown_at
            self._rate *= 1 + seconds * _FASTER * (1 + calm / _ENCOURAGED_AFTER)
        self._grown_at = now

    def _observe(self, tokens: int, headers: Mapping[str, str], now: float) -> None:
        amounts = {"requests": 1, "tokens": tokens}
        for kind, budget in self._budgets.items():
            budget.pending -= amounts[kind]
            budget.observe(
                _number(headers.get(f"x-ratelimit-limit-{kind}")),
                _number(headers.get(f"x-ratelimit-remaining-{kind}")),
                _seconds(headers.get(f"x-ratelimit-reset-{kind}")),
                now,
            )

    def _costs(self, tokens: int) -> list[tuple[_Budget, int]]:
        return [(self._budgets["requests"], 1), (self._budgets["tokens"], tokens)]


class _Budget:
    """What a provider says is left of requests or tokens, refilling with time."""

    def __init__(self) -> None:
        self.pending = 0
        """Taken, but not answered yet: the provider may not have counted it."""
        self._left: float | None = None
        self._limit = 0.0
        self._refill = 0.0
        self._at = 0.0

    def take(self, amount: int, now: float) -> float:
        """Take so much; return the seconds until it is there."""
        self.pending += amount
        if self._left is None:
            return 0.0
        left = min(self._limit, self._left + (now - self._at) * self._refill)
        # What is more than there ever is may go when all is there.
        self._left, self._at = left - min(amount, self._limit), now
        return max(0.0, -self._left / self._refill)

    def observe(
        self, limit: float | None, remaining: float | None, reset: float | None, now: float
    ) -> None:
        """Take over what an answer said; `reset` is in how many seconds all is there again."""
        if remaining is None or reset is None:
            return
        most = max(limit or 0.0, remaining, 1.0)
        used = max(most - remaining, 1.0)
        self._limit, self._refill = most, used / max(reset, 0.001)
        self._left, self._at = remaining - self.pending, now


_limiters: WeakValueDictionary[Hashable, Limiter] = WeakValueDictionary()
_limiters_lock = threading.Lock()


def shared_limiter(provider: Hashable) -> Limiter:
    """Return the limiter of a provider, the same for all of a process as long as one uses it."""
    with _limiters_lock:
        limiter = _limiters.get(provider)
        if limiter is None:
            limiter = _limiters[provider] = Limiter()
        return limiter


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,15}", text.strip()) else None


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a duration; None if it is none, or absurdly long."""
    if text is None or not re.fullmatch(rf"(?:{_DURATION.pattern})+", text.strip()):
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    return seconds if seconds <= _UNITS["h"] * 48 else None
