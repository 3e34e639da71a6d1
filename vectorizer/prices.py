"""What some providers charge and allow: for plans, until the user says better.

Dollars for a million tokens, from the public price lists, and the limits of the first paid tier,
a minute. They change: AS_OF says when they were looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AS_OF", "Terms", "terms_of"]

AS_OF: Final = "2025-01"


@dataclass(frozen=True, slots=True)
class Terms:
    """price: dollars a million tokens; tokens, requests: allowed in a minute. None: not known."""

    price: float | None = None
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None


_OPENAI: Final = {
    "text-embedding-3-small": Terms(0.02, 1_000_000, 3_000),
    "text-embedding-3-large": Terms(0.13, 1_000_000, 3_000),
    "text-embedding-ada-002": Terms(0.10, 1_000_000, 3_000),
}
# These run on the user's own machine.
_FREE: Final = {"minilm", "sentence-transformers", "fastembed", "fake"}


def terms_of(embedder: dict[str, object]) -> Terms:
    """Return the terms for an embedder's configuration, as far as they are known."""
    provider = embedder.get("provider")
    if provider in _FREE:
        return Terms(0.0)
    if provider == "openai" and embedder.get("base_url") is None:
        return _OPENAI.get(str(embedder.get("model", "text-embedding-3-small")), Terms())
    return Terms()
