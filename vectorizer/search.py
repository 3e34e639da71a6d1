"""What a search returns, and what it accepts as a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from vectorizer.errors import ConfigurationError
from vectorizer.types import JSON

__all__ = ["Filter", "SearchResult", "checked_filter", "checked_limit"]

Filter: TypeAlias = Mapping[str, JSON] | Sequence[Mapping[str, JSON]]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A chunk near the query.

    key: the source row's key columns; chunk: its position in the row, from 0;
    distance: cosine distance, 0 (same direction) to 2.
    """

    id: UUID
    time: datetime
    key: dict[str, Any]
    chunk: int
    metadata: dict[str, JSON]
    contents: str
    distance: float

    @property
    def score(self) -> float:
        """Cosine similarity, 1 for the same direction."""
        return 1.0 - self.distance


def checked_filter(filter: Filter | None) -> list[dict[str, JSON]] | None:  # noqa: A002 - the public name
    """Return a filter as a list of mappings, any of which may match; None for no filter.

    Raises ConfigurationError for anything else than a mapping or mappings.
    """
    if filter is None:
        return None
    alternatives = [filter] if isinstance(filter, Mapping) else list(filter)
    if not all(isinstance(alternative, Mapping) for alternative in alternatives):
        raise ConfigurationError(
            f"filter must be a mapping, or a list of which any may match; got {filter!r}"
        )
    return [dict(alternative) for alternative in alternatives]


def checked_limit(limit: int) -> int:
    """Return the limit; raise ConfigurationError unless it is 1 or more."""
    if limit < 1:
        raise ConfigurationError(f"limit must be 1 or more, got {limit}")
    return limit
