"""What installing, changing or running a vectorizer would cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from vectorizer.prices import Terms
from vectorizer.types import JSON

__all__ = ["Change", "Plan", "Tally", "action_of", "least_seconds", "scaled"]


@dataclass(frozen=True, slots=True)
class Change:
    """An option that would change. how: "noted", "compared" or "generation"; see `Plan.action`."""

    option: str
    old: JSON
    new: JSON
    how: str


@dataclass(slots=True)
class Tally:
    """What was counted in the rows looked at.

    rows: that have embeddings; chunks, tokens: of all their texts; the others only of the texts
    that would be sent to the model.
    """

    rows: int = 0
    chunks: int = 0
    tokens: int = 0
    texts_to_send: int = 0
    tokens_to_send: int = 0
    requests: int = 0
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and what it would cost.

    action: "install"; "run" where nothing would change but what waits; "note" and "compare" for a
    change in place, the latter visits every row; "generation" for a new one beside the old.
    rows_total: rows of the source; rows_read: how many of them were looked at. Where that is not
    all, the other numbers are extrapolated.
    rows: that would have embeddings; chunks, tokens: of all of these rows.
    texts_to_send, tokens_to_send, requests: what the model would get, at most; a cache of vectors
    may save some of it.
    rows_failing: whose text would be too long for the model.
    price: dollars a million tokens; cost: dollars; None where no price is known.
    seconds: the least time at the provider's limits; None where they are not known.
    """

    name: str
    source: str
    model: str
    action: str
    changes: tuple[Change, ...]
    rows_total: int
    rows_read: int
    rows: int
    chunks: int
    tokens: int
    texts_to_send: int
    tokens_to_send: int
    requests: int
    rows_failing: int
    price: float | None
    cost: float | None = field(init=False)
    seconds: float | None

    def __post_init__(self) -> None:
        cost = None if self.price is None else self.tokens_to_send * self.price / 1e6
        object.__setattr__(self, "cost", cost)

    @property
    def estimated(self) -> bool:
        """Whether only a sample of the rows was looked at."""
        return self.rows_read < self.rows_total

    def to_json(self) -> dict[str, JSON]:
        """Return everything as JSON-able values."""
        return {**asdict(self), "estimated": self.estimated}


def action_of(changes: Sequence[Change], *, installed: bool) -> str:
    """Return what would be done; see `Plan.action`."""
    if not installed:
        return "install"
    kinds = {change.how for change in changes}
    names = {"generation": "generation", "compared": "compare", "noted": "note"}
    return next((name for kind, name in names.items() if kind in kinds), "run")


def scaled(tally: Tally, rows_read: int, rows_total: int) -> Tally:
    """Extrapolate what was counted in a sample to all rows."""
    factor = rows_total / rows_read if rows_read else 0.0
    counts = {name: round(value * factor) for name, value in asdict(tally).items()}
    return Tally(**counts)


def least_seconds(tally: Tally, terms: Terms) -> float | None:
    """Return how long it takes at least to send what has to be sent, as far as limits are known."""
    limits = (
        (tally.tokens_to_send, terms.tokens_per_minute),
        (tally.requests, terms.requests_per_minute),
    )
    known = [60 * amount / limit for amount, limit in limits if limit is not None]
    return max(known, default=None)
