"""One vectorizer as the worker sees it: decides, without any I/O, when a batch may begin."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vectorizer._async.vectorizer import AsyncVectorizer
from vectorizer.types import JSON

__all__ = ["Entry", "Served"]

# Back-off after failures that do not lie in a row: the first, and the longest, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 60.0
# ... while the provider asks for a pause: what needs no model goes on.
_LONGEST_HELD = 5.0
_MOST_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry says of a vectorizer, all its generations together.

    version: changes with any change of it; logs, ledgers: tables in our own schema; paused: the
    reason, None while it is not; behind: whether there is more to do than the logs tell; lost:
    whether a batch of a vanished worker is to be had; unserved: whether some worker noted that it
    cannot serve it.
    """

    name: str
    version: str
    logs: Sequence[str]
    ledgers: Sequence[str]
    embeds: bool
    embedder: Mapping[str, JSON]
    paused: str | None
    behind: bool
    lost: bool
    unserved: bool

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Entry:
        """Return what `survey.sql` says of a vectorizer."""
        return cls(**{**entry, "embedder": entry["embedder"] or {}})


@dataclass(slots=True)
class Served:
    """The state of one vectorizer. Times are those of the event loop's clock.

    waits: for its schedule, so that it takes no work now. vectorizer: connected at first use.
    claiming: the batch that is being claimed, if any; one at a time. held_until: when a pause
    that its provider asked for is over. works: whether the last batch did.
    """

    entry: Entry
    scheduled: bool = False
    waits: bool = False
    vectorizer: AsyncVectorizer | None = None
    running: int = 0
    claiming: object = None
    logged: bool = False
    due: bool = False
    behind: bool = False
    claimed_at: float = float("-inf")
    not_before: float = float("-inf")
    held_until: float = float("-inf")
    batch_size: int = 1
    misses: int = 0
    failures: int = 0
    works: bool = False
    _quiet: bool = field(default=False, repr=False)

    @property
    def has_work(self) -> bool:
        """Whether something was seen that nobody has claimed yet, as far as we know."""
        return self.entry.paused is None and (self.logged or self.due or self.behind)

    def wants(self, now: float) -> bool:
        """Whether a batch may begin now. Claims of one vectorizer go one after the other."""
        return self.has_work and not self.waits and self.claiming is None and now >= self.not_before

    def renew(self, entry: Entry) -> None:
        """Take over what the registry says now."""
        if entry.version != self.entry.version:
            # Another definition, or resumed: it is looked up again before the next batch.
            self.vectorizer = None
            self.failures, self.misses, self.not_before = 0, 0, float("-inf")
            self.works = False
        self.entry = entry
        self.behind = entry.behind
        self.due = self.due or entry.lost

    def seen(self, *, logged: bool, due: bool | None, asked_at: float) -> None:
        """Take over what a probe saw; what it saw before the last claim says nothing."""
        if self.claiming is not None or asked_at < self.claimed_at:
            return
        self.logged = logged
        if due is not None:
            self.due = due or self.entry.lost
            # The time of a drain on schedule is over when nothing is left to do.
            self.waits = self.scheduled and (self.waits or not (self.has_work or self.running))

    def claimed(self, rows: int, now: float) -> None:
        """Note that a claim has won `rows`: go on at once where the batch was full."""
        self.claiming, self.claimed_at, self.misses = None, now, 0
        self.logged = rows >= self.batch_size

    def missed(self, now: float, shortest: float, longest: float) -> None:
        """Note that a claim found nothing: what was seen is held by others, so look less often."""
        self.claiming, self.claimed_at = None, now
        self.logged = self.due = self.behind = False
        self.waits = self.scheduled
        self.not_before = now + min(longest, shortest * 2 ** min(self.misses, _MOST_DOUBLINGS))
        self.misses += 1
        self._quiet = True

    def finished(self) -> None:
        """Note that a batch is done, so keys that were held may be claimed again."""
        self.failures, self.works = 0, True
        if self._quiet:
            self.misses, self.not_before, self._quiet = 0, float("-inf"), False

    def failed(self, now: float, held: float | None = None) -> float:
        """Note that a batch failed, not by its rows; return the seconds until the next.

        held: for how many seconds the provider asked for a pause.
        """
        longest = _LONGEST_PAUSE if held is None else _LONGEST_HELD
        doubled: float = _FIRST_PAUSE * 2 ** min(self.failures, _MOST_DOUBLINGS)
        # Several workers that failed together should not come back together.
        backoff = min(longest, doubled) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        seconds = max(backoff, min(held or 0.0, longest))
        self.held_until = now + (held or 0.0)
        self._quiet = self.works = False
        self.failures += 1
        self.not_before = now + seconds
        return seconds
