"""What the tests with other programs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pooler import from_apt, from_root, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator

POOLERS = {
    "1.18": (from_apt, ()),
    "prepared": (from_root, ("max_prepared_statements = 100",)),
    "unprepared": (from_root, ("max_prepared_statements = 0",)),
}


@pytest.fixture(params=POOLERS)
def pooled_url(request: pytest.FixtureRequest, vectorizer_url: str) -> Iterator[str]:
    """URL of a fresh database through a PgBouncer in transaction pooling."""
    command, settings = POOLERS[request.param]
    with pooled(command(), vectorizer_url, *settings) as url:
        yield url
